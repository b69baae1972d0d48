"""This node's side of the snapshot conversation, without any I/O.

    resting --offer--> Pulling --pulled--> Applying --applied--> resting
       |                  `-----refused-------`-------refused------^
       |--delta--> Pulling (made here, in no time; if it can't be, the whole is asked for)
       `--offer with the content that runs already--> Applying

One snapshot is in work at a time and at most one offer waits behind it: a newer offer replaces the one that waits,
because a node needs the latest snapshot and not all of them. What is in work is never given up for a newer offer:
under continuous writes a node that did so would pull forever and never serve any of it.

A refused snapshot is remembered by its ref. When the control plane offers it again (it forgot, by a restart) the node
repeats its refusal without pulling: the same bytes could only produce the same answer. The next version gives both
sides a new chance. ``intake.py`` feeds events in and does what comes out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from data_plane.node.outcomes import Refused
from data_plane.node.snapshot import Delta, Offer
from pointsman.snapshots import NOTHING, Fault, SnapshotRef, Stage

REFUSALS_KEPT = 16
"""Refusals remembered, newest kept. A control plane offers its head only, so one would nearly do."""


@dataclass(frozen=True, slots=True)
class StartPull:
    """Fetch and verify `offer`; answer with `pulled`, `pull_refused` or `pull_gone`."""

    offer: Offer


@dataclass(frozen=True, slots=True)
class StartMake:
    """Make the snapshot of `delta` and verify it; answer with `pulled` or `delta_unusable`."""

    delta: Delta


@dataclass(frozen=True, slots=True)
class StopPull:
    """The conversation ended under the pull. What has come of it may be kept, to resume."""


@dataclass(frozen=True, slots=True)
class ApplyPulled:
    """Hand the pulled snapshot to the applier; answer with `applied` or `refused`."""

    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class Adopt:
    """Hand what runs to the applier under the name `ref`: its content is the same, so there is nothing to pull."""

    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class TellApplied:
    """`ref` is active in all workers. `took_s` is 0 when it was so before it was offered."""

    ref: SnapshotRef
    took_s: float


@dataclass(frozen=True, slots=True)
class TellRejected:
    """`ref` is refused, `running` goes on."""

    ref: SnapshotRef
    refused: Refused
    running: SnapshotRef


@dataclass(frozen=True, slots=True)
class TellUnusable:
    """The delta to `ref` can't be used: the control plane shall offer the whole."""

    ref: SnapshotRef
    running: SnapshotRef
    fault: Fault


Action = StartPull | StartMake | StopPull | ApplyPulled | Adopt | TellApplied | TellRejected | TellUnusable


@dataclass(frozen=True, slots=True)
class Pulling:
    """`offer` is on its way, or being made of a delta."""

    offer: Offer | Delta

    @property
    def ref(self) -> SnapshotRef:
        return self.offer.ref


@dataclass(frozen=True, slots=True)
class Applying:
    """The workers are making their tables of `ref`."""

    ref: SnapshotRef


