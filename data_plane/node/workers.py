"""One worker process as the node process sees it: spoken to over a socket pair, watched to its end.

`launch.py` starts it. Every question to a worker ends in its answer or in `WorkerDied`; a worker that stays
silent is the caller's decision, which is why each call takes its time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError

from data_plane.channel import Channel
from data_plane.handover import Pair
from data_plane.node.launch import Launched
from data_plane.node.metrics_sum import WorkerSums
from data_plane.node.snapshot import NodeSnapshot
from data_plane.resolve.answers import Answer
from pointsman.snapshots import Fault
from pointsman.wire.v1 import fleet_pb2 as fleet
from pointsman.wire.v1 import worker_pb2 as wire

T = TypeVar("T")

NAMES_PER_MESSAGE = 1000
MESSAGES_TOGETHER = 8
MESSAGE_BYTES_SMALL = 16 * 1024
EXIT_WITHIN_S = 15.0
"""A worker whose channel has ended has 10 s for its requests; one that is still there after this is killed."""

WARM_GRACE_S = 0.5
"""For the answer of a worker whose time to open connections is over."""

_log = logging.getLogger(__name__)


class WorkerDied(Exception):
    """The worker's process or its channel ended before it answered."""


class WorkerRefused(Exception):
    """The worker can't make tables of what it was sent."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(fault.message for fault in faults[:3]))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Activation:
    """When a worker swapped, by CLOCK_MONOTONIC, how late that was, and how far ahead of the instant it was armed."""

    at_monotonic_ns: int
    late_us: int
    ahead_us: int = 0


@dataclass(frozen=True, slots=True)
class WorkerCounters:
    """A worker's sums since its start and its levels now."""

    pid: int
    requests: int
    connections_accepted: int
    connections_active: int
    in_flight: int
    version: int
    rss_bytes: int
    upstream_connections_open: int = 0
    connections_reading: int = 0
    loads: tuple[tuple[str, str, int], ...] = ()
    """Upstream, endpoint's key and how many requests are open towards it."""


@dataclass(frozen=True, slots=True)
class WarmedEndpoint:
    """Connections of a worker to one endpoint that are ready; `error` is why one could not be opened."""

    upstream: str
    key: str
    idle: int
    error: str


