"""Open-loop load: requests start when the clock says so, however slow the answers are.

Each request has an id of its own and goes to the nodes in turn over keep-alive connections. What became of every
single one is kept, so that a caller can prove that none was lost or answered twice. A connection that the node
closes between two requests is replaced; one that breaks with a request open loses that request, and says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from typing_extensions import override

CONNECTIONS_PER_NODE_MAX = 512
ANSWER_BYTES_MAX = 64 * 1024


@dataclass(slots=True)
class Record:
    """One request, from its schedule to its answer. Times are seconds of `time.monotonic`."""

    id: int
    node: int
    due: float
    sent: float = 0.0  # when its first byte was handed to the socket; 0 = never
    answered: float = 0.0  # when its answer was complete; 0 = never
    status: int = 0
    answers: int = 0
    colour: str = ""
    instance: str = ""
    problem: str = ""
    moves: int = 0  # how often a refused connection sent it on to the next node


@dataclass(frozen=True, slots=True)
class Destination:
    """A node's proxy address."""

    host: str
    port: int


@dataclass(slots=True)
class _Lane:
    """One node's connections and the requests that wait for one."""

    destination: Destination
    idle: deque[_Connection] = field(default_factory=deque)
    waiting: deque[Record] = field(default_factory=deque)
    open: int = 0


class _Connection(asyncio.Protocol):
    """One request at a time; answers must carry Content-Length."""

    def __init__(self, load: OpenLoop, lane: _Lane) -> None:
        self._load = load
        self._lane = lane
        self._buffer = b""
        self._record: Record | None = None
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports keep the interface without the class.
        self.transport = cast(asyncio.Transport, transport)

    def send(self, record: Record) -> None:
        assert self.transport is not None
        assert self._record is None
        self._record = record
        record.sent = time.monotonic()
        self.transport.write(self._load.request_bytes(record))

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.transport.is_closing() and self._record is None

    @override
    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            self._broken("answer without Content-Length")
            return
        stop = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : stop if stop > 0 else None])
        if length > ANSWER_BYTES_MAX:
            self._broken(f"answer of {length} bytes")
            return
        total = end + 4 + length
        if len(self._buffer) < total:
            return
        body = self._buffer[end + 4 : total]
        extra = self._buffer[total:]
        self._buffer = b""
        record, self._record = self._record, None
        if record is None or extra:
            self._load.stray += 1
            self._close()
            return
        self._load.complete(record, int(head[9:12]), body)
        if b"\r\nconnection: close" in head:
            self._close()
        else:
            self._load.free(self._lane, self)

    def _close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def _broken(self, problem: str) -> None:
        record, self._record = self._record, None
        if record is not None:
            record.problem = problem
            self._load.finished()
        if self.transport is not None:
            self.transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._broken(f"connection lost before the answer: {exc or 'closed by the node'}")
        self._lane.open -= 1
        self._load.pump(self._lane)


