"""The canary machine: each way from its begin to its ends, then random histories against what must always hold."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from control_plane.fleet.rollout import Policy
from control_plane.store.contract import Origin, RolloutRecord
from control_plane.switching.acts import Act, Verb
from control_plane.switching.canary import (
    ATTEMPTS_MAX,
    RETRY_S,
    Canary,
    Course,
    Left,
    NotNow,
    Phase,
    Shift,
    TakeBack,
    course_shares,
)
from control_plane.switching.canary_record import Asked, from_record, record_of
from control_plane.switching.gates import Figure, Gate, Limits, Outcome, Verdict
from control_plane.switching.preflight import Move
from tests.support.examples import examples

SHARES = (500, 2500, 5000, 10_000)
GOOD, FEW, DOUBT = Verdict(Outcome.GOOD), Verdict(Outcome.TOO_FEW), Verdict(Outcome.DOUBT)
BAD = Verdict(Outcome.BROKEN, (Figure(Gate.ERRORS, Outcome.BROKEN, "shop", "dp-1", 0.5, 0.0, 0.01, 100),))


def canary(**course: object) -> Canary:
    return Canary.of(Course(SHARES, **course))  # type: ignore[arg-type]  # the fields that a test is about


def at_first_step(**course: object) -> Canary:
    made = canary(**course)
    made.written(10, 100, 0.0)
    return made


def test_time_and_good_gates_bring_it_through() -> None:
    made = at_first_step(every_s=30.0)
    for step in range(3):
        assert (made.phase, made.at, made.share) == (Phase.WATCHING, step, SHARES[step])
        now = 100.0 * step
        made.judged(GOOD, now + 29.9)
        assert made.phase is Phase.WATCHING
        made.judged(GOOD, now + 30.0)
        assert made.wish(now + 30) == Shift(step + 1, SHARES[step + 1])
        made.written(11 + step, 101 + step, now + 100)
    assert made.phase is Phase.SETTLING
    made.settled(True, "", 301.0)
    assert (made.phase, made.share, made.ended_at) == (Phase.CONFIRMED, 10_000, 301.0)
    assert [step.left for step in made.steps] == [Left.PASSED] * 3 + [None]


def test_without_a_time_each_step_waits_to_be_promoted() -> None:
    made = at_first_step()
    made.judged(GOOD, 1e9)
    assert made.waits_for_operator
    made.promote("ann", 1e9)
    assert made.wish(1e9) == Shift(1, 2500)


@pytest.mark.parametrize("doubtful", [FEW, DOUBT])
def test_too_few_requests_and_doubt_are_waited_out(doubtful: Verdict) -> None:
    made = at_first_step(every_s=30.0)
    made.judged(doubtful, 1e6)
    assert made.phase.value == "watching"
    made.judged(GOOD, 1e6)
    assert made.phase.value == "shifting"


def test_a_step_with_too_few_requests_may_go_on_after_a_time() -> None:
    made = at_first_step(every_s=30.0, pass_after_s=60.0)
    made.judged(FEW, 59.0)
    made.judged(DOUBT, 61.0)
    assert made.phase.value == "watching"
    made.judged(FEW, 61.0)
    assert (made.phase, made.steps[0].left) == (Phase.SHIFTING, Left.UNJUDGED)


def test_a_broken_gate_takes_all_traffic_back_and_says_why() -> None:
    made = at_first_step(every_s=30.0)
    made.judged(BAD, 5.0)
    assert made.wish(5.0) == TakeBack()
    assert made.reason == (
        "gate errors: shop on node dp-1: 50 % errors, the old side 0 % over 100 requests; the limit is 1 % more"
    )
    made.written(11, 101, 6.0)
    assert (made.phase, made.share) == (Phase.RETURNING, 0)
    made.settled(True, "", 7.0)
    assert (made.phase, made.breach, made.breach_at) == (Phase.UNDONE, BAD, 5.0)
    assert made.steps[0].left is Left.BROKEN


def test_a_held_canary_stands_and_is_still_watched() -> None:
    made = at_first_step(every_s=30.0)
    made.hold("ann")
    made.judged(GOOD, 1e6)
    assert (made.phase, made.held_by, made.due_at) == (Phase.WATCHING, "ann", None)
    made.judged(BAD, 1e6)
    assert made.phase is Phase.UNDOING


def test_promote_to_a_later_step_skips_those_between() -> None:
    made = at_first_step(every_s=30.0)
    made.hold("ann")
    made.promote("ann", 1.0, to=3)
    assert (made.held, made.wish(1.0)) == (False, Shift(3, 10_000))
    made.written(11, 101, 2.0)
    assert [step.left for step in made.steps] == [Left.PROMOTED, Left.SKIPPED, Left.SKIPPED, None]


def test_promote_while_a_step_is_on_its_way_is_done_after_it() -> None:
    made = canary(every_s=30.0)
    made.promote("ann", 0.0)
    assert made.wish(0.0) == Shift(0, 500)
    made.written(10, 100, 1.0)
    assert made.wish(1.0) == Shift(1, 2500)
    made.hold("bob")
    made.written(11, 101, 2.0)
    assert (made.phase, made.at, made.waits_for_operator) == (Phase.WATCHING, 1, True)


def test_what_comes_too_late_or_twice_is_refused_by_name() -> None:
    made = at_first_step(every_s=30.0)
    for to in (0, -1, 4):
        with pytest.raises(NotNow) as refused:
            made.promote("ann", 1.0, to=to)
        assert refused.value.code == "NO_SUCH_STEP"
    made.promote("ann", 1.0, to=3)
    with pytest.raises(NotNow) as refused:
        made.promote("ann", 1.0)
    assert refused.value.code == "LAST_STEP"
    with pytest.raises(NotNow) as refused:
        made.hold("ann")
    assert refused.value.code == "LAST_STEP"
    made.written(11, 101, 2.0)
    with pytest.raises(NotNow) as refused:
        made.abort("", "ann", 1.0)
    assert refused.value.code == "TOO_LATE"
    made = at_first_step()
    made.abort("slow", "ann", 1.0)
    with pytest.raises(NotNow) as refused:
        made.abort("", "bob", 1.0)
    assert refused.value.code == "GOING_BACK"
    with pytest.raises(NotNow) as refused:
        made.hold("bob")
    assert refused.value.code == "GOING_BACK"
    assert (made.reason, made.by) == ("slow", "ann")


def test_a_first_step_that_is_refused_ends_it_and_a_later_one_is_tried_again() -> None:
    made = canary()
    made.failed("dp-1 refused", 1.0)
    assert (made.phase, made.reason) == (Phase.ABORTED, "dp-1 refused")
    made = at_first_step()
    made.promote("ann", 1.0)
    for attempt in range(1, ATTEMPTS_MAX):
        made.failed("dp-1 refused", 10.0 * attempt)
        assert made.wish(10.0 * attempt) is None
        assert made.wish(10.0 * attempt + RETRY_S) == Shift(1, 2500)
    made.failed("dp-1 refused", 100.0)
    assert made.wish(100.0) == TakeBack()
    assert made.reason == "step 2 failed 3 times: dp-1 refused"
    made.failed("no node is live", 101.0)
    assert (made.wish(101.0), made.attempts) == (TakeBack(), 1)


def test_an_abort_before_anything_moved_ends_it_at_once() -> None:
    made = canary()
    made.abort("typing error", "ann", 1.0)
    assert (made.phase, made.wish(1.0)) == (Phase.ABORTED, None)


@pytest.mark.parametrize(
    ("percents", "expected"), [([5, 25, 100], (500, 2500, 10_000)), ([0.5], (50, 10_000)), ([100], (10_000,))]
)
def test_steps_end_with_all_requests(percents: list[float], expected: tuple[int, ...]) -> None:
    assert course_shares(percents) == expected


@pytest.mark.parametrize("percents", [[], [0], [101], [5, 5], [25, 5], [0.001], [-1]])
def test_steps_that_make_no_sense(percents: list[float]) -> None:
    with pytest.raises(ValueError, match="step"):
        course_shares(percents)


def kept(made: Canary) -> Canary:
    """Through the store's JSON and back, as after a kill."""
    act = Act(Verb.CANARY, (Move("1", "shop", "blue", "green"),), "green")
    asked = Asked(7, act, Origin(author="ann"), Policy(), {"on": "ip", "name": None}, 1.0)
    record = record_of(asked, made)
    found, again = from_record(RolloutRecord(record.number, record.state, json.loads(json.dumps(record.body))))
    assert found == dataclasses.replace(asked, origin=found.origin)
    return again


