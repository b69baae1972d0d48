"""The Admin API over real sockets: what goes over the wire, limits, malformed requests, and a stop in good order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.admin.limits import Limits
from control_plane.admin.parts import Parts
from control_plane.admin.server import AdminServer
from pointsman.settings import SocketAddress
from tests.support.fresh_store import fresh_sqlite
from tests.unit.control_plane.admin.fake_fleet import FakeFleet

LIMITS = Limits(
    body_bytes_max=4_096, file_bytes_max=8_192, header_bytes_max=4_096, headers_max=40, body_timeout_s=0.5,
    connections_max=20,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[AdminServer]:
    store = await fresh_sqlite(tmp_path / "store.db")
    server = AdminServer(
        Parts(store=store, fleet=FakeFleet()),
        listen=SocketAddress("127.0.0.1", 0),
        node_id="00000000-0000-4000-8000-000000000001",
        limits=LIMITS,
    )
    await server.start()
    yield server
    await server.stop()
    await store.close()


class Connection:
    """A client that sends bytes just as a test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, server: AdminServer) -> Connection:
        return cls(*await asyncio.open_connection(server.address.host, server.address.port))

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def receive(self, *, head_only: bool = False) -> Reply:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Reply(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, raw: bytes, *, head_only: bool = False) -> Reply:
        await self.send(raw)
        return await self.receive(head_only=head_only)

    async def closed(self) -> bool:
        return await asyncio.wait_for(self.reader.read(1), 5) == b""


Dial = Callable[[AdminServer], Awaitable[Connection]]


@pytest.fixture
async def dial() -> AsyncIterator[Dial]:
    """Opens connections, and closes them when the test is over."""
    opened: list[Connection] = []

    async def connect(server: AdminServer) -> Connection:
        opened.append(await Connection.to(server))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.writer.close()
        with contextlib.suppress(ConnectionError):
            await connection.writer.wait_closed()


def request(method: str, target: str, body: bytes | None = None, *headers: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *headers]
    if body is not None:
        lines += [f"Content-Length: {len(body)}"]
        if not any(line.lower().startswith("content-type") for line in headers):
            lines.append("Content-Type: application/json")
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (body or b"")


