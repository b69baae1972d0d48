"""Goal: a rollout is one truth for all nodes, whoever comes, goes, writes or holds something meanwhile.

Method: the coordinator, the server's streams and a store as they are; nodes are `Talker`s. Nothing is said of how long
anything took: each test waits for what must come to pass, and looks at what nodes were sent, and when.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from control_plane.entities.errors import HeldByRollout
from control_plane.fleet import others, tenure
from control_plane.fleet import rollouts as coordinating
from control_plane.fleet.rollout import Policy, Standing, State
from control_plane.fleet.rollouts import Elsewhere
from control_plane.store import editor
from control_plane.store.contract import NodeRecord, Origin, Store
from tests.support.patience import PATIENCE_S, until
from tests.unit.control_plane.fleet.rollout_rig import RigPlane, Talker, create, slots, started


@pytest.fixture
async def plane(store: Store) -> AsyncIterator[RigPlane]:
    """With version 1, in which there are the upstreams blue and green, and three nodes that run it."""
    async with started(RigPlane(store)) as plane:
        await plane.write(lambda tx: (create("blue")(tx), create("green")(tx)))
        await until(lambda: plane.publisher.published == 1)
        await plane.join(*(Talker(name) for name in "abc"))
        yield plane


def at(plane: RigPlane) -> list[int]:
    return [talker.running.version for talker in plane.talkers]


def first_offered(talker: Talker, version: int) -> int:
    return min(when for offered, when in talker.offered if offered == version)


async def test_the_first_write_of_all_can_be_a_rollout(store: Store) -> None:
    async with started(RigPlane(store)) as plane:
        await plane.join(*(Talker(name) for name in "abc"))
        entry = await plane.roll_out(create("blue"))
        assert await plane.ended(entry) == "confirmed"
        assert at(plane) == [1, 1, 1]
        assert all(talker.offered == [] for talker in plane.talkers), "all of them swapped at the instant"


# --- beside a version that is held ----------------------------------------------------------------------------------


async def hold_a_version(plane: RigPlane) -> None:
    await plane.write(create("poison"))
    await until(lambda: plane.nodes.held is not None)


async def test_a_rollout_does_not_carry_a_held_version_past_the_nodes_that_refuse_it(plane: RigPlane) -> None:
    await hold_a_version(plane)
    entry = await plane.roll_out(slots("green", 100))
    assert await plane.ended(entry) == "aborted"
    assert "refused: poison" in entry.machine.reason
    assert at(plane) == [1, 1, 1]
    assert entry.facts.base_version == 1, "it begins at what nodes run"
    assert sum(bool([v for v, _ in talker.offered if v == 2]) for talker in plane.talkers) == 1, "still held"


async def test_a_rollout_that_takes_the_poison_out_brings_everyone_to_the_head(plane: RigPlane) -> None:
    await hold_a_version(plane)
    entry = await plane.roll_out(lambda tx: editor.update(tx, "upstreams", "poison", {"name": "medicine"}, now=2.0))
    assert await plane.ended(entry) == "confirmed"
    assert (entry.machine.version, at(plane)) == (3, [3, 3, 3])
    await until(lambda: plane.nodes.held is None)


async def test_a_rollout_waits_for_a_change_that_one_node_is_trying(plane: RigPlane) -> None:
    for talker in plane.talkers:
        talker.applies = False
    await plane.write(slots("blue", 200))
    await until(lambda: any(talker.offered[-1][0] == 2 for talker in plane.talkers))
    entry = await plane.roll_out(slots("green", 100))
    (trying,) = [talker for talker in plane.talkers if talker.offered[-1][0] == 2]
    assert entry.machine.state is State.QUEUED
    for talker in plane.talkers:
        talker.applies = True
    trying.take(plane.head)
    assert await plane.ended(entry) == "confirmed"
    assert (entry.facts.base_version, at(plane)) == (2, [3, 3, 3])


# --- who comes and goes ---------------------------------------------------------------------------------------------


async def test_a_node_that_joins_between_decision_and_instant_takes_the_version_at_the_instant(
    plane: RigPlane,
) -> None:
    late = Talker("late", running=plane.talkers[0].running)
    plane.talkers[0].on_activate = lambda: late.connect(plane.server)
    entry = await plane.roll_out(slots("green", 100))
    assert await plane.ended(entry) == "confirmed"
    await until(lambda: late.running.version == 2)
    plane.talkers.append(late)
    assert late.prepared == []
    assert entry.facts.at_plane_ns is not None
    assert first_offered(late, 2) >= entry.facts.at_plane_ns


async def test_a_node_that_joins_while_votes_are_awaited_is_no_member_and_follows(plane: RigPlane) -> None:
    plane.talkers[2].votes = False
    entry = await plane.roll_out(slots("green", 100))
    await until(lambda: bool(plane.talkers[2].prepared))
    late = Talker("late", running=plane.talkers[0].running)
    late.connect(plane.server)
    plane.talkers.append(late)
    await until(lambda: len(plane.nodes.live()) == 4)
    plane.talkers[2].vote()
    assert await plane.ended(entry) == "confirmed"
    assert sorted(member.hostname for member in entry.machine.members.values()) == ["a", "b", "c"]
    await until(lambda: late.running.version == 2)
    assert entry.facts.at_plane_ns is not None
    assert first_offered(late, 2) >= entry.facts.at_plane_ns


@pytest.mark.parametrize("forgot", [False, True])
async def test_a_node_that_comes_back_between_decision_and_instant(plane: RigPlane, forgot: bool) -> None:
    """One that is still armed swaps by itself, and is not offered the version before; one that forgot it follows."""
    torn = plane.talkers[1]
    back = Talker("b", node_id=torn.id, running=torn.running, boot_id=2 if forgot else 1)

    async def tear() -> None:
        await torn.leave_off()
        back.activates = False
        back.applies = forgot
        back.connect(plane.server)
        plane.talkers[1] = back
        if not forgot:
            back.take_over(torn)

    tasks: list[asyncio.Task[None]] = []
    torn.activates = False
    torn.on_activate = lambda: tasks.append(asyncio.create_task(tear()))
    entry = await plane.roll_out(slots("green", 100))
    assert await plane.ended(entry) == "confirmed"
    await asyncio.gather(*tasks)
    assert entry.facts.at_plane_ns is not None
    assert all(when >= entry.facts.at_plane_ns for version, when in back.offered if version == 2)
    standing = entry.machine.members[torn.id].standing
    assert standing is (Standing.FOLLOWED if forgot else Standing.ACTIVATED)


async def test_a_node_that_leaves_or_is_lost_before_it_votes_does_not_count(plane: RigPlane) -> None:
    leaving, lost = plane.talkers[1], plane.talkers[2]
    leaving.votes = lost.votes = False
    entry = await plane.roll_out(slots("green", 100))
    await until(lambda: bool(leaving.prepared and lost.prepared))
    leaving.leave()
    await lost.leave_off()
    assert await plane.ended(entry) == "confirmed"
    members = entry.machine.members
    assert [members[talker.id].standing for talker in plane.talkers] == [
        Standing.ACTIVATED, Standing.GONE, Standing.GONE,
    ]  # fmt: skip


async def test_a_node_that_is_lost_after_the_decision_is_named_and_nobody_else_waits(plane: RigPlane) -> None:
    lost = plane.talkers[2]
    lost.activates = False
    entry = await plane.roll_out(slots("green", 100), Policy(confirm_by_s=0.1))
    await until(lambda: lost.activate is not None)
    await lost.leave_off()
    assert await plane.ended(entry) == "partial"
    assert entry.machine.members[lost.id].standing is Standing.LAGGING
    figures = plane.rollouts.figures
    assert (figures.ended["partial"], figures.left_behind, plane.rollouts.open) == (1, 1, 0)
    assert (figures.took.count, figures.late.count) == (1, 2)
    assert figures.late.total_s == pytest.approx(2e-6)
    assert at(plane)[:2] == [2, 2]


# --- who writes meanwhile -------------------------------------------------------------------------------------------


async def test_two_over_one_entity_are_refused_by_name_and_over_two_wait_for_each_other(plane: RigPlane) -> None:
    plane.talkers[0].votes = False
    first = await plane.roll_out(slots("green", 100))
    await until(lambda: bool(plane.talkers[0].prepared))
    with pytest.raises(HeldByRollout, match=r"rollout 1 is about to change upstreams 'green'"):
        await plane.roll_out(slots("green", 200))
    second = await plane.roll_out(slots("blue", 300))
    assert second.machine.state is State.QUEUED
    plane.talkers[0].votes = True
    plane.talkers[0].vote()
    assert (await plane.ended(first), await plane.ended(second)) == ("confirmed", "confirmed")
    assert (first.machine.version, second.machine.version, at(plane)) == (2, 3, [3, 3, 3])


async def test_a_plain_write_meanwhile_is_part_of_what_is_activated_unless_it_is_held(plane: RigPlane) -> None:
    slow = plane.talkers[0]
    slow.votes = False
    entry = await plane.roll_out(slots("green", 100))
    await until(lambda: bool(slow.prepared))
    with pytest.raises(HeldByRollout):
        await plane.write(slots("green", 200))
    assert await plane.write(slots("blue", 300)) == 2
    slow.votes = True
    slow.vote()
    assert await plane.ended(entry) == "confirmed"
    assert (entry.machine.round, entry.machine.version, at(plane)) == (2, 3, [3, 3, 3])
    assert [warm for _, _, warm in slow.prepared] == [True, False], "warmed up once"
    assert not any(version == 2 for talker in plane.talkers for version, _ in talker.offered)


async def test_a_plain_write_between_decision_and_instant_waits_for_the_instant(plane: RigPlane) -> None:
    tasks: list[asyncio.Task[int]] = []
    plane.talkers[0].on_activate = lambda: tasks.append(asyncio.create_task(plane.write(slots("blue", 300))))
    entry = await plane.roll_out(slots("green", 100))
    assert await plane.ended(entry) == "confirmed"
    assert await tasks[0] == 3
    await until(lambda: at(plane) == [3, 3, 3])
    assert entry.facts.at_plane_ns is not None
    assert min(first_offered(talker, 3) for talker in plane.talkers) >= entry.facts.at_plane_ns


async def test_a_rollout_that_waited_begins_at_what_was_decided_also_when_nodes_are_early(plane: RigPlane) -> None:
    """Their reading of the plane's clock is fast, so all of them run the version before the instant has come."""
    for talker in plane.talkers:
        talker.early_s = 10.0
    first, second = await plane.roll_out(slots("green", 100)), await plane.roll_out(slots("blue", 300))
    assert (await plane.ended(first), await plane.ended(second)) == ("confirmed", "confirmed"), second.machine.reason
    assert (second.facts.base_version, second.machine.version, at(plane)) == (2, 3, [3, 3, 3])