class AnyHistory(RuleBasedStateMachine):
    """A canary that is stored and read back between any two events, as it is."""

    @initialize(
        every_s=st.sampled_from([None, 5.0]), pass_after_s=st.sampled_from([None, 9.0]), steps=st.integers(1, 4)
    )
    def begin(self, every_s: float | None, pass_after_s: float | None, steps: int) -> None:
        limits = Limits(errors=0.0, latency_s=0.5)
        self.canary = Canary.of(Course(SHARES[-steps:], every_s, limits, 30.0, pass_after_s))
        self.now = 1000.0
        self.rollouts = 0
        self.seen: list[int] = []
        self.broken = False

    @rule(seconds=st.floats(0, 20, allow_nan=False), verdict=st.sampled_from([GOOD, FEW, DOUBT, BAD]))
    def time_passes(self, seconds: float, verdict: Verdict) -> None:
        self.now += seconds
        held, before, at = self.canary.waits_for_operator, self.canary.phase, self.canary.at
        self.canary.judged(verdict, self.now)
        if verdict is BAD and before in (Phase.WATCHING, Phase.SHIFTING) and at >= 0:
            assert self.canary.phase is Phase.UNDOING
            self.broken = True
        elif held or verdict is DOUBT:
            assert self.canary.phase is before

    @precondition(lambda self: self.canary.wish(self.now) is not None)
    @rule(by_rollout=st.booleans())
    def is_written(self, by_rollout: bool) -> None:
        wish = self.canary.wish(self.now)
        self.rollouts += 1
        self.canary.written(self.rollouts if by_rollout else None, 100 + self.rollouts, self.now)
        assert self.canary.share == (wish.share if isinstance(wish, Shift) else 0)
        assert not (self.broken and isinstance(wish, Shift)), "went on after a gate broke"

    @rule()
    def the_rollout_is_aborted(self) -> None:
        self.canary.failed("refused", self.now)

    @rule(whole=st.booleans())
    def the_nodes_have_said_so(self, whole: bool) -> None:
        self.canary.settled(whole, "" if whole else "dp-1 lags", self.now)

    @rule(what=st.sampled_from(["promote", "hold", "abort", "undo"]), to=st.sampled_from([None, 0, 1, 2, 3]))
    def an_operator_speaks(self, what: str, to: int | None) -> None:
        before = kept(self.canary)
        try:
            match what:
                case "promote":
                    self.canary.promote("ann", self.now, to=to)
                case "hold":
                    self.canary.hold("ann")
                case _:
                    self.canary.abort("", "ann", self.now, undo=what == "undo")
        except NotNow:
            assert self.canary == before, "refused, and changed all the same"

    @invariant()
    def the_store_has_all_of_it(self) -> None:
        again = kept(self.canary)
        assert again == self.canary
        self.canary = again

    @invariant()
    def the_share_only_grows_until_it_goes_back_for_good(self) -> None:
        share = self.canary.share
        if not self.seen or self.seen[-1] != share:
            self.seen.append(share)
        rising = self.seen[:-1] if self.seen[-1] == 0 and len(self.seen) > 1 else self.seen
        assert rising == sorted(set(rising)), self.seen

    @invariant()
    def an_end_is_an_end(self) -> None:
        if self.canary.phase.final:
            assert self.canary.ended_at is not None
            assert self.canary.wish(float("inf")) is None
            assert self.canary.share in (0, 10_000)
            assert (self.canary.share == 0) is self.canary.phase.back


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=examples(30), stateful_step_count=30, deadline=None)
