"""The recent snapshots that a delta may start from, bounded by number and by memory.

Neighbours share almost everything, so keeping a thousand versions costs little more than what changed in them. What a
node needs is worked out when it is needed, from the snapshot it runs to the head in one step: however many versions lie
between, each entity travels at most once, and one that changed back does not travel at all.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, Protocol, Self, TypeVar

from pointsman.snapshots import SnapshotRef

VERSIONS_MAX = 1024
BYTES_MAX = 64 * 1024 * 1024


class Kept(Protocol):
    """A snapshot that knows what it costs beside its neighbour."""

    def held_bytes(self, base: Self | None) -> int: ...


S = TypeVar("S", bound=Kept)


class Ring(Generic[S]):
    """Snapshots by ref, oldest first; the newest is always kept."""

    def __init__(self, *, versions_max: int = VERSIONS_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._versions_max = versions_max
        self._bytes_max = bytes_max
        self._kept: OrderedDict[SnapshotRef, tuple[S, int]] = OrderedDict()
        self._newest: S | None = None
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def bytes(self) -> int:
        """An upper bound of what all but the newest snapshot's own content costs."""
        return self._bytes

    def add(self, ref: SnapshotRef, snapshot: S) -> None:
        """Keep the newest snapshot; the oldest go where there are too many. A new epoch ends all that was before."""
        if self._kept and next(reversed(self._kept)).epoch != ref.epoch:
            self._kept.clear()
            self._bytes = 0
            self._newest = None
        cost = snapshot.held_bytes(self._newest) if self._newest is not None else 0
        if (before := self._kept.pop(ref, None)) is not None:
            self._bytes -= before[1]
        self._kept[ref] = (snapshot, cost)
        self._newest = snapshot
        self._bytes += cost
        while len(self._kept) > 1 and (len(self._kept) > self._versions_max or self._bytes > self._bytes_max):
            _, (_, freed) = self._kept.popitem(last=False)
            self._bytes -= freed

    def find(self, ref: SnapshotRef) -> S | None:
        """The snapshot of exactly that epoch, version and content."""
        found = self._kept.get(ref)
        return found[0] if found is not None else None
