"""A proxy alone on loopback: real sockets, real router, balancer by hand, so that each attempt can be counted.

For tests of `data_plane/proxy` that need neither a node nor a control plane.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from data_plane.balancer.endpoint import Endpoint, NoEndpoint, Reason
from data_plane.model import RouteConfig, ServiceConfig
from data_plane.observe.access_log import AccessLog
from data_plane.observe.counters import Counters
from data_plane.proxy.serving import ClientFactory, client_factory
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Active, ServiceRuntime, Tables
from data_plane.router import Router, build_router
from tests.support.patience import PATIENCE_S, until


class HandBalancer:
    """Endpoints in turn, those not tried first; refuses a release without a take."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = list(endpoints)
        self.picked: list[Endpoint] = []
        self.in_flight = 0
        self._next = 0

    plain = True

    def pick(self, tried: Sequence[Endpoint], key: bytes = b"") -> Endpoint:
        if not self.endpoints:
            raise no_endpoint()
        for _ in self.endpoints:
            endpoint = self.endpoints[self._next % len(self.endpoints)]
            self._next += 1
            if endpoint not in tried:
                break
        else:
            endpoint = self.endpoints[self._next % len(self.endpoints)]
        self.picked.append(endpoint)
        return endpoint

    def take(self, endpoint: Endpoint) -> None:
        assert endpoint is self.picked[-1]
        self.in_flight += 1

    def release(self, endpoint: Endpoint) -> None:
        self.in_flight -= 1
        assert self.in_flight >= 0, "released twice"


def no_endpoint() -> NoEndpoint:
    """What a balancer without endpoints says."""
    return NoEndpoint(Reason.NO_TARGETS)


def endpoint_at(port: int, *, host: str = "127.0.0.1", ip: str = "127.0.0.1") -> Endpoint:
    """Return an endpoint on loopback."""
    return Endpoint(key=f"{host}:{port}", ip=ip, port=port, host=host, weight=100)


def route_to_first(service: str = "s", **fields: object) -> RouteConfig:
    """Return a route for everything, or for what the fields say."""
    return replace(RouteConfig(id="r", paths=("/",), service=service, strip_path=False), **fields)  # type: ignore[arg-type]  # test shorthand


def router_of(routes: Iterable[RouteConfig]) -> Router:
    """Build a router in one go."""
    steps = build_router(routes)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            router: Router = done.value
            return router


@dataclass
class Rig:
    """A running proxy and what a test may look at."""

    port: int
    factory: ClientFactory
    active: Active
    counters: Counters
    balancer: HandBalancer
    servers: list[asyncio.Server] = field(default_factory=list)

    async def ask(self, data: bytes, *, answers: int = 1, close: bool = False) -> bytes:
        """Send octets on a connection of their own and return what comes back, to the end of the stream or of N
        answers."""
        client = await Client.open(self.port)
        try:
            client.send(data)
            if close:
                return await client.to_end()
            return b"".join([await client.answer_bytes() for _ in range(answers)])
        finally:
            await client.close()

    async def settled(self) -> None:
        """Wait until no request is under way anywhere, and check that nothing is held."""
        await until(lambda: self.factory.in_flight == 0 and self.balancer.in_flight == 0)


@dataclass(frozen=True)
class Answer:
    """An answer as a client of HTTP/1.1 reads it."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes
    raw_head: bytes
    trailers: bytes = b""

    def field(self, name: str) -> str | None:
        """Return the first value of a field by name in any case."""
        return next((value for key, value in self.fields if key.lower() == name.lower()), None)


class Client:
    """A client of HTTP/1.1 that sees every octet."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, ip: str = "127.0.0.1") -> Client:
        return cls(*await asyncio.open_connection(ip, port, limit=1 << 20))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            pairs = [line.partition(": ") for line in lines[1:] if line]
            fields = tuple((name, value) for name, _, value in pairs)
            said = {name.lower(): value for name, value in fields}
            status = int(lines[0].split(" ")[1])
            trailers = b""
            if head_only or status in (204, 304) or status < 200:
                body = b""
            elif "chunked" in said.get("transfer-encoding", ""):
                body, trailers = await self._chunked()
            elif "content-length" in said:
                body = await self.reader.readexactly(int(said["content-length"]))
            else:
                body = await self.reader.read()
        return Answer(status, fields, body, head, trailers)

    async def answer_bytes(self) -> bytes:
        answer = await self.answer()
        return answer.raw_head + answer.body

    async def _chunked(self) -> tuple[bytes, bytes]:
        body = bytearray()
        while True:
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            if size == 0:
                break
            body += await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
        trailers = b""
        while (line := await self.reader.readuntil(b"\r\n")) != b"\r\n":
            trailers += line
        return bytes(body), trailers

    async def to_end(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    def reset(self) -> None:
        """Go away without a word: the other end sees a reset."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self.writer.wait_closed()
        except ConnectionError:
            pass


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def upstream_of(handler: Handler, *, ip: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run a handler as a raw upstream; yields its port. Connections are closed when the handler returns."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, ip, 0, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)
        await asyncio.sleep(0.01)  # the transports close in the iteration after


@asynccontextmanager
async def proxy_to(
    *ports: int,
    settings: ProxySettings | None = None,
    service: ServiceConfig | None = None,
    routes: Sequence[RouteConfig] | None = None,
    host_header: str = "",
    access_log: AccessLog | None = None,
    sock: socket.socket | None = None,
    ip: str = "127.0.0.1",
) -> AsyncIterator[Rig]:
    """Run a proxy whose one service has endpoints at the ports; on `sock`, which is bound, or a port of its own.

    `ip` is where both are, and anything in 127.0.0.0/8.
    """
    loop = asyncio.get_running_loop()
    balancer = HandBalancer([endpoint_at(port, ip=ip) for port in ports])
    runtime = ServiceRuntime(service or ServiceConfig(id="s", host="up.test"), balancer, host_header=host_header)
    tables = Tables(7, router_of(routes if routes is not None else [route_to_first()]), {"s": runtime})
    active = Active(tables)
    counters = Counters()
    factory = client_factory(active, settings or ProxySettings(), loop, counters, access_log=access_log)
    factory.start()
    if sock is not None:
        server = await loop.create_server(factory, sock=sock)
    else:
        server = await loop.create_server(factory, ip, 0)
    try:
        yield Rig(server.sockets[0].getsockname()[1], factory, active, counters, balancer)
    finally:
        server.close()
        factory.cut()
        factory.stop()
        await until(lambda: factory.connections == 0 and counters.upstream_connections_open == 0)
        assert counters.in_flight == 0
        assert balancer.in_flight == 0