class WorkerProcess:
    """A running worker. `snapshot` is what it has active, as far as it has told."""

    def __init__(self, index: int, process: subprocess.Popen[bytes]) -> None:
        self.index = index
        self.pid = process.pid
        self.snapshot: NodeSnapshot | None = None
        loop = asyncio.get_running_loop()
        self._process = process
        self._channel: Channel | None = None
        self._started: asyncio.Future[None] = loop.create_future()
        self._exited: asyncio.Future[int] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()
        self._prepared: asyncio.Future[None] | None = None
        self._activated: asyncio.Future[Activation] | None = None
        self._warmed: asyncio.Future[tuple[WarmedEndpoint, ...]] | None = None
        self._drained: asyncio.Future[int] = loop.create_future()
        self._counters: dict[int, asyncio.Future[WorkerCounters]] = {}
        self._traces: dict[int, asyncio.Future[fleet.TraceAnswer]] = {}
        self.sums = WorkerSums()
        self.on_observations: Callable[[wire.Observations], None] | None = None
        self._sequence = 0
        self._expected_version = 0
        self._pidfd = os.pidfd_open(process.pid)
        loop.add_reader(self._pidfd, self._reap)

    @classmethod
    async def take_over(cls, launched: Launched) -> WorkerProcess:
        """Speak to a process from now on."""
        worker = cls(launched.index, launched.process)
        worker._channel = await Channel.open(launched.channel_end, worker._on_message, worker._on_channel_lost)
        return worker

    @property
    def alive(self) -> bool:
        """Whether the worker can be spoken to."""
        return not self._gone.done()

    @property
    def gone(self) -> asyncio.Future[None]:
        """Done when the worker can't be spoken to any more; it may still be finishing its requests."""
        return self._gone

    @property
    def exited(self) -> asyncio.Future[int]:
        """Done with the return code (negative = signal) when the process has ended; shield it when awaiting."""
        return self._exited

    async def started(self, *, timeout_s: float) -> None:
        """Wait for the worker's first word; raises WorkerDied or TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._started)

    async def prepare(self, messages: Iterable[bytes], version: int, *, timeout_s: float) -> None:
        """Stage what `messages` say; raises WorkerRefused, WorkerDied or TimeoutError."""
        self._expected_version = version
        prepared: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._prepared = prepared
        try:
            async with asyncio.timeout(timeout_s):
                # Most changes are three short messages: together they wake the worker once.
                together: list[bytes] = []
                for message in messages:
                    together.append(message)
                    if len(together) < MESSAGES_TOGETHER and len(message) < MESSAGE_BYTES_SMALL:
                        continue
                    self._send(*together)
                    together.clear()
                    await self._drain()
                    if prepared.done():
                        break  # refused before the end
                if together:
                    self._send(*together)
                await prepared
        finally:
            self._prepared = None
            prepared.cancel()

    async def activate(self, version: int, at_monotonic_ns: int, *, timeout_s: float) -> Activation:
        """Swap to what was prepared; raises WorkerDied or TimeoutError."""
        self._expected_version = version
        activated: asyncio.Future[Activation] = asyncio.get_running_loop().create_future()
        self._activated = activated
        try:
            message = wire.ToWorker(activate=wire.Activate(version=version, at_monotonic_ns=at_monotonic_ns))
            self._send(message.SerializeToString())
            async with asyncio.timeout(timeout_s):
                return await activated
        finally:
            self._activated = None
            activated.cancel()

    async def warm(
        self, version: int, upstreams: Sequence[str], *, connections: int, timeout_s: float
    ) -> tuple[WarmedEndpoint, ...]:
        """Open connections to the endpoints of `upstreams` for the staged `version`; raises as `prepare` does."""
        warmed: asyncio.Future[tuple[WarmedEndpoint, ...]] = asyncio.get_running_loop().create_future()
        self._warmed = warmed
        try:
            asked = wire.Warm(
                version=version, upstreams=upstreams, connections=connections, within_ms=round(timeout_s * 1000)
            )
            self._send(wire.ToWorker(warm=asked).SerializeToString())
            async with asyncio.timeout(timeout_s + WARM_GRACE_S):
                return await warmed
        finally:
            self._warmed = None
            warmed.cancel()

    def discard(self, version: int) -> None:
        """Let the worker forget what it staged."""
        self._tell(wire.ToWorker(discard=wire.Discard(version=version)).SerializeToString())

    def push_names(self, answers: Sequence[Answer]) -> None:
        """Tell the worker what names resolve to; in order with everything else that it is sent."""
        for start in range(0, len(answers), NAMES_PER_MESSAGE):
            message = wire.ToWorker()
            for answer in answers[start : start + NAMES_PER_MESSAGE]:
                told = message.names.answers.add(name=answer.name, error=answer.error, unsteady=answer.unsteady)
                for record in answer.records:
                    told.records.add(ip=record.ip, port=record.port, weight=record.weight, name=record.name)
            self._tell(message.SerializeToString())

    def push(self, message: bytes) -> None:
        """Tell the worker something that has no answer; in order with everything else that it is sent."""
        self._tell(message)

    async def drain(self, *, accept_for_s: float, finish_within_s: float) -> int:
        """Let the worker end; returns how many requests its deadline cut. Raises WorkerDied."""
        message = wire.ToWorker(
            drain=wire.Drain(accept_for_ms=round(accept_for_s * 1000), finish_within_ms=round(finish_within_s * 1000))
        )
        self._send(message.SerializeToString())
        return await asyncio.shield(self._drained)

    async def counters(self, *, timeout_s: float, traffic: bool = False, sides: bool = False) -> WorkerCounters:
        """What the worker has counted; `traffic` and `sides` bring those `sums` up to date too.

        Raises WorkerDied or TimeoutError.
        """
        self._sequence += 1
        sequence = self._sequence
        answer: asyncio.Future[WorkerCounters] = asyncio.get_running_loop().create_future()
        self._counters[sequence] = answer
        try:
            request = wire.CountersRequest(sequence=sequence, traffic=traffic, sides=sides)
            self._send(wire.ToWorker(counters_request=request).SerializeToString())
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            del self._counters[sequence]
            answer.cancel()

    async def trace(self, request: fleet.TraceRequest, *, timeout_s: float) -> fleet.TraceAnswer:
        """What would become of a request in this worker; raises WorkerDied or TimeoutError."""
        self._sequence += 1
        sequence = self._sequence
        answer: asyncio.Future[fleet.TraceAnswer] = asyncio.get_running_loop().create_future()
        self._traces[sequence] = answer
        try:
            asked = fleet.TraceRequest()
            asked.CopyFrom(request)
            asked.id = sequence
            self._send(wire.ToWorker(trace_request=asked).SerializeToString())
            async with asyncio.timeout(timeout_s):
                return await answer
        finally:
            del self._traces[sequence]
            answer.cancel()

    def reopen_logs(self) -> None:
        """Let the worker open its access log anew."""
        self._tell(wire.ToWorker(reopen_logs=wire.ReopenLogs()).SerializeToString())

    def replace_default_pairs(self, pairs: Sequence[Pair]) -> None:
        """Let the worker's TLS listeners show these from the next handshake on."""
        message = wire.ToWorker()
        for certificate, key in pairs:
            message.default_pairs.pairs.add(certificate=certificate, key=key)
        self._tell(message.SerializeToString())

    def kill(self) -> None:
        """End the process without its help."""
        if not self._exited.done():
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def _send(self, *messages: bytes) -> None:
        if self._channel is None or self._channel.closed or self._gone.done():
            raise WorkerDied(f"worker {self.index} is gone")
        self._channel.send(*messages)

    def _tell(self, message: bytes) -> None:
        """Send without an answer to wait for: that the worker is gone shows elsewhere."""
        with contextlib.suppress(WorkerDied):
            self._send(message)

    async def _drain(self) -> None:
        assert self._channel is not None
        try:
            await self._channel.drain()
        except ConnectionError:
            raise WorkerDied(f"worker {self.index} is gone") from None

    def _on_message(self, data: bytes) -> None:
        try:
            message = wire.FromWorker.FromString(data)
        except DecodeError:
            _log.error("worker %d (pid %d) sent what is no message; it is replaced", self.index, self.pid)
            self.kill()
            return
        match message.WhichOneof("kind"):
            case "started":
                _finish(self._started, None)
            case "prepared":
                if message.prepared.version == self._expected_version:
                    _finish(self._prepared, None)
            case "refused":
                if message.refused.version == self._expected_version and self._prepared is not None:
                    faults = tuple(
                        Fault(
                            code=fault.code,
                            collection=fault.collection,
                            entity_id=fault.entity_id,
                            entity_name=fault.entity_name,
                            field=fault.field,
                            message=fault.message,
                        )
                        for fault in message.refused.faults
                    )
                    _fail(self._prepared, WorkerRefused(faults))
            case "activated":
                if message.activated.version == self._expected_version:
                    activated = message.activated
                    when = Activation(activated.at_monotonic_ns, activated.late_us, activated.ahead_us)
                    _finish(self._activated, when)
            case "warmed":
                if message.warmed.version == self._expected_version:
                    told = message.warmed.endpoints
                    _finish(
                        self._warmed,
                        tuple(
                            WarmedEndpoint(each.endpoint.upstream, each.endpoint.key, each.idle, each.error)
                            for each in told
                        ),
                    )
            case "counters":
                self._on_counters(message.counters)
            case "observations":
                if self.on_observations is not None:
                    self.on_observations(message.observations)
            case "traffic":
                self.sums.told(message.traffic)
            case "sides":
                self.sums.sides.told(message.sides.sides)
            case "trace":
                _finish(self._traces.get(message.trace.id), message.trace)
            case "drained":
                _finish(self._drained, message.drained.cut)
            case _:
                _log.warning("worker %d sent a message of an unknown kind", self.index)

    def _on_counters(self, counters: wire.Counters) -> None:
        self.sums.counted(counters)
        _finish(
            self._counters.get(counters.sequence),
            WorkerCounters(
                pid=self.pid,
                requests=counters.requests,
                connections_accepted=counters.connections_accepted,
                connections_active=counters.connections_active,
                in_flight=counters.in_flight,
                version=counters.version,
                rss_bytes=counters.rss_bytes,
                upstream_connections_open=counters.upstream_connections_open,
                connections_reading=counters.connections_reading,
                loads=tuple((load.endpoint.upstream, load.endpoint.key, load.in_flight) for load in counters.loads),
            ),
        )

    def _on_channel_lost(self, error: Exception | None) -> None:
        if error is not None:
            _log.error("the channel of worker %d (pid %d) broke: %s", self.index, self.pid, error)
        self._fail_all()
        # A worker without its channel closes its listeners, finishes its requests and exits; the pidfd tells when.
        if not self._exited.done():
            asyncio.get_running_loop().call_later(EXIT_WITHIN_S, self.kill)

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        if self._channel is not None:
            self._channel.abort()
        self._exited.set_result(code)
        self._fail_all()

    def _fail_all(self) -> None:
        died = WorkerDied(f"worker {self.index} (pid {self.pid}) ended")
        _finish(self._gone, None)
        _fail(self._started, died)
        _fail(self._prepared, died)
        _fail(self._activated, died)
        _fail(self._warmed, died)
        _fail(self._drained, died)
        for counters in self._counters.values():
            _fail(counters, died)
        for trace in self._traces.values():
            _fail(trace, died)


def _finish(waiting: asyncio.Future[T] | None, value: T) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(value)


def _fail(waiting: asyncio.Future[T] | None, error: Exception) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # marks it as seen: nobody may be waiting
