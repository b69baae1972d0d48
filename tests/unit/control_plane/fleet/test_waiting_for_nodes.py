"""Goal: a wait ends exactly when its answer is known. Method: nodes that change while one is waited for."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from control_plane.fleet.nodes import Node, Nodes, Plane
from control_plane.fleet.waiting import Outcome, Wait, WaitReport, wait_for
from pointsman.snapshots import Stage
from tests.unit.control_plane.fleet.test_known_nodes import EPOCH, LEASE_S, Times, hello, ref, rejection


class Fleet:
    def __init__(self, count: int = 2) -> None:
        self.clock = Times()
        self.nodes = Nodes(clock=self.clock, wall=Times(1.7e9), lease_s=LEASE_S, purge_after_s=1e6)
        self.members: list[Node] = []
        for number in range(count):
            greeting = replace(
                hello(running=ref(1), node_id=f"{number:08}-0000-0000-0000-000000000000"), hostname=f"n{number}"
            )
            self.members.append(self.nodes.accepted(greeting, ip="", head=ref(1)))

    def publish(self, version: int) -> None:
        for node in self.members:
            if node.connected and self.nodes.head_moved(node, ref(version)):
                self.nodes.offered(node, ref(version))

    def wait(self, version: int, timeout_s: float = 60.0) -> asyncio.Task[WaitReport]:
        return asyncio.create_task(wait_for(self.nodes, version, epoch=EPOCH, timeout_s=timeout_s))


async def rounds() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_it_ends_when_the_last_node_runs_the_version() -> None:
    fleet = Fleet()
    fleet.publish(2)
    waiting = fleet.wait(2)
    await rounds()
    fleet.nodes.applied(fleet.members[0], ref(2), took_s=0.1)
    await rounds()
    assert not waiting.done()
    fleet.nodes.applied(fleet.members[1], ref(2), took_s=0.2)
    report = await waiting
    assert report.complete
    assert [(node.hostname, node.outcome, node.took_s) for node in report.nodes] == [
        ("n0", Outcome.APPLIED, 0.1),
        ("n1", Outcome.APPLIED, 0.2),
    ]


async def test_a_later_version_counts_and_one_of_another_history_does_not() -> None:
    fleet = Fleet(1)
    fleet.publish(5)
    waiting = fleet.wait(2)
    await rounds()
    fleet.nodes.applied(fleet.members[0], ref(9, epoch=b"f" * 16), took_s=0.1)
    await rounds()
    assert not waiting.done()
    fleet.nodes.applied(fleet.members[0], ref(5), took_s=0.1)
    assert (await waiting).complete


async def test_what_runs_already_needs_no_waiting() -> None:
    report = await wait_for(Fleet().nodes, 1, epoch=EPOCH, timeout_s=0)
    assert report.complete


class Elsewhere:
    """A node that another control plane serves, as that one's records tell of it here."""

    def __init__(self, here: Nodes) -> None:
        self.here = here
        self.there = Nodes(
            clock=Times(), wall=Times(1.7e9), lease_s=LEASE_S, purge_after_s=1e6, plane=Plane("p", "cp2")
        )
        self.node = self.there.accepted(hello(running=ref(1), node_id="e" * 36), ip="", head=ref(1))

    def told(self, *, planes: dict[str, str] | None = None) -> None:
        self.here.merge(self.there.take_dirty(), {"p": "cp2"} if planes is None else planes)


async def test_nodes_of_other_control_planes_are_waited_for() -> None:
    fleet = Fleet(1)
    other = Elsewhere(fleet.nodes)
    other.told()
    fleet.publish(2)
    waiting = fleet.wait(2)
    await rounds()
    fleet.nodes.applied(fleet.members[0], ref(2), took_s=0.1)
    await rounds()
    assert not waiting.done()
    other.there.head_moved(other.node, ref(2))
    other.there.applied(other.node, ref(2), took_s=0.1)
    other.told()
    report = await waiting
    assert (report.complete, report.total) == (True, 2)


async def test_a_refusal_on_another_control_plane_ends_the_wait() -> None:
    fleet = Fleet(0)
    other = Elsewhere(fleet.nodes)
    other.told()
    waiting = fleet.wait(2)
    await rounds()
    other.there.rejected(other.node, rejection(2), running=ref(1))
    other.told()
    report = await waiting
    (node,) = report.nodes
    assert (node.outcome, node.stage, node.faults[0].code) == (Outcome.REJECTED, Stage.BUILD, "BAD_REGEX")


