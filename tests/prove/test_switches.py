"""The long proof of undo: two hundred releases taken back on three real nodes under load, by the operator's verbs.

Goal: an undo is confirmed by every node within 500 ms at p99, and neither it nor the switch before it loses a request.
Method: the ledger of `tests/support/ledger.py`; each pair is `POST /switches` to green and `POST .../undo`, and only
undos are timed, from the request to the answer that every node confirmed. The short form of it is
tests/faults/test_switches.py; docs/benchmarks.md keeps the figures of one run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import ledger
from tests.support.ledger import Switch, percentile
from tests.support.patience import PATIENCE_S
from tests.support.processes import Fleet
from tests.support.rollouts import SERVICE, all_live, host_of

UNDOS = 200
RATE = 300
PAUSE_S = 0.2
P99_MS = 500.0


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_two_hundred_undos_are_confirmed_in_time_and_lose_nothing(tmp_path: Path) -> None:
    undos: list[float] = []

    async def there_and_back(fleet: Fleet) -> Sequence[Switch]:
        await all_live(fleet)
        await _until_ready(fleet)
        done = []
        for number in range(1, UNDOS + 1):
            body = {"service": SERVICE, "to": "green", "reason": f"release {number}"}
            forth, view = await ledger.switch_by_verb(fleet, "/switches", body, "green")
            await asyncio.sleep(PAUSE_S)
            back, undone = await ledger.switch_by_verb(fleet, f"/switches/{view['switch']}/undo", {}, "blue")
            assert (undone["verb"], undone["undoes"]) == ("undo", view["switch"])
            assert [node["standing"] for node in undone["nodes"]] == ["activated"] * 3
            undos.append((back.answered - back.asked) * 1000)
            done += [forth, back]
            await asyncio.sleep(PAUSE_S)
        assert await host_of(fleet) == "blue"
        return done

    result = await ledger.run(tmp_path, nodes=3, workers=1, switches=0, rate=RATE, pause_s=PAUSE_S, more=there_and_back)
    undos.sort()
    p50, p99 = percentile(undos, 0.5), percentile(undos, 0.99)
    print("\n" + ledger.report(result))
    print(f"undos        {len(undos)}: asked to confirmed p50 {p50:.1f} ms   p99 {p99:.1f} ms   max {undos[-1]:.1f} ms")
    assert result.failures == []
    assert result.answered_once == result.sent
    assert len(undos) == UNDOS
    assert p99 <= P99_MS


async def _until_ready(fleet: Fleet) -> None:
    """Waits until each node has told of the new side's targets: what is not said yet is refused."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await fleet.admin("POST", "/switches?dry_run=1", {"service": SERVICE, "to": "green"})
            assert isinstance(answer.body, dict)
            if answer.body["ready"]:
                return
            await asyncio.sleep(0.05)
