"""Switches while health checks run and a blue target ends again and again; tests/prove has the long form."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support import sick_ledger


async def test_switches_lose_nothing_while_a_blue_target_dies_and_comes_back(tmp_path: Path) -> None:
    result = await sick_ledger.run(tmp_path, nodes=2, switches=6, rate=200, pause_s=0.6, dead_s=0.5, alive_s=0.5)
    assert result.lost_gets == [], result.report()
    assert all(record.status in (502, 504) for record in result.failed_posts)
    assert result.unexplained_posts == [], result.report()
    assert result.ledger.doubled == result.ledger.stray == 0
    assert result.ledger.violations == []
    assert result.kills >= 2


async def test_switches_lose_nothing_at_all_while_a_blue_target_drains_and_comes_back(tmp_path: Path) -> None:
    result = await sick_ledger.run(
        tmp_path, nodes=2, switches=6, rate=200, pause_s=0.6, dead_s=0.3, alive_s=0.5, ends=signal.SIGTERM
    )
    assert result.ledger.lost == [], result.report()
    assert result.ledger.doubled == result.ledger.stray == 0
    assert result.ledger.violations == []
    assert result.kills >= 2
