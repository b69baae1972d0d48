"""Goal: a rollout moves the nodes of all control planes at one instant, and whatever gets lost between these costs
nobody more than that instant.

Method: two control planes over one store as they are, with a pretended channel between them that can lose words; nodes
are `Talker`s, two at each. The first coordinates.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from control_plane.fleet import others, relay, tenure
from control_plane.fleet.relay_words import End, Prepare, Take, packed, parse, to_text, unpacked
from control_plane.fleet.rollout import Policy, Standing, State
from control_plane.store.contract import Origin, RolloutRecord, Store, Transaction
from pointsman.wire.v1 import fleet_pb2
from tests.support.patience import PATIENCE_S, until
from tests.unit.control_plane.fleet.rollout_rig import RigPlane, Talker, Wire, create, slots, started


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def empty_planes(
    store: Store, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[RigPlane, RigPlane]]:
    """With two nodes each that run nothing."""
    monkeypatch.setattr(tenure, "RECOVER_EVERY_S", 0.02)
    monkeypatch.setattr(relay, "WATCH_EVERY_S", 0.02)
    monkeypatch.setattr(others, "TAKE_S", PATIENCE_S)
    first = RigPlane(store, name="first", sole=False, wire=wire)
    second = RigPlane(store, name="second", sole=False, wire=wire)
    async with started(first), started(second):
        for plane, names in ((first, "ab"), (second, "cd")):
            await plane.join(*(Talker(name) for name in names))
        yield first, second


@pytest.fixture
async def planes(empty_planes: tuple[RigPlane, RigPlane]) -> tuple[RigPlane, RigPlane]:
    """With version 1 in the store, two nodes each that run it, and the first knows of the second's."""
    first, second = empty_planes
    await first.write(lambda tx: (create("blue")(tx), create("green")(tx)))
    await until(lambda: at(first, second) == [1, 1, 1, 1])
    first.knows(second)
    return first, second


PATIENT = Policy(vote_by_s=PATIENCE_S, confirm_by_s=PATIENCE_S)


def at(*planes: RigPlane) -> list[int]:
    return [talker.running.version for plane in planes for talker in plane.talkers]


def pinned(plane: RigPlane) -> bool:
    return bool(plane.server.offers._pinned)


async def settled(plane: RigPlane) -> None:
    """Nothing of a rollout is left at a control plane that only passed words on."""
    await until(lambda: not pinned(plane) and plane.server.offers._withheld is None and plane.rollouts._gate.is_set())


async def frames(store: Store) -> int:
    return len(await store.read(lambda tx: tx.identities.each(relay.FRAMES)))


async def test_nodes_of_both_vote_and_swap_at_one_instant(planes: tuple[RigPlane, RigPlane], store: Store) -> None:
    first, second = planes
    entry = await first.roll_out(slots("green", 100), PATIENT)
    assert await first.ended(entry) == "confirmed"
    assert at(first, second) == [2, 2, 2, 2]
    assert entry.view()["elsewhere"] == []
    assert entry.facts.at_plane_ns is not None
    for member in entry.machine.members.values():
        assert member.standing is Standing.ACTIVATED
        assert member.activation is not None
        assert member.activation.at_plane_ns >= entry.facts.at_plane_ns, "both told times of one process, by one clock"
    for talker in second.talkers:
        assert talker.prepared == [(1, 1, True)]
        assert talker.activate is not None
        assert abs(talker.activate.at_plane_ns - entry.facts.at_plane_ns) < 50_000_000
    assert [node.version for node in first.nodes.views()] == [2, 2, 2, 2], "known before any record says so"
    await settled(second)
    await until(lambda: second.publisher.published == 2)
    assert await second.write(slots("blue", 100)) == 3
    await until(lambda: at(first, second) == [3, 3, 3, 3])
    assert await frames(store) == 0, "nothing is left of the frame"


