"""Attempts: what is repeated and what never, timeouts, stale connections, and that nothing picked is held or lost."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing

import pytest

from data_plane.model import ServiceConfig
from data_plane.proxy.settings import ProxySettings
from tests.support.descriptors import descriptors, no_descriptor_left
from tests.support.patience import PATIENCE_S, until
from tests.support.proxying import Client, Handler, Rig, proxy_to, route_to_first, upstream_of

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def closed_port() -> int:
    """Return a port on which nobody listens."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Script:
    """An upstream that handles connection number n by the n-th step, the last one for all later ones."""

    def __init__(self, *steps: Handler) -> None:
        self.steps = steps
        self.connections = 0
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        step = self.steps[min(self.connections, len(self.steps) - 1)]
        self.connections += 1
        await step(reader, writer)


async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"Content-Length: 2\r\n" in head:
            assert await reader.readexactly(2) == b"ab"
        writer.write(OK)


def say(*pieces: bytes, then: Callable[[asyncio.StreamWriter], None] | None = None) -> Handler:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        if then is not None:
            then(writer)
        else:
            await reader.read()

    return handler


def service(**fields: float) -> ServiceConfig:
    return ServiceConfig(id="s", host="up.test", **fields)  # type: ignore[arg-type]  # test shorthand


@asynccontextmanager
async def scripted(
    script: Script, *, config: ServiceConfig | None = None, settings: ProxySettings | None = None, buffered: bool = True
) -> AsyncIterator[Rig]:
    async with (
        upstream_of(script) as port,
        proxy_to(port, service=config, settings=settings, routes=[route_to_first(request_buffering=buffered)]) as rig,
    ):
        yield rig


async def test_refused_connections_are_repeated_for_any_method() -> None:
    script = Script(serve)
    async with upstream_of(script) as port, proxy_to(closed_port(), port) as rig:
        for request in (GET, POST, GET, POST):
            assert (await rig.ask(request)).startswith(b"HTTP/1.1 200 ")
        await rig.settled()
        assert rig.counters.retries >= 2


async def test_all_refused_is_502_with_the_headers_of_a_proxied_request() -> None:
    async with proxy_to(closed_port(), service=service(retries=2)) as rig:
        client = await Client.open(rig.port)
        client.send(GET)
        answer = await client.answer()
        assert answer.status == 502
        assert answer.body.startswith(b"An invalid response was received from the upstream server\nrequest_id: ")
        assert answer.field("Via") == "1.1 kong/3.10.0"
        assert answer.field("Server") == "kong/3.10.0"
        assert answer.field("X-Kong-Upstream-Latency") is not None
        assert answer.field("X-Kong-Response-Latency") is None
        assert len(rig.balancer.picked) == 3
        client.send(GET)
        assert (await client.answer()).status == 502
        await client.close()


async def test_closing_without_an_answer_is_repeated_retries_times() -> None:
    script = Script(close_at_once)
    async with scripted(script, config=service(retries=3)) as rig:
        assert (await rig.ask(GET)).startswith(b"HTTP/1.1 502 ")
        assert script.connections == 4
        await rig.settled()


async def test_what_was_sent_is_not_repeated_for_post() -> None:
    script = Script(close_at_once)
    async with scripted(script) as rig:
        for method in (b"POST", b"PATCH", b"LOCK"):
            before = script.connections
            answer = await rig.ask(method + b" /x HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 502 ")
            assert script.connections == before + 1


async def test_a_gathered_body_is_sent_again() -> None:
    script = Script(close_at_once, serve)
    async with scripted(script) as rig:
        answer = await rig.ask(POST.replace(b"POST", b"PUT"))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert script.connections == 2


