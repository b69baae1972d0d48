"""The fleet as the rest of the control plane sees it: start, stop, who is there, and waiting for a version."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence

from control_plane.entities.types import EntityBody
from control_plane.fleet.draining import at
from control_plane.fleet.gate import Gate
from control_plane.fleet.health import HealthBook, TargetVerdict
from control_plane.fleet.nodes import Nodes, NodeView, Plane
from control_plane.fleet.own_settings import Fence, OwnSettings
from control_plane.fleet.published import Published, Shelf
from control_plane.fleet.publisher import Publisher
from control_plane.fleet.rollouts import Rollouts
from control_plane.fleet.sampling import Hints
from control_plane.fleet.server import ZONE_LABEL, LinkServer
from control_plane.fleet.session import Lineage
from control_plane.fleet.settings import FleetSettings
from control_plane.fleet.side_figures import SideBook, SideFigures, SideRate
from control_plane.fleet.standings import Standings
from control_plane.fleet.timing import Times
from control_plane.fleet.tracing import Question
from control_plane.fleet.waiting import WaitReport, wait_for
from control_plane.identity.refusals import Refusal, RefusedCaller
from control_plane.snapshot.builder import Snapshot
from control_plane.store.contract import PlaneRecord, Store, StoreError

log = logging.getLogger(__name__)

GATE_INTERVAL_S = 1.0
"""How often nodes that were revoked, here or elsewhere, are looked for."""


class Fleet:
    """All nodes of this control plane. One per process; `start` before use, `stop` in the end."""

    def __init__(
        self,
        store: Store,
        settings: FleetSettings | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        gate: Gate | None = None,
    ) -> None:
        self.gate = gate
        self._settings = settings or FleetSettings()
        self._store = store
        self._clock = clock
        self._wall = wall
        self._epoch = b""
        self._plane = PlaneRecord(str(uuid.uuid4()), socket.gethostname(), started_at=wall(), seen_at=wall())
        self._nodes = Nodes(
            clock=clock,
            wall=wall,
            lease_s=self._settings.lease_s,
            purge_after_s=self._settings.purge_after_s,
            nodes_max=self._settings.nodes_max,
            plane=Plane(self._plane.id, self._plane.hostname),
        )
        if gate is not None:
            self._nodes.certificate_expires_at = gate.expires_at
        self._health = HealthBook()
        self._sides = SideBook()
        self._hints = Hints(
            self._health,
            refresh_s=self._settings.lease_s,
            per_zone=self._settings.probers_per_zone,
            nodes_min=self._settings.sampling_nodes_min,
        )
        self._own_settings = OwnSettings(store, wall=wall)
        self._server = LinkServer(
            self._settings,
            self._nodes,
            Shelf(),
            clock=clock,
            plane_id=self._plane.id,
            health=self._health,
            sides=self._sides,
            gate=gate,
        )
        self._publisher = Publisher(store, self._publish, gather=self._settings.gather, clock=clock)
        self.rollouts = Rollouts(
            store,
            self._publisher,
            self._server,
            self._nodes,
            self._health,
            sole=self._settings.sole_plane,
            hostname=self._plane.hostname,
            wall=wall,
        )
        self._standings = Standings(
            store, self._nodes, self._plane, self._settings, hurry=self._hurry, clock=clock, wall=wall
        )
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """Where nodes dial in, once started."""
        return self._server.port

    @property
    def registry(self) -> Nodes:
        """Every known node, for those who want to hear of changes."""
        return self._nodes

    @property
    def published(self) -> int:
        """The version that nodes are offered; behind the store's head while a burst is gathered."""
        return self._publisher.published

    @property
    def gather_times(self) -> Times:
        """From the first commit that a snapshot brings to its publication."""
        return self._publisher.times

    async def start(self) -> None:
        """Builds the head's snapshot, then listens. Raises StoreError, and OSError when the address can't be had."""
        self._epoch = await self._store.epoch()
        self._nodes.lineage = Lineage(
            await self._store.lineage(),
            accept_rollback=self._settings.accept_rollback,
            accept_empty=self._settings.accept_empty,
        )
        known = await self._store.nodes()
        self._nodes.load(known)
        self._nodes.await_return(known)
        if self.gate is not None:
            await self.gate.refresh()
        try:
            await self._publisher.start()
            await self._server.start()
        except BaseException:
            self._publisher.stop()
            raise
        await self.rollouts.start()
        self._own(self._publisher.run(), "fleet publisher")
        self._own(self._standings.run(), "fleet node records")
        self._own(self._share_health(), "fleet health")
        if self.gate is not None:
            self._own(self._keep_gate(self.gate), "fleet gate")

    async def stop(self) -> None:
        """Tells the nodes when to come back, closes, and saves what is known of them."""
        await self.rollouts.stop()
        self._publisher.stop()
        await self._server.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._standings.stop()
        await self._standings.save()

    async def wait_for(self, version: int, timeout_s: float) -> WaitReport:
        """Waits until all nodes live now, here and on other control planes over the same database, run `version` or
        later; the rules are in `waiting.py`."""
        self._hurry(version)
        async with self._standings.awaited(version, timeout_s):
            return await wait_for(self._nodes, version, epoch=self._epoch, timeout_s=timeout_s)

    def nodes(self) -> Sequence[NodeView]:
        """Every known node, by hostname and id."""
        return self._nodes.views()

    def data_planes(self) -> Sequence[EntityBody]:
        """Every known node by id, in the shape of Kong's `/clustering/data-planes`."""
        return self._nodes.data_planes()

    def refusals(self) -> Mapping[str, int]:
        """How often somebody was not let in as a node, by reason."""
        return {refusal.value: self._server.refusals.counts[refusal] for refusal in Refusal}

    def refused(self) -> Sequence[RefusedCaller]:
        """Whoever was not let in as a node, the last first."""
        return self._server.refusals.newest_first()

    def live_nodes(self) -> Mapping[str, str]:
        """The host name of each node that is live now, by id."""
        return {node.id: node.hostname for node in self._nodes.live()}

    def returning(self) -> Sequence[str]:
        """Host names of nodes that were connected before our start, a moment ago, and are on their way back."""
        return self._nodes.returning()

    def verdict(self, upstream: str, target: str) -> TargetVerdict | None:
        """What the live nodes say of a target; None when none of them knows it."""
        return self._health.verdict(upstream, target, [node.id for node in self._nodes.live()])

    def side_figures(self, service_id: str) -> Mapping[str, Mapping[str, SideFigures]]:
        """What the connected nodes have counted of each side of a service, by node and upstream id.

        The empty id is a host that is no upstream. What happened in a time is the difference of two readings; a side
        that has counted nothing yet is not there, and reads as `SideFigures()`.
        """
        return self._sides.figures(service_id)

    def nodes_elsewhere(self) -> Mapping[str, str]:
        """Nodes that are connected to other control planes over the same database, as text with which one, by id."""
        return {node.id: at(node) for node in self._nodes.elsewhere()}

    def side_figures_elsewhere(self, service_id: str) -> Mapping[str, Mapping[str, SideFigures]]:
        """The same of the nodes at other control planes, as these have told within the last seconds; a node that is
        seen and has counted nothing has no sides. Who asks is told newer ones from then on, once a second."""
        return self.rollouts.distant_sides.figures(service_id)

    def side_rates(self) -> Sequence[SideRate]:
        """What the connected nodes count of all sides, now and in the last seconds."""
        return self._sides.rates(now=self._clock())

    def loads_age_s(self) -> float | None:
        """How old the oldest live node's count of open requests is; None without nodes, or when one gave none yet."""
        at = self._health.counted_at([node.id for node in self._nodes.live()])
        return None if at is None else self._clock() - at

    def fences(self) -> Sequence[Fence]:
        """Services that a node without a control plane stops serving."""
        return self._own_settings.fences

    async def trace(self, question: Question, *, node: str | None, timeout_s: float) -> tuple[str, str, EntityBody]:
        """Ask a live node what would become of a request: its id, its hostname and the answer.

        Raises NoNode, NotAnswered and TooManyQuestions (`tracing.py`).
        """
        asked, answer = await self._server.trace(question, node=node, timeout_s=timeout_s)
        return asked.id, asked.hostname, answer

    def _hurry(self, version: int) -> None:
        if version > self._publisher.published:
            self._publisher.hurry(version)

    def _publish(self, snapshot: Snapshot) -> None:
        self._server.offers.publish(Published(snapshot))

    def _own(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_report_death)
        self._tasks.append(task)

    async def _share_health(self) -> None:
        while True:
            await asyncio.sleep(self._settings.health_interval_s)
            self._health.keep_only(self._nodes.present())
            self._sides.keep_only(self._nodes.present())
            await self._own_settings.follow(self._publisher.published)
            zones = {node.id: node.labels.get(ZONE_LABEL, "") for node in self._nodes.live()}
            self._server.hint(self._hints.due(zones, self._own_settings.modes, now=self._clock()))

    async def _keep_gate(self, gate: Gate) -> None:
        while True:
            await asyncio.sleep(GATE_INTERVAL_S)
            try:
                await gate.refresh()
            except StoreError as error:
                log.warning("which nodes are revoked could not be read: %s", error)
            self._server.turn_out()
            self._server.tell_trust()


def _report_death(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("%s ended by a mistake of ours", task.get_name(), exc_info=error)
