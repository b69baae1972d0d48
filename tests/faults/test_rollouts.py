"""Rollouts on bad days: each fault once, on real processes. The long series is `tests/prove/test_rollouts.py`.

Goal: a rollout reaches every node that counts or none, says which, and leaves nothing held. Method: two nodes, of which
one may be stopped by a signal; green's servers may be killed; the control plane may be killed with a rollout on disk.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.store import failpoints
from tests.support import ledger
from tests.support.load import Destination, OpenLoop
from tests.support.patience import PATIENCE_S
from tests.support.processes import Fleet
from tests.support.rollouts import (
    SERVICE,
    UNHURRIED,
    View,
    all_live,
    deciding_ends,
    host_of,
    kill_deciding,
    kill_during,
    roll_out,
    to,
    until_state,
    versions,
    view_of,
    why,
)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two nodes that serve the example."""
    async with Fleet(tmp_path, nodes=2, workers=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        await all_live(fleet)
        yield fleet


def node_of(view: View, fleet: Fleet, index: int) -> View:
    (found,) = [node for node in view["nodes"] if node["node_id"] == fleet.nodes[index].node_id]
    assert isinstance(found, dict)
    return found


async def begin(fleet: Fleet, colour: str, **policy: object) -> int:
    answer = await fleet.admin("POST", "/fleet/rollouts", to(colour, **policy))
    assert answer.status == 202, answer.body
    return int(answer.headers["X-Pointsman-Rollout"])


async def test_a_side_that_is_dead_is_refused_with_evidence_and_nothing_changes(fleet: Fleet) -> None:
    for name in ("green-1", "green-2"):
        fleet.upstreams[name].destroy()
    before = await versions(fleet)
    answer = await roll_out(fleet, to("green"))
    assert answer.status == 409
    assert isinstance(answer.body, dict)
    assert "none of its 2 targets can take traffic" in answer.body["message"]
    refused = [node for node in answer.body["nodes"] if node["vote"] and node["vote"]["vote"] == "refuse"]
    assert refused[0]["vote"]["faults"][0]["code"] == "NO_HEALTHY_TARGET"
    assert len(refused[0]["vote"]["upstreams"][0]["failures"]) == 2
    assert (await versions(fleet), await host_of(fleet)) == (before, "blue")

    plain = await fleet.admin("PATCH", f"/services/{SERVICE}", {"host": "green"}, {"Prefer": "rollout"})
    assert plain.status == 409
    assert await host_of(fleet) == "blue"

    forced = await roll_out(fleet, to("green", tolerate=["NO_HEALTHY_TARGET"]))
    assert forced.status == 200, forced.body
    assert await host_of(fleet) == "green"


async def test_two_operators_at_once_and_a_node_that_does_not_answer(fleet: Fleet) -> None:
    stalled = fleet.nodes[1]
    stalled.kill(signal.SIGSTOP)
    try:
        number = await begin(fleet, "green", **UNHURRIED)
        second = await fleet.admin("POST", "/fleet/rollouts", to("green"))
        assert second.status == 409
        assert isinstance(second.body, dict)
        assert f"rollout {number} is about to change services '{SERVICE}'" in second.body["message"]
        plain = await fleet.admin("PATCH", f"/services/{SERVICE}", {"retries": 2})
        assert plain.status == 409
        other = await fleet.admin("POST", "/upstreams", {"name": "unrelated"})
        assert other.status == 201, "what the rollout does not touch goes on"
        aborted = await fleet.admin("POST", f"/fleet/rollouts/{number}/abort", None, {"X-Pointsman-Reason": "lunch"})
        assert aborted.status == 200
        view = await view_of(fleet, number)
        assert (view["state"], view["reason"]) == ("aborted", "lunch")
        late = await fleet.admin("POST", f"/fleet/rollouts/{number}/abort")
        assert late.status == 409

        # The slow node ends it where all are needed, and is left behind where half of them are enough.
        answer = await roll_out(fleet, to("green", vote_by_s=1))
        assert answer.status == 409
        assert isinstance(answer.body, dict)
        assert "1 of 2 nodes are ready, 2 are needed" in answer.body["reason"]
        answer = await roll_out(fleet, to("green", vote_by_s=1, need_percent=50, confirm_by_s=1))
        assert answer.status == 202, answer.body
        assert isinstance(answer.body, dict)
        assert answer.body["state"] == "partial"
        assert node_of(answer.body, fleet, 0)["standing"] == "activated"
        assert node_of(answer.body, fleet, 1)["standing"] == "lagging"
    finally:
        stalled.kill(signal.SIGCONT)
    await all_live(fleet)
    answer = await roll_out(fleet, to("blue", **UNHURRIED))
    assert answer.status == 200, answer.body


async def test_an_unrelated_write_and_a_killed_node_meanwhile(fleet: Fleet) -> None:
    """The head moves while votes are awaited: the rollout goes on from the new one, on every node that is there."""
    stalled = fleet.nodes[1]
    stalled.kill(signal.SIGSTOP)
    try:
        number = await begin(fleet, "green", **UNHURRIED)
        written = await fleet.admin("POST", "/upstreams", {"name": "unrelated"})
        assert written.status == 201
    finally:
        stalled.kill(signal.SIGCONT)
    view = await until_state(fleet, number, "confirmed", "partial", "aborted")
    assert view["state"] == "confirmed", why(view)
    assert view["rounds"] == 2
    assert view["version"] == int(written.headers["X-Pointsman-Version"]) + 1
    assert await versions(fleet) == [view["version"]] * 2
    assert [node["standing"] for node in view["nodes"]] == ["activated"] * 2
    assert all(min(node["late_us"]) >= 0 for node in view["nodes"]), "activated before the instant"
    async with asyncio.timeout(PATIENCE_S):
        while not (view := await view_of(fleet, number))["safe_to_tear_down"]:
            await asyncio.sleep(0.1)
    (drained,) = view["drained"]
    assert (drained["in_flight"], drained["waiting_for"], drained["still_used_by"]) == (0, [], [])

    # A node that dies before the decision does not count; it comes back to what was decided.
    stalled.kill(signal.SIGSTOP)
    number = await begin(fleet, "blue", **UNHURRIED)
    async with asyncio.timeout(PATIENCE_S):
        while len((await view_of(fleet, number))["nodes"]) < 2:
            await asyncio.sleep(0.01)
    stalled.destroy()
    view = await until_state(fleet, number, "confirmed", "partial", "aborted")
    assert view["state"] == "confirmed", why(view)
    assert node_of(view, fleet, 1)["standing"] == "gone"
    await stalled.up()
    await all_live(fleet)
    assert await versions(fleet) == [view["version"]] * 2


async def test_the_control_plane_killed_before_and_after_the_decision(fleet: Fleet) -> None:
    """While votes are awaited, which is `queued` on disk, and right after; the moments between: tests/prove."""
    load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=100, host=ledger.HOST)
    load.start()
    before = await kill_during(fleet, "green", state="preparing", delay_s=0.0)
    after = await kill_during(fleet, "green", state="decided", delay_s=0.0)
    assert before.ended == "aborted"
    assert after.ended == "confirmed"
    answer = await roll_out(fleet, to("blue", **UNHURRIED))
    assert answer.status == 200, answer.body
    assert (await ledger.books(fleet, load)).failures == []


async def test_the_control_plane_killed_while_it_commits_the_decision(tmp_path: Path) -> None:
    async with Fleet(tmp_path, nodes=1, workers=1) as fleet:
        with deciding_ends(fleet.control_plane, failpoints.COMMITTING):
            await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        await all_live(fleet)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=100, host=ledger.HOST)
        load.start()
        killed = await kill_deciding(fleet, "green")
        assert (killed.stored, killed.ended) == ("queued", "aborted")
        assert (await ledger.books(fleet, load)).failures == []