async def test_the_first_write_of_all_can_be_a_rollout(empty_planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = empty_planes
    first.knows(second)
    entry = await first.roll_out(create("blue"), PATIENT)
    assert await first.ended(entry) == "confirmed"
    assert at(first, second) == [1, 1, 1, 1]
    assert [node.version for node in first.nodes.views()] == [1, 1, 1, 1]
    assert {member.standing for member in entry.machine.members.values()} == {Standing.ACTIVATED}


async def test_one_refusal_elsewhere_ends_it_everywhere(planes: tuple[RigPlane, RigPlane], store: Store) -> None:
    first, second = planes
    second.talkers[1].refuses = b"green"
    entry = await first.roll_out(slots("green", 100), PATIENT)
    assert await first.ended(entry) == "aborted"
    assert entry.machine.reason == "d refused: poison"
    await until(lambda: all(talker.aborted == ["d refused: poison"] for talker in second.talkers))
    await settled(second)
    assert at(first, second) == [1, 1, 1, 1]
    assert await frames(store) == 0


async def test_a_control_plane_without_nodes_moves_those_of_others(planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = planes
    for talker in first.talkers:
        talker.leave()
        await talker.leave_off()
    await until(lambda: not first.nodes.live())
    entry = await first.roll_out(slots("green", 100), PATIENT)
    assert await first.ended(entry) == "confirmed"
    assert at(second) == [2, 2]
    assert {member.hostname for member in entry.machine.members.values()} == {"c", "d"}


async def test_who_does_not_answer_is_named_and_follows(
    planes: tuple[RigPlane, RigPlane], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "TAKE_S", 0.05)
    first, second = planes
    wire.loses = lambda word: word["to"] == "second"
    entry = await first.roll_out(slots("green", 100), PATIENT)
    assert await first.ended(entry) == "confirmed"
    assert entry.view()["elsewhere"] == ["c at host of second", "d at host of second"]
    await until(lambda: at(first, second) == [2, 2, 2, 2])
    assert all(not talker.prepared for talker in second.talkers)
    monkeypatch.setattr(others, "TAKE_S", 60.0)
    again = await first.roll_out(slots("green", 200), PATIENT)
    assert await first.ended(again) == "confirmed", "it is not waited for a second time"
    await until(lambda: at(first, second) == [3, 3, 3, 3])


async def test_the_word_of_the_instant_is_lost_and_the_nodes_follow(
    planes: tuple[RigPlane, RigPlane], wire: Wire
) -> None:
    first, second = planes
    wire.loses = lambda word: word["word"] in ("activate", "end")
    entry = await first.roll_out(slots("green", 100), Policy(confirm_by_s=60))
    await until(lambda: at(first, second) == [2, 2, 2, 2])
    assert all(talker.activate is None for talker in second.talkers)
    await settled(second)
    assert entry.machine.state is State.DECIDED
    first.knows(second)
    for node in entry.remote.nodes:
        entry.machine.not_activated(node, "its word was lost")
    assert await first.ended(entry) == "confirmed"
    assert entry.machine.members[second.talkers[0].id].standing is Standing.FOLLOWED


async def test_a_coordinator_that_is_gone_leaves_nobody_waiting(
    planes: tuple[RigPlane, RigPlane], wire: Wire, store: Store
) -> None:
    """The record says that it was aborted, as whoever took over has written."""
    first, second = planes
    second.talkers[1].votes = False
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    await until(lambda: bool(second.talkers[1].prepared))
    assert pinned(second)
    wire.loses = lambda _word: True

    def taken_over(tx: Transaction) -> None:
        tx.save_rollout(RolloutRecord(1, "aborted", {**entry.view(), "state": "aborted", "reason": "it was killed"}))

    await first.write(taken_over)
    await until(lambda: all(talker.aborted == ["it was killed"] for talker in second.talkers))
    await settled(second)
    second.talkers[1].votes = True
    first.rollouts.abort(1, "over", "")
    await first.ended(entry)


async def test_a_node_lost_there_does_not_count_and_one_that_comes_over_goes_on(
    planes: tuple[RigPlane, RigPlane],
) -> None:
    first, second = planes
    lost, wanderer = second.talkers
    lost.votes = wanderer.votes = False
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    await until(lambda: bool(lost.prepared) and bool(wanderer.prepared))
    await lost.leave_off()
    await until(lambda: entry.machine.members[lost.id].standing is Standing.GONE)
    wanderer.vote()
    assert await first.ended(entry) == "confirmed"
    assert entry.machine.members[wanderer.id].standing is Standing.ACTIVATED
    assert at(first) == [2, 2]
    assert wanderer.running.version == 2


async def test_a_write_at_the_other_meanwhile_is_part_of_what_all_activate(
    planes: tuple[RigPlane, RigPlane],
) -> None:
    first, second = planes
    second.talkers[1].votes = False
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    await until(lambda: bool(second.talkers[1].prepared))
    assert await second.write(slots("blue", 300)) == 2
    await until(lambda: first.publisher.published == second.publisher.published == 2)
    assert at(first, second) == [1, 1, 1, 1], "nodes in a rollout are offered nothing else"
    second.talkers[1].votes = True
    second.talkers[1].vote()
    assert await first.ended(entry) == "confirmed"
    assert entry.machine.version == 3
    await until(lambda: at(first, second) == [3, 3, 3, 3])
    assert [round_number for _, round_number, _ in second.talkers[0].prepared] == [1, 2]
    await settled(second)


async def test_nodes_behind_are_brought_to_where_the_rollout_begins(planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = planes
    for talker in second.talkers:
        talker.applies = False
    await first.write(slots("blue", 300))
    await until(lambda: at(first) == [2, 2] and all(talker.offered[-1][0] == 2 for talker in second.talkers))
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    for talker in second.talkers:
        talker.applies = True
        talker.take(second.head)
    assert await first.ended(entry) == "confirmed"
    assert at(first, second) == [3, 3, 3, 3]


async def test_words_of_a_turn_that_is_over_are_not_followed(planes: tuple[RigPlane, RigPlane], wire: Wire) -> None:
    """As of a control plane that was stopped past its lease and goes on: its words are late."""
    first, second = planes
    entry = await first.roll_out(slots("green", 100), PATIENT)
    assert await first.ended(entry) == "confirmed"
    await settled(second)
    prepared = [list(talker.prepared) for talker in second.talkers]
    late = (Take(1, entry.facts.fence, 1), Prepare(1, entry.facts.fence, 1, ()), End(1, entry.facts.fence - 1, "late"))
    for word in late:
        wire.tell(to_text(word, plane="first", to="second"))
    answers = len(wire.words("taken"))
    again = await first.roll_out(slots("green", 200), PATIENT)
    assert await first.ended(again) == "confirmed"
    assert [list(talker.prepared)[: len(before)] for talker, before in zip(second.talkers, prepared, strict=True)] == (
        prepared
    )
    assert len(wire.words("taken")) == answers + 1, "only the new one was answered"
    assert at(first, second) == [3, 3, 3, 3]


async def test_a_control_plane_that_stops_says_that_its_nodes_are_not_to_be_waited_for(
    planes: tuple[RigPlane, RigPlane],
) -> None:
    first, second = planes
    for talker in second.talkers:
        talker.votes = False
    entry = await first.roll_out(slots("green", 100), Policy(vote_by_s=60))
    await until(lambda: all(talker.prepared for talker in second.talkers))
    second.rollouts._relay.stop()
    assert await first.ended(entry) == "confirmed"
    assert [entry.machine.members[talker.id].standing for talker in second.talkers] == [Standing.GONE] * 2


async def test_a_rehearsal_asks_the_nodes_of_all(planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = planes
    entry = await first.rollouts.create(slots("green", 100), Origin(), Policy(), rehearsal=True)
    await first.ended(entry)
    assert entry.machine.would_decide
    assert all(talker.prepared for talker in second.talkers)
    await settled(second)
    assert at(first, second) == [1, 1, 1, 1]


def test_a_vote_that_is_too_long_loses_findings_and_keeps_its_verdict() -> None:
    vote = fleet_pb2.RolloutVote(rollout=7, round=2, kind=fleet_pb2.VOTE_KIND_REFUSE, workers=2)
    for number in range(32):
        check = vote.upstreams.add(upstream=f"upstream-{number}", targets=16, healthy=1)
        for target in range(16):
            check.failures.add(target=f"target-{target}", address="10.0.0.1:80", error="refused" * 20)
    for number in range(16):
        vote.faults.add(code="UNHEALTHY_TARGETS", message="x" * 80, entity_id=str(number))
    text = packed(fleet_pb2.NodeMessage(vote=vote))
    assert len(text) < 5_000
    told = unpacked(text).vote
    assert (told.rollout, told.round, told.kind, told.workers) == (7, 2, fleet_pb2.VOTE_KIND_REFUSE, 2)
    assert told.faults[0].code == "UNHEALTHY_TARGETS"


def test_words_for_others_and_of_other_matters_are_passed_over() -> None:
    text = to_text(Take(1, 2, 3), plane="a", to="b")
    assert parse(text, to="b") == ("a", Take(1, 2, 3))
    assert parse(text, to="c") is None
    assert parse('{"plane":"a","version":3,"for_s":2}', to="b") is None
    assert parse('{"plane":"a","to":"b","word":"later"}', to="b") is None
