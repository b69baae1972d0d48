"""Parts of a fleet for tests: snapshots of chosen content, a control-plane end, and a sink that minds the protocol.

The planes never import each other; tests of the conversation between them need both, so this is the only place that
does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import zstandard
from typing_extensions import override

from control_plane.fleet.nodes import Nodes
from control_plane.fleet.published import Published, Shelf
from control_plane.fleet.server import LinkServer
from control_plane.fleet.settings import FleetSettings
from control_plane.snapshot.builder import Packed, Snapshot
from data_plane.node.last_good import Ahead, LastGood
from data_plane.node.link import Link, LinkSettings
from data_plane.node.messages import Introduction
from data_plane.node.outcomes import Applied, ApplyOutcome, Refused
from data_plane.node.reconnect import ReconnectSettings
from data_plane.node.snapshot import NodeSnapshot, Offer
from pointsman.rules.snapshot_hash import BUCKETS, SnapshotHash, bucket_of, entity_hash, snapshot_hash
from pointsman.snapshots import SnapshotRef
from pointsman.wire.v1 import config_pb2, fleet_pb2

EPOCH = bytes(range(16))
OTHER_EPOCH = bytes(range(16, 32))


def target(number: int, *, weight: int = 100, padding: int = 0) -> bytes:
    """One entity's bytes; `padding` adds bytes that do not compress."""
    filler = random.Random(number).randbytes(padding // 2).hex()
    return config_pb2.Entity(
        target=config_pb2.Target(
            id=str(uuid.UUID(int=number)), upstream=str(uuid.UUID(int=1)), target=f"10.0.0.1:80{filler}", weight=weight
        )
    ).SerializeToString()


def entities(count: int = 1, *, weight: int = 100, padding: int = 0) -> dict[tuple[str, str], bytes]:
    """`count` targets by key."""
    return {
        ("targets", str(uuid.UUID(int=number))): target(number, weight=weight, padding=padding)
        for number in range(1, count + 1)
    }


class Snap(Snapshot):
    """A snapshot as the control plane publishes it; counts how often it is packed."""

    def __init__(
        self,
        version: int,
        content: Mapping[tuple[str, str], bytes],
        *,
        epoch: bytes = EPOCH,
        piece_bytes: int = 1024 * 1024,
    ) -> None:
        buckets: list[dict[tuple[str, str], tuple[bytes, bytes]]] = [{} for _ in range(BUCKETS)]
        for key, body in content.items():
            buckets[bucket_of(key)][key] = (entity_hash(body), body)
        hashes = SnapshotHash()
        for number, bucket in enumerate(buckets):
            hashes.put(number, (hashed for hashed, _ in bucket.values()))
        super().__init__(
            epoch=epoch,
            version=version,
            snapshot_hash=hashes.root(),
            entity_count=len(content),
            entity_bytes=sum(map(len, content.values())),
            buckets=tuple(buckets),
            bucket_hashes=hashes.bucket_hashes(),
        )
        self.times_packed = 0
        self._content = content
        self._piece_bytes = piece_bytes

    @property
    def ref(self) -> SnapshotRef:
        return SnapshotRef(self.epoch, self.version, self.snapshot_hash)

    @override
    def packed(self) -> Packed:
        self.times_packed += 1
        raw = fleet_pb2.SnapshotBody(entities=self._content.values()).SerializeToString()
        packed = zstandard.ZstdCompressor(level=3).compress(raw)
        pieces = tuple(packed[at : at + self._piece_bytes] for at in range(0, len(packed), self._piece_bytes))
        return Packed(pieces, hashlib.sha256(packed).digest(), len(raw), len(packed))

    def offer(self) -> tuple[Offer, bytes]:
        """As a node sees it, and all of its bytes."""
        packed = self.packed()
        offer = Offer(
            self.ref, packed.raw_bytes, packed.packed_bytes, packed.sha256, len(packed.pieces), self.entity_count
        )
        return offer, b"".join(packed.pieces)

    def as_node_has_it(self) -> NodeSnapshot:
        return NodeSnapshot(self.epoch, self.version, self.snapshot_hash, dict(self._content))


class Sink:
    """Stands in for the applier, and fails the test if the link breaks its rules."""

    def __init__(self) -> None:
        self.history: list[SnapshotRef] = []
        self.refuse: Callable[[NodeSnapshot], Refused | None] = lambda _: None
        self.hold = asyncio.Event()
        self.hold.set()
        self.began = 0
        self._running: NodeSnapshot | None = None
        self._busy = False

    @property
    def running(self) -> NodeSnapshot | None:
        return self._running

    async def apply(self, snapshot: NodeSnapshot) -> ApplyOutcome:
        assert not self._busy, "two applies at once"
        assert self._running is None or self._running.ref != snapshot.ref, "what runs was applied again"
        assert snapshot_hash(snapshot.entities) == snapshot.snapshot_hash, "not verified"
        self._busy = True
        self.began += 1
        try:
            await self.hold.wait()
            if (refused := self.refuse(snapshot)) is not None:
                return refused
            self._running = snapshot
            self.history.append(snapshot.ref)
            return Applied(0.001)
        finally:
            self._busy = False

    async def restore(self, ahead: Ahead, loading: Awaitable[NodeSnapshot | None]) -> ApplyOutcome | None:
        snapshot = await loading
        return await self.apply(snapshot) if snapshot is not None and snapshot.ref == ahead.ref else None


@dataclass(slots=True)
class Plane:
    """The control-plane end."""

    server: LinkServer
    nodes: Nodes
    shelf: Shelf

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server.port}"

    def publish(self, snapshot: Snap) -> None:
        self.server.offers.publish(Published(snapshot))


