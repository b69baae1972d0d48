"""One rollout as a state machine, without clock or I/O: who prepares, whose votes count, what is decided, how it ends.

    preparing --all that count said ready--> deciding --committed--> decided --all run it--> confirmed
        |                                       | head moved: preparing again, without a new warm-up
        |                                       |                         `--time over--> partial
        `--refusal, too few, time over, operator`--the store refused--> aborted

There are two rules that everything else serves. Nothing is activated before the decision is on disk: `Activate` comes
out of `decided` and nowhere else. And there is no way back after it: an abort that comes later is refused, a node that
can't follow is named, and the outcome is `partial`. A node that is gone before the decision does not count any more; it
takes the head when it is back. Times are seconds of a monotonic clock that the caller reads.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from pointsman.snapshots import Fault


class State(StrEnum):
    """The values are the store's and the operator's."""

    QUEUED = "queued"  # another rollout is on its way
    PREPARING = "preparing"
    DECIDING = "deciding"
    DECIDED = "decided"
    CONFIRMED = "confirmed"
    PARTIAL = "partial"
    ABORTED = "aborted"

    @property
    def final(self) -> bool:
        return self in (State.CONFIRMED, State.PARTIAL, State.ABORTED)


class Vote(StrEnum):
    """A node's word on a prepare."""

    READY = "ready"
    READY_WARN = "ready_warn"
    REFUSE = "refuse"


class Reaction(StrEnum):
    """What a refusing or a slow node does to the rollout."""

    ABORT = "abort"
    PROCEED = "proceed"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a rollout asks of the fleet. All live nodes when it begins are asked."""

    need_percent: float = 100.0
    """Of the nodes that count, how many must be ready."""
    vote_by_s: float = 5.0
    """How long votes are waited for."""
    on_refuse: Reaction = Reaction.ABORT
    """A refusal ends the rollout, or the node just does not count as ready."""
    on_slow: Reaction = Reaction.PROCEED
    """When the time to vote is over: go on if enough are ready, or end it."""
    tolerate: frozenset[str] = frozenset()
    """Codes of faults that make no refusal of a node that has everything staged, NO_HEALTHY_TARGET for example."""
    min_healthy_percent: float = 75.0
    """Of each upstream that gets traffic, how many targets must be healthy, over the nodes that are ready."""
    confirm_by_s: float = 5.0
    """How long after the instant nodes are waited for."""
    hold_s: float = 60.0
    """How long nodes keep what is staged when they hear no more."""
    connections_per_target: int = 32
    """Opened beforehand to each target that gets traffic, by the whole fleet."""


@dataclass(frozen=True, slots=True)
class UpstreamReport:
    """What a node said of an upstream that gets traffic; `failures` = (target id, address, error)."""

    upstream: str
    targets: int
    healthy: int
    connections: int
    failures: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Voted:
    """A vote with what it is founded on."""

    vote: Vote
    staged: bool
    took_s: float = 0.0
    clock_error_us: int = 0
    faults: tuple[Fault, ...] = ()
    upstreams: tuple[UpstreamReport, ...] = ()


@dataclass(frozen=True, slots=True)
class ActivationReport:
    """A node's word that it swapped: when by the plane's clock, and how late each worker was.

    `ahead_us` is how long before the instant the last worker was armed; 0 = too late.
    """

    at_plane_ns: int
    late_us: tuple[int, ...]
    clock_error_us: int
    ahead_us: int = 0


class Standing(StrEnum):
    """Where one node is in the rollout."""

    BEHIND = "behind"  # does not yet run what the rollout begins at
    ASKED = "asked"
    READY = "ready"
    REFUSED = "refused"
    SLOW = "slow"  # did not vote in time
    GONE = "gone"  # before the decision: does not count
    ARMED = "armed"
    ACTIVATED = "activated"  # at the instant
    FOLLOWED = "followed"  # took the version as its head, later
    LAGGING = "lagging"  # the time to confirm is over
    RELEASED = "released"  # the rollout was aborted


@dataclass(slots=True)
class Member:
    """One node that was live when the rollout began."""

    id: str
    hostname: str
    standing: Standing = Standing.BEHIND
    vote: Voted | None = None
    round: int = 0
    activation: ActivationReport | None = None
    reason: str = ""
    first_new_us: int | None = None
    """When it served the first answer of an upstream that gets traffic, after the instant; None = not known."""
    last_old_us: int | None = None
    """When the last answer of one that loses it began; before the instant it is negative."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Ask these nodes to prepare. `warm` only in the first round."""

    round: int
    nodes: tuple[str, ...]
    warm: bool