class OpenLoop:
    """Sends `rate` requests a second to `destinations` in turn until stopped.

    `body_every` = each n-th request is a POST with a body; 0 = GET only. Read `records` after `stop()`.

    `failover` = a request whose connection is refused goes to the next destination, as a load balancer in front of the
    nodes does: nothing of it was sent, so nothing can be done twice. Without it a refusal loses the request.
    """

    def __init__(
        self,
        destinations: Sequence[Destination],
        *,
        rate: float,
        host: str,
        path: str = "/orders",
        body_every: int = 10,
        patience_s: float = 30.0,
        failover: bool = False,
    ) -> None:
        self._lanes = [_Lane(destination) for destination in destinations]
        self._rate = rate
        self._host = host
        self._path = path
        self._body_every = body_every
        self._patience_s = patience_s
        self._failover = failover
        self._running = False
        self._task: asyncio.Task[None] | None = None
        self._dials: set[asyncio.Task[None]] = set()
        self._open_requests = 0
        self._quiet = asyncio.Event()
        self.records: list[Record] = []
        self.stray = 0  # answers that belong to no request

    def start(self) -> None:
        self._running = True
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stops sending, waits for what is open (at most `patience_s`), closes all connections."""
        self._running = False
        if self._task is not None:
            await self._task
        try:
            async with asyncio.timeout(self._patience_s):
                while self._open_requests:
                    self._quiet.clear()
                    await self._quiet.wait()
        except TimeoutError:
            pass
        for record in self.records:
            if not record.answers and not record.problem:
                record.problem = f"no answer within {self._patience_s:g} s"
        for lane in self._lanes:
            for connection in lane.idle:
                if connection.transport is not None:
                    connection.transport.abort()
        if self._dials:
            await asyncio.gather(*self._dials, return_exceptions=True)

    async def _run(self) -> None:
        start = time.monotonic()
        sent = 0
        while self._running:
            now = time.monotonic()
            due = int((now - start) * self._rate) + 1  # the first one is due at the start itself
            while sent < due:
                lane_index = sent % len(self._lanes)
                record = Record(id=len(self.records), node=lane_index, due=start + sent / self._rate)
                self.records.append(record)
                self._open_requests += 1
                lane = self._lanes[lane_index]
                lane.waiting.append(record)
                self.pump(lane)
                sent += 1
            await asyncio.sleep(max(0.0005, start + sent / self._rate - time.monotonic()))

    def pump(self, lane: _Lane) -> None:
        """Gives waiting requests to idle connections, and dials where there are too few."""
        while lane.waiting:
            while lane.idle:
                connection = lane.idle.pop()
                if connection.usable:
                    connection.send(lane.waiting.popleft())
                    break
            else:
                break
        missing = min(len(lane.waiting), CONNECTIONS_PER_NODE_MAX - lane.open)
        for _ in range(missing):
            lane.open += 1
            task = asyncio.create_task(self._dial(lane))
            self._dials.add(task)
            task.add_done_callback(self._dials.discard)

    async def _dial(self, lane: _Lane) -> None:
        loop = asyncio.get_running_loop()
        destination = lane.destination
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self, lane), destination.host, destination.port
            )
        except OSError as error:
            lane.open -= 1
            if lane.waiting:
                self._not_connected(lane.waiting.popleft(), error)
            return
        self.free(lane, connection)

    def _not_connected(self, record: Record, error: OSError) -> None:
        if self._failover and isinstance(error, ConnectionRefusedError) and record.moves + 1 < len(self._lanes):
            record.moves += 1
            record.node = (record.node + 1) % len(self._lanes)
            lane = self._lanes[record.node]
            lane.waiting.append(record)
            self.pump(lane)
            return
        record.problem = f"cannot connect: {error}"
        self.finished()

    def open_connections(self, node: int) -> int:
        """Connections to a node now, those being dialled included: at most so many requests can be in flight to it."""
        return self._lanes[node].open

    def free(self, lane: _Lane, connection: _Connection) -> None:
        lane.idle.append(connection)
        if lane.waiting:
            self.pump(lane)

    def request_bytes(self, record: Record) -> bytes:
        head = f"{self._path}/{record.id} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: ledger\r\nAccept: */*\r\n"
        if not self._has_body(record.id):
            return f"GET {head}\r\n".encode()
        body = self._body(record.id)
        return f"POST {head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def _has_body(self, request_id: int) -> bool:
        return self._body_every > 0 and request_id % self._body_every == 0

    @staticmethod
    def _body(request_id: int) -> bytes:
        return (b"%d." % request_id) * (1 + request_id % 97)

    def complete(self, record: Record, status: int, body: bytes) -> None:
        record.answered = time.monotonic()
        record.status = status
        record.answers += 1
        fields = body.decode("latin-1").split(" ")
        if status == 200 or (status == 500 and fields[0] == str(record.id)):  # the upstream's own 500 says who it is
            self._check(record, fields)
        else:
            record.problem = f"status {status}: {body[:200].decode('latin-1')}"
        self.finished()

    def _check(self, record: Record, fields: list[str]) -> None:
        expected = hashlib.sha256(self._body(record.id)).hexdigest() if self._has_body(record.id) else None
        if fields[0] != str(record.id):
            record.problem = f"got the answer of request {fields[0]}"
        elif expected is not None and fields[3:] != [expected]:
            record.problem = "the upstream read another body than was sent"
        else:
            record.colour, record.instance = fields[1], fields[2]

    def finished(self) -> None:
        self._open_requests -= 1
        self._quiet.set()
