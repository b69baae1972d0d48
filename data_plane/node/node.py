"""The node process as a whole: its parts, the order they start in, and the two ways it ends.

Start: sockets bound, workers up, the last good config active if there is one, then the link to the control plane. None
of it needs a control plane. End by SIGTERM: not ready at once, accepting a while longer so that load balancers notice,
then the queue emptied and requests finished. Dying without warning is covered by the workers: their channel ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import itertools
import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from data_plane.node.applying import Applier
from data_plane.node.default_pairs import BadDefaultPair, DefaultPairs
from data_plane.node.fence import Fenced, FenceKeeper
from data_plane.node.health_care import HealthCare
from data_plane.node.link import Link
from data_plane.node.metrics import TargetState
from data_plane.node.metrics_sum import MetricsSum, PlainSums, RouteKey, RouteSums
from data_plane.node.names import Names
from data_plane.node.rollouts import Rollouts
from data_plane.node.side_sums import SideReports, SidesSum
from data_plane.node.snapshot import NodeSnapshot
from data_plane.node.sockets import address_of
from data_plane.node.supervisor import Supervisor
from data_plane.node.target_states import TargetStates
from data_plane.node.workers import WorkerCounters
from pointsman.settings import SocketAddress

if TYPE_CHECKING:
    from data_plane.node.status_api import StatusApi

LEVELS_EVERY_S = 1.0
"""How old the count of requests in flight may be that goes out with each beat."""
TRAFFIC_EVERY_ROUNDS = 5
"""With each fifth of these counts the routes' sums come too: what a crashed worker can take with it."""

_log = logging.getLogger(__name__)


class Levels:
    """Requests in flight in all workers, as of a moment ago: what a beat may read without waiting."""

    def __init__(self) -> None:
        self.in_flight = 0

    def __call__(self) -> int:
        return self.in_flight