# --- the store on bad days ------------------------------------------------------------------------------------------


async def test_a_decision_that_can_not_be_written_is_none_and_its_end_is_saved_when_it_can_be(
    plane: RigPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinating, "SAVES_QUICK", 1)
    plane.talkers[0].votes = False
    entry = await plane.roll_out(slots("green", 100))
    await until(lambda: bool(plane.talkers[0].prepared))
    plane.moody.fails = True
    plane.talkers[0].votes = True
    plane.talkers[0].vote()
    assert await plane.ended(entry) == "aborted"
    assert "the disk is full" in entry.machine.reason
    assert all(talker.aborted for talker in plane.talkers)
    plane.moody.fails = False
    async with asyncio.timeout(PATIENCE_S):
        while (await plane.store.read(lambda tx: tx.rollout(1))).state != "aborted":  # type: ignore[union-attr]  # it is there
            await asyncio.sleep(0.01)
    again = await plane.roll_out(slots("green", 100))
    assert (await plane.ended(again), at(plane)) == ("confirmed", [2, 2, 2])


async def test_a_decision_whose_answer_was_lost_is_found_to_have_fallen(plane: RigPlane) -> None:
    plane.talkers[0].votes = False
    entry = await plane.roll_out(slots("green", 100))
    await until(lambda: bool(plane.talkers[0].prepared))
    plane.moody.loses_answers = 1
    plane.talkers[0].vote()
    assert await plane.ended(entry) == "confirmed"
    assert (entry.machine.version, at(plane)) == (2, [2, 2, 2])
    assert {member.standing for member in entry.machine.members.values()} == {Standing.FOLLOWED}
    assert plane.rollouts.figures.ended == {"confirmed": 1, "partial": 0, "aborted": 0}


