"""A short differential run against the servers that are there anyway; `make prove ONLY=origins` is the long one."""

from __future__ import annotations

from pathlib import Path

from tests.support.differential import run_differential
from tests.support.origins import available

EXAMPLES = 15


def test_the_node_and_its_origins_agree_on_every_request(tmp_path: Path) -> None:
    names = available(["aiohttp", "http.server", "nginx"])
    counts = run_differential(tmp_path, names, examples=EXAMPLES)
    assert all(count["accepted"] > 20 for count in counts.values()), counts
