"""Client connections over time: limits on slowness, backpressure and bounded memory, swaps, draining."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from typing import cast

import pytest

from data_plane.model import ServiceConfig
from data_plane.proxy.client import ClientConnection
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.sweep import Sweep
from data_plane.proxy.tables import ServiceRuntime, Tables
from tests.support.echo_upstream import EchoSettings, echo_running
from tests.support.patience import until
from tests.support.proxying import (
    Client,
    HandBalancer,
    endpoint_at,
    proxy_to,
    route_to_first,
    router_of,
    upstream_of,
)

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
QUICK = ProxySettings(head_timeout_s=0.2, body_idle_timeout_s=0.2, keepalive_timeout_s=0.2, send_timeout_s=0.3)


async def test_slow_heads_and_bodies_are_408_and_idle_connections_are_closed() -> None:
    async with proxy_to(routes=[], settings=QUICK) as rig:
        silent, head, idle = [await Client.open(rig.port) for _ in range(3)]
        head.send(b"GET / HTTP/1.1\r\nHo")
        idle.send(GET)
        assert (await idle.answer()).status == 404
        assert (await head.answer()).status == 408
        for client in (silent, head, idle):
            # Nothing more to the first two, and nothing at all to one that never began a request.
            assert await client.to_end() == b""
            await client.close()


async def test_a_dripping_head_does_not_gain_time_by_each_octet() -> None:
    async with proxy_to(routes=[], settings=QUICK) as rig:
        client = await Client.open(rig.port)

        async def drip() -> None:
            while True:
                client.send(b"G")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert (await client.answer()).status == 408
        dripping.cancel()
        await client.close()


async def test_a_body_that_stops_is_408_whether_gathered_or_streamed() -> None:
    for buffered in (True, False):
        async with (
            echo_running() as port,
            proxy_to(port, settings=QUICK, routes=[route_to_first(request_buffering=buffered)]) as rig,
        ):
            client = await Client.open(rig.port)
            client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
            assert (await client.answer()).status == 408
            assert await client.to_end() == b""
            await client.close()
            await rig.settled()


async def test_a_download_is_read_no_faster_than_the_client_takes_it() -> None:
    """The upstream would send 64 MiB at once; what it gets rid of while the client reads nothing must be bounded."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
        for _ in range(1024):
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with upstream_of(flood) as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport reads
        client.send(GET)
        await until(lambda: sent > 0)
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.1)
        assert sent < 40_000_000
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len((await client.answer()).body) == 67108864
        await client.close()