async def test_headers_of_an_answer(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    made = await client.ask(request("POST", "/services", b'{"name":"a","host":"h"}'))
    assert made.status == 201
    assert made.headers["content-type"] == "application/json; charset=utf-8"
    assert int(made.headers["content-length"]) == len(made.body)
    assert made.headers["server"].startswith("kong/3.")
    assert made.headers["x-kong-admin-latency"].isdigit()
    assert made.headers["x-pointsman-version"] == "1"
    assert made.headers["access-control-allow-origin"] == "*"
    assert "location" not in made.headers


async def test_one_connection_takes_many_requests(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    for number in range(5):
        assert (await client.ask(request("POST", "/services", b'{"host":"h"}'))).headers["x-pointsman-version"] == str(
            number + 1
        )


async def test_pipelined_requests_are_answered_in_order(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    await client.send(b"".join(request("GET", target) for target in ("/services", "/nowhere", "/tags")))
    assert [(await client.receive()).status for _ in range(3)] == [200, 404, 200]


async def test_head(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    got = await client.ask(request("GET", "/services"))
    head = await client.ask(request("HEAD", "/services"), head_only=True)
    assert (head.status, head.headers["content-length"]) == (200, got.headers["content-length"])
    assert (await client.ask(request("GET", "/services"))).body == got.body


async def test_answers_without_a_body(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    gone = await client.ask(request("DELETE", "/services/x"))
    assert (gone.status, gone.headers.get("content-length", "0"), "content-type" in gone.headers) == (204, "0", False)
    options = await client.ask(request("OPTIONS", "/services"))
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


CHUNKED = (
    b"POST /services HTTP/1.1\r\nHost: localhost\r\n"
    b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
)


async def test_chunked_bodies(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    made = await client.ask(CHUNKED + b'8\r\n{"host":\r\n4\r\n"h"}\r\n0\r\n\r\n')
    assert made.status == 201


async def test_expect_continue(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    raw = request("POST", "/services", b'{"host":"h"}', "Expect: 100-continue")
    head, _, body = raw.partition(b"\r\n\r\n")
    interim = await client.ask(head + b"\r\n\r\n")
    assert interim.status == 100
    assert (await client.ask(body)).status == 201


async def test_the_absolute_form(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    assert (await client.ask(request("GET", "http://localhost/services?size=1"))).status == 200


@pytest.mark.parametrize(
    ("target", "size"), [("/services", 5_000), ("/config/sync", 9_000), ("/config/apply", 20 << 20)]
)
async def test_a_body_too_large_is_413(server: AdminServer, dial: Dial, target: str, size: int) -> None:
    client = await dial(server)
    lines = request("POST", target, b"").replace(b"Content-Length: 0", b"Content-Length: %d" % size)
    reply = await client.ask(lines)
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert "larger than" in reply.message


async def test_a_chunked_body_too_large_is_413(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    reply = await client.ask(CHUNKED + b"1000\r\n" + b" " * 0x1000 + b"\r\n10\r\n" + b" " * 0x10 + b"\r\n0\r\n\r\n")
    assert reply.status == 413


async def test_a_body_that_does_not_come_is_408(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    reply = await client.ask(request("POST", "/services", b"").replace(b"Content-Length: 0", b"Content-Length: 5"))
    assert reply.status == 408
    assert "did not arrive" in reply.message


async def test_compressed_bodies_are_refused(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    reply = await client.ask(request("POST", "/services", b"\x1f\x8b\x08", "Content-Encoding: gzip"))
    assert reply.status == 415
    assert "compressed" in reply.message


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 5_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 60 + b"\r\n",
        b"POST /services HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
    ],
)
async def test_malformed_requests_are_refused_in_json(server: AdminServer, dial: Dial, raw: bytes) -> None:
    client = await dial(server)
    reply = await client.ask(raw)
    assert 400 <= reply.status < 500
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.message
    assert await client.closed()


@pytest.mark.parametrize("method", ["PURGE", "FOO"])
async def test_unknown_methods_are_405(server: AdminServer, dial: Dial, method: str) -> None:
    client = await dial(server)
    reply = await client.ask(request(method, "/services"))
    assert (reply.status, reply.message) == (405, "Method not allowed")


@pytest.mark.parametrize(
    "target", ["//services", "/services//", "/%00", "/services/%ff", "/services/../status", "/\x7f"]
)
async def test_odd_paths_do_no_harm(server: AdminServer, dial: Dial, target: str) -> None:
    client = await dial(server)
    reply = await client.ask(request("GET", target))
    assert 400 <= reply.status < 500
    assert reply.message


async def test_a_foreign_host_is_421(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    reply = await client.ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n")
    assert reply.status == 421


async def test_a_foreign_page_can_not_write(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    form = "Content-Type: application/x-www-form-urlencoded"
    reply = await client.ask(request("POST", "/services", b"host=h", form, "Origin: https://evil.example"))
    assert reply.status == 403
    assert "access-control-allow-origin" not in reply.headers
    assert (await client.ask(request("GET", "/versions"))).body == b'{"data":[],"next":null}'


async def test_too_many_connections(server: AdminServer, dial: Dial) -> None:
    clients = [await dial(server) for _ in range(LIMITS.connections_max)]
    assert (await clients[-1].ask(request("GET", "/services"))).status == 200
    assert await (await dial(server)).closed()


async def test_clients_that_go_away_do_no_harm(server: AdminServer, dial: Dial) -> None:
    for _ in range(5):
        client = await dial(server)
        await client.send(request("POST", "/services", b'{"host":"h"}'))
        client.writer.transport.abort()
    client = await dial(server)
    assert (await client.ask(request("GET", "/services"))).status == 200


async def test_a_stop_answers_what_is_in_flight(tmp_path: Path, dial: Dial) -> None:
    store = await fresh_sqlite(tmp_path / "store.db")
    fleet = FakeFleet(hang=True)
    server = AdminServer(Parts(store=store, fleet=fleet), listen=SocketAddress("127.0.0.1", 0), node_id="n")
    await server.start()
    client, idle = await dial(server), await dial(server)
    await client.send(request("POST", "/services", b'{"host":"h"}', "Prefer: wait=60"))
    while not fleet.waits:
        await asyncio.sleep(0)
    stopping = asyncio.create_task(server.stop())
    reply = await client.receive()
    assert (reply.status, reply.headers["x-pointsman-version"]) == (202, "1")
    await stopping
    assert await idle.closed()
    await store.close()


async def test_status_counts(server: AdminServer, dial: Dial) -> None:
    client = await dial(server)
    await client.ask(request("GET", "/services"))
    status = json.loads((await client.ask(request("GET", "/status?unit=b"))).body)
    assert status["server"]["connections_active"] == 1
    assert status["server"]["connections_writing"] == 1
    assert status["server"]["total_requests"] >= 1
    assert status["memory"]["workers_lua_vms"][0]["http_allocated_gc"] > 1_000_000
