from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for all tests that only need databases; who stops or kills one starts a server of its own."""
    server = PostgresServer()
    yield server
    server.destroy()
