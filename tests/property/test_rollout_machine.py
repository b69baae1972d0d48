"""Goal: no history of events breaks a rollout's promises. Method: hypothesis drives the machine as any fleet could.

Never `Activate` before a decision, and only for nodes whose last vote was for it; one decision at most; nothing after
the end; after an abort no node is armed; and every history comes to an end when time passes.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from control_plane.fleet.rollout import (
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
)
from pointsman.snapshots import Fault
from tests.support.examples import examples

NODES = {name: f"host-{name}" for name in "abcd"}
names = st.sampled_from(sorted(NODES))
votes = st.builds(
    Voted,
    st.sampled_from(Vote),
    staged=st.booleans(),
    faults=st.sampled_from([(), (Fault("NO_HEALTHY_TARGET", message="none"),), (Fault("BAD", message="bad"),)]),
    upstreams=st.sampled_from([(), (UpstreamReport("u", 4, 4, 1),), (UpstreamReport("u", 4, 1, 1),)]),
)
policies = st.builds(
    Policy,
    need_percent=st.sampled_from([1.0, 50.0, 75.0, 100.0]),
    on_refuse=st.sampled_from(Reaction),
    on_slow=st.sampled_from(Reaction),
    tolerate=st.sampled_from([frozenset(), frozenset({"NO_HEALTHY_TARGET"})]),
)


class AnyHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.rollout: Rollout | None = None
        self.durable = False
        self.asked: dict[str, int] = {}
        self.finished: list[State] = []
        self.deciding = False

    def take(self, actions: list[Action]) -> None:
        assert self.rollout is not None
        for action in actions:
            assert not self.finished or isinstance(action, Finish), "something after the end"
            match action:
                case Prepare():
                    assert not self.durable
                    for node in action.nodes:
                        assert self.asked.get(node, 0) < action.round, "asked twice in one round"
                        self.asked[node] = action.round
                case Decide():
                    assert not self.durable
                    assert not self.deciding
                    self.deciding = True
                case Activate():
                    assert self.durable, "an activation before the decision is on disk"
                    for node in action.nodes:
                        member = self.rollout.members[node]
                        assert member.vote is not None
                        assert member.vote.staged or member.vote.vote is not Vote.REFUSE
                        assert member.round == self.rollout.round
                case Finish():
                    self.finished.append(action.state)
                case Abort() | Release():
                    pass

    @rule(policy=policies, at_base=st.sets(names))
    @precondition(lambda self: self.rollout is None)
    def begin(self, policy: Policy, at_base: set[str]) -> None:
        self.rollout = Rollout.of(policy, NODES)
        self.take(self.rollout.begin(at_base, self.now))

    @rule(node=names)
    @precondition(lambda self: self.rollout is not None)
    def caught_up(self, node: str) -> None:
        assert self.rollout is not None
        self.take(self.rollout.at_base(node))

    @rule(node=names, back=st.integers(0, 1), vote=votes)
    @precondition(lambda self: self.rollout is not None)
    def vote(self, node: str, back: int, vote: Voted) -> None:
        assert self.rollout is not None
        self.take(self.rollout.voted(node, self.rollout.round - back, vote))

    @rule(node=names)
    @precondition(lambda self: self.rollout is not None)
    def gone(self, node: str) -> None:
        assert self.rollout is not None
        self.take(self.rollout.gone(node))

    @rule(how=st.sampled_from(["committed", "moved", "refused"]))
    @precondition(lambda self: self.deciding)
    def store_answers(self, how: str) -> None:
        assert self.rollout is not None
        self.deciding = False
        if how == "committed":
            self.durable = True
            self.take(self.rollout.decided(5, self.now, lead_s=0.05))
        elif how == "moved":
            self.take(self.rollout.moved(self.now))
        else:
            self.take(self.rollout.not_decided("no"))

    @rule(node=names)
    @precondition(lambda self: self.rollout is not None)
    def activated(self, node: str) -> None:
        assert self.rollout is not None
        self.take(self.rollout.activated(node, ActivationReport(1, (1,), 1)))

    @rule(node=names)
    @precondition(lambda self: self.rollout is not None)
    def could_not(self, node: str) -> None:
        assert self.rollout is not None
        self.take(self.rollout.not_activated(node, "could not"))

    @rule(node=names, version=st.integers(3, 7))
    @precondition(lambda self: self.rollout is not None)
    def runs(self, node: str, version: int) -> None:
        assert self.rollout is not None
        self.take(self.rollout.runs(node, version))

    @rule()
    @precondition(lambda self: self.rollout is not None)
    def abort(self) -> None:
        assert self.rollout is not None
        try:
            self.take(self.rollout.abort("enough", "ann"))
        except TooLate:
            assert self.deciding or self.durable or self.finished

    @rule(seconds=st.floats(0.0, 20.0))
    @precondition(lambda self: self.rollout is not None)
    def time_passes(self, seconds: float) -> None:
        assert self.rollout is not None
        self.now += seconds
        self.take(self.rollout.tick(self.now))

    @invariant()
    def the_end_is_one_and_follows_the_decision(self) -> None:
        if self.rollout is None:
            return
        assert len(self.finished) <= 1
        assert self.rollout.state.final == bool(self.finished)
        if self.finished:
            assert (self.finished[0] is State.ABORTED) != self.durable, "aborted means: nobody runs it"
        if not self.durable:
            standings = {member.standing for member in self.rollout.members.values()}
            assert not standings & {Standing.ARMED, Standing.ACTIVATED, Standing.FOLLOWED}

    @override
    def teardown(self) -> None:
        """Whatever has happened: with an answer of the store and time, there is an end."""
        if self.rollout is None:
            return
        if self.deciding:
            self.store_answers("committed")
        for _ in range(3):
            self.now += 100.0
            self.take(self.rollout.tick(self.now))
            if self.deciding:
                self.store_answers("committed")
        assert self.rollout.state.final


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=examples(30), stateful_step_count=30, deadline=None)
