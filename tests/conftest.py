from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.support.examples import examples
from tests.support.postgres import PostgresServer

# Tests start hundreds of processes of ours: without bytecode on disk each of them compiles the whole program anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_GIVEN = settings.get_profile("ci" if os.environ.get("CI") else "default")
# No deadline: nothing here asserts how long something took.
settings.register_profile("few", _GIVEN, max_examples=examples(50), deadline=None)
settings.load_profile("few")


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests that only need databases; who stops or kills one starts a server of its own."""
    server = PostgresServer()
    yield server
    server.destroy()