async def test_a_body_that_has_begun_to_flow_is_not() -> None:
    script = Script(close_at_once, serve)
    async with scripted(script, buffered=False) as rig:
        client = await Client.open(rig.port)
        client.send(b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\na")
        answer = await client.answer()
        assert answer.status == 502
        assert script.connections == 1
        await client.close()


async def test_bad_answers_are_not_repeated(caplog: pytest.LogCaptureFixture) -> None:
    script = Script(say(b"BANANA\r\n\r\n"), serve)
    async with scripted(script) as rig:
        with caplog.at_level(logging.WARNING):
            assert (await rig.ask(GET)).startswith(b"HTTP/1.1 502 ")
        assert script.connections == 1
        assert "version 7" in caplog.text


async def test_statuses_are_never_repeated() -> None:
    script = Script(say(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"), serve)
    async with scripted(script) as rig:
        assert (await rig.ask(GET)).startswith(b"HTTP/1.1 503 Busy")
        assert script.connections == 1


async def test_silence_is_504_after_the_read_timeout_of_each_attempt() -> None:
    script = Script(hang)
    async with scripted(script, config=service(retries=1, read_timeout_s=0.1)) as rig:
        answer = await rig.ask(GET)
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"The upstream server is timing out\n" in answer
        assert script.connections == 2
        assert (await rig.ask(POST)).startswith(b"HTTP/1.1 504 ")
        assert script.connections == 3
        await rig.settled()


async def test_the_last_attempt_decides_the_status() -> None:
    script = Script(hang)
    async with (
        upstream_of(script) as port,
        proxy_to(closed_port(), port, service=service(retries=1, read_timeout_s=0.1)) as rig,
    ):
        assert (await rig.ask(GET)).startswith(b"HTTP/1.1 504 ")


async def test_an_upstream_that_takes_nothing_is_504_after_the_write_timeout() -> None:
    async def take_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport reads
        await asyncio.sleep(60)

    script = Script(take_nothing)
    async with scripted(script, config=service(retries=0, write_timeout_s=0.2)) as rig:
        client = await Client.open(rig.port)
        client.send(b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 10_000_000)
        assert (await client.answer()).status == 504
        assert await client.to_end() == b""
        await client.close()


async def test_a_connection_closed_while_idle_costs_the_next_request_nothing() -> None:
    """The upstream closes after each answer without saying so; the next request must not notice, whatever its
    method."""
    script = Script(say(OK, then=lambda writer: writer.close()))
    async with scripted(script) as rig:
        client = await Client.open(rig.port)
        for request in (GET, POST, GET):
            client.send(request)
            assert (await client.answer()).status == 200
            await until(lambda: rig.counters.upstream_connections_open == 0)
        await client.close()


async def test_the_stale_race_grants_one_attempt_more() -> None:
    """The upstream answers the first request of a connection and closes on the second: even retries=0 succeeds."""

    async def one_then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")

    script = Script(one_then_close)
    async with scripted(script, config=service(retries=0)) as rig:
        client = await Client.open(rig.port)
        for _ in range(3):
            client.send(GET)
            assert (await client.answer()).status == 200
        assert script.connections == 3
        assert len(rig.balancer.picked) == 3
        await client.close()


async def test_an_answer_that_breaks_off_is_cut_for_the_client_too() -> None:
    async with scripted(
        Script(say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", then=lambda w: w.close()))
    ) as rig:
        answer = await rig.ask(GET, close=True)
        assert answer.endswith(b"\r\n\r\nabc")
    broken = Script(say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", then=lambda w: w.close()))
    async with scripted(broken) as rig:
        answer = await rig.ask(GET, close=True)
        assert answer.endswith(b"\r\n\r\n3\r\nabc\r\n")


async def test_silence_inside_an_answer_cuts_it() -> None:
    async with scripted(
        Script(say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")), config=service(read_timeout_s=0.1)
    ) as rig:
        assert (await rig.ask(GET, close=True)).endswith(b"abc")
        await rig.settled()


async def test_octets_after_an_answer_never_reach_another_client() -> None:
    script = Script(say(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"), serve)
    async with scripted(script) as rig:
        client = await Client.open(rig.port)
        for _ in range(2):
            client.send(GET)
            assert (await client.answer()).body == b"ok"
        assert script.connections == 2
        await client.close()


async def test_unasked_answers_end_an_idle_connection() -> None:
    go = asyncio.Event()

    async def answer_later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await go.wait()
        writer.write(OK)
        await reader.read()

    script = Script(answer_later, serve)
    async with scripted(script) as rig:
        assert (await rig.ask(GET)).endswith(b"ok")
        go.set()
        await until(lambda: rig.counters.upstream_connections_open == 0)
        assert (await rig.ask(GET)).endswith(b"ok")


async def test_an_early_answer_ends_the_upload_but_is_passed_on() -> None:
    script = Script(
        say(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", then=lambda w: w.close()),
        serve,
    )
    async with scripted(script) as rig:
        client = await Client.open(rig.port)
        client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n" + b"x" * 100_000)
        assert (await client.answer()).status == 413
        assert await client.to_end() == b""
        await client.close()
        await rig.settled()
        assert script.connections == 1


async def test_a_client_that_goes_away_takes_its_upstream_request_with_it() -> None:
    gone = asyncio.Event()

    async def notice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        gone.set()

    async with scripted(Script(notice)) as rig:
        client = await Client.open(rig.port)
        client.send(GET)
        await until(lambda: rig.counters.upstream_connections_open == 1)
        client.reset()
        async with asyncio.timeout(PATIENCE_S):
            await gone.wait()
        await rig.settled()


async def test_a_client_that_closes_inside_an_answer_ends_it() -> None:
    """A mere end of stream is a half-close until the client answers our octets with a reset."""
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536

    async with scripted(Script(flood)) as rig:
        client = await Client.open(rig.port)
        client.send(GET)
        await client.reader.readexactly(1000)
        await client.close()
        await rig.settled()
        await until(lambda: rig.counters.upstream_connections_open == 0)
        assert sent < 1000000000


async def test_a_half_closed_client_still_gets_its_answer() -> None:
    go = asyncio.Event()

    async def later(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        writer.write(OK)
        await reader.read()

    async with scripted(Script(later)) as rig:
        client = await Client.open(rig.port)
        client.send(GET)
        client.writer.write_eof()
        await until(lambda: rig.factory.in_flight == 1)
        go.set()
        assert (await client.to_end()).endswith(b"ok")
        await client.close()


async def test_half_a_body_reaches_no_upstream_as_a_whole_one() -> None:
    script = Script(serve)
    async with scripted(script) as rig:
        client = await Client.open(rig.port)
        client.send(b"PUT /x HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nhello")
        client.writer.write_eof()
        await client.to_end()
        await client.close()
        await rig.settled()
        assert script.connections == 0


async def test_the_pool_is_bounded_in_size_and_requests() -> None:
    script = Script(serve)
    settings = ProxySettings(upstream_keepalive_requests_max=2)
    async with scripted(script, settings=settings) as rig:
        client = await Client.open(rig.port)
        for _ in range(5):
            client.send(GET)
            assert (await client.answer()).status == 200
        assert script.connections == 3
        await client.close()
    script = Script(serve)
    async with scripted(script, settings=ProxySettings(upstream_keepalive_pool_size=0)) as rig:
        client = await Client.open(rig.port)
        for _ in range(3):
            client.send(GET)
            assert (await client.answer()).status == 200
        assert script.connections == 3
        await client.close()


async def test_connections_of_a_retired_endpoint_are_not_kept() -> None:
    async with scripted(Script(serve)) as rig:
        client = await Client.open(rig.port)
        client.send(GET)
        assert (await client.answer()).status == 200
        rig.balancer.endpoints[0].retired = True
        await until(lambda: rig.counters.upstream_connections_open == 0)
        client.send(GET)
        assert (await client.answer()).status == 200
        await until(lambda: rig.counters.upstream_connections_open == 0)
        await client.close()


async def test_an_error_of_ours_costs_one_request(caplog: pytest.LogCaptureFixture) -> None:
    async with scripted(Script(serve)) as rig:
        real = rig.balancer.pick

        def broken(tried: object) -> object:
            raise RuntimeError("a bug")

        rig.balancer.pick = broken  # type: ignore[assignment, method-assign]  # a bug on purpose
        client = await Client.open(rig.port)
        client.send(GET)
        with caplog.at_level(logging.ERROR):
            answer = await client.answer()
        assert answer.status == 500
        assert b"An unexpected error occurred" in answer.body
        assert "version 7" in caplog.text
        assert await client.to_end() == b""
        await client.close()
        rig.balancer.pick = real  # type: ignore[method-assign]
        assert (await rig.ask(GET)).startswith(b"HTTP/1.1 200 ")
        await rig.settled()


LARGE = bytes(range(256)) * 800  # more than streams through without being gathered


def put(*, chunked: bool) -> bytes:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(LARGE)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE) if chunked else LARGE
    return b"PUT /x HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n" + body


async def read_all_then_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(len(LARGE))


async def read_all_then_serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    assert await reader.readexactly(len(LARGE)) == LARGE
    writer.write(OK)
    await reader.read()


def gathered(rig: Rig) -> int:
    return rig.factory._shared.gathered_bytes  # no metric, but it must never leak


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_is_sent_again_whole(chunked: bool) -> None:
    script = Script(read_all_then_close, read_all_then_serve)
    async with scripted(script) as rig:
        assert b" 200 " in await rig.ask(put(chunked=chunked))
        assert script.connections == 2
        await rig.settled()
        assert gathered(rig) == 0


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_large_body_streams_where_no_memory_is_left_for_it(chunked: bool) -> None:
    script = Script(read_all_then_close, read_all_then_serve)
    async with scripted(script, settings=ProxySettings(replay_total_bytes_max=len(LARGE) - 1)) as rig:
        client = await Client.open(rig.port)
        request = put(chunked=chunked)
        client.send(request[: len(LARGE) // 2])
        await until(lambda: rig.factory.in_flight == 1)
        client.send(request[len(LARGE) // 2 :])
        assert (await client.answer()).status == 502
        await client.close()
        assert script.connections == 1
        assert gathered(rig) == 0


async def test_memory_of_a_body_that_never_ends_is_free_again_when_its_client_goes() -> None:
    async with scripted(Script(serve)) as rig:
        client = await Client.open(rig.port)
        client.send(put(chunked=False)[:-1])
        await until(lambda: gathered(rig) == len(LARGE))
        await client.close()
        await until(lambda: gathered(rig) == 0)


async def test_without_a_descriptor_left_requests_are_503_and_no_endpoint_is_blamed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    script = Script(serve)
    async with upstream_of(script) as port, proxy_to(port, port) as rig:
        client = await Client.open(rig.port)
        client.send(b"OPTIONS /x HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")  # answered without an upstream
        assert (await client.answer()).status == 200
        open_before = descriptors()
        client.send(GET)
        assert (await client.answer()).body == b"ok"
        for endpoint in rig.balancer.endpoints:  # or the one that is idle would do
            for connection in list(endpoint.idle):
                connection.close()
        await until(lambda: descriptors() <= open_before)  # both ends of that one are closed
        picked = len(rig.balancer.picked)
        with no_descriptor_left():
            for _ in range(2):
                client.send(GET)
                answer = await client.answer()
                assert (answer.status, answer.field("Connection")) == (503, "keep-alive")
                assert answer.body.startswith(b"The upstream server is currently unavailable\n")
        assert len(rig.balancer.picked) == picked + 2, "neither was tried elsewhere"
        assert sum("Too many open files" in record.getMessage() for record in caplog.records) == 1
        client.send(GET)
        assert (await client.answer()).body == b"ok"
        assert rig.active.tables is not None
        assert rig.active.tables.services["s"].figures.connect_errors == 0
        await client.close()
