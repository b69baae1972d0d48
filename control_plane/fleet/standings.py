"""The nodes' records in the store, and with them what control planes over one database know of each other's nodes.

Each control plane saves what changed about its nodes, all of it together, once an interval; beats are never saved. In
the same round it takes over what the others have saved, and says that it lives, since a node's record names the control
plane that it is connected to.

Who waits for nodes must know sooner. He tells the others (`Store.tell_planes`), and until his wait is over they save a
moment after each change, and tell that they did. A thousand nodes that apply a version are a few rounds, not a thousand
writes. What is told may be lost: then the interval brings it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator, Callable

from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.settings import FleetSettings
from control_plane.store.contract import PlaneRecord, Store, StoreError

log = logging.getLogger(__name__)

GATHER_S = 0.05
"""After something that is not to wait for the interval: what else happens meanwhile is the same round's."""
HASTE_S_MAX = 120.0
"""Another control plane's wait makes us save at once for no longer than this."""
PURGE_INTERVAL_S = 3600.0


class Standings:
    """Saves and shares what is known of nodes. `clock` is monotonic, `wall` is seconds since 1970."""

    def __init__(
        self,
        store: Store,
        nodes: Nodes,
        plane: PlaneRecord,
        settings: FleetSettings,
        *,
        hurry: Callable[[int], None],
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._store = store
        self._nodes = nodes
        self._plane = plane
        self._settings = settings
        self._hurry = hurry
        self._clock = clock
        self._wall = wall
        self._planes: dict[str, str] = {plane.id: plane.hostname}
        self._wake = asyncio.Event()
        self._waits = 0
        self._hasty_until = clock()
        self._connected: set[str] = set()
        self._news = False
        self._renewed_at = clock() - settings.save_interval_s
        self._purged_at = clock() - PURGE_INTERVAL_S
        self._stop_listening = [nodes.listen(self._changed), store.hear_planes(self._heard)] if store.shared else []

    async def run(self) -> None:
        """Saves and takes over, for ever."""
        while True:
            self._wake.clear()  # what woke us is in this round
            await self.save()
            if self._store.shared:
                await self._share()
            if self._clock() - self._purged_at >= PURGE_INTERVAL_S:
                self._purged_at = self._clock()
                await self._purge()
            await self._pause()

    def stop(self) -> None:
        """Listens no longer; `run` is its caller's to cancel."""
        for stop in self._stop_listening:
            stop()
        self._stop_listening = []

    async def save(self) -> None:
        """Saves what changed since the last time."""
        records = self._nodes.take_dirty()
        if not records:
            return
        try:
            await self._store.save_nodes(records)
        except StoreError as error:
            self._nodes.put_back(records)
            log.warning("the records of %d nodes are not saved yet: %s", len(records), error)
        else:
            if self._clock() < self._hasty_until:
                self._tell(saved=True)

    @contextlib.asynccontextmanager
    async def awaited(self, version: int, timeout_s: float) -> AsyncIterator[None]:
        """While somebody waits for `version`: the other control planes tell how far their nodes are, at once."""
        if not self._store.shared or timeout_s <= 0:
            yield
            return
        self._waits += 1
        try:
            self._tell(version=version, for_s=timeout_s)
            await self._take_over()
            yield
        finally:
            self._waits -= 1

    async def _pause(self) -> None:
        """Until the next round is due."""
        try:
            async with asyncio.timeout(self._settings.save_interval_s):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(GATHER_S)

    def _changed(self, node: Node) -> None:
        moved = node.connected != (node.id in self._connected)
        if moved:
            (self._connected.add if node.connected else self._connected.discard)(node.id)
        if moved or (node.connected and self._clock() < self._hasty_until):
            self._wake.set()

    def _tell(self, **words: object) -> None:
        self._store.tell_planes(json.dumps({"plane": self._plane.id, **words}))

    def _heard(self, text: str) -> None:
        words = json.loads(text)
        if words["plane"] == self._plane.id or "word" in words:  # those are of rollouts (`relay_words.py`)
            return
        if "version" in words:
            self._hasty_until = max(self._hasty_until, self._clock() + min(float(words["for_s"]), HASTE_S_MAX))
            self._hurry(int(words["version"]))
            self._wake.set()
        elif "saved" in words and self._waits:
            self._news = True
            self._wake.set()

    async def _share(self) -> None:
        """Says that this control plane lives, and takes over what others know of nodes."""
        now = self._wall()
        due = self._clock() - self._renewed_at >= self._settings.save_interval_s
        if due:
            silent_s = max(self._settings.lease_s, 3 * self._settings.save_interval_s)
            record = dataclasses.replace(self._plane, seen_at=now)
            try:
                planes = await self._store.save_plane(record, others_seen_before=now - silent_s)
            except StoreError as error:
                log.warning("the nodes of other control planes are not known now: %s", error)
                return
            self._planes = {plane.id: plane.hostname for plane in planes}
            self._renewed_at = self._clock()
        if due or self._news:
            self._news = False
            await self._take_over()

    async def _take_over(self) -> None:
        try:
            self._nodes.merge(await self._store.nodes(), self._planes)
        except StoreError as error:
            log.warning("the nodes of other control planes are not known now: %s", error)

    async def _purge(self) -> None:
        self._nodes.purge()
        try:
            await self._store.forget_nodes(last_seen_before=self._wall() - self._settings.purge_after_s)
        except StoreError as error:
            log.warning("the records of nodes long gone are not removed yet: %s", error)
