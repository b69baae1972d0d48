"""A short differential run; `make prove ONLY=origins` is the long one.

Everywhere against the servers that are there anyway. Where the others are installed (`make prove` does that, and CI)
against all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.differential import run_differential
from tests.support.origins import ALL, INSTALLED, available, install
from tests.support.programs import in_ci, need_program

EXAMPLES = 15
EXAMPLES_ALL = 3
ORIGINS_MIN = 8


def test_the_node_and_its_origins_agree_on_every_request(tmp_path: Path) -> None:
    names = available(["aiohttp", "http.server", "nginx"])
    counts = run_differential(tmp_path, names, examples=EXAMPLES)
    assert all(count["accepted"] > 20 for count in counts.values()), counts


def test_the_node_and_eight_and_more_origins_agree(tmp_path: Path) -> None:
    if in_ci():
        need_program("nginx", "nginx-light")
        need_program("node", "nodejs")
        install()
    elif not INSTALLED.exists():
        pytest.skip("the origin servers are not installed; `make prove ONLY=origins` does that")
    names = available(ALL)
    assert len(names) >= ORIGINS_MIN
    counts = run_differential(tmp_path, names, examples=EXAMPLES_ALL)
    assert all(count["accepted"] for count in counts.values()), counts