@contextlib.asynccontextmanager
async def plane(
    *,
    beat_interval_s: float = 0.2,
    listen: str = "127.0.0.1:0",
    pulls_max: int = 64,
    piece_timeout_s: float = 20.0,
    canary_wait_s: float = 1.0,
) -> AsyncIterator[Plane]:
    settings = FleetSettings(
        listen=listen,
        beat_interval_s=beat_interval_s,
        pulls_max=pulls_max,
        piece_timeout_s=piece_timeout_s,
        canary_wait_s=canary_wait_s,
    )
    nodes = Nodes(clock=time.monotonic, wall=time.time, lease_s=settings.lease_s, purge_after_s=settings.purge_after_s)
    shelf = Shelf()
    server = LinkServer(settings, nodes, shelf, clock=time.monotonic)
    await server.start()
    try:
        yield Plane(server, nodes, shelf)
    finally:
        await server.stop()


@dataclass(slots=True)
class FakeNode:
    """A node process without workers."""

    id: str
    link: Link
    sink: Sink


def introduction(name: str, *, node_id: str = "", boot_id: int = 0) -> Introduction:
    return Introduction(
        node_id=node_id or str(uuid.uuid4()),
        hostname=name,
        software="0.1.0",
        boot_id=boot_id or time.time_ns(),
        labels={"zone": "a"},
        workers=1,
    )


@contextlib.asynccontextmanager
async def node(
    address: str,
    folder: Path,
    *,
    name: str = "node",
    node_id: str = "",
    boot_id: int = 0,
    sink: Sink | None = None,
    snapshot_bytes_max: int = 64 * 1024 * 1024,
    piece_timeout_s: float = 20.0,
    restore: bool = False,
    more_addresses: tuple[str, ...] = (),
) -> AsyncIterator[FakeNode]:
    settings = LinkSettings(
        addresses=(address, *more_addresses),
        snapshot_bytes_max=snapshot_bytes_max,
        piece_timeout_s=piece_timeout_s,
        reconnect=ReconnectSettings(base_s=0.02, cap_s=0.2, stable_s=60.0, refused_s=0.1),
    )
    who = introduction(name, node_id=node_id, boot_id=boot_id)
    sink = sink or Sink()
    link = Link(settings, who, sink, LastGood(folder / name))
    if restore:
        await link.intake.restore()
    running = asyncio.create_task(link.run())
    try:
        yield FakeNode(who.node_id, link, sink)
    finally:
        await link.stop("the test ends")
        await running
