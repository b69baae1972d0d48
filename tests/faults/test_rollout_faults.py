"""One node of three on a bad day while a rollout is on its way, each fault once. All of them at each moment, twenty
times: `tests/prove/test_rollouts.py`.

Goal and method are in `tests/support/rollout_faults.py`; here each fault comes at one of the two moments.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import ledger
from tests.support.load import Destination, OpenLoop
from tests.support.processes import Fleet
from tests.support.rollout_faults import (
    Fault,
    Moment,
    faulty_fleet,
    feed_poison,
    fill_disks,
    load_on_the_healthy,
    strike,
)
from tests.support.rollouts import all_live, roll_out, to

HOUR_S = 3600


async def test_whatever_happens_to_one_node_the_others_are_whole_and_it_comes_back(tmp_path: Path) -> None:
    async with faulty_fleet(tmp_path) as fleet, load_on_the_healthy(fleet, rate=60):
        for fault, moment in (
            (Fault.CUT, Moment.PREPARING),
            (Fault.DEAF, Moment.PREPARING),
            (Fault.DUMB, Moment.DECIDED),
            (Fault.HALF_OPEN, Moment.APPLYING),
            (Fault.STOPPED, Moment.DECIDED),
            (Fault.KILLED, Moment.APPLYING),
            (Fault.SPOILED, Moment.DECIDED),
        ):
            struck = await strike(fleet, fault, moment)
            assert struck.state in ("confirmed", "partial", "aborted", "applied")
        await fill_disks(fleet)
        await feed_poison(fleet)


async def test_no_clock_of_a_node_matters_for_the_instant(tmp_path: Path) -> None:
    """One node's time of day is an hour ahead, another one's monotonic clock is, where namespaces can be had."""
    (tmp_path / "sitecustomize.py").write_text(
        "import time\n_real = time.time\ntime.time = lambda: _real() + 3600\n", encoding="utf-8"
    )
    async with Fleet(tmp_path, nodes=0) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        ahead, elsewhen = fleet.new_node("ahead"), fleet.new_node("elsewhen")
        fleet.nodes += [ahead, elsewhen]
        ahead.environment["PYTHONPATH"] = str(tmp_path)
        if _time_namespaces():
            elsewhen.arguments[:0] = _IN_ANOTHER_TIME
        await asyncio.gather(ahead.up(), elsewhen.up())
        await ledger.apply_example(fleet)
        await all_live(fleet)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=100, host=ledger.HOST)
        load.start()
        for colour in ("green", "blue"):
            answer = await roll_out(fleet, to(colour))
            assert answer.status == 200, answer.body
            assert isinstance(answer.body, dict)
            for node in answer.body["nodes"]:
                assert node["standing"] == "activated"
                assert min(node["late_us"]) >= 0
                assert node["activated_us_after_instant"] >= -node["clock_error_us"], "before it, by the plane's clock"
                assert node["activated_us_after_instant"] < HOUR_S * 1_000_000 / 2
        await load.stop()
        duplicates = await ledger.count_duplicates(fleet)
        assert ledger.settle(load, (), revolutions=0, duplicates=duplicates, check_weights=False).failures == []


_IN_ANOTHER_TIME = ["unshare", "--time", "--fork", "--kill-child", f"--monotonic={HOUR_S}", f"--boottime={HOUR_S}"]


def _time_namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run([*_IN_ANOTHER_TIME, sys.executable, "-c", ""], check=False, capture_output=True)
    return tried.returncode == 0
