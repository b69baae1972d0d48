"""Snapshots on their way to the nodes: packed once, framed once, shared by all streams.

A node that runs a snapshot of the ring gets a delta from it, in one frame that is made once for all nodes that run the
same. The others are offered the whole. Either is made when the first node needs it: a control plane without nodes, or
whose nodes all run the head's content, spends nothing on it, however fast its store changes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from control_plane.fleet import messages
from control_plane.fleet.messages import Changes, Packed
from control_plane.fleet.ring import Ring
from pointsman.snapshots import NOTHING, SnapshotRef

RECENT_MAX = 4
"""Snapshots that can be pulled. A node asks a round trip after its offer; a later one may be out by then."""
DELTAS_MAX = 64
"""Different bases whose delta to one snapshot is kept; nodes that run the same share it."""
SHARE_MAX = 0.5
"""A delta or a repair of more than this part of the whole is not worth it: pulls of the whole can be resumed."""
INLINE_BUCKETS_MAX = 32
"""Deltas of more buckets than this are made in a thread."""


class Snapshot(Protocol):
    """What the fleet needs of `control_plane/snapshot`'s snapshot: immutable, complete, consistent."""

    @property
    def epoch(self) -> bytes: ...
    @property
    def version(self) -> int: ...
    @property
    def snapshot_hash(self) -> bytes: ...
    @property
    def entity_count(self) -> int: ...
    @property
    def entity_bytes(self) -> int: ...
    def changed_buckets(self, base: Self) -> Sequence[int]: ...
    def changes_since(self, base: Self) -> Changes: ...
    def differing(self, bucket_hashes: Sequence[bytes]) -> tuple[tuple[int, ...], Changes]: ...
    def held_bytes(self, base: Self | None) -> int: ...
    def packed(self) -> Packed:
        """Made once, in the thread that first asks."""


@dataclass(frozen=True, slots=True)
class Frames:
    """A snapshot as it goes over the wire."""

    offer: bytes
    pieces: tuple[bytes, ...]


class Published:
    """A snapshot and its frames, which are made when first asked for."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.ref = SnapshotRef(snapshot.epoch, snapshot.version, snapshot.snapshot_hash)
        self.snapshot = snapshot
        self._frames: Frames | None = None
        self._deltas: OrderedDict[SnapshotRef, bytes | None] = OrderedDict()
        self._one_at_a_time = asyncio.Lock()

    async def delta(self, base: SnapshotRef, snapshot: Snapshot) -> bytes | None:
        """The frame that leads from `base` here; None where the whole is the better way."""
        if base in self._deltas:
            return self._deltas[base]
        if len(self.snapshot.changed_buckets(snapshot)) <= INLINE_BUCKETS_MAX:
            frame = self._make_delta(base, snapshot)
        else:
            async with self._one_at_a_time:
                if base in self._deltas:
                    return self._deltas[base]
                frame = await asyncio.to_thread(self._make_delta, base, snapshot)
        self._deltas[base] = frame
        while len(self._deltas) > DELTAS_MAX:
            self._deltas.popitem(last=False)
        return frame

    def _make_delta(self, base: SnapshotRef, snapshot: Snapshot) -> bytes | None:
        changes = self.snapshot.changes_since(snapshot)
        if changes.entity_bytes > messages.INLINE_BYTES_MAX and self._mostly(changes):
            return None
        return messages.delta(base, self.ref, changes, entities=self.snapshot.entity_count)

    async def repair(self, bucket_hashes: Sequence[bytes]) -> tuple[bytes, ...] | None:
        """The pieces that make this snapshot of one with such buckets; None where the whole is the better way."""
        return await asyncio.to_thread(self._make_repair, bucket_hashes)

    def _make_repair(self, bucket_hashes: Sequence[bytes]) -> tuple[bytes, ...] | None:
        buckets, changes = self.snapshot.differing(bucket_hashes)
        if self._mostly(changes):
            return None
        return messages.repair(buckets, changes, entities=self.snapshot.entity_count)

    def _mostly(self, changes: Changes) -> bool:
        return changes.entity_bytes > SHARE_MAX * self.snapshot.entity_bytes

    async def frames(self) -> Frames:
        """Packs and frames off the loop; everyone who asks meanwhile waits for the same result."""
        async with self._one_at_a_time:
            if self._frames is None:
                self._frames = await asyncio.to_thread(self._make)
        return self._frames

    def _make(self) -> Frames:
        packed = self.snapshot.packed()
        return Frames(
            offer=messages.offer(self.ref, packed, entities=self.snapshot.entity_count),
            pieces=tuple(messages.piece(index, packed) for index in range(len(packed.pieces))),
        )


class Shelf:
    """The head, the few snapshots before it that may still be pulled, and those that deltas may start from."""

    def __init__(self) -> None:
        self._recent: deque[Published] = deque(maxlen=RECENT_MAX)
        self._ring: Ring[Snapshot] = Ring()

    @property
    def head(self) -> Published | None:
        return self._recent[-1] if self._recent else None

    @property
    def head_ref(self) -> SnapshotRef:
        return self._recent[-1].ref if self._recent else NOTHING

    def add(self, published: Published) -> None:
        """Makes `published` the head."""
        self._recent.append(published)
        self._ring.add(published.ref, published.snapshot)

    def base(self, ref: SnapshotRef) -> Snapshot | None:
        """The snapshot that a node runs, if a delta may start from it."""
        return self._ring.find(ref)

    def find(self, ref: SnapshotRef) -> Published | None:
        """The snapshot that a node was offered, if it is not too old by now."""
        return next((published for published in self._recent if published.ref == ref), None)
