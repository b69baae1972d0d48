"""Slow connections of four kinds beside good requests, short; `make prove ONLY=slow_clients` is the long form."""

from __future__ import annotations

from pathlib import Path

from tests.support import slow_and_good

SLOW = 100
RATE = 100
SECONDS = 4
NODE_MIB_MAX = 300


async def test_good_requests_lose_nothing_beside_a_hundred_slow_connections(tmp_path: Path) -> None:
    outcome = await slow_and_good.run(tmp_path, slow=SLOW, rate=RATE, seconds=SECONDS)
    assert outcome.problems == []
    assert outcome.sent >= RATE * SECONDS * 0.9
    assert outcome.slow_open >= SLOW * 0.9
    assert outcome.node_mib < NODE_MIB_MAX
