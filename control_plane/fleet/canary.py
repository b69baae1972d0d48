"""A plain change goes to one node first: a change that a node refuses stops there and does not freeze the fleet.

    Released(head) --new head--> Trying(head, node) --the node runs it--> Released(head)
                                    |  `---------the node refuses it----> Held(head) --new head--> Trying ...
                                    `--slow, or no node to try it on----> Released(head)

Costs a plain change one round trip. Availability comes first: a node that does not answer within `wait_s` holds nothing
up, and one whose stream breaks is replaced by another; but two that vanish over the same change count as a refusal,
because a configuration that kills nodes looks exactly like that.

Pure: events and the clock come in, what is released is asked for. ``server.py`` does the offering.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pointsman.snapshots import SnapshotRef

LOSSES_MAX = 2


@dataclass(frozen=True, slots=True)
class Held:
    """A change that is kept from the fleet, and why."""

    ref: SnapshotRef
    node: str  # id of the node that refused it
    reason: str


class Canary:
    """Which node tries the newest version, and up to which version the others may go. Times are seconds."""

    def __init__(self, *, wait_s: float, enabled: bool = True) -> None:
        self._wait_s = wait_s
        self._enabled = enabled
        self._trying: SnapshotRef | None = None
        self._node = ""
        self._due = 0.0
        self._losses = 0
        self.held: Held | None = None

    @property
    def node(self) -> str:
        """The node that tries something now; empty = none does."""
        return self._node if self._trying is not None else ""

    @property
    def due(self) -> float | None:
        """When the wait for the node is over."""
        return self._due if self._trying is not None else None

    def published(self, ref: SnapshotRef, fit: Sequence[str], *, now: float) -> str:
        """A new head. Returns the node that tries it; empty = it goes to all.

        `fit` are the live nodes that run what was released before; the one that tried last goes on doing so.
        """
        self.held = None
        if not self._enabled or len(fit) < 2:
            self._trying = None
            return ""
        if self._trying is None:
            self._due = now + self._wait_s
            self._losses = 0
        # A steady stream of writes must not put the release off: the wait counts from the first that is not released.
        going_on = self._trying is not None
        self._trying = ref
        if self._node not in fit and not going_on:
            self._node = fit[0]
        return self._node

    def applied(self, node: str, ref: SnapshotRef, *, now: float) -> bool:
        """Whether `ref`, which `node` runs now, is thereby released to all."""
        if self._trying is None or node != self._node:
            return False
        if ref.epoch != self._trying.epoch:
            return False
        if ref == self._trying:
            self._trying = None
        self._due = now + self._wait_s
        self._losses = 0
        return True

    def rejected(self, node: str, ref: SnapshotRef, reason: str) -> bool:
        """Whether `ref` is held by this refusal."""
        if self._trying != ref or node != self._node:
            return False
        self._trying = None
        self.held = Held(ref, node, reason)
        return True

    def lost(self, node: str, fit: Sequence[str], *, now: float) -> str:
        """A stream ended. Returns the node that tries next; empty when there is nothing to try, or none is left."""
        if self._trying is None or node != self._node:
            return ""
        self._losses += 1
        if self._losses >= LOSSES_MAX:
            self.held = Held(self._trying, node, f"{self._losses} nodes were lost while they applied it")
            self._trying = None
            return ""
        others = [one for one in fit if one != node]
        if not others:
            self._due = now
            return ""
        self._node = others[0]
        self._due = now + self._wait_s
        return self._node

    def overdue(self, *, now: float) -> bool:
        """Whether the wait is over without an answer: what is tried is released."""
        if self._trying is None or now < self._due:
            return False
        self._trying = None
        return True
