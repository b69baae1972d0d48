"""Two restarts under load, none lost; `make prove ONLY=drain` is the long form."""

from __future__ import annotations

from pathlib import Path

from tests.support import rolling

RESTARTS = 2


async def test_restarts_lose_nothing_of_a_client_that_repeats_nothing(tmp_path: Path) -> None:
    outcome = await rolling.run(tmp_path, restarts=RESTARTS, rate=150, drain_delay_s=1.0, downloads=5, tunnels=3)
    assert outcome.problems == []
    assert outcome.long_problems == []
    assert outcome.answered == outcome.sent
    assert outcome.exits == [0] * RESTARTS
    assert outcome.closed_by_answer > 0
