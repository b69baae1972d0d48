"""Goal: however a node's versions and the ring move, a delta leads to the head's very content or is not to be had.
Method: random writes through a real builder, a small ring, nodes that come by late; everything is verified by hash.
"""

from __future__ import annotations

import uuid

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from control_plane.fleet import messages
from control_plane.fleet.ring import Ring
from control_plane.snapshot.builder import Snapshot, SnapshotBuilder
from data_plane.node import messages as node_messages
from data_plane.node.snapshot import NodeSnapshot, RepairHeader, apply_delta, apply_repair
from pointsman.snapshots import SnapshotRef
from pointsman.wire.v1 import fleet_pb2
from tests.support.examples import examples
from tests.support.fleet import EPOCH, target

VERSIONS_MAX = 5
BYTES_MAX = 400_000


def ref_of(snapshot: Snapshot) -> SnapshotRef:
    return SnapshotRef(snapshot.epoch, snapshot.version, snapshot.snapshot_hash)


def whole(snapshot: Snapshot) -> NodeSnapshot:
    return NodeSnapshot(snapshot.epoch, snapshot.version, snapshot.snapshot_hash, dict(snapshot.entities()))


class Deltas(RuleBasedStateMachine):
    """One control plane that writes and two nodes that follow now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.ring: Ring[Snapshot] = Ring(versions_max=VERSIONS_MAX, bytes_max=BYTES_MAX)
        self.builder = SnapshotBuilder(EPOCH)
        self.version = 0
        self.head = self.builder.current()
        self.nodes = [whole(self.head), whole(self.head)]
        self.publish()

    def publish(self) -> None:
        self.version += 1
        # The builder's own way in needs a store's versions; these are its two verbs.
        self.builder._version = self.version
        self.head = self.builder.current()
        self.ring.add(ref_of(self.head), self.head)

    @rule(numbers=st.lists(st.integers(1, 60), min_size=1, max_size=8), weight=st.integers(0, 3))
    def put(self, numbers: list[int], weight: int) -> None:
        for number in numbers:
            self.builder._show(("targets", str(uuid.UUID(int=number))), target(number, weight=weight))
        self.publish()

    @rule(numbers=st.lists(st.integers(1, 60), min_size=1, max_size=8))
    def remove(self, numbers: list[int]) -> None:
        for number in numbers:
            self.builder._hide(("targets", str(uuid.UUID(int=number))))
        self.publish()

    @rule(which=st.integers(0, 1))
    def follow(self, which: int) -> None:
        node = self.nodes[which]
        ref = SnapshotRef(node.epoch, node.version, node.snapshot_hash)
        base = self.ring.find(ref)
        if base is None:
            self.nodes[which] = whole(self.head)
            return
        frame = messages.delta(ref, ref_of(self.head), self.head.changes_since(base), entities=self.head.entity_count)
        assert frame is not None
        delta = node_messages.delta_from_wire(fleet_pb2.PlaneMessage.FromString(frame).delta)
        self.nodes[which] = apply_delta(delta, node)

    @rule(which=st.integers(0, 1))
    def repair(self, which: int) -> None:
        node = self.nodes[which]
        numbers, changes = self.head.differing(node.content.bucket_hashes)
        frames = messages.repair(numbers, changes, entities=self.head.entity_count)
        pieces = [fleet_pb2.Piece.FromString(frame) for frame in frames]
        header: RepairHeader = node_messages.repair_from_wire(pieces[0].repair)
        packed = b"".join(piece.data for piece in pieces)
        self.nodes[which] = apply_repair(whole(self.head).ref, header, packed, node)
        assert dict(self.nodes[which].entities) == dict(self.head.entities())

    @invariant()
    def bounded(self) -> None:
        assert 1 <= len(self.ring) <= VERSIONS_MAX
        assert len(self.ring) == 1 or self.ring.bytes <= BYTES_MAX

    @invariant()
    def nodes_hold_what_their_hash_says(self) -> None:
        for node in self.nodes:
            assert node.content.root() == node.snapshot_hash
            if node.version == self.head.version:
                assert dict(node.entities) == dict(self.head.entities())


Deltas.TestCase.settings = settings(max_examples=examples(25), stateful_step_count=25, deadline=None)
TestDeltas = Deltas.TestCase


def test_a_new_epoch_empties_the_ring() -> None:
    ring: Ring[Snapshot] = Ring()
    old = SnapshotBuilder(EPOCH).current()
    new = SnapshotBuilder(bytes(16)).current()
    ring.add(ref_of(old), old)
    ring.add(ref_of(new), new)
    assert ring.find(ref_of(old)) is None
    assert ring.find(ref_of(new)) is new
