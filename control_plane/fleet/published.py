"""Snapshots on their way to the nodes: packed once, framed once, shared by all streams.

Packing waits until the first node needs it. A control plane without nodes, or whose nodes all run the head's content,
then spends nothing on it, however fast its store changes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from control_plane.fleet import messages
from control_plane.fleet.messages import Packed
from control_plane.fleet.session import NOTHING, SnapshotRef

RECENT_MAX = 4
"""Snapshots that can be pulled. A node asks a round trip after its offer; a later one may be out by then."""


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
        self._snapshot = snapshot
        self._frames: Frames | None = None
        self._one_at_a_time = asyncio.Lock()

    async def frames(self) -> Frames:
        """Packs and frames off the loop; everyone who asks meanwhile waits for the same result."""
        async with self._one_at_a_time:
            if self._frames is None:
                self._frames = await asyncio.to_thread(self._make)
        return self._frames

    def _make(self) -> Frames:
        packed = self._snapshot.packed()
        return Frames(
            offer=messages.offer(self.ref, packed, entities=self._snapshot.entity_count),
            pieces=tuple(messages.piece(index, packed) for index in range(len(packed.pieces))),
        )


class Shelf:
    """The head and the few snapshots before it that may still be pulled."""

    def __init__(self) -> None:
        self._recent: deque[Published] = deque(maxlen=RECENT_MAX)

    @property
    def head(self) -> Published | None:
        return self._recent[-1] if self._recent else None

    @property
    def head_ref(self) -> SnapshotRef:
        return self._recent[-1].ref if self._recent else NOTHING

    def add(self, published: Published) -> None:
        """Makes `published` the head."""
        self._recent.append(published)

    def find(self, ref: SnapshotRef) -> Published | None:
        """The snapshot that a node was offered, if it is not too old by now."""
        return next((published for published in self._recent if published.ref == ref), None)