class Node:
    """All parts of one running node; also what the status API reads."""

    def __init__(
        self,
        *,
        node_id: str,
        supervisor: Supervisor,
        applier: Applier,
        names: Names,
        link: Link,
        rollouts: Rollouts,
        levels: Levels,
        health: HealthCare,
        fences: FenceKeeper,
        sums: MetricsSum,
        side_reports: SideReports,
        default_pairs: DefaultPairs | None,
        proxy_addresses: Sequence[SocketAddress],
        status_socket: socket.socket,
    ) -> None:
        self._node_id = node_id
        self._supervisor = supervisor
        self._applier = applier
        self._names = names
        self._link = link
        self._rollouts = rollouts
        self._levels = levels
        self._health = health
        self._fences = fences
        self._sums = sums
        self._side_reports = side_reports
        self._default_pairs = default_pairs
        self._target_states = TargetStates(health.verdicts.row)
        self._proxy_addresses = tuple(proxy_addresses)
        self._status_socket = status_socket
        self._status_api: StatusApi | None = None
        self._draining = False
        self._link_task: asyncio.Task[None] | None = None
        self._levels_task: asyncio.Task[None] | None = None
        self._stopped = False

    @property
    def node_id(self) -> str:
        return self._node_id

    @property
    def running(self) -> NodeSnapshot | None:
        return self._applier.running

    @property
    def worker_count(self) -> int:
        return len(self._supervisor.slots)

    @property
    def workers_ready(self) -> int:
        return self._supervisor.ready_count

    @property
    def worker_restarts(self) -> int:
        return sum(slot.restarts for slot in self._supervisor.slots)

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def connected(self) -> bool:
        return self._link.connected

    def fenced(self) -> Sequence[Fenced]:
        return self._fences.fenced()

    def mark_draining(self) -> None:
        """Answer "not ready" from now on; nothing else changes."""
        self._draining = True

    @property
    def certificate_expires_at(self) -> float | None:
        return self._link.status.certificate_expires_at

    @property
    def link_problem(self) -> str:
        status = self._link.status
        return status.certificate or ("" if status.connected else status.refused or status.last_loss)

    @property
    def left_behind(self) -> str:
        return self._link.left_behind

    @property
    def software(self) -> str:
        return self._link.software

    @property
    def head_version(self) -> int:
        return self._link.status.head_version or 0

    @property
    def snapshot_bytes_max(self) -> int:
        return self._link.snapshot_bytes_max

    async def counters(self, *, timeout_s: float, traffic: bool = False) -> Sequence[WorkerCounters]:
        return await self._supervisor.counters(timeout_s=timeout_s, traffic=traffic, sides=traffic)

    def plain_sums(self) -> PlainSums:
        return self._sums.plain()

    def side_sums(self) -> SidesSum:
        return self._sums.sides

    def route_sums(self) -> Iterator[Mapping[RouteKey, RouteSums] | None]:
        return self._sums.routes()

    @property
    def target_count(self) -> int:
        return self._target_states.count(self._applier.running)

    def target_states(self) -> Iterator[TargetState]:
        return self._target_states.of(self._applier.running)

    def reread(self) -> None:
        """Take up files that were replaced: access logs that were moved away, and the default certificates."""
        for process in self._supervisor.processes:
            process.reopen_logs()
        pairs = self._default_pairs
        if pairs is None:
            return
        try:
            if not pairs.reread():
                return
        except BadDefaultPair as error:
            _log.error("the default certificates stay as they were: %s", error)
            return
        for process in self._supervisor.processes:
            process.replace_default_pairs(pairs.pairs)
        _log.info("the default certificates were read anew")

    async def start(self, *, ports_file: Path | None) -> None:
        """Bring everything up and serve the last good config if there is one. Raises OSError for the ports file."""
        self._supervisor.start(self._applier.bring_up)
        self._names.start()
        self._health.start()
        self._fences.start()
        self._levels_task = asyncio.create_task(self._keep_levels(), name="levels")
        restoring = asyncio.create_task(self._link.intake.restore(), name="restoring")
        try:
            await self._link.intake.loaded.wait()
            await self._open_status()
            if ports_file is not None:
                await asyncio.to_thread(_write_ports, ports_file, self._ports())
            if not await restoring:
                _log.info("no usable last good config; waiting for the control plane")
        finally:
            restoring.cancel()
            await asyncio.gather(restoring, return_exceptions=True)
        self._link_task = asyncio.create_task(self._link.run(), name="fleet link")

    async def _open_status(self) -> None:
        """The status API, whose library takes as long to import as the rest of a node: while the workers build."""
        module = await asyncio.to_thread(importlib.import_module, "data_plane.node.status_api")
        api: StatusApi = module.StatusApi(self)
        await api.start(self._status_socket)
        self._status_api = api

    async def end(self, *, accept_for_s: float, finish_within_s: float) -> None:
        """End in good order: out of the load balancers first, then out of the port, then out of the fleet."""
        self.mark_draining()
        _log.info("draining: accepting for %g s more, then finishing for up to %g s", accept_for_s, finish_within_s)
        cut = await self._supervisor.drain(accept_for_s=accept_for_s, finish_within_s=finish_within_s)
        if cut:
            _log.warning("%d requests were cut by the deadline", cut)
        await self.stop("the node was told to stop")

    async def stop(self, reason: str = "the node stops at once") -> None:
        """End now, wherever the node is in its life; what is in flight is cut."""
        if self._stopped:
            return
        self._stopped = True
        self.mark_draining()
        if self._levels_task is not None:
            self._levels_task.cancel()
            await asyncio.gather(self._levels_task, return_exceptions=True)
        await self._rollouts.stop()
        await self._link.stop(reason)
        if self._link_task is not None:
            await asyncio.gather(self._link_task, return_exceptions=True)
        await self._fences.stop()
        await self._health.stop()
        await self._names.stop()
        await self._supervisor.stop()
        if self._status_api is not None:
            await self._status_api.stop()
        self._status_socket.close()

    async def failed(self) -> None:
        """Wait for a part to fail that nothing works without; raises what it raised."""
        assert self._link_task is not None, "started first"
        await asyncio.shield(self._link_task)

    async def _keep_levels(self) -> None:
        for round_number in itertools.count():
            traffic = round_number % TRAFFIC_EVERY_ROUNDS == 0
            counted = await self._supervisor.counters(timeout_s=LEVELS_EVERY_S, traffic=traffic, sides=True)
            self._side_reports.counted()
            self._levels.in_flight = sum(worker.in_flight for worker in counted)
            self._health.counted(counted)
            await asyncio.sleep(LEVELS_EVERY_S)

    def _ports(self) -> str:
        return json.dumps(
            {
                "proxy": [str(address) for address in self._proxy_addresses],
                "status": str(address_of(self._status_socket)),
                "node_id": self._node_id,
            }
        )


def _write_ports(path: Path, text: str) -> None:
    """Whole or not at all: whoever waits for the file may read it the moment it is there."""
    written = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        written.write_text(text + "\n", encoding="utf-8")
        written.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            written.unlink()
        raise