class Session:
    """Decides what to do next; lives as long as the node process, over many connections.

    Events return the actions to take, in order. Tell* actions come only while connected: what happened meanwhile is
    in the next hello (`running`) or is told when the refused snapshot is offered again.
    """

    def __init__(self, running: SnapshotRef = NOTHING) -> None:
        self._running = running
        self._work: Pulling | Applying | None = None
        self._waiting: Offer | Delta | None = None
        self._connected = False
        self._refusals: OrderedDict[SnapshotRef, Refused] = OrderedDict()

    @property
    def running(self) -> SnapshotRef:
        """What serves traffic now."""
        return self._running

    @property
    def work(self) -> Pulling | Applying | None:
        return self._work

    @property
    def waiting(self) -> Offer | Delta | None:
        """The offer that is begun when the work in hand is done."""
        return self._waiting

    def restored(self, ref: SnapshotRef) -> None:
        """The last good file serves; only before the first connection."""
        assert self._work is None
        assert not self._connected
        self._running = ref

    def connected(self) -> None:
        """The control plane welcomed us."""
        assert not self._connected
        self._connected = True

    def disconnected(self) -> tuple[Action, ...]:
        """The conversation is over. A pull dies with it; an apply goes on and is reported by the next hello."""
        self._connected = False
        self._waiting = None
        if isinstance(self._work, Pulling):
            self._work = None
            return (StopPull(),)
        return ()

    def offered(self, offer: Offer | Delta) -> tuple[Action, ...]:
        """The control plane's latest word on what this node should run."""
        assert self._connected, "offers come over a conversation"
        if self._work is None:
            return self._begin(offer)
        # An offer of what is in work takes the place of one that waits, too: it is the newer word.
        self._waiting = None if offer.ref == self._work.ref else offer
        return ()

    def pulled(self) -> tuple[Action, ...]:
        """The snapshot in work arrived and is verified."""
        assert isinstance(self._work, Pulling)
        self._work = Applying(self._work.ref)
        return (ApplyPulled(self._work.ref),)

    def pull_refused(self, refused: Refused) -> tuple[Action, ...]:
        """What arrived, or what was promised, can't be used."""
        assert isinstance(self._work, Pulling)
        return self._refuse(self._work.ref, refused)

    def delta_unusable(self, fault: Fault) -> tuple[Action, ...]:
        """There is no such base here, or what came of it is not what was promised. Not a refusal: the whole may do."""
        assert isinstance(self._work, Pulling)
        return (*self._tell(TellUnusable(self._work.ref, self._running, fault)), *self._next())

    def pull_gone(self) -> tuple[Action, ...]:
        """The control plane has it no longer, or a newer one waits and this one would not come: not a refusal."""
        assert isinstance(self._work, Pulling)
        return self._next()

    def applied(self, took_s: float) -> tuple[Action, ...]:
        """The snapshot in work is active in all workers."""
        assert isinstance(self._work, Applying)
        self._running = self._work.ref
        return (*self._tell(TellApplied(self._running, took_s)), *self._next())

    def refused(self, refused: Refused) -> tuple[Action, ...]:
        """The workers could not take the snapshot in work; none of them runs it."""
        assert isinstance(self._work, Applying)
        return self._refuse(self._work.ref, refused)

    def overtaken(self) -> tuple[Action, ...]:
        """A rollout made a later version active than the one in work: it is let go, which is no refusal."""
        assert isinstance(self._work, Applying)
        return self._next()

    def rolled_out(self, ref: SnapshotRef, took_s: float) -> tuple[Action, ...]:
        """A rollout made `ref` active in all workers, beside whatever is in work."""
        self._running = ref
        return self._tell(TellApplied(ref, took_s))

    def _begin(self, offer: Offer | Delta) -> tuple[Action, ...]:
        ref = offer.ref
        if ref == self._running:
            return self._tell(TellApplied(ref, 0.0))
        if (known := self._refusals.get(ref)) is not None:
            return self._tell(TellRejected(ref, known, self._running))
        if ref.epoch == self._running.epoch and ref.version < self._running.version:
            # Going back within a history means that the control plane lost part of it. It has to say so by a new
            # epoch: a stale control plane must not undo what operators were told is active.
            message = f"this node runs version {self._running.version} of the same history"
            refused = Refused(Stage.PULL, (Fault("OLDER_VERSION", message=message),))
            return self._tell(TellRejected(ref, refused, self._running))
        if ref.snapshot_hash == self._running.snapshot_hash:
            self._work = Applying(ref)
            return (Adopt(ref),)
        self._work = Pulling(offer)
        return (StartMake(offer) if isinstance(offer, Delta) else StartPull(offer),)

    def _refuse(self, ref: SnapshotRef, refused: Refused) -> tuple[Action, ...]:
        self._refusals[ref] = refused
        while len(self._refusals) > REFUSALS_KEPT:
            self._refusals.popitem(last=False)
        return (*self._tell(TellRejected(ref, refused, self._running)), *self._next())

    def _next(self) -> tuple[Action, ...]:
        self._work = None
        offer, self._waiting = self._waiting, None
        return () if offer is None else self._begin(offer)

    def _tell(self, action: TellApplied | TellRejected | TellUnusable) -> tuple[Action, ...]:
        return (action,) if self._connected else ()
