"""Goal: any history of offers, cuts, refusals and restarts ends with the node on the latest good version, or with the
control plane knowing why not; what a node refused is never pulled again. Method: both pure sessions joined by an
unreliable conversation, driven by random histories.
"""

from __future__ import annotations

from collections import deque

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from typing_extensions import override

from control_plane.fleet.session import Ahead, Idle, Lineage, Parked, Rejection, Waiting
from control_plane.fleet.session import Session as PlaneSession
from data_plane.node import session as node
from data_plane.node.outcomes import Refused
from data_plane.node.snapshot import Delta, Offer
from pointsman.snapshots import Fault, SnapshotRef, Stage
from tests.support.examples import examples


def epoch(number: int) -> bytes:
    return number.to_bytes(16, "big")


def content(number: int) -> bytes:
    return number.to_bytes(32, "big")


def to_offer(ref: SnapshotRef) -> Offer:
    return Offer(ref, 1, 1, bytes(32), 1, 1)


def to_delta(base: SnapshotRef, ref: SnapshotRef) -> Delta:
    return Delta(base, ref, 1, b"", 1)


class Conversation(RuleBasedStateMachine):
    """One node process at a time, one control plane; both may restart, the link may break at any step."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 1
        self.head = SnapshotRef(b"", 0, b"")
        self.bad: set[bytes] = set()  # contents that this node's software can't apply
        self.node = node.Session()
        self.disk = SnapshotRef(b"", 0, b"")
        self.plane: PlaneSession | None = None
        self.parked: Rejection | None = None  # what the registry keeps of the node between streams
        self.to_node: deque[Offer | Delta] = deque(maxlen=1)  # the send slot: latest wins
        self.to_plane: deque[node.TellApplied | node.TellRejected | node.TellUnusable] = deque()
        self.ring: list[SnapshotRef] = []  # what a delta may start from
        self.bases: list[SnapshotRef] = []  # what the node kept
        self.versions: list[tuple[bytes, int]] = []  # what the node said that it runs, in order
        self.pulls: list[SnapshotRef] = []
        self.refused: set[SnapshotRef] = set()
        self.work: node.StartPull | node.StartMake | node.ApplyPulled | node.Adopt | None = None

    # --- what the link does with the session's actions ---

    def perform(self, actions: tuple[node.Action, ...]) -> None:
        for action in actions:
            match action:
                case node.StartPull():
                    assert self.work is None, "two pieces of work at once"
                    assert action.offer.ref not in self.refused, "a refused snapshot was pulled again"
                    self.pulls.append(action.offer.ref)
                    self.work = action
                case node.StartMake():
                    assert self.work is None, "two pieces of work at once"
                    assert action.delta.ref not in self.refused, "a refused snapshot was made again"
                    self.work = action
                case node.ApplyPulled() | node.Adopt():
                    assert self.work is None, "two pieces of work at once"
                    if isinstance(action, node.Adopt):
                        assert action.ref.snapshot_hash == self.node.running.snapshot_hash
                    self.work = action
                case node.StopPull():
                    assert isinstance(self.work, node.StartPull | node.StartMake)
                    self.work = None
                case node.TellApplied() | node.TellRejected() | node.TellUnusable():
                    assert self.plane is not None, "told over no conversation"
                    self.to_plane.append(action)

    def offer(self, wanted: bool) -> None:
        if wanted:
            assert self.plane is not None
            base = self.plane.base
            if base is not None and base in self.ring:
                self.to_node.append(to_delta(base, self.head))
            else:
                self.to_node.append(to_offer(self.head))

    # --- events ---

    @rule(new_content=st.integers(0, 5), breaks=st.booleans())
    def write(self, new_content: int, breaks: bool) -> None:
        number = new_content * 2 + breaks
        if breaks:
            self.bad.add(content(number))
        self.head = SnapshotRef(epoch(self.epoch), self.head.version + 1, content(number))
        self.ring = [*self.ring[-2:], self.head]
        if self.plane is not None:
            self.offer(self.plane.head_moved(self.head))

    @precondition(lambda self: self.plane is None)
    @rule()
    def connect(self) -> None:
        # An operator who accepts what a restore gives up; without, the node would rest as Ahead.
        lineage = Lineage(accept_rollback=True, accept_empty=True)
        running = self.node.running
        self.plane = PlaneSession(running=running, head=self.head, rejection=self.parked, lineage=lineage)
        self.node.connected()
        self.offer(isinstance(self.plane.phase, Waiting))

    @rule(kind=st.sampled_from(["cut", "cut", "plane", "node", "store"]), back=st.integers(0, 3))
    def disturb(self, kind: str, back: int) -> None:
        """One rule for all of them, so that quiet stretches are long enough for things to pile up."""
        if kind == "store":
            self.restore_store(back)
        elif kind == "plane":
            self.restart_plane()
        elif kind == "node":
            self.restart_node()
        else:
            self.cut()

    def cut(self) -> None:
        if self.plane is None:
            return
        self.parked = self.plane.rejection
        self.plane = None
        self.to_node.clear()
        self.to_plane.clear()
        self.perform(self.node.disconnected())

    def restart_plane(self) -> None:
        self.cut()
        self.parked = None
        self.ring = [self.head]

    def restore_store(self, back: int) -> None:
        """An old copy of the store is put back, and a new history begins."""
        if self.head.version == 0:
            return
        self.epoch += 1
        self.head = SnapshotRef(epoch(self.epoch), max(1, self.head.version - back), self.head.snapshot_hash)
        self.ring = [self.head]
        self.restart_plane()

    def restart_node(self) -> None:
        self.cut()
        self.node = node.Session(self.disk)
        self.bases = [self.disk]
        self.work = None
        self.parked = None
        self.refused.clear()

    @precondition(lambda self: bool(self.to_node))
    @rule()
    def deliver_offer(self) -> None:
        self.perform(self.node.offered(self.to_node.popleft()))

    @precondition(lambda self: bool(self.to_plane))
    @rule()
    def deliver_report(self) -> None:
        assert self.plane is not None
        report = self.to_plane.popleft()
        if isinstance(report, node.TellApplied):
            self.offer(self.plane.applied(report.ref))
        elif isinstance(report, node.TellUnusable):
            self.offer(self.plane.unusable(report.ref, running=report.running))
        else:
            rejection = Rejection(report.ref, report.refused.stage, report.refused.faults)
            self.offer(self.plane.rejected(rejection, running=report.running))

    @precondition(lambda self: self.plane is not None and not self.to_plane)
    @rule()
    def beat(self) -> None:
        assert self.plane is not None
        self.offer(self.plane.applied(self.node.running))

    @precondition(lambda self: isinstance(self.work, node.StartPull))
    @rule(gone=st.booleans())
    def finish_pull(self, gone: bool) -> None:
        work, self.work = self.work, None
        assert isinstance(work, node.StartPull)
        # The control plane drops a snapshot only after it published, and offered, a newer one.
        if gone and work.offer.ref != self.head:
            self.perform(self.node.pull_gone())
        else:
            self.perform(self.node.pulled())

    @precondition(lambda self: isinstance(self.work, node.StartMake))
    @rule(spoiled=st.booleans())
    def finish_make(self, spoiled: bool) -> None:
        work, self.work = self.work, None
        assert isinstance(work, node.StartMake)
        if work.delta.base not in self.bases:
            self.perform(self.node.delta_unusable(Fault("UNKNOWN_BASE")))
        elif spoiled:
            self.perform(self.node.delta_unusable(Fault("HASH_MISMATCH")))
        else:
            self.perform(self.node.pulled())

    @precondition(lambda self: isinstance(self.work, node.ApplyPulled | node.Adopt))
    @rule()
    def finish_apply(self) -> None:
        work, self.work = self.work, None
        assert isinstance(work, node.ApplyPulled | node.Adopt)
        if work.ref.snapshot_hash in self.bad:
            self.refused.add(work.ref)
            self.perform(self.node.refused(Refused(Stage.BUILD, (Fault("BAD_REGEX", message="no"),))))
        else:
            self.disk = work.ref
            self.bases = [*self.bases[-1:], work.ref]
            self.versions.append((work.ref.epoch, work.ref.version))
            self.perform(self.node.applied(0.001))

    # --- what must hold ---

    @invariant()
    def one_work_at_a_time(self) -> None:
        assert (self.work is None) == (self.node.work is None)

    @invariant()
    def versions_never_go_back_within_an_epoch(self) -> None:
        for (one, before), (other, after) in zip(self.versions, self.versions[1:], strict=False):
            assert one != other or before <= after

    @invariant()
    def nothing_bad_runs(self) -> None:
        assert self.node.running.snapshot_hash not in self.bad

    @override
    def teardown(self) -> None:
        """The world calms down: whatever happened, both ends agree in the end."""
        if self.plane is None:
            self.connect()
        for _ in range(50):
            if self.work is not None:
                if isinstance(self.work, node.StartPull):
                    self.finish_pull(False)
                elif isinstance(self.work, node.StartMake):
                    self.finish_make(False)
                else:
                    self.finish_apply()
            elif self.to_node:
                self.deliver_offer()
            elif self.to_plane:
                self.deliver_report()
            else:
                break
        else:
            raise AssertionError("the conversation does not come to rest")
        assert self.plane is not None
        assert self.plane.running == self.node.running, "the control plane knows what runs"
        match self.plane.phase:
            case Idle():
                assert self.head.version == 0 or self.plane.running == self.head
            case Parked():
                assert self.head.snapshot_hash in self.bad, "parked without a reason"
                assert self.plane.phase.rejection.faults, "the control plane knows why not"
            case Ahead() | Waiting():
                raise AssertionError(f"never at rest: {self.plane.phase}")


Conversation.TestCase.settings = settings(max_examples=examples(100), stateful_step_count=60, deadline=None)
TestConversation = Conversation.TestCase
