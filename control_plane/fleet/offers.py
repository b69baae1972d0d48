"""Which snapshot each connected node is offered, and when: one node first, the others in a row, a rollout's by itself.

A plain change is tried on one node (`canary.py`), released when that one runs it, and then goes to the others as fast
as they come through (`pace.py`). Nodes of a rollout are pinned to what they run meanwhile. Everything here happens
inside one turn of the loop; the streams themselves are `connection.py`'s and `server.py`'s.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from control_plane.fleet.canary import Canary
from control_plane.fleet.connection import Connection
from control_plane.fleet.nodes import Nodes
from control_plane.fleet.pace import Pace
from control_plane.fleet.published import Published, Shelf
from control_plane.fleet.session import Idle
from pointsman.snapshots import SnapshotRef

log = logging.getLogger(__name__)


class Offers:
    """Offers to the nodes in `connections`, by node id; whoever adds one there offers it its `goal`."""

    def __init__(
        self,
        nodes: Nodes,
        shelf: Shelf,
        connections: Mapping[str, Connection],
        *,
        canary_wait_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._nodes = nodes
        self._shelf = shelf
        self._connections = connections
        self._clock = clock
        self._canary = Canary(wait_s=canary_wait_s, enabled=canary_wait_s > 0)
        self._pace = Pace()
        self._released: Published | None = None
        self._overdue: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None
        self._pinned: dict[str, tuple[int, Published | None]] = {}
        self._withheld: list[Published] | None = None

    def stop(self) -> None:
        """Nothing more is offered by itself."""
        for timer in (self._overdue, self._next):
            if timer is not None:
                timer.cancel()

    def publish(self, published: Published) -> None:
        """Makes `published` the head: offered to one node first, and to all others when that one runs it."""
        self._shelf.add(published)
        if self._withheld is not None:
            self._withheld.append(published)
        else:
            self._try(published)

    @property
    def trying(self) -> bool:
        """Whether a plain change is on its first node now."""
        return self._canary.due is not None

    @property
    def unsettled(self) -> bool:
        """Whether `released` is about to change: a plain change is on its first node, or a decision waits for its
        instant. Nodes that read our clock a little fast run what was decided before that."""
        return self.trying or self._withheld is not None

    @property
    def released(self) -> Published | None:
        """What all nodes should run: the head, or what was so before it while the head is held or tried."""
        return self._released

    @property
    def head(self) -> Published | None:
        """The newest snapshot, whether or not nodes should run it already."""
        return self._shelf.head

    def find(self, ref: SnapshotRef) -> Published | None:
        """A snapshot of the last few."""
        return self._shelf.find(ref)

    def goal(self, node: str) -> Published | None:
        """What a node should run."""
        if node in self._pinned:
            return self._pinned[node][1]
        return self._shelf.head if node == self._canary.node else self._released

    # --- what nodes say ---------------------------------------------------------------------------------------------

    def runs(self, node: str, ref: SnapshotRef) -> None:
        """A node said that it runs `ref`."""
        if self._canary.applied(node, ref, now=self._clock()):
            published = self._shelf.find(ref)
            released = self._released.ref.version if self._released is not None else 0
            if published is not None and (ref == self._shelf.head_ref or ref.version > released):
                self._release(published)

    def refused(self, node: str, ref: SnapshotRef, reason: str) -> None:
        """A node refused `ref`."""
        if self._canary.rejected(node, ref, reason):
            self._nodes.held = self._canary.held
            log.error("version %d is held: the first node that it was sent to refused it", ref.version)

    def again(self, connection: Connection) -> None:
        """What it was offered is of no use to the node: it gets its goal anew."""
        if (goal := self.goal(connection.node.id)) is not None:
            connection.offer(goal)

    def answered(self, node: str) -> None:
        """A node waits for nothing any more."""
        self._tell(self._pace.answered(node))

    def lost(self, node: str) -> None:
        """A node's stream is over, and no longer among the connections."""
        if (head := self._shelf.head) is not None and self._canary.node == node:
            self._try_on(self._canary.lost(node, self._fit(), now=self._clock()), head)
        self.answered(node)

    # --- a plain change ---------------------------------------------------------------------------------------------

    def _try(self, published: Published) -> None:
        self._try_on(self._canary.published(published.ref, self._fit(), now=self._clock()), published)

    def _fit(self) -> list[str]:
        """The nodes that a change may be tried on: live, and running what all should run."""
        released = self._released.ref if self._released is not None else None
        return [
            node.id
            for node in self._nodes.live()
            if node.running == released
            and node.session is not None
            and isinstance(node.session.phase, Idle)
            and node.id in self._connections
            and node.id not in self._pinned
        ]

    def _try_on(self, node: str, published: Published) -> None:
        self._nodes.held = self._canary.held
        if not node:
            if self._canary.held is None and self._canary.due is None:
                self._release(published)
            return
        self._offer(node, published)
        if self._overdue is not None:
            self._overdue.cancel()
        due_s = (self._canary.due or 0.0) - self._clock()
        self._overdue = asyncio.get_running_loop().call_later(max(0.0, due_s), self._not_answered)

    def _not_answered(self) -> None:
        due, head = self._canary.due, self._shelf.head
        if due is None or head is None:
            return
        node = self._canary.node
        if self._canary.overdue(now=self._clock()):
            log.warning("node %s has not answered to version %d yet; it goes to all", node, head.ref.version)
            self._release(head)
        else:
            delay_s = max(0.001, due - self._clock())
            self._overdue = asyncio.get_running_loop().call_later(delay_s, self._not_answered)

    def _release(self, published: Published) -> None:
        """Offers `published` to every node that does not run it, but for the one that tries a later one."""
        self._released = published
        self._nodes.held = None
        self._tell(self._pace.join(tuple(self._connections), now=self._clock()))

    def _tell(self, chosen: Iterable[str]) -> None:
        """Offers these what is released now; in place of each that has nothing to be told comes the next."""
        released = self._released
        turns = deque(chosen)
        while turns:
            node = turns.popleft()
            others = node != self._canary.node and node not in self._pinned
            if released is None or not others or not self._offer(node, released):
                turns += self._pace.answered(node)
        if self._next is None and self._pace.due is not None:
            delay_s = max(0.0, self._pace.due - self._clock())
            self._next = asyncio.get_running_loop().call_later(delay_s, self._tell_more)

    def _tell_more(self) -> None:
        self._next = None
        self._tell(self._pace.overdue(now=self._clock()))

    def _offer(self, node: str, published: Published) -> bool:
        """Offers it unless the node has it or is gone; returns whether it was offered."""
        connection = self._connections.get(node)
        if connection is None or not self._nodes.head_moved(connection.node, published.ref):
            return False
        connection.offer(published)
        return True

    # --- rollouts ---------------------------------------------------------------------------------------------------

    def pin(self, nodes: Iterable[str], published: Published | None, *, owner: int) -> None:
        """From now on these nodes are offered `published` and nothing else: rollout `owner` brings them further."""
        for node in nodes:
            self._pinned[node] = (owner, published)
            connection = self._connections.get(node)
            if connection is not None and published is not None and connection.node.running != published.ref:
                self._offer(node, published)

    def unpin(self, nodes: Iterable[str], *, owner: int) -> None:
        """They are nodes like all others again, and offered what those run, but for those of another rollout by now."""
        for node in nodes:
            if self._pinned.get(node, (0, None))[0] != owner:
                continue
            del self._pinned[node]
            if (goal := self.goal(node)) is not None:
                self._offer(node, goal)

    def withhold(self) -> None:
        """What is published from now on is offered to nobody until `let_go`: it becomes active at an instant."""
        if self._withheld is None:
            self._withheld = []

    def let_go(self, decided: int | None) -> None:
        """The instant has come for version `decided`, which every node that could refuse it has prepared: it needs no
        first node. What was published after it does. None = nothing was decided.
        """
        withheld, self._withheld = self._withheld or [], None
        for published in withheld:
            if published.ref.version == decided:
                self._try_on(self._canary.published(published.ref, (), now=self._clock()), published)
        if withheld and withheld[-1].ref.version != decided:
            self._try(withheld[-1])