@dataclass(frozen=True, slots=True)
class Decide:
    """Commit the change as the next version, with the decision; answer by `decided`, `moved` or `not_decided`."""


@dataclass(frozen=True, slots=True)
class Activate:
    """The decision is on disk: these nodes are to activate it."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Abort:
    """Tell these nodes to let go."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Release:
    """These nodes take part no longer: they are offered the head as any other."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finish:
    """The rollout has come to its end."""

    state: State


Action = Prepare | Decide | Activate | Abort | Release | Finish

NO_NODE = "no node is connected to this control plane"
ROUNDS_MAX = 8
"""Times the change is rebased on a head that moved before the rollout gives up."""
ARMING_S_MAX = 0.3
"""What slow nodes may add to the lead: a rollout must not wait for ever longer because some host has no time for it."""
_COUNTED = (Standing.BEHIND, Standing.ASKED, Standing.READY, Standing.REFUSED, Standing.SLOW)
_LEFT_OUT = (Standing.GONE, Standing.FOLLOWED, Standing.ACTIVATED)


@dataclass(slots=True)
class Rollout:
    """Events return the actions to take, in order. After the end every event is without effect."""

    policy: Policy
    members: dict[str, Member]
    state: State = State.QUEUED
    reason: str = ""
    by: str = ""
    round: int = 0
    version: int | None = None
    due: float | None = None
    """When `tick` must be called at the latest."""
    rehearsal: bool = False
    """It asks every node and decides nothing: it ends as aborted once the votes are in."""
    would_decide: bool = False
    """Of a rehearsal that has ended: whether the votes were enough."""

    @classmethod
    def of(cls, policy: Policy, nodes: Mapping[str, str]) -> Rollout:
        """Of the nodes that are live now, host names by id."""
        return cls(policy, {node: Member(node, hostname) for node, hostname in nodes.items()})

    def begin(self, at_base: Collection[str], now: float) -> list[Action]:
        """The base is published; the nodes in `at_base` run it."""
        assert self.state is State.QUEUED
        self.state = State.PREPARING
        self.round = 1
        self.due = now + self.policy.vote_by_s
        if not self.members:
            return self._abort(NO_NODE, "")
        return self._ask([node for node in self.members if node in at_base])

    def at_base(self, node: str) -> list[Action]:
        """The node runs what the rollout begins at."""
        member = self.members.get(node)
        if self.state is not State.PREPARING or member is None or member.standing is not Standing.BEHIND:
            return []
        return self._ask([node])

    def voted(self, node: str, round_number: int, vote: Voted) -> list[Action]:
        """A node's word; one of an earlier round, or said twice, has no effect."""
        member = self.members.get(node)
        if self.state is not State.PREPARING or member is None or round_number != self.round:
            return []
        if member.standing is not Standing.ASKED:
            return []
        if self.round > 1 and member.vote is not None and not vote.upstreams:
            vote = Voted(vote.vote, vote.staged, vote.took_s, vote.clock_error_us, vote.faults, member.vote.upstreams)
        member.vote, member.round = vote, round_number
        codes = {fault.code for fault in vote.faults}
        if vote.vote is Vote.REFUSE and not is_tolerated(codes, staged=vote.staged, tolerate=self.policy.tolerate):
            member.standing = Standing.REFUSED
            member.reason = vote.faults[0].message if vote.faults else "refused"
            if self.policy.on_refuse is Reaction.ABORT and not self.rehearsal:
                return self._abort(f"{member.hostname} refused: {member.reason}", "")
        else:
            member.standing = Standing.READY
        return self._weigh()

    def gone(self, node: str, reason: str = "") -> list[Action]:
        """The node's stream is over."""
        member = self.members.get(node)
        if member is None or self.state.final or self.state is State.QUEUED:
            return []
        if self.state is State.DECIDED:
            member.reason = member.reason or reason or "its connection was lost"
            return []
        if member.standing is Standing.GONE:
            return []
        member.standing = Standing.GONE
        member.reason = reason or "its connection was lost before the decision"
        return [Release((node,)), *(self._weigh() if self.state is State.PREPARING else [])]

    def moved(self, now: float) -> list[Action]:
        """The head is another than the one that was prepared: once more, from the new one."""
        assert self.state is State.DECIDING
        if self.round >= ROUNDS_MAX:
            return self._abort(f"the configuration changed {ROUNDS_MAX} times meanwhile; try again", "")
        self.state = State.PREPARING
        self.round += 1
        self.due = now + self.policy.vote_by_s
        return self._ask([node for node, member in self.members.items() if member.standing is Standing.READY])

    def not_decided(self, reason: str) -> list[Action]:
        """The store did not take the change."""
        return self._abort(reason, "") if self.state is State.DECIDING else []

    def decided(self, version: int, now: float, *, lead_s: float) -> list[Action]:
        """The change is on disk as `version`, the instant is `lead_s` from now."""
        assert self.state is State.DECIDING
        self.state = State.DECIDED
        self.version = version
        self.due = now + lead_s + self.policy.confirm_by_s
        armed = tuple(node for node, member in self.members.items() if member.standing is Standing.READY)
        for node in armed:
            self.members[node].standing = Standing.ARMED
        return [Activate(armed), *self._confirm()]

    def activated(self, node: str, report: ActivationReport) -> list[Action]:
        """The node swapped. Of one that was taken to have followed it is evidence still, and changes no outcome."""
        member = self.members.get(node)
        if member is not None and member.standing is Standing.FOLLOWED and member.activation is None:
            member.standing = Standing.ACTIVATED
            member.activation = report
            return []
        if self.state is not State.DECIDED or member is None or member.standing in (Standing.ACTIVATED, Standing.GONE):
            return []
        member.standing = Standing.ACTIVATED
        member.activation = report
        member.reason = ""
        return [Release((node,)), *self._confirm()]

    def not_activated(self, node: str, reason: str) -> list[Action]:
        """The node could not; it is offered the version like any other."""
        member = self.members.get(node)
        if self.state is not State.DECIDED or member is None or member.standing is not Standing.ARMED:
            return []
        member.reason = reason
        return [Release((node,))]

    def runs(self, node: str, version: int) -> list[Action]:
        """The node says that it runs a version of this history."""
        member = self.members.get(node)
        if self.state is not State.DECIDED or member is None or self.version is None or version < self.version:
            return []
        if member.standing in _LEFT_OUT:
            return []
        if member.standing is Standing.ARMED and not member.reason:
            return []  # its own report of the activation says more and is on its way, or the time will be over
        member.standing = Standing.FOLLOWED
        return [Release((node,)), *self._confirm()]

    def abort(self, reason: str, by: str) -> list[Action]:
        """An operator's word. Raises TooLate once the decision has fallen or is falling."""
        if self.state not in (State.QUEUED, State.PREPARING):
            raise TooLate(self.state)
        return self._abort(reason or "aborted", by)

    def tick(self, now: float, *, running: Mapping[str, int] | None = None) -> list[Action]:
        """Time has passed. `running` = versions that the members say they run, for the last judgement."""
        if self.due is None or now < self.due or self.state.final:
            return []
        if self.state is State.PREPARING:
            return self._votes_over()
        if self.state is State.DECIDED:
            return self._confirm_over(running or {})
        return []

    # --- within -----------------------------------------------------------------------------------------------------

    def _ask(self, nodes: Iterable[str]) -> list[Action]:
        asked = tuple(nodes)
        for node in asked:
            self.members[node].standing = Standing.ASKED
        return [Prepare(self.round, asked, warm=self.round == 1)] if asked else []

    def _weigh(self) -> list[Action]:
        """Decide when nobody is waited for any more."""
        if any(member.standing in (Standing.BEHIND, Standing.ASKED) for member in self.members.values()):
            return []
        return self._judge()

    def _votes_over(self) -> list[Action]:
        late = [m for m in self.members.values() if m.standing in (Standing.BEHIND, Standing.ASKED)]
        for member in late:
            member.reason = (
                "did not reach the version that the rollout begins at"
                if member.standing is Standing.BEHIND
                else f"did not vote within {self.policy.vote_by_s:g} s"
            )
            member.standing = Standing.SLOW
        if late and self.policy.on_slow is Reaction.ABORT:
            return self._abort(f"{late[0].hostname} {late[0].reason}", "")
        return self._judge()

    def _judge(self) -> list[Action]:
        counted = [member for member in self.members.values() if member.standing in _COUNTED]
        ready = [member for member in counted if member.standing is Standing.READY]
        if (why := self._against(counted, ready)) is not None:
            return self._abort(why, "")
        if self.rehearsal:
            self.would_decide = True
            return self._abort("rehearsed: enough nodes are ready, and nothing was to change", "")
        self.state = State.DECIDING
        self.due = None
        left_out = tuple(member.id for member in counted if member.standing is not Standing.READY)
        return [*([Abort(left_out)] if left_out else []), Decide()]

    def _against(self, counted: Sequence[Member], ready: Sequence[Member]) -> str | None:
        """Why it can't be decided with these votes; None = it can."""
        refused = next((member for member in counted if member.standing is Standing.REFUSED), None)
        if refused is not None and self.policy.on_refuse is Reaction.ABORT:
            return f"{refused.hostname} refused: {refused.reason}"
        if not ready:
            return _first_reason(self.members.values()) or "no node is ready"
        need = math.ceil(len(counted) * self.policy.need_percent / 100 - 1e-9)
        if len(ready) < need:
            why = _first_reason(counted)
            return f"{len(ready)} of {len(counted)} nodes are ready, {need} are needed: {why}"
        return self._unhealthy(ready)

    def _unhealthy(self, ready: Sequence[Member]) -> str | None:
        """The upstream that too few targets of are healthy, in words. All nodes that are ready say so together."""
        if "NO_HEALTHY_TARGET" in self.policy.tolerate:
            return None
        sums: dict[str, list[int]] = {}
        for member in ready:
            for report in member.vote.upstreams if member.vote is not None else ():
                total = sums.setdefault(report.upstream, [0, 0])
                total[0] += report.healthy
                total[1] += report.targets
        for upstream, (healthy, targets) in sums.items():
            percent = 100.0 * healthy / targets if targets else 0.0
            if percent < self.policy.min_healthy_percent:
                need = f"{self.policy.min_healthy_percent:g} % are needed"
                return f"upstream {upstream}: {percent:.0f} % of its targets are healthy, {need}"
        return None

    def _confirm(self) -> list[Action]:
        waiting = any(
            member.standing not in (Standing.ACTIVATED, Standing.FOLLOWED, Standing.GONE)
            for member in self.members.values()
        )
        return [] if waiting else self._finish(State.CONFIRMED)

    def _confirm_over(self, running: Mapping[str, int]) -> list[Action]:
        assert self.version is not None
        lagging = []
        for member in self.members.values():
            if member.standing in _LEFT_OUT:
                continue
            if running.get(member.id, 0) >= self.version:
                member.standing = Standing.FOLLOWED
                continue
            member.standing = Standing.LAGGING
            member.reason = member.reason or "has not said that it runs the version"
            lagging.append(member)
        if not lagging:
            return self._finish(State.CONFIRMED)
        self.reason = f"{lagging[0].hostname} {lagging[0].reason}"
        return self._finish(State.PARTIAL)

    def _abort(self, reason: str, by: str) -> list[Action]:
        self.reason, self.by = reason, by
        told = tuple(node for node, member in self.members.items() if member.standing is not Standing.GONE)
        for member in self.members.values():
            if member.standing in (Standing.BEHIND, Standing.ASKED, Standing.READY):
                member.standing = Standing.RELEASED
        return [Abort(told), *self._finish(State.ABORTED)]

    def _finish(self, state: State) -> list[Action]:
        self.state = state
        self.due = None
        return [Release(tuple(self.members)), Finish(state)]


