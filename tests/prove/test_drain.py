"""Fifty restarts by SIGTERM of one of two nodes under 1,000 requests a second: none lost. Prints its figures.

Each restart finds 50 downloads and 20 WebSockets under way as well, which all come to their own end.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import rolling

RESTARTS = int(os.environ.get("POINTSMAN_PROVE_RESTARTS", "50"))
RATE = 1000
DOWNLOADS = 50
TUNNELS = 20


@pytest.mark.prove
@pytest.mark.timeout(1200)
async def test_fifty_restarts_at_a_thousand_requests_a_second_lose_nothing(tmp_path: Path) -> None:
    outcome = await rolling.run(
        tmp_path, restarts=RESTARTS, rate=RATE, drain_delay_s=1.5, downloads=DOWNLOADS, tunnels=TUNNELS
    )
    print(
        f"\n{RESTARTS} restarts: sent {outcome.sent}, answered {outcome.answered}, lost {len(outcome.problems)}, "
        f"connections ended by an answer {outcome.closed_by_answer}, long downloads and WebSockets "
        f"{RESTARTS * (DOWNLOADS + TUNNELS)}, broken {len(outcome.long_problems)}"
    )
    assert outcome.problems == []
    assert outcome.long_problems == []
    assert outcome.answered == outcome.sent
    assert outcome.exits == [0] * RESTARTS
