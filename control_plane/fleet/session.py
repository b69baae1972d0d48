"""One node's side of the snapshot conversation as the control plane sees it, without any I/O.

    Idle --head moved--> Waiting(head) --applied--> Idle
      |                      `---------rejected--> Parked(head)
      `--the node runs what is not ours to replace--> Ahead

A parked version is not offered again. The node has said that it cannot apply it, so repeating it could only produce
the same answer, forever. The next version ends the parking. While Waiting, a newer head is offered at once and
replaces the one before: nodes need the latest, not all of them, and put what they can't begin yet aside themselves.

An offer goes out as a delta from what the node reported that it runs, wherever that can be had; `base` says what from.
A node that can't use one says so and is offered the whole.

What a node runs is only ever what it reported (hello, beat, applied). ``server.py`` feeds events in and sends what
comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman.snapshots import NOTHING, Fault, SnapshotRef, Stage


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which of what nodes run may be replaced by this control plane's snapshots.

    `former` are the histories that a restored store goes on from, each up to the version of its backup. Whatever else
    of another history a node runs, or later than that, is not ours to take away unless the operator said so.
    """

    former: Mapping[bytes, int] = field(default_factory=dict)
    accept_rollback: bool = False
    """Nodes may go back from a version that the restored store does not hold."""
    accept_empty: bool = False
    """Nodes of a history that this store knows nothing of may be taken over: it was made anew, and empty."""

    def allows(self, running: SnapshotRef, head: SnapshotRef) -> bool:
        """Whether a node that runs `running` may be offered `head`."""
        if running.version == 0 or running.snapshot_hash == head.snapshot_hash:
            return True
        if running.epoch == head.epoch:
            return running.version <= head.version
        last = self.former.get(running.epoch)
        if last is None:
            return self.accept_empty
        return running.version <= last or self.accept_rollback


@dataclass(frozen=True, slots=True)
class Rejection:
    """A node's refusal of one snapshot."""

    ref: SnapshotRef
    stage: Stage
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class Idle:
    """The node runs the head, or there is no head yet."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """`ref` is offered and not answered."""

    ref: SnapshotRef


@dataclass(frozen=True, slots=True)
class Parked:
    """The node refused the head and keeps what it runs."""

    rejection: Rejection


@dataclass(frozen=True, slots=True)
class Ahead:
    """The node runs a later version than the store holds, or one of a history that the store knows nothing of.

    The store was put back, or made anew. The node is reported and left alone: rolling a fleet back, or emptying it, is
    the operator's decision (`Lineage`).
    """


Phase = Idle | Waiting | Parked | Ahead


class Session:
    """What one node was told and what it answered. Events return whether the head must be offered (again).

    Begins with an accepted hello; the head must be offered then if the phase is Waiting. `rejection` is what the same
    process of this node refused last, over an earlier stream.
    """

    def __init__(
        self,
        *,
        running: SnapshotRef,
        head: SnapshotRef,
        rejection: Rejection | None = None,
        lineage: Lineage = Lineage(),
    ) -> None:
        self._lineage = lineage
        self._running = running
        self._head = head
        self._rejection = rejection
        self._whole: SnapshotRef | None = None
        self._phase: Phase = self._judge()

    @property
    def base(self) -> SnapshotRef | None:
        """What a delta to the head may start from; None = the whole must be offered."""
        return None if self._whole == self._head else self._running

    @property
    def running(self) -> SnapshotRef:
        """What the node said that it runs."""
        return self._running

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def rejection(self) -> Rejection | None:
        """The last refusal, until the node runs that version or a later one."""
        return self._rejection

    def head_moved(self, head: SnapshotRef) -> bool:
        """A newer snapshot, or one of a new epoch, is what nodes should run."""
        self._head = head
        return self._settle()

    def applied(self, ref: SnapshotRef) -> bool:
        """The node runs `ref` now; also from a beat, which says so again and again."""
        self._running = ref
        refused = self._rejection.ref if self._rejection is not None else None
        if refused is not None and (refused == ref or ref.reached(refused.version + 1, epoch=refused.epoch)):
            self._rejection = None
        return self._settle()

    def rejected(self, rejection: Rejection, *, running: SnapshotRef) -> bool:
        """The node refused `rejection.ref`. If that is no longer the head, a newer offer is with the node already."""
        self._running = running
        self._rejection = rejection
        return self._settle()

    def unusable(self, ref: SnapshotRef, *, running: SnapshotRef) -> bool:
        """The node can't make `ref` of the delta that it got. If that is not the head now, a newer one is out."""
        self._running = running
        if ref == self._head:
            self._whole = ref
        self._phase = self._judge()
        return ref == self._head and isinstance(self._phase, Waiting)

    def _settle(self) -> bool:
        before = self._phase
        self._phase = self._judge()
        return isinstance(self._phase, Waiting) and self._phase != before

    def _judge(self) -> Phase:
        head = self._head
        if head in (NOTHING, self._running):
            return Idle()
        if self._rejection is not None and self._rejection.ref == head:
            return Parked(self._rejection)
        if not self._lineage.allows(self._running, head):
            return Ahead()
        return Waiting(head)
