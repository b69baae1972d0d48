"""Goal: a switch of a whole fleet loses nothing, doubles nothing and keeps the order, under open-loop load.

Method: the ledger's own run over real processes, short. The long one is `tests/prove/test_ledger.py`; that the ledger
can fail at all is shown in `tests/unit/support/test_ledger.py`.
"""

from __future__ import annotations

from pathlib import Path

from tests.support import history, ledger


async def test_four_switches_of_three_nodes_lose_nothing(tmp_path: Path) -> None:
    result = await ledger.run(tmp_path, nodes=3, workers=1, switches=4, rate=200, pause_s=0.3)
    assert result.failures == []
    assert result.answered_once == result.sent > 0
    assert set(result.by_status) == {200}
    assert {switch.to for switch in result.switches} == {"green", "blue"}
    history.main([str(tmp_path)])
    assert all(set(switch.first_new_ms) == {0, 1, 2} for switch in result.switches), "a node never served the new side"


async def test_two_workers_a_node_switch_together(tmp_path: Path) -> None:
    result = await ledger.run(tmp_path, nodes=1, workers=2, switches=4, rate=200, pause_s=0.3)
    assert result.failures == []
    assert result.answered_once == result.sent > 0


async def test_switches_at_one_instant_lose_nothing_and_no_worker_is_early(tmp_path: Path) -> None:
    result = await ledger.run(tmp_path, nodes=3, workers=2, switches=4, rate=200, pause_s=0.3, rollouts=True)
    assert result.failures == []
    assert result.answered_once == result.sent > 0
    assert all(len(switch.late_ms) == 6 for switch in result.switches), "a worker did not say when it switched"
    assert min(late for switch in result.switches for late in switch.late_ms) >= 0, "activated before the instant"