async def test_an_upload_is_read_no_faster_than_the_upstream_takes_it() -> None:
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        left = 67108864
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with upstream_of(slow) as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n")
        written = 0

        async def upload() -> None:
            nonlocal written
            for _ in range(1024):
                client.send(b"x" * 65536)
                await client.writer.drain()
                written += 65536

        uploading = asyncio.create_task(upload())
        await until(lambda: written > 0)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)
        assert written < 40_000_000
        go.set()
        await uploading
        assert (await client.answer()).status == 200
        await client.close()


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    async with echo_running() as port, proxy_to(port, settings=QUICK) as rig:
        client = await Client.open(rig.port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(b"GET /big/100000000 HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: rig.factory.in_flight == 1)
        await until(lambda: rig.factory.connections == 0)
        await rig.settled()
        client.writer.transport.abort()


async def test_pipelined_requests_wait_in_a_bounded_buffer() -> None:
    go = asyncio.Event()
    served = 0

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await go.wait()
            served += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with upstream_of(slow) as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(GET * 2000)
        await until(lambda: rig.factory.in_flight == 1)
        await asyncio.sleep(0.05)
        assert rig.factory.in_flight == 1
        go.set()
        for _ in range(2000):
            assert (await client.answer()).status == 200
        assert served == 2000
        await client.close()


async def test_requests_whose_answers_are_not_taken_are_not_read_either() -> None:
    """The gateway answers at once and the client takes nothing: what it goes on asking must wait in its own socket."""
    # Sockets may hold the answers to more requests than a connection is kept for by default.
    async with proxy_to(routes=[], settings=ProxySettings(keepalive_requests_max=0)) as rig:
        client = await Client.open(rig.port)
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport reads
        written = 0

        async def ask_on() -> None:
            nonlocal written
            many = GET * 2048
            for _ in range(1024):
                client.send(many)
                await client.writer.drain()
                written += len(many)

        asking = asyncio.create_task(ask_on())
        await until(lambda: rig.counters.requests > 1000)
        before = -1
        while before != written:
            before = written
            await asyncio.sleep(0.1)
        assert not asking.done()
        asked = rig.counters.requests
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(asked + 1):
            assert (await client.answer()).status == 404
        asking.cancel()
        client.writer.transport.abort()


async def test_a_slow_client_leaves_no_upstream_connection_that_is_not_read() -> None:
    """The last piece of an answer may be the one that is too much for its client, and the next client is another."""
    go = asyncio.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    class Full:
        """A client's transport for which each piece is one too many: it says so from within the write, as loops do."""

        def __init__(self, connection: ClientConnection) -> None:
            self._connection = connection
            self._transport = connection.transport

        def write(self, data: bytes) -> None:
            self._transport.write(data)
            self._connection.pause_writing()

        def __getattr__(self, name: str) -> object:
            return getattr(self._transport, name)

    async with upstream_of(held) as port, proxy_to(port) as rig:
        slow, quick = await Client.open(rig.port), await Client.open(rig.port)
        slow.send(GET)
        await until(lambda: rig.factory.in_flight == 1)
        (connection,) = (each for each in rig.factory._shared.clients if each.requests)
        connection.transport = cast(asyncio.Transport, Full(connection))
        go.set()
        assert (await slow.answer()).body == b"ok"
        await rig.settled()
        quick.send(GET)
        assert (await quick.answer()).body == b"ok"
        assert rig.counters.upstream_connections_reused == 1
        await slow.close()
        await quick.close()


async def test_a_swap_touches_no_request_under_way() -> None:
    settings = [EchoSettings(colour=colour) for colour in ("blue", "green")]
    async with (
        echo_running(settings[0]) as blue_port,
        echo_running(settings[1]) as green_port,
        proxy_to(blue_port) as rig,
    ):
        green = HandBalancer([endpoint_at(green_port)])
        first, second = [await Client.open(rig.port) for _ in range(2)]
        first.send(b"GET /sleep/0.2 HTTP/1.1\r\nHost: h\r\n\r\n" + GET)
        await until(lambda: settings[0].requests == 1)
        runtime = ServiceRuntime(ServiceConfig(id="s"), green)
        rig.active.tables = Tables(8, router_of([route_to_first()]), {"s": runtime})
        second.send(GET)
        assert (await second.answer()).field("X-Colour") == "green"
        assert (await first.answer()).field("X-Colour") == "blue"
        assert (await first.answer()).field("X-Colour") == "green"
        await rig.settled()
        assert green.in_flight == 0
        for client in (first, second):
            await client.close()


async def test_draining_finishes_what_is_under_way_and_closes_the_rest() -> None:
    async with echo_running() as port, proxy_to(port) as rig:
        busy, idle, late = [await Client.open(rig.port) for _ in range(3)]
        for client in (idle, late):
            client.send(GET)
            assert (await client.answer()).field("Connection") == "keep-alive"
        busy.send(b"GET /sleep/0.3 HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: rig.factory.in_flight == 1)
        rig.factory.begin_drain()
        late.send(GET)
        answer = await late.answer()
        assert answer.status == 200
        assert answer.field("Connection") == "close"
        assert await late.to_end() == b""
        answer = await busy.answer()
        assert answer.status == 200
        assert answer.field("Connection") == "close"
        assert await busy.to_end() == b""
        assert rig.factory.connections == 1, "the idle one stays: its client may be about to use it"
        rig.factory.end_idle()
        assert await idle.to_end() == b""
        assert rig.factory.connections == 0
        for client in (busy, idle, late):
            await client.close()


async def test_a_request_that_waits_in_the_socket_is_answered_though_its_time_is_over() -> None:
    async with echo_running() as port, proxy_to(port) as rig:
        connection = socket.create_connection(("127.0.0.1", rig.port))
        client = Client(*await asyncio.open_connection(sock=connection))
        client.send(GET)
        assert (await client.answer()).status == 200
        shared = rig.factory._shared
        shared.draining = shared.idle_ends = True
        # Sent and swept without a turn of the loop between: the octets are in the kernel, and nobody has read them.
        os.write(connection.fileno(), GET)
        Sweep(shared).sweep_slow(time.monotonic() + 1000)
        assert (await client.answer()).field("Connection") == "close"
        assert await client.to_end() == b""
        await client.close()


async def test_cut_ends_everything() -> None:
    async with echo_running() as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(b"GET /sleep/30 HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: rig.factory.in_flight == 1)
        rig.factory.cut()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await client.answer()
        await rig.settled()
        await client.close()


async def test_one_connection_serves_a_limited_number_of_requests() -> None:
    async with proxy_to(routes=[], settings=ProxySettings(keepalive_requests_max=2)) as rig:
        client = await Client.open(rig.port)
        client.send(GET)
        assert (await client.answer()).field("Connection") == "keep-alive"
        client.send(GET)
        assert (await client.answer()).field("Connection") == "close"
        assert await client.to_end() == b""
        await client.close()


async def test_bodies_beyond_the_limit_are_413() -> None:
    settings = ProxySettings(body_bytes_max=1000)
    async with echo_running() as port, proxy_to(port, settings=settings) as rig:
        for body in (
            b"Content-Length: 1001\r\n\r\n",
            b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        ):
            answer = await rig.ask(b"POST /x HTTP/1.1\r\nHost: h\r\n" + body, close=True)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in answer
            asks = b"POST /x HTTP/1.1\r\nHost: h\r\nAccept: application/json\r\n"
            answer = await rig.ask(asks + body, close=True)
            assert json.loads(answer.partition(b"\r\n\r\n")[2])["message"] == "Payload too large"
        assert json.loads((await rig.ask(GET)).partition(b"\r\n\r\n")[2])["path"] == "/x"


async def test_a_body_slower_than_the_least_rate_is_408_unless_its_route_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data_plane.proxy.sweep.BODY_RATE_SPAN_S", 0.2)
    settings = ProxySettings(body_rate_min_bytes=1000)
    routes = [
        route_to_first(),
        route_to_first(id="r2", paths=("/stream",), request_buffering=False),
    ]

    async def drip(client: Client) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                client.send(b"x")
                await asyncio.sleep(0.03)

    async with (
        echo_running(EchoSettings(colour="blue", instance="blue-1")) as port,
        proxy_to(port, settings=settings, routes=routes) as rig,
    ):
        for path, status in ((b"/gathered", 408), (b"/stream", 200)):
            client = await Client.open(rig.port)
            client.send(b"POST " + path + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
            dripping = asyncio.ensure_future(drip(client))
            assert (await client.answer()).status == status
            dripping.cancel()
            await client.close()