# --- two control planes over one store ------------------------------------------------------------------------------


@pytest.fixture
async def planes(store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[RigPlane, RigPlane]]:
    """Two, with a node each, who wait for each other with a test's patience."""
    monkeypatch.setattr(coordinating, "LEASE_WAIT_S", PATIENCE_S)
    monkeypatch.setattr(tenure, "RECOVER_EVERY_S", 0.02)
    first, second = RigPlane(store, name="first", sole=False), RigPlane(store, name="second", sole=False)
    await first.write(lambda tx: (create("blue")(tx), create("green")(tx)))
    async with started(first), started(second):
        for plane, name in ((first, "a"), (second, "b")):
            await until(lambda plane=plane: plane.publisher.published == 1)  # type: ignore[misc]  # lambda defaults
            await plane.join(Talker(name))
        yield first, second


async def test_one_coordinates_and_the_other_waits_then_has_its_turn(planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = planes
    first.talkers[0].votes = False
    one = await first.roll_out(slots("green", 100))
    await until(lambda: bool(first.talkers[0].prepared))
    waiting = asyncio.create_task(second.roll_out(slots("blue", 100)))
    first.talkers[0].votes = True
    first.talkers[0].vote()
    assert await first.ended(one) == "confirmed"
    two = await waiting
    assert await second.ended(two) == "confirmed"
    assert (one.facts.coordinator, two.facts.coordinator) == ("first", "second")
    assert two.facts.fence > one.facts.fence
    assert (one.machine.version, two.machine.version) == (2, 3)


async def test_who_waits_too_long_hears_who_coordinates(
    planes: tuple[RigPlane, RigPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinating, "LEASE_WAIT_S", 0.1)
    first, second = planes
    first.talkers[0].votes = False
    entry = await first.roll_out(slots("green", 100))
    await until(lambda: bool(first.talkers[0].prepared))
    with pytest.raises(Elsewhere, match="control plane first coordinates a rollout now; ask it"):
        await second.roll_out(slots("blue", 100))
    first.rollouts.abort(entry.facts.number, "enough", "me")
    assert await first.ended(entry) == "aborted"


async def test_who_can_not_renew_its_lease_lets_go_and_the_other_takes_over(
    planes: tuple[RigPlane, RigPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tenure, "LEASE_S", 1.0)
    first, second = planes
    first.talkers[0].votes = False
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    await until(lambda: bool(first.talkers[0].prepared))
    first.moody.fails = True
    await until(lambda: entry.machine.state is State.ABORTED)
    assert "the lease of rollouts could not be renewed: the disk is full" in entry.machine.reason
    two = await second.roll_out(slots("blue", 100))
    assert await second.ended(two) == "confirmed"
    assert first.talkers[0].aborted
    record = await second.store.read(lambda tx: tx.rollout(1))
    assert record is not None
    assert (record.state, record.body["coordinator"]) == ("aborted", "second")
    first.moody.fails = False
    await first.ended(entry)
    assert await second.store.read(lambda tx: tx.rollout(1)) == record, "the fence keeps the former one out"
    three = await second.roll_out(slots("green", 200))
    assert await second.ended(three) == "confirmed"


async def test_a_decision_after_the_lease_was_over_meets_the_fence(
    planes: tuple[RigPlane, RigPlane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a process that was stopped: it has not noticed yet that its time was over."""
    first, second = planes
    first.talkers[0].votes = False
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    await until(lambda: bool(first.talkers[0].prepared))
    await second.store.write(lambda tx: tx.drop_lease(tenure.LEASE, "first"), Origin())
    first.talkers[0].vote()
    assert await first.ended(entry) == "aborted"
    assert entry.machine.reason in (
        "this control plane was held up for longer than its lease", "control plane second has taken over",
    )  # fmt: skip
    assert await second.store.read(lambda tx: tx.head()) == 1
    assert first.talkers[0].running.version == 1


async def test_a_node_that_is_lost_here_and_follows_elsewhere_has_followed(planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = planes
    lost = first.talkers[0]
    lost.activates = False
    entry = await first.roll_out(slots("green", 100))
    await until(lambda: lost.activate is not None)
    await lost.leave_off()
    lost.connect(second.server)
    await until(lambda: any(view.id == lost.id and view.version == 2 for view in second.nodes.views()))
    records = [replace(record, plane="second") for record in second.nodes.take_dirty() if record.id == lost.id]
    first.nodes.merge(records, {"second": "host-2"})
    assert await first.ended(entry) == "confirmed"
    assert entry.machine.members[lost.id].standing is Standing.FOLLOWED


async def test_nodes_at_another_control_plane_are_named_and_without_own_ones_nothing_is_begun(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has no node must not decide for the fleet; who has some says which others take the change as it comes."""
    monkeypatch.setattr(others, "TAKE_S", 0.01)
    plane = RigPlane(store, name="here", sole=False)
    await plane.write(lambda tx: (create("blue")(tx), create("green")(tx)))
    async with started(plane):
        node_id = "00000000-0000-4000-8000-000000000009"
        other = NodeRecord(node_id, "far-away", "", "0.1.0", last_seen=time.time(), plane="there")
        plane.nodes.merge([other], {"there": "host-2"})
        refused = await plane.roll_out(slots("green", 100))
        assert await plane.ended(refused) == "aborted"
        assert refused.machine.reason == (
            "no node is connected to this control plane, but to others: far-away at host-2 for one; ask where nodes are"
        )
        await until(lambda: plane.publisher.published == 1)
        await plane.join(Talker("a"))
        entry = await plane.roll_out(slots("green", 100))
        assert await plane.ended(entry) == "confirmed"
        assert entry.view()["elsewhere"] == ["far-away at host-2"]
