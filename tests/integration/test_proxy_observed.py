"""What a request leaves behind: its counts, its line in the access log, and what a client that asks is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from data_plane.model import ServiceConfig
from data_plane.observe.access_log import AccessLog, AccessLogFormat, AccessLogSettings
from data_plane.observe.log_lines import line_of
from data_plane.proxy.settings import ProxySettings
from tests.support.patience import until
from tests.support.proxying import Client, Rig, proxy_to, route_to_first, upstream_of

SERVICE = ServiceConfig(id="s", name="shop", host="up.test", retries=1)
TRACE = b"traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Upstream:
    """Answers with what it is told to, and keeps the heads it got."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.heads: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.heads.append(head)
            lines = head.lower().split(b"\r\n")
            sizes = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
            if sizes:
                await reader.readexactly(sizes[0])
            writer.write(self.answer)
            await writer.drain()


OK = b"HTTP/1.1 200 OK\r\nServer: up\r\nContent-Length: 2\r\nSet-Cookie: a=secret\r\n\r\nok"


class Logged:
    """The lines of an access log under test, read when it is stopped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = AccessLog(AccessLogSettings(str(path)), line_of(AccessLogFormat.JSON, node_id="n"))
        self.log.start()

    def lines(self) -> list[dict[str, Any]]:
        self.log.stop()
        return [json.loads(line) for line in self.path.read_text().splitlines()]


@asynccontextmanager
async def observed(
    upstream: Upstream, tmp_path: Path, *, settings: ProxySettings | None = None
) -> AsyncIterator[tuple[Rig, Logged]]:
    logged = Logged(tmp_path / "access.log")
    async with (
        upstream_of(upstream) as port,
        proxy_to(
            port, service=SERVICE, routes=[route_to_first(name="cart")], access_log=logged.log, settings=settings
        ) as rig,
    ):
        yield rig, logged
        logged.log.stop()


async def test_a_request_and_its_body_are_counted_to_the_octet(tmp_path: Path) -> None:
    async with observed(Upstream(OK), tmp_path) as (rig, logged):
        first = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
        second = b"POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        answers = await rig.ask(first + second, answers=2)
        await rig.settled()
        (traffic,) = rig.counters.traffic.routes.values()
        assert (traffic.service, traffic.route, traffic.total) == ("shop", "cart", 2)
        assert traffic.bytes_in == len(first) + len(second)
        assert traffic.bytes_out == len(answers)
    lines = logged.lines()
    assert [line["request"]["uri"] for line in lines] == ["/a", "/b"]
    assert [line["request"]["size"] for line in lines] == [len(first), len(second)]
    assert sum(line["response"]["size"] for line in lines) == len(answers)
    assert lines[0]["route"]["name"] == "cart"
    assert lines[0]["tries"][0]["ip"] == "127.0.0.1"
    assert lines[0]["version"] == 7
    assert lines[0]["client_ip"] == "127.0.0.1"
    assert b"secret" not in (tmp_path / "access.log").read_bytes()


async def test_a_traceparent_passes_unchanged_and_is_in_the_log(tmp_path: Path) -> None:
    upstream = Upstream(OK)
    async with observed(upstream, tmp_path) as (rig, logged):
        await rig.ask(b"GET / HTTP/1.1\r\nHost: a\r\n" + TRACE + b"\r\ntracestate: a=1,b=2\r\n\r\n")
    assert b"\r\n" + TRACE + b"\r\n" in upstream.heads[0]
    assert b"\r\ntracestate: a=1,b=2\r\n" in upstream.heads[0]
    assert logged.lines()[0]["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_malformed_unmatched_and_failed_requests_are_logged_once_each(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "access.log")
    async with proxy_to(
        1, service=SERVICE, routes=[route_to_first(name="cart", paths=("/a",))], access_log=logged.log
    ) as rig:
        assert b" 502 " in await rig.ask(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 404 " in await rig.ask(b"GET /b HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 400 " in await rig.ask(b"GET /b HTTP/1.1\r\n\r\n", close=True)
        await rig.settled()
        (traffic,) = rig.counters.traffic.routes.values()
        assert traffic.codes == {502 * 2 + 1: 1}
        assert rig.counters.requests_malformed == 1
    lines = logged.lines()
    assert [line["response"]["status"] for line in lines] == [502, 404, 400]
    assert [line["source"] for line in lines] == ["kong"] * 3
    assert [attempt["state"] for attempt in lines[0]["tries"]] == ["failed", "failed"]
    assert "route" not in lines[1]
    assert lines[2]["request"]["method"] == ""


async def test_a_client_that_leaves_is_counted_as_such(tmp_path: Path) -> None:
    logged = Logged(tmp_path / "access.log")
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async with (
        upstream_of(silent) as port,
        proxy_to(port, service=SERVICE, access_log=logged.log) as rig,
    ):
        client = await Client.open(rig.port)
        client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        await asked.wait()
        client.reset()
        await rig.settled()
        (traffic,) = rig.counters.traffic.routes.values()
        assert traffic.codes == {499 * 2 + 1: 1}
    assert logged.lines()[0]["response"]["status"] == 499


async def test_an_answer_cut_off_keeps_its_status(tmp_path: Path) -> None:
    async def cuts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 206 Partial\r\nContent-Length: 10\r\n\r\nhalf")
        await writer.drain()

    async with upstream_of(cuts) as port, proxy_to(port, service=SERVICE) as rig:
        await rig.ask(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", close=True)
        await until(lambda: rig.factory.in_flight == 0)
        (traffic,) = rig.counters.traffic.routes.values()
        assert traffic.codes == {206 * 2: 1}
        assert traffic.total == 1


async def test_a_client_that_asks_is_told_its_route(tmp_path: Path) -> None:
    settings = ProxySettings(allow_debug_header=True)
    async with observed(Upstream(OK), tmp_path, settings=settings) as (rig, _):
        client = await Client.open(rig.port)
        client.send(b"GET /a HTTP/1.1\r\nHost: a\r\nkong-debug: 1\r\n\r\n")
        told = await client.answer()
        client.send(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        untold = await client.answer()
        await client.close()
    assert [told.field(name) for name in ("Kong-Route-Id", "Kong-Route-Name")] == ["r", "cart"]
    assert [told.field(name) for name in ("Kong-Service-Id", "Kong-Service-Name")] == ["s", "shop"]
    assert untold.field("Kong-Route-Id") is None


async def test_own_answers_of_a_route_tell_it_too_and_a_404_tells_nothing() -> None:
    routes = [route_to_first(name="tls", protocols=("https",), paths=("/a",))]
    settings = ProxySettings(allow_debug_header=True)
    async with proxy_to(1, service=SERVICE, routes=routes, settings=settings) as rig:
        refused = await rig.ask(b"GET /a HTTP/1.1\r\nHost: a\r\nKong-Debug: 1\r\n\r\n")
        unmatched = await rig.ask(b"GET /b HTTP/1.1\r\nHost: a\r\nKong-Debug: 1\r\n\r\n")
    assert b" 426 " in refused
    assert b"Kong-Route-Name: tls\r\n" in refused
    assert b"Kong-Service-Name: shop\r\n" in refused
    assert b"Kong-" not in unmatched.replace(b"X-Kong-", b"")


async def test_without_the_setting_nobody_is_told() -> None:
    async with upstream_of(Upstream(OK)) as port, proxy_to(port, service=SERVICE) as rig:
        answer = await rig.ask(b"GET /a HTTP/1.1\r\nHost: a\r\nKong-Debug: 1\r\n\r\n")
    assert b"Kong-Route-Id" not in answer
