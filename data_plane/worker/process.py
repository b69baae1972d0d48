"""A worker as a whole: what the node process says comes in, what became of it goes out, and in between it serves.

    idle --first activation--> serving --drain or end of the channel--> draining --> ended

A version goes through here in three messages: its entities are staged and built beside what serves, `Prepared` or
`Refused` says how that went, and `Activate` swaps the one live reference at the given instant. Requests keep the tables
they began with. This class keeps the order of these steps; the steps themselves are in the modules beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import itertools
import logging
import os
import time
from collections.abc import Callable, Coroutine, Generator, Mapping
from typing import NoReturn, assert_never

from google.protobuf.message import DecodeError

from data_plane.balancer import Upstream
from data_plane.channel import Channel
from data_plane.observe.access_log import AccessLog
from data_plane.observe.counters import Counters
from data_plane.proxy.serving import ClientFactory
from data_plane.proxy.tables import Active, ServiceRuntime, Tables
from data_plane.proxy.tls import DefaultPairs
from data_plane.router import TRADITIONAL_COMPATIBLE, release_router
from data_plane.worker import memory
from data_plane.worker.answers import Answers, decode_answers
from data_plane.worker.balancers import Balancers
from data_plane.worker.build import Staging
from data_plane.worker.catalogue import Catalogue
from data_plane.worker.certificates import Credentials
from data_plane.worker.faults import INTERNAL, MESSAGE_CHARACTERS_MAX, BuildFault
from data_plane.worker.leaving import Leaving
from data_plane.worker.listeners import Listeners
from data_plane.worker.moment import Moment
from data_plane.worker.observations import Observations
from data_plane.worker.slicing import SLICE_S, Slicer
from data_plane.worker.telling import tell_sides, tell_traffic
from data_plane.worker.tracing import trace
from pointsman.rules.pems import UnusablePem
from pointsman.wire.v1 import worker_pb2 as wire
from pointsman.wire.v1.fleet_pb2 import TraceAnswer, TraceRequest

STAGED_BYTES_MAX = 4 * 1024 * 1024
"""Entity bytes that may wait for their slice; beyond it the channel is not read."""
LOADS_MAX = 2000
"""Endpoints whose open requests are told with the counters, the busiest first."""
ORPHAN_FINISH_S = 10.0
"""After the node process has died: time for requests in flight."""
SERVICES_PER_LOOK = 1000
LOOK_EVERY_S = 0.02
HANDSHAKES_S = 0.2
"""When the port closes in good order: time for connections that have begun but are not yet established."""
SETTLE_AFTER_S = 0.05
"""After a swap at a common instant all workers of a host, and of the fleet, are awake at once: until then none of them
uses the processor for what can wait."""
TOLD_US_MAX = 2**31 - 1
LAST_RESORT_S = 10.0
"""A worker that has not ended so long after its deadline is ended by the system: its node process may be gone."""
EXIT_SOFTWARE = 70
"""sysexits.h: an internal software error."""

_log = logging.getLogger(__name__)


class Phase(enum.Enum):
    """Where a worker is in its life; it only ever moves down this list."""

    IDLE = "idle"  # no config yet, nobody listens
    SERVING = "serving"
    DRAINING = "draining"
    ENDED = "ended"


class Worker:
    """See the module. `run` returns when the worker has ended in good order."""

    def __init__(
        self,
        *,
        active: Active,
        factory: ClientFactory,
        counters: Counters,
        listeners: Listeners,
        send: Callable[[bytes], None],
        access_log: AccessLog | None = None,
        credentials: Credentials | None = None,
        router_flavour: str = TRADITIONAL_COMPATIBLE,
        defaults: DefaultPairs | None = None,
        give_up: Callable[[str, BaseException | None], None] | None = None,
        end_by: Callable[[float], object] | None = None,
    ) -> None:
        """`give_up` ends the process at once, because of what and which error; `end_by` does after so many seconds,
        even if nothing here can run any more."""
        self._give_up = give_up or _give_up
        self._end_by = end_by or (lambda seconds: None)
        self._router_flavour = router_flavour
        self._defaults = defaults
        self._access_log = access_log
        self._credentials = credentials or Credentials()
        self._active = active
        self._factory = factory
        self._counters = counters
        self._listeners = listeners
        self._send_bytes = send
        self._channel: Channel | None = None
        self._phase = Phase.IDLE
        self._version = 0
        self._catalogue = Catalogue()
        self._answers = Answers()
        self._observations = Observations(
            self._send, congested=lambda: self._channel is not None and self._channel.congested
        )
        self._slicer = Slicer(self._on_work_failed)
        self._leaving = Leaving(factory.close_late)
        self._balancers = Balancers(report=self._observations.report, defer=self._slicer.submit)
        self._staging: Staging | None = None
        self._staged_bytes = 0
        self._staging_began = 0.0
        self._moment: Moment | None = None
        self._armed_ns = 0
        self._unsettled: Generator[None, None, None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def version(self) -> int:
        """The version that serves; 0 = none yet."""
        return self._version

    def attach(self, channel: Channel) -> None:
        """Say hello over the channel, which from now on can be told to wait."""
        self._channel = channel
        self._factory.start()
        self._send(wire.FromWorker(started=wire.Started(pid=os.getpid())))
        self._own(self._collect_now_and_then(), "collector")

    async def run(self) -> None:
        """Until the end."""
        await self._ended
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._leaving.stop()
        self._factory.stop()
        if self._access_log is not None:
            self._access_log.stop()

    def on_message(self, data: bytes) -> None:
        """One message of the node process."""
        try:
            message = wire.ToWorker.FromString(data)
        except DecodeError:
            self._give_up("the node process sent what is no message", None)
            return
        match message.WhichOneof("kind"):
            case "stage_begin":
                self._begin_staging(message.stage_begin)
            case "stage_part":
                self._stage_part(message.stage_part, len(data))
            case "stage_end":
                self._end_staging()
            case "activate":
                self._activate(message.activate)
            case "discard":
                self._discard(message.discard.version)
            case "names":
                self._learn(message.names)
            case "drain":
                self._begin_end(
                    accept_for_s=message.drain.accept_for_ms / 1000,
                    finish_within_s=message.drain.finish_within_ms / 1000,
                )
            case "availability":
                self._follow_verdicts(message.availability)
            case "counters_request":
                asked = message.counters_request
                if asked.traffic or asked.sides:
                    self._slicer.submit(self._count_all(asked.sequence, traffic=asked.traffic, sides=asked.sides))
                else:
                    self._count(message.counters_request.sequence)
            case "warm":
                self._own(self._warm(message.warm), "warming")
            case "trace_request":
                self._slicer.submit(self._trace(message.trace_request))
            case "reopen_logs":
                if self._access_log is not None:
                    self._access_log.reopen()
            case "default_pairs":
                self._replace_defaults(message.default_pairs)
            case "fences":
                self._active.fenced = frozenset(message.fences.services)
            case _:
                _log.warning("the node process sent a message of an unknown kind")

    def on_channel_lost(self, error: Exception | None) -> None:
        """The node process is gone: take no new connections, finish what there is, end."""
        if error is not None:
            _log.error("the channel to the node process broke: %s", error)
        self._begin_end(accept_for_s=0.0, finish_within_s=ORPHAN_FINISH_S)

    def _begin_staging(self, begin: wire.StageBegin) -> None:
        self._drop_staging()
        self._settle_now()  # nothing is staged over layers that are not merged
        base_version, version = begin.base_version, begin.snapshot.version
        staging = Staging(
            version,
            self._catalogue,
            from_nothing=base_version == 0,
            credentials=self._credentials,
            router_flavour=self._router_flavour,
        )
        staging.epoch = begin.snapshot.epoch
        if base_version not in (0, self._version):
            staging.out_of_step(base_version, self._version)
        self._staging = staging
        self._staging_began = time.perf_counter()

    def _stage_part(self, part: wire.StagePart, size: int) -> None:
        staging = self._staging
        if staging is None or staging.discarded:
            return
        deletes = [(key.collection, key.id) for key in part.deletes]
        self._staged_bytes += size
        if self._staged_bytes > STAGED_BYTES_MAX and self._channel is not None:
            self._channel.pause_reading()
        self._slicer.submit(self._add(staging, list(part.upserts), deletes, size))

    def _add(
        self, staging: Staging, upserts: list[bytes], deletes: list[tuple[str, str]], size: int
    ) -> Generator[None, None, None]:
        try:
            if not staging.discarded:
                yield from staging.add(upserts, deletes)
        except Exception as error:
            self._blame(staging, error)
        finally:
            self._staged_bytes -= size
            if self._staged_bytes <= STAGED_BYTES_MAX // 2 and self._channel is not None:
                self._channel.resume_reading()

    def _end_staging(self) -> None:
        if self._staging is not None:
            self._slicer.submit(self._finish(self._staging))

    def _finish(self, staging: Staging) -> Generator[None, None, None]:
        try:
            if not staging.discarded:
                yield from staging.finish(self._active.tables, self._balancers, self._answers)
        except Exception as error:
            self._blame(staging, error)
        if staging.discarded:
            return
        if staging.faults:
            self._refuse(staging)
            return
        took_ms = round((time.perf_counter() - self._staging_began) * 1000)
        self._send(wire.FromWorker(prepared=wire.Prepared(version=staging.version, took_ms=took_ms)))

    def _blame(self, staging: Staging, error: Exception) -> None:
        """A fault of ours while building: the config is refused like any other, and the log has the traceback."""
        _log.error("building version %d failed", staging.version, exc_info=error)
        staging.faults.add(BuildFault(INTERNAL, f"the worker could not build this config: {type(error).__name__}"))

    def _refuse(self, staging: Staging) -> None:
        refused = wire.Refused(version=staging.version)
        for fault in staging.faults.found:
            refused.faults.add(
                code=fault.code,
                collection=fault.collection,
                entity_id=fault.entity_id,
                entity_name=fault.entity_name,
                field=fault.field,
                message=fault.message[:MESSAGE_CHARACTERS_MAX],
            )
        self._drop_staging()
        self._send(wire.FromWorker(refused=refused))

    def _discard(self, version: int) -> None:
        if self._staging is not None and self._staging.version == version:
            self._drop_staging()

    def _drop_staging(self) -> None:
        if self._moment is not None:
            self._moment.cancel()
            self._moment = None
            self._active.disarm()
        if self._staging is not None:
            self._staging.discarded = True
            self._staging = None

    def _activate(self, activate: wire.Activate) -> None:
        staging = self._staging
        if staging is None or staging.tables is None or staging.version != activate.version:
            _log.error("version %d is to be activated but was not prepared", activate.version)
            return
        at_ns = activate.at_monotonic_ns
        if staging.plan is not None and staging.plan.walks:
            self._slicer.submit(self._activate_later(activate))
        elif at_ns == 0:
            self._swap(staging, 0)
        else:
            self._armed_ns = time.monotonic_ns()
            self._moment = Moment(at_ns, lambda: self._swap(staging, at_ns))
            self._active.arm(at_ns, self._moment.come)

    def _swap(self, staging: Staging, at_ns: int) -> None:
        """The moment a version becomes what serves: plan carried out, one reference replaced."""
        tables, plan = staging.tables, staging.plan
        assert tables is not None, "only what is prepared is activated"
        assert plan is not None, "it comes with the tables"
        self._moment = None
        self._staging = None
        self._active.disarm()
        deferred = self._balancers.carry_out(plan, self._answers)
        self._leaving.follow(staging.moves)
        self._counters.sides.entered(staging.moves.entered)
        self._balancers.use_epoch(staging.epoch)
        before = self._active.tables
        self._active.tables = tables
        swapped_ns = time.monotonic_ns()
        self._version = staging.version
        activated = wire.Activated(version=staging.version, at_monotonic_ns=swapped_ns)
        if at_ns:
            activated.late_us = min((swapped_ns - at_ns) // 1000, TOLD_US_MAX)
            activated.ahead_us = min(max(0, at_ns - self._armed_ns) // 1000, TOLD_US_MAX)
        match self._phase:
            case Phase.IDLE:
                self._phase = Phase.SERVING
                self._own(self._open(activated), "opening")
            case Phase.SERVING | Phase.DRAINING | Phase.ENDED:
                if deferred:
                    # Not active everywhere before the large upstreams are: who was removed must not be picked then.
                    self._slicer.submit(self._tell_later(wire.FromWorker(activated=activated)))
                else:
                    self._send(wire.FromWorker(activated=activated))
            case _:
                assert_never(self._phase)
        self._unsettled = self._settle(staging, before, tables)
        if at_ns:
            asyncio.get_running_loop().call_later(SETTLE_AFTER_S, self._settle_now)
        else:
            self._settle_now()

    def _settle_now(self) -> None:
        settling, self._unsettled = self._unsettled, None
        if settling is not None:
            self._slicer.submit(settling)

    def _activate_later(self, activate: wire.Activate) -> Generator[None, None, None]:
        """When what is staged has followed the names that were told last."""
        self._activate(activate)
        yield

    def _tell_later(self, message: wire.FromWorker) -> Generator[None, None, None]:
        self._send(message)
        yield

    async def _open(self, activated: wire.Activated) -> None:
        await self._listeners.open()
        self._slicer.slice_s = SLICE_S
        self._send(wire.FromWorker(activated=activated))

    def _settle(self, staging: Staging, before: Tables | None, after: Tables) -> Generator[None, None, None]:
        """After a swap: the changes merged down, what nothing uses let go of, the heap out of the collector's sight.

        No request looks into the tables before: it asks the router once, at its head, and keeps the plan.
        """
        yield from staging.catalogue.merge()
        self._answers.forget_all_but(self._balancers.names())
        if before is not None and len(after.services) < len(self._counters.sides.sides):
            yield from self._counters.sides.keep_only(after.services)
        if before is not None:
            yield from release_router(before.router, after.router)
        memory.after_swap()

    def _learn(self, names: wire.Names) -> None:
        changed = self._answers.learn(decode_answers(names))
        if changed:
            staged = self._staging.plan if self._staging is not None else None
            self._balancers.answers_changed(changed, self._answers, staged)

    def _follow_verdicts(self, availability: wire.Availability) -> None:
        self._balancers.verdicts(
            ((told.endpoint.upstream, told.endpoint.key, told.available) for told in availability.verdicts),
            whole=availability.whole,
            staged=self._staging.plan if self._staging is not None else None,
        )

    def _replace_defaults(self, told: wire.DefaultPairs) -> None:
        if self._defaults is None:
            return
        try:
            self._defaults.replace([(pair.certificate, pair.key) for pair in told.pairs])
        except UnusablePem as error:
            _log.error("the new default certificates can't be used: %s", error)

    async def _warm(self, asked: wire.Warm) -> None:
        """Connections to the side that is to get traffic, as the staged services will use them."""
        staging = self._staging
        told = wire.FromWorker(warmed=wire.Warmed(version=asked.version))
        if staging is not None and staging.version == asked.version and staging.tables is not None:
            wanted = set(asked.upstreams)
            uses = []
            for number, service in enumerate(list(staging.tables.services.values()), 1):
                if number % SERVICES_PER_LOOK == 0:
                    await asyncio.sleep(0)  # requests first
                for side in (service, *(service.sides.runtimes() if service.sides is not None else ())):
                    balancer = side.balancer
                    if isinstance(balancer, Upstream) and balancer.id in wanted:
                        uses.append((side, [each for each in balancer.endpoints.values() if each.weight > 0]))
            for warmed in await self._factory.warm(
                uses, connections=asked.connections, within_s=asked.within_ms / 1000
            ):
                endpoint = warmed.endpoint
                told.warmed.endpoints.add(
                    endpoint=wire.EndpointId(upstream=endpoint.upstream, key=endpoint.key),
                    idle=warmed.idle,
                    error=warmed.error,
                )
        self._send(told)

    def _trace(self, request: TraceRequest) -> Generator[None, None, None]:
        try:
            answer = yield from trace(
                request, self._active.tables, self._factory.settings, self._balancers.upstream_name
            )
        except Exception as error:
            _log.exception("a trace failed")
            answer = TraceAnswer(id=request.id, error=f"the worker could not say: {type(error).__name__}")
        self._send(wire.FromWorker(trace=answer))

    def _count_all(self, sequence: int, *, traffic: bool, sides: bool) -> Generator[None, None, None]:
        if sides:
            yield from self._tell_sides()
        if traffic:
            yield from tell_traffic(self._counters.traffic, self._send)
        self._count(sequence)

    def _tell_sides(self) -> Generator[None, None, None]:
        tables = self._active.tables
        watched = _Watched(tables.services) if tables is not None else frozenset[str]()
        return tell_sides(self._counters.sides, self._factory.open_sides(), watched, self._send)

    def _count(self, sequence: int) -> None:
        counters = self._counters
        log = self._access_log
        loads = sorted(self._factory.loads().items(), key=lambda load: -load[1])[:LOADS_MAX]
        self._send(
            wire.FromWorker(
                counters=wire.Counters(
                    sequence=sequence,
                    requests=counters.requests,
                    connections_accepted=counters.connections_accepted,
                    connections_active=self._factory.connections,
                    connections_reading=self._factory.reading,
                    in_flight=self._factory.in_flight,
                    version=self._version,
                    rss_bytes=memory.rss_bytes(),
                    requests_malformed=counters.requests_malformed,
                    attempts_failed=counters.attempts_failed,
                    retries=counters.retries,
                    errors_internal=counters.errors_internal,
                    upstream_connections_open=counters.upstream_connections_open,
                    upstream_connections_opened=counters.upstream_connections_opened,
                    upstream_connections_reused=counters.upstream_connections_reused,
                    folded=counters.traffic.folded_total,
                    log_lines=log.written if log is not None else 0,
                    log_lines_dropped=log.dropped + log.lost if log is not None else 0,
                    loads=(
                        wire.EndpointLoad(
                            endpoint=wire.EndpointId(upstream=endpoint.upstream, key=endpoint.key), in_flight=in_flight
                        )
                        for endpoint, in_flight in loads
                    ),
                )
            )
        )

    def _begin_end(self, *, accept_for_s: float, finish_within_s: float) -> None:
        if self._phase in (Phase.IDLE, Phase.SERVING):
            self._phase = Phase.DRAINING
            self._factory.begin_drain()
            self._end_by(accept_for_s + finish_within_s + LAST_RESORT_S)
            self._own(self._end(accept_for_s, finish_within_s), "drain")
        elif self._phase is Phase.DRAINING and self._channel is not None and self._channel.closed:
            # The node process died while we drained: nobody can restart us now, and nobody waits for late connections.
            self._own(self._listeners.close(handshakes_s=0.0), "closing")

    async def _end(self, accept_for_s: float, finish_within_s: float) -> None:
        await asyncio.sleep(accept_for_s)
        orphan = self._channel is not None and self._channel.closed
        await self._listeners.close(handshakes_s=0.0 if orphan else HANDSHAKES_S)
        self._factory.end_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(finish_within_s):
                while self._factory.connections:  # noqa: ASYNC110 - the hot path should not have to signal its end
                    await asyncio.sleep(LOOK_EVERY_S)
        cut = self._factory.in_flight
        if self._factory.connections:
            _log.warning(
                "%d connections were still open %g s after the port closed and are cut, %d of them with a request: %s",
                self._factory.connections,
                finish_within_s,
                cut,
                ", ".join(f"{count} {doing}" for doing, count in self._factory.doing().items()) or "at their greeting",
            )
        self._listeners.cut()
        self._factory.cut()
        for _ in itertools.chain(self._tell_sides(), tell_traffic(self._counters.traffic, self._send)):
            pass  # the last counts: nothing else is to be done any more
        self._count(0)
        self._send(wire.FromWorker(drained=wire.Drained(cut=cut)))
        self._phase = Phase.ENDED
        if not self._ended.done():
            self._ended.set_result(None)

    async def _collect_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(memory.COLLECT_EVERY_S)
            if not self._slicer and self._moment is None:  # a pass takes milliseconds, and the instant is near
                memory.collect()

    def _on_work_failed(self, error: BaseException) -> None:
        # Staging catches its own; what arrives here left the catalogue half merged: a fresh worker is the way out.
        self._give_up("work between the requests failed", error)

    def _send(self, message: wire.FromWorker) -> None:
        self._send_bytes(message.SerializeToString())

    def _own(self, steps: Coroutine[object, object, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(steps, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._give_up(f"{task.get_name()} failed", error)


class _Watched:
    """Ids of the services whose settings name other sides than their host."""

    def __init__(self, services: Mapping[str, ServiceRuntime]) -> None:
        self._services = services

    def __contains__(self, service: object) -> bool:
        runtime = self._services.get(service) if isinstance(service, str) else None
        return runtime is not None and runtime.sides is not None


def _give_up(what: str, error: BaseException | None) -> NoReturn:
    """End without ceremony: the node process replaces this worker, and its sockets keep new connections waiting."""
    _log.critical("this worker can't go on: %s", what, exc_info=error)
    os._exit(EXIT_SOFTWARE)
