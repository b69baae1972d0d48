"""The preflight by tables: what nodes say of a side, and what is refused because of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from control_plane.fleet.health import AddressReport, AddressState, HealthBook, TargetReport
from control_plane.fleet.rollout import Policy, Rollout, UpstreamReport, Vote, Voted
from control_plane.switching.preflight import Code, Gates, Move, Plan, Seen, Side, TargetView, target_view
from control_plane.switching.rehearsal import rehearsed
from pointsman.snapshots import Fault

NODES = {"1": "dp-1", "2": "dp-2", "3": "dp-3"}
H, U, X, N, Q = Seen.HEALTHY, Seen.UNCHECKED, Seen.UNHEALTHY, Seen.UNRESOLVED, Seen.UNKNOWN


def side(*targets: Sequence[Seen], weight: int = 100, name: str = "green") -> Side:
    """One row a target, one word a node."""
    views = (
        TargetView(str(at), f"10.0.0.{at}:80", weight, dict(zip(NODES, words, strict=True)))
        for at, words in enumerate(targets, 1)
    )
    return Side(name, name, tuple(views))


def plan(
    new: Side, *, gates: Gates | None = None, nodes: Mapping[str, str] = NODES, held_by: int | None = None
) -> Plan:
    move = Move("s", "shop", "blue", "green", held_by=held_by)
    return Plan((move,), new, (side((H, H, H), (H, H, H), name="blue"),), nodes, gates or Gates(), 1)


@pytest.mark.parametrize(
    ("targets", "codes"),
    [
        ([(H, H, H), (H, H, H)], []),
        ([(U, U, U)], []),
        ([(H, H, H), (H, H, H), (H, H, H), (X, X, X)], []),  # three of four is just enough
        ([(H, H, H), (X, X, X)], ["SIDE_UNHEALTHY"]),
        ([(H, X, X), (H, H, H)], ["SIDE_UNHEALTHY"]),  # most nodes say no
        ([(H, H, X), (H, H, X)], ["NODE_SEES_TOO_FEW"]),  # one node cut off from the whole side
        ([(X, X, X)], ["NODE_SEES_TOO_FEW"] * 3 + ["SIDE_UNHEALTHY"]),
        ([(N, N, N), (H, H, H)], ["SIDE_UNHEALTHY"]),
        ([(Q, Q, Q)], ["NODE_SEES_TOO_FEW"] * 3 + ["SIDE_UNHEALTHY"]),  # doubt is no reason to send traffic
        ([], ["NO_TARGET"]),
    ],
)
def test_refusals(targets: list[Sequence[Seen]], codes: list[str]) -> None:
    assert [finding.code for finding in plan(side(*targets)).refusals()] == codes


def test_a_refusal_names_the_node_the_target_and_what_to_do() -> None:
    ill = TargetView("1", "a:80", 1, {"1": H, "2": X, "3": H}, {"2": "connection refused"})
    (finding,) = plan(Side("green", "green", (ill,))).refusals()
    assert finding.node == "dp-2"
    assert finding.what == (
        "node dp-2 sees 0 of 1 targets of green healthy, 1 needed; a:80 is unhealthy: connection refused"
    )
    assert "pointsman upstream health green" in finding.remedy


def test_what_force_can_not_pass_over() -> None:
    held = plan(side((X, X, X)), held_by=4).refusals()
    assert [each.code for each in held if not each.overridable] == [Code.HELD_BY_ROLLOUT]
    (alone,) = plan(Side("g", "green", ()), nodes={}).refusals()
    assert (alone.code, alone.overridable) == (Code.NO_NODE, False)


def test_capacity_is_weight_that_can_take_traffic_against_weight_in_use() -> None:
    drawn = plan(side((H, H, H), (X, X, X), weight=50), gates=Gates(50.0, 1, 100.0))
    assert drawn.capacity_percent == 25.0
    assert [each.code for each in drawn.refusals()] == [Code.CAPACITY_TOO_SMALL]
    assert plan(side((H, H, H), weight=1)).refusals() == []


def test_more_is_asked_of_each_node_only_as_far_as_there_are_targets() -> None:
    assert plan(side((H, H, H)), gates=Gates(min_healthy_targets=5)).refusals() == []
    found = plan(side((H, H, X), (H, H, H)), gates=Gates(min_healthy_targets=2)).refusals()
    assert [each.node for each in found] == ["dp-3"]


def test_warnings_say_what_is_not_known() -> None:
    drawn = plan(side((U, U, U), (H, N, H)))
    assert [each.code for each in drawn.warnings()] == [Code.NOT_CHECKED, Code.NAME_NOT_RESOLVED]
    assert drawn.to_json()["ready"] is True


def test_nodes_at_other_control_planes_are_named_unless_they_were_asked() -> None:
    drawn = replace(plan(side((H, H, H))), elsewhere=tuple(f"dp-{number} at cp-2" for number in range(4, 11)))
    (found,) = drawn.warnings()
    assert found.code is Code.NODES_ELSEWHERE
    assert found.what.endswith(
        "new side: dp-4 at cp-2, dp-5 at cp-2, dp-6 at cp-2, dp-7 at cp-2, dp-8 at cp-2 and 2 more"
    )
    assert drawn.refusals() == []
    (nobody,) = replace(drawn, nodes={}).refusals()
    assert nobody.what == "no node is connected to this control plane, but to others: dp-4 at cp-2 for one"


def test_words_come_from_what_nodes_report() -> None:
    book = HealthBook()
    for node, state in (("1", AddressState.HEALTHY), ("2", AddressState.UNHEALTHY), ("3", AddressState.OFF)):
        address = AddressReport("10.0.0.1", 80, 100, state, 1, "tcp failure" if node == "2" else "")
        book.report(node, [TargetReport("u", "t", addresses=(address,))], full=True)
    book.report("4", [TargetReport("u", "t", error="NXDOMAIN")], full=True)
    nodes = ("1", "2", "3", "4", "5")
    view = target_view({"id": "t", "target": "a:80", "weight": 7}, book.verdict("u", "t", nodes), nodes)
    assert list(view.seen.values()) == [H, X, U, N, Q]
    assert view.why == {"2": "tcp failure", "4": "NXDOMAIN"}
    assert (view.weight, view.healthy) == (7, False)


def asked(policy: Policy, votes: Mapping[str, Voted]) -> Plan:
    """A plan whose nodes were asked; who has no vote is slow."""
    machine = Rollout.of(policy, NODES)
    machine.rehearsal = True
    machine.begin(list(NODES), 0.0)
    for node, vote in votes.items():
        machine.voted(node, 1, vote)
    machine.tick(policy.vote_by_s)
    return replace(plan(side((H, H, H))), rehearsed=rehearsed(7, machine, {"1": "10.0.0.1:80"}))


READY = Voted(Vote.READY, staged=True, took_s=0.1, upstreams=(UpstreamReport("u", 1, 1, 4),))
BLIND = Voted(
    Vote.REFUSE,
    staged=True,
    faults=(Fault("NO_HEALTHY_TARGET", message="none of its 1 targets can take traffic"),),
    upstreams=(UpstreamReport("u", 1, 0, 0, (("1", "10.0.0.1:80", "connection refused"),)),),
)


def test_what_nodes_answer_is_part_of_the_plan() -> None:
    drawn = asked(Policy(), {"1": READY, "2": READY, "3": READY})
    assert (drawn.refusals(), drawn.warnings()) == ([], [])
    told = drawn.to_json()["rehearsal"]
    assert isinstance(told, dict)
    assert (told["rollout"], told["would_decide"], told["reason"]) == (7, True, "")


def test_a_node_that_refuses_and_the_target_that_it_can_not_reach_are_named() -> None:
    drawn = asked(Policy(), {"1": READY, "2": BLIND, "3": READY})
    (refusal,) = drawn.refusals()
    assert (refusal.code, refusal.node, refusal.overridable) == (Code.NODE_REFUSES, "dp-2", False)
    assert refusal.what == "node dp-2 refuses to prepare it: none of its 1 targets can take traffic"
    (warning,) = drawn.warnings()
    assert (warning.code, warning.node, warning.target) == (Code.TARGET_UNREACHED, "dp-2", "10.0.0.1:80")
    assert warning.what == "node dp-2 can't reach target 10.0.0.1:80: connection refused"
    assert drawn.to_json()["ready"] is False


def test_a_node_that_says_nothing_counts_by_the_policy() -> None:
    enough = asked(Policy(need_percent=60), {"1": READY, "2": READY})
    assert enough.refusals() == []
    assert [(each.code, each.node) for each in enough.warnings()] == [(Code.NODE_SLOW, "dp-3")]
    (refusal,) = asked(Policy(), {"1": READY, "2": READY}).refusals()
    assert refusal.code is Code.WOULD_ABORT
    assert "2 of 3 nodes are ready, 3 are needed: dp-3 did not vote within 5 s" in refusal.what


def test_a_rollout_that_changes_the_new_side_is_told() -> None:
    (warning,) = replace(plan(side((H, H, H))), side_held_by=9).warnings()
    assert (warning.code, warning.what) == (
        Code.NEW_SIDE_CHANGES,
        "rollout 9 is about to change upstream green or its targets",
    )
