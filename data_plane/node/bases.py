"""The snapshots that were active a moment ago: what a delta of the control plane may start from.

The control plane sends what leads from the version that it last heard of, and reports are on their way for a while:
under steady writes the node runs later ones by then. What it kept shares nearly all with what runs.
"""

from __future__ import annotations

from collections import OrderedDict

from data_plane.node.snapshot import NodeSnapshot
from pointsman.snapshots import SnapshotRef

KEPT_MAX = 16


class Bases:
    """The newest snapshots by ref."""

    def __init__(self) -> None:
        self._kept: OrderedDict[SnapshotRef, NodeSnapshot] = OrderedDict()

    def add(self, snapshot: NodeSnapshot, *, differs_little: bool = False) -> None:
        """`snapshot` is active. One that shares nothing with those before ends them: they would double memory.

        `differs_little` = it is made of one of them by a small change, so that need not be looked into.
        """
        if self._kept and not differs_little:
            newest = next(reversed(self._kept.values()))
            if not snapshot.content.shares_with(newest.content):
                self._kept.clear()
        self._kept[snapshot.ref] = snapshot
        self._kept.move_to_end(snapshot.ref)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def find(self, ref: SnapshotRef) -> NodeSnapshot | None:
        """The snapshot of exactly that epoch, version and content."""
        return self._kept.get(ref)
