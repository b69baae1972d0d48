"""Goal: what each event does to a rollout, by the written policy. Method: the machine alone, times made up."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from control_plane.fleet.rollout import (
    ROUNDS_MAX,
    Abort,
    Action,
    Activate,
    ActivationReport,
    Decide,
    Finish,
    Policy,
    Prepare,
    Reaction,
    Release,
    Rollout,
    Standing,
    State,
    TooLate,
    UpstreamReport,
    Vote,
    Voted,
    arming_s,
    lead_s,
)
from pointsman.snapshots import Fault

NODES = {"a": "host-a", "b": "host-b", "c": "host-c"}
READY = Voted(Vote.READY, staged=True)
REFUSED = Voted(Vote.REFUSE, staged=False, faults=(Fault("BAD_REGEX", message="no valid regex"),))
REPORT = ActivationReport(1, (10,), 5)


def begun(policy: Policy | None = None, at_base: Sequence[str] = tuple(NODES)) -> Rollout:
    rollout = Rollout.of(policy or Policy(), NODES)
    actions = rollout.begin(at_base, 0.0)
    assert actions == ([Prepare(1, tuple(at_base), warm=True)] if at_base else [])
    return rollout


def deciding(policy: Policy | None = None) -> Rollout:
    rollout = begun(policy)
    rollout.voted("a", 1, READY)
    rollout.voted("b", 1, READY)
    assert rollout.voted("c", 1, READY) == [Decide()]
    return rollout


def decided(policy: Policy | None = None) -> Rollout:
    rollout = deciding(policy)
    assert rollout.decided(7, 1.0, lead_s=0.05) == [Activate(tuple(NODES))]
    return rollout


def kinds(actions: Sequence[Action]) -> list[type]:
    return [type(action) for action in actions]


def test_all_ready_all_activated_is_confirmed() -> None:
    rollout = decided()
    assert rollout.activated("a", REPORT) == [Release(("a",))]
    assert rollout.activated("b", REPORT) == [Release(("b",))]
    assert rollout.activated("c", REPORT) == [Release(("c",)), Release(tuple(NODES)), Finish(State.CONFIRMED)]
    assert rollout.state is State.CONFIRMED
    assert rollout.version == 7


def test_a_refusal_ends_it_and_says_who_and_why() -> None:
    rollout = begun()
    rollout.voted("a", 1, READY)
    actions = rollout.voted("b", 1, REFUSED)
    assert kinds(actions) == [Abort, Release, Finish]
    assert (rollout.state, rollout.reason) == (State.ABORTED, "host-b refused: no valid regex")
    assert rollout.voted("c", 1, READY) == []


def test_a_refusal_may_be_put_up_with() -> None:
    rollout = begun(Policy(on_refuse=Reaction.PROCEED, need_percent=60))
    rollout.voted("a", 1, READY)
    assert rollout.voted("b", 1, REFUSED) == []
    assert rollout.voted("c", 1, READY) == [Abort(("b",)), Decide()]
    rollout.decided(7, 1.0, lead_s=0.05)
    rollout.activated("a", REPORT)
    rollout.activated("c", REPORT)
    assert rollout.state is State.DECIDED
    assert Finish(State.CONFIRMED) in rollout.runs("b", 8)
    assert rollout.members["b"].standing is Standing.FOLLOWED


def test_a_tolerated_fault_of_a_node_that_has_it_staged_is_no_refusal() -> None:
    fault = Fault("NO_HEALTHY_TARGET", message="none")
    rollout = begun(Policy(tolerate=frozenset({"NO_HEALTHY_TARGET"})))
    rollout.voted("a", 1, Voted(Vote.REFUSE, staged=True, faults=(fault,)))
    rollout.voted("b", 1, READY)
    assert rollout.voted("c", 1, READY) == [Decide()]
    rollout = begun(Policy(tolerate=frozenset({"BAD_REGEX"})))
    rollout.voted("a", 1, REFUSED)
    assert rollout.state is State.ABORTED, "nothing is staged there"


def test_a_slow_node_ends_it_where_all_are_needed() -> None:
    rollout = begun()
    rollout.voted("a", 1, READY)
    rollout.voted("b", 1, READY)
    assert rollout.tick(4.9) == []
    assert kinds(rollout.tick(5.0)) == [Abort, Release, Finish]
    assert rollout.reason == "2 of 3 nodes are ready, 3 are needed: host-c did not vote within 5 s"


def test_a_slow_node_is_left_behind_where_fewer_are_needed() -> None:
    rollout = begun(Policy(need_percent=50))
    rollout.voted("a", 1, READY)
    rollout.voted("b", 1, READY)
    assert rollout.tick(5.0) == [Abort(("c",)), Decide()]
    rollout.decided(7, 5.1, lead_s=0.05)
    rollout.activated("a", REPORT)
    rollout.activated("b", REPORT)
    assert rollout.due == pytest.approx(5.1 + 0.05 + 5)
    assert kinds(rollout.tick(11.0, running={"c": 6})) == [Release, Finish]
    assert rollout.state is State.PARTIAL
    assert rollout.members["c"].standing is Standing.LAGGING


def test_a_node_that_is_gone_before_the_decision_does_not_count() -> None:
    rollout = begun()
    rollout.voted("a", 1, READY)
    rollout.voted("b", 1, READY)
    assert rollout.gone("c") == [Release(("c",)), Decide()]
    assert rollout.decided(7, 1.0, lead_s=0.05) == [Activate(("a", "b"))]


def test_a_node_that_is_gone_after_the_decision_must_follow() -> None:
    rollout = decided()
    rollout.activated("a", REPORT)
    rollout.activated("b", REPORT)
    assert rollout.gone("c") == []
    assert Finish(State.CONFIRMED) in rollout.runs("c", 7)
    rollout = decided()
    rollout.activated("a", REPORT)
    rollout.activated("b", REPORT)
    rollout.gone("c", "its connection was lost")
    rollout.tick(100.0)
    assert (rollout.state, rollout.reason) == (State.PARTIAL, "host-c its connection was lost")


def test_without_a_live_node_nothing_is_decided() -> None:
    rollout = Rollout.of(Policy(), {})
    assert Finish(State.ABORTED) in rollout.begin((), 0.0)
    assert rollout.reason == "no node is connected to this control plane"


def test_a_node_behind_is_asked_when_it_has_caught_up() -> None:
    rollout = begun(at_base=("a",))
    assert rollout.at_base("b") == [Prepare(1, ("b",), warm=True)]
    assert rollout.at_base("b") == []


def test_too_few_healthy_targets_over_the_fleet() -> None:
    rollout = begun()
    sick = Voted(Vote.READY_WARN, staged=True, upstreams=(UpstreamReport("green", 4, 2, 0),))
    rollout.voted("a", 1, sick)
    rollout.voted("b", 1, sick)
    rollout.voted("c", 1, sick)
    assert rollout.state is State.ABORTED
    assert rollout.reason == "upstream green: 50 % of its targets are healthy, 75 % are needed"


def test_a_head_that_moved_brings_another_round_without_a_warm_up() -> None:
    rollout = deciding()
    assert rollout.moved(2.0) == [Prepare(2, tuple(NODES), warm=False)]
    assert rollout.voted("a", 1, READY) == [], "a vote of the round before"
    rollout.voted("a", 2, READY)
    rollout.voted("b", 2, READY)
    assert rollout.voted("c", 2, READY) == [Decide()]


def test_a_head_that_never_rests_ends_it() -> None:
    rollout = deciding()
    for round_number in range(2, ROUNDS_MAX + 1):
        rollout.moved(0.0)
        for node in NODES:
            rollout.voted(node, round_number, READY)
    assert kinds(rollout.moved(0.0)) == [Abort, Release, Finish]


def test_a_store_that_refuses_ends_it() -> None:
    rollout = deciding()
    assert kinds(rollout.not_decided("the disk is full")) == [Abort, Release, Finish]
    assert (rollout.state, rollout.reason) == (State.ABORTED, "the disk is full")


def test_an_operator_can_stop_it_until_the_decision() -> None:
    rollout = begun()
    assert kinds(rollout.abort("changed my mind", "ann")) == [Abort, Release, Finish]
    assert (rollout.reason, rollout.by) == ("changed my mind", "ann")
    for later in (deciding(), decided(), rollout):
        with pytest.raises(TooLate):
            later.abort("", "")


def test_a_rehearsal_hears_everyone_and_decides_nothing() -> None:
    willing = begun()
    willing.rehearsal = True
    willing.voted("a", 1, READY)
    willing.voted("b", 1, READY)
    assert kinds(willing.voted("c", 1, READY)) == [Abort, Release, Finish]
    assert (willing.state, willing.would_decide, willing.version) == (State.ABORTED, True, None)

    doubtful = begun()
    doubtful.rehearsal = True
    assert doubtful.voted("b", 1, REFUSED) == []  # the others are heard, too
    doubtful.voted("a", 1, READY)
    assert kinds(doubtful.voted("c", 1, READY)) == [Abort, Release, Finish]
    assert (doubtful.would_decide, doubtful.reason) == (False, "host-b refused: no valid regex")

    slow = begun(Policy(need_percent=60))
    slow.rehearsal = True
    slow.voted("a", 1, READY)
    slow.voted("b", 1, READY)
    assert kinds(slow.tick(5.0)) == [Abort, Release, Finish]
    assert slow.would_decide
    assert slow.members["c"].reason == "did not vote within 5 s"


def test_a_node_that_could_not_activate_takes_the_head() -> None:
    rollout = decided()
    rollout.activated("a", REPORT)
    rollout.activated("b", REPORT)
    assert rollout.runs("c", 7) == [], "its own word on the activation says more"
    assert rollout.not_activated("c", "let go of it") == [Release(("c",))]
    assert Finish(State.CONFIRMED) in rollout.runs("c", 7)


def test_the_lead_is_long_enough_for_the_way() -> None:
    assert lead_s(nodes=3, clock_errors_us=[200, 300]) == pytest.approx(0.05)
    assert lead_s(nodes=1000, clock_errors_us=[200]) == pytest.approx(0.6)
    assert lead_s(nodes=3, clock_errors_us=[40_000] * 3) == pytest.approx(0.16)
    assert lead_s(nodes=3, clock_errors_us=[4_000_000]) == pytest.approx(2.0)


def test_what_a_node_says_of_its_activation_is_kept_though_it_was_taken_to_have_followed() -> None:
    """On a new connection it says what it runs first, and that ends the rollout when it was the last."""
    rollout = decided()
    for node in ("a", "b"):
        rollout.activated(node, REPORT)
    rollout.gone("c", "its connection was lost")
    assert Finish(State.CONFIRMED) in rollout.runs("c", 7)
    assert rollout.activated("c", REPORT) == []
    assert (rollout.members["c"].standing, rollout.members["c"].activation) == (Standing.ACTIVATED, REPORT)
    assert rollout.state is State.CONFIRMED


def test_the_lead_follows_how_long_nodes_took_to_arm_but_for_the_worst_time() -> None:
    assert arming_s(0.05, [45_000, 20_000, 48_000]) == pytest.approx(0.03)
    assert arming_s(0.05, [0, 48_000]) == pytest.approx(0.05), "armed after the instant: all of the lead was needed"
    assert arming_s(0.05, [0] + [40_000] * 199) == pytest.approx(0.01), "one in a hundred does not count"
    assert arming_s(0.05, []) == 0.0
    assert lead_s(nodes=3, clock_errors_us=[200], armings_s=[0.01] * 20) == pytest.approx(0.05)
    assert lead_s(nodes=3, clock_errors_us=[200], armings_s=[0.01] * 19 + [2.0]) == pytest.approx(0.05)
    assert lead_s(nodes=3, clock_errors_us=[200], armings_s=[0.01] * 18 + [0.06, 2.0]) == pytest.approx(0.09)
    assert lead_s(nodes=3, clock_errors_us=[200], armings_s=[2.0, 2.0]) == pytest.approx(0.3)
