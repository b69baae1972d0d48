"""Watches the upstreams that a rollout took traffic from come to rest, over all nodes wherever they are connected."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection

from control_plane.fleet.health import HealthBook
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.others import Others
from control_plane.fleet.rollout_view import Drained
from control_plane.store.contract import Store, Transaction

DRAIN_S = 60.0
DRAIN_EVERY_S = 0.5
COUNTS_OLD_S = 2.0
"""A node's count of open requests may be this old when its beat brings it."""
USERS_MAX = 16


def at(node: Node) -> str:
    """A node for people, with its control plane where that is another one."""
    return f"{node.hostname} at {node.elsewhere.hostname}" if node.elsewhere is not None else node.hostname


class Draining:
    """Counts what is still open towards upstreams; `nodes` are ours and the others', whose counts `others` brings."""

    def __init__(self, store: Store, nodes: Nodes, health: HealthBook, others: Others) -> None:
        self._store = store
        self._nodes = nodes
        self._health = health
        self._others = others

    async def watch(
        self, drained: Collection[Drained], *, since: float, lagging: Collection[str], meanwhile: Callable[[], None]
    ) -> None:
        """Keeps `drained` up to date until nothing is open, or `DRAIN_S` are over; calls `meanwhile` at each look.

        `since` is when traffic left, monotonic; `lagging` are host names of nodes that may still send there.
        """
        deadline = time.monotonic() + DRAIN_S
        for each in drained:
            each.still_used_by = await self._users(each.upstream)
        upstreams = [each.upstream for each in drained]
        while time.monotonic() < deadline:
            self._others.ask_counts(upstreams)
            for each in drained:
                self._count(each, since + COUNTS_OLD_S, lagging)
            meanwhile()
            if all(each.in_flight == 0 and not each.waiting_for for each in drained):
                break
            await asyncio.sleep(DRAIN_EVERY_S)
        self._others.forget_counts(upstreams)

    def _count(self, each: Drained, since: float, lagging: Collection[str]) -> None:
        total, waiting = 0, set(lagging)
        each.by_node = {}
        for node in (*self._nodes.live(), *self._nodes.elsewhere()):
            book = self._health if node.elsewhere is None else self._others
            counted = book.open_requests(node.id, each.upstream)
            if counted is None or counted[0] < since:
                waiting.add(at(node))
            else:
                total += counted[1]
                each.by_node[node.id] = counted[1]
        each.in_flight, each.waiting_for = total, tuple(sorted(waiting))

    async def _users(self, upstream: str) -> tuple[str, ...]:
        """Services that still point to an upstream: traffic may begin there again at any time."""

        def users(tx: Transaction) -> tuple[str, ...]:
            found = tx.get("upstreams", upstream)
            if found is None:
                return ()
            return tuple(
                str(service.get("name") or service["id"])
                for service in tx.each("services")
                if service.get("host") == found["name"] and service.get("enabled") is not False
            )[:USERS_MAX]

        return await self._store.read(users)
