"""The long proofs of rollouts: hundreds of switches at one instant, and a control plane killed again and again.

`python -m tests.support.ledger --nodes 3 --workers 2 --switches 500 --rate 2000 --rollouts` is the first by hand;
docs/benchmarks.md keeps the figures of one run.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

import pytest

from control_plane.store import failpoints
from tests.support import ledger
from tests.support.load import Destination, OpenLoop
from tests.support.processes import Fleet
from tests.support.rollout_faults import (
    OF_THE_LINK,
    Fault,
    Moment,
    faulty_fleet,
    feed_poison,
    fill_disks,
    load_on_the_healthy,
    strike,
)
from tests.support.rollouts import Killed, all_live, deciding_ends, delays, host_of, kill_deciding, kill_during
from tests.support.split_network import why_not

TRIALS = 20
APPLY_TRIALS = 60


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_five_hundred_switches_at_one_instant_lose_nothing(tmp_path: Path) -> None:
    result = await ledger.run(tmp_path, nodes=3, workers=2, switches=500, rate=2000, pause_s=0.2, rollouts=True)
    print("\n" + ledger.report(result))
    assert result.failures == []
    assert len(result.switches) == 500
    assert result.answered_once == result.sent
    assert min(late for switch in result.switches for late in switch.late_ms) >= 0, "activated before the instant"


@pytest.mark.prove
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("state", "most_s"), [("queued", 0.03), ("preparing", 0.1), ("decided", 0.1)])
async def test_a_control_plane_killed_in_any_state_leaves_one_truth(tmp_path: Path, state: str, most_s: float) -> None:
    moments = delays(random.Random(4711), TRIALS, most_s)
    kills = [partial(kill_during, state=state, delay_s=delay_s) for delay_s in moments]
    await _killed(tmp_path, kills, f"from {state} on")


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_a_control_plane_killed_at_any_step_of_a_decision_leaves_one_truth(tmp_path: Path) -> None:
    """Nothing is decided before the commit, and all of it after."""
    points = failpoints.NAMES * math.ceil(TRIALS / len(failpoints.NAMES))
    kills = [partial(_killed_deciding, point=point) for point in points]
    await _killed(tmp_path, kills, f"at {len(failpoints.NAMES)} steps of a decision")


async def _killed_deciding(fleet: Fleet, colour: str, *, point: str) -> Killed:
    await fleet.control_plane.stop()
    with deciding_ends(fleet.control_plane, point):
        await fleet.control_plane.up()
    await all_live(fleet)
    killed = await kill_deciding(fleet, colour)
    written = failpoints.NAMES.index(point) >= failpoints.NAMES.index(failpoints.COMMITTED)
    assert (killed.stored == "decided") is written, (point, killed)
    return killed


async def _killed(tmp_path: Path, kills: Sequence[Callable[[Fleet, str], Awaitable[Killed]]], when: str) -> None:
    """Kills the control plane of a loaded fleet again and again, and prints what the disk held and what came of it."""
    seen: Counter[tuple[str, str]] = Counter()
    async with Fleet(tmp_path, nodes=3, workers=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        await all_live(fleet)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=300, host=ledger.HOST)
        load.start()
        for kill in kills:
            killed = await kill(fleet, "green" if await host_of(fleet) == "blue" else "blue")
            seen[killed.stored, killed.ended] += 1
        result = await ledger.books(fleet, load)
    ends = ", ".join(f"{count} x {stored} -> {ended}" for (stored, ended), count in sorted(seen.items()))
    books = f"{result.sent} requests, {len(result.lost)} lost, {result.doubled} doubled"
    print(f"\nkilled {when}: {ends}; {books}")
    assert result.failures == []
    assert seen.total() == len(kills)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("moment", Moment)
async def test_a_node_struck_at_any_moment_costs_the_others_nothing(
    tmp_path: Path, fault: Fault, moment: Moment
) -> None:
    """A link that is cut goes through a proxy here."""
    await _struck(tmp_path, fault, moment, trials=TRIALS, most_s=0.1, by_kernel=False)


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", OF_THE_LINK)
@pytest.mark.parametrize("moment", Moment)
async def test_a_link_that_the_kernel_breaks_costs_the_others_nothing(
    tmp_path: Path, fault: Fault, moment: Moment
) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    await _struck(tmp_path, fault, moment, trials=TRIALS, most_s=0.1, by_kernel=True)


@pytest.mark.prove
@pytest.mark.timeout(3600)
async def test_a_node_killed_at_any_step_of_an_activation_comes_back_to_the_head(tmp_path: Path) -> None:
    """From the decision on: armed, swapped in some workers, in all, written to the journal, reported."""
    await _struck(tmp_path, Fault.KILLED, Moment.DECIDED, trials=APPLY_TRIALS, most_s=0.12)


@pytest.mark.prove
@pytest.mark.timeout(3600)
async def test_a_node_killed_at_any_step_of_a_plain_change_comes_back_to_the_head(tmp_path: Path) -> None:
    """Received, made, prepared in some workers, active in some, in all, written to the journal, reported."""
    await _struck(tmp_path, Fault.KILLED, Moment.APPLYING, trials=APPLY_TRIALS, most_s=0.06)


@pytest.mark.prove
@pytest.mark.timeout(3600)
async def test_full_disks_and_poison_under_load(tmp_path: Path) -> None:
    async with faulty_fleet(tmp_path) as fleet, load_on_the_healthy(fleet, rate=200) as load:
        for _ in range(TRIALS):
            await fill_disks(fleet)
            await feed_poison(fleet)
    print(f"\n{TRIALS} x a full disk, and poison; {len(load.records)} requests to the others, none lost or doubled")


async def _struck(
    tmp_path: Path, fault: Fault, moment: Moment, *, trials: int, most_s: float, by_kernel: bool | None = None
) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    async with faulty_fleet(tmp_path, by_kernel=by_kernel) as fleet, load_on_the_healthy(fleet, rate=200) as load:
        for delay_s in delays(random.Random(4711), trials, most_s):
            struck = await strike(fleet, fault, moment, delay_s=delay_s)
            seen[struck.state, struck.standing] += 1
    ends = ", ".join(f"{count} x {state} (it {standing})" for (state, standing), count in sorted(seen.items()))
    by = {None: "", True: " by the kernel", False: " by a proxy"}[by_kernel if fault in OF_THE_LINK else None]
    print(f"\n{fault}{by} while {moment}: {ends}; {len(load.records)} requests to the others, none lost or doubled")
    assert seen.total() == trials