async def test_a_node_of_another_control_plane_that_says_nothing_is_lagging_and_of_a_dead_one_gone() -> None:
    fleet = Fleet(0)
    other = Elsewhere(fleet.nodes)
    other.told()
    report = await fleet.wait(2, timeout_s=0)
    assert [(node.outcome, "cp2" in node.reason) for node in report.nodes] == [(Outcome.LAGGING, True)]
    other.there.beat(other.node, ref(1), in_flight=0)
    other.there.disconnected(other.node, "gone")
    other.told(planes={})
    assert (await fleet.wait(2, timeout_s=0)).nodes == ()


async def test_one_refusal_ends_it_at_once() -> None:
    fleet = Fleet()
    fleet.publish(2)
    waiting = fleet.wait(2)
    await rounds()
    fleet.nodes.rejected(fleet.members[0], rejection(2), running=ref(1))
    report = await waiting
    assert not report.complete
    refused, open_ = report.nodes
    assert (refused.outcome, refused.stage, refused.faults[0].code) == (Outcome.REJECTED, Stage.BUILD, "BAD_REGEX")
    assert (open_.outcome, open_.version) == (Outcome.LAGGING, 1)
    assert "offered and not answered" in open_.reason


async def test_a_refusal_of_a_later_version_ends_it_and_of_an_earlier_one_does_not() -> None:
    fleet = Fleet(1)
    fleet.publish(3)
    waiting = fleet.wait(3)
    await rounds()
    fleet.nodes.rejected(fleet.members[0], rejection(2), running=ref(1))
    await rounds()
    assert not waiting.done()
    fleet.nodes.rejected(fleet.members[0], rejection(4), running=ref(1))
    assert (await waiting).count(Outcome.REJECTED) == 1


async def test_a_parked_version_answers_a_new_wait_at_once() -> None:
    fleet = Fleet(1)
    fleet.publish(2)
    fleet.nodes.rejected(fleet.members[0], rejection(2), running=ref(1))
    report = await wait_for(fleet.nodes, 2, epoch=EPOCH, timeout_s=60)
    assert report.count(Outcome.REJECTED) == 1


async def test_nobody_live_means_nobody_to_wait_for() -> None:
    fleet = Fleet()
    fleet.clock.now += LEASE_S
    report = await wait_for(fleet.nodes, 2, epoch=EPOCH, timeout_s=60)
    assert (report.total, report.complete) == (0, False)


async def test_nodes_that_join_later_are_not_waited_for() -> None:
    fleet = Fleet(1)
    fleet.publish(2)
    waiting = fleet.wait(2)
    await rounds()
    late = replace(hello(running=ref(1)), hostname="late")
    fleet.nodes.accepted(late, ip="", head=ref(2))
    fleet.nodes.applied(fleet.members[0], ref(2), took_s=0.1)
    assert [node.hostname for node in (await waiting).nodes] == ["n0"]


async def test_a_lost_node_may_come_back_and_still_make_it() -> None:
    fleet = Fleet(1)
    fleet.publish(2)
    waiting = fleet.wait(2)
    await rounds()
    member = fleet.members[0]
    fleet.nodes.disconnected(member, "the stream broke")
    await rounds()
    assert not waiting.done()
    fleet.nodes.accepted(replace(hello(running=ref(2), node_id=member.id), hostname="n0"), ip="", head=ref(2))
    assert (await waiting).complete


async def test_the_deadline_names_who_is_missing_and_why() -> None:
    fleet = Fleet(3)
    fleet.publish(2)
    fleet.nodes.applied(fleet.members[0], ref(2), took_s=0.1)
    fleet.nodes.disconnected(fleet.members[1], "silent for 15 s")
    # All of them were live when the wait began.
    wait = Wait(2, epoch=EPOCH, nodes=fleet.members)
    assert not wait.over
    outcomes = [(node.outcome, node.reason) for node in wait.progress(fleet.nodes)]
    assert outcomes == [
        (Outcome.APPLIED, ""),
        (Outcome.DISCONNECTED, "silent for 15 s"),
        (Outcome.LAGGING, "offered and not answered, last heard 0.0 s ago"),
    ]


async def test_a_leaving_node_is_not_waited_for_but_counts() -> None:
    fleet = Fleet(1)
    fleet.publish(2)
    waiting = fleet.wait(2)
    await rounds()
    fleet.nodes.leaving(fleet.members[0], "restart")
    report = await waiting
    assert not report.complete
    assert (report.nodes[0].outcome, report.nodes[0].reason) == (Outcome.DISCONNECTED, "left: restart")


async def test_no_time_means_an_answer_now() -> None:
    fleet = Fleet(1)
    report = await wait_for(fleet.nodes, 2, epoch=EPOCH, timeout_s=0)
    assert report.nodes[0].reason.startswith("not offered yet")


async def test_a_cancelled_wait_leaves_no_listener() -> None:
    fleet = Fleet(1)
    waiting = fleet.wait(2)
    await rounds()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert fleet.nodes._listeners == []