class TooLate(Exception):
    """The decision has fallen or is falling; what comes now can't stop it."""

    def __init__(self, state: State) -> None:
        super().__init__(f"the rollout is {state} already; undo it by another one")
        self.state = state


def is_tolerated(codes: Set[str], *, staged: bool, tolerate: Set[str]) -> bool:
    """Tell whether a node that refuses for faults of these codes counts as ready; it must have staged the change."""
    return staged and bool(codes) and codes <= tolerate


def arming_s(lead: float, aheads_us: Collection[int]) -> float:
    """How long it took until every node had armed its workers, the slowest in a hundred left out. `lead` in seconds."""
    slowest = sorted(aheads_us)
    return max(0.0, lead - slowest[len(slowest) // 100] / 1e6) if slowest else 0.0


def lead_s(*, nodes: int, clock_errors_us: Sequence[int], armings_s: Collection[float] = ()) -> float:
    """From the decision to the instant: time for the word to reach every worker.

    By what the nodes know of the way, and by how long it took in the rollouts before, `armings_s`, the worst of which
    is left out: one bad moment does not make all that follow slow.
    """
    errors = sorted(clock_errors_us)
    p99_us = errors[min(len(errors) - 1, int(len(errors) * 0.99))] if errors else 0
    round_trip_s = 2 * p99_us / 1e6
    usual_s = sorted(armings_s)[-2] if len(armings_s) > 1 else 0.0
    return min(2.0, max(0.050, 2 * round_trip_s, 0.0006 * nodes, min(ARMING_S_MAX, 1.5 * usual_s)))


def _first_reason(members: Iterable[Member]) -> str:
    return next((f"{member.hostname} {member.reason}" for member in members if member.reason), "")
