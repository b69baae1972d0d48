"""Requests and answers through the proxy as clients and upstreams see them: heads, framing, order, own answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator

import pytest

from data_plane.model import HeaderCondition, ServiceConfig
from data_plane.proxy.settings import ProxySettings
from data_plane.settings import NodeSettings
from tests.support.echo_upstream import EchoSettings, echo_running
from tests.support.patience import until
from tests.support.proxying import Client, Rig, proxy_to, route_to_first, upstream_of


@pytest.fixture
async def echo() -> AsyncIterator[tuple[int, EchoSettings]]:
    settings = EchoSettings(colour="blue", instance="blue-1")
    settings.keep_heads = True
    async with echo_running(settings) as port:
        yield port, settings


@pytest.fixture
async def rig(echo: tuple[int, EchoSettings]) -> AsyncIterator[Rig]:
    async with proxy_to(echo[0]) as running:
        yield running


async def test_a_request_arrives_with_the_forwarding_fields(rig: Rig, echo: tuple[int, EchoSettings]) -> None:
    client = await Client.open(rig.port)
    client.send(b"GET /a%7e/b?x=%2F HTTP/1.1\r\nHost: Example.com:81\r\nX-Mine: 1\r\nX-Id: 42\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 200
    said = json.loads(answer.body)
    fields = {name.lower(): value for name, value in said["headers"]}
    assert said["requestline"] == "GET /a~/b?x=%2F HTTP/1.1"
    request_id = fields.pop("x-kong-request-id")
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)
    assert fields == {
        "host": f"127.0.0.1:{echo[0]}",
        "connection": "keep-alive",
        "via": "1.1 kong/3.10.0",
        "x-forwarded-for": "127.0.0.1",
        "x-real-ip": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "example.com",
        "x-forwarded-port": str(rig.port),
        "x-forwarded-path": "/a%7e/b",
        "x-mine": "1",
        "x-id": "42",
    }
    assert answer.field("X-Kong-Request-Id") == request_id
    assert answer.field("Via") == "1.1 kong/3.10.0"
    assert answer.field("Server") == "echo"
    assert answer.field("Date") is not None
    assert answer.field("Connection") == "keep-alive"
    assert answer.field("X-Colour") == "blue"
    assert answer.field("X-Id") == "42"
    for name in ("X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency"):
        value = answer.field(name)
        assert value is not None
        assert value.isdigit()
    await client.close()


async def test_a_mapped_port_is_the_one_that_clients_know(echo: tuple[int, EchoSettings]) -> None:
    routes = [route_to_first(id="outside", hosts=("shop.test:443",))]
    with socket.create_server(("127.0.0.1", 0)) as sock:
        inside = sock.getsockname()[1]
        async with proxy_to(echo[0], settings=ProxySettings(port_maps=((inside, 443),)), routes=routes, sock=sock):
            client = await Client.open(inside)
            client.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            fields = dict(json.loads((await client.answer()).body)["headers"])
            assert fields["X-Forwarded-Port"] == "443"
            client.send(b"GET / HTTP/1.1\r\nHost: shop.test:%d\r\n\r\n" % inside)
            assert (await client.answer()).status == 404
            await client.close()


async def test_options_ends_here_when_its_forwards_are_used_up(echo: tuple[int, EchoSettings]) -> None:
    port, settings = echo
    routes = [route_to_first(methods=("GET", "OPTIONS"))]
    async with proxy_to(port, routes=routes) as rig:
        client = await Client.open(rig.port)
        client.send(b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.field("Allow")) == (200, "GET, OPTIONS")
        assert "Max-Forwards is used up" in answer.body.decode()
        assert settings.requests == 0
        client.send(b"OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 3\r\n\r\n")
        assert dict(json.loads((await client.answer()).body)["headers"])["Max-Forwards"] == "2"
        client.send(b"OPTIONS /no HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\nContent-Length: 2\r\n\r\nab")
        assert (await client.answer()).status == 200
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).status == 200
        await client.close()


async def test_host_follows_route_service_and_port(echo: tuple[int, EchoSettings]) -> None:
    async with proxy_to(echo[0], routes=[route_to_first(preserve_host=True)]) as kept:
        assert b'["Host", "H:1"]' in await kept.ask(b"GET / HTTP/1.1\r\nHost: H:1\r\n\r\n")
        assert f'["Host", "127.0.0.1:{echo[0]}"]'.encode() in await kept.ask(b"GET / HTTP/1.0\r\n\r\n", close=True)
    async with proxy_to(echo[0], host_header="named.test") as named:
        answer = await named.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert f'["Host", "named.test:{echo[0]}"]'.encode() in answer


async def test_strip_path_joins_and_says_the_prefix(echo: tuple[int, EchoSettings]) -> None:
    service = ServiceConfig(id="s", host="up.test", path="/base")
    routes = [route_to_first(paths=("/a",), strip_path=True)]
    async with proxy_to(echo[0], service=service, routes=routes) as rig:
        answer = await rig.ask(b"GET /a/b?c HTTP/1.1\r\nHost: h\r\nX-Forwarded-Prefix: /spoofed\r\n\r\n")
        assert b'"requestline": "GET /base/b?c HTTP/1.1"' in answer
        assert b'["X-Forwarded-Prefix", "/a"]' in answer
        assert b"spoofed" not in answer


async def test_connections_are_kept_on_both_sides(rig: Rig, echo: tuple[int, EchoSettings]) -> None:
    client = await Client.open(rig.port)
    for number in range(5):
        client.send(b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n" % number)
        assert f'"path": "/{number}"'.encode() in (await client.answer()).body
    assert echo[1].connections == 1
    assert rig.counters.upstream_connections_reused == 4
    await client.close()


async def test_pipelined_requests_are_answered_in_order_one_at_a_time(rig: Rig, echo: tuple[int, EchoSettings]) -> None:
    client = await Client.open(rig.port)
    client.send(
        b"GET /sleep/0.05/1 HTTP/1.1\r\nHost: h\r\n\r\n"
        b"POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
        b"POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ncd\r\n0\r\n\r\n"
        b"GET /4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\nHost: h\r\n\r\n"
    )
    bodies = [json.loads((await client.answer()).body) for _ in range(4)]
    assert [body["path"] for body in bodies] == ["/sleep/0.05/1", "/2", "/3", "/4"]
    assert [body["body"] for body in bodies] == ["", "ab", "cd", ""]
    assert await client.to_end() == b""
    assert echo[1].requests == 4
    assert echo[1].connections == 1
    await client.close()


async def test_many_pipelined_requests_answered_here_do_not_recurse(rig: Rig) -> None:
    rig.active.tables = None
    async with proxy_to(routes=[]) as empty:
        answers = await empty.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" * 3000, answers=3000)
        assert answers.count(b"HTTP/1.1 404 Not Found") == 3000


async def test_every_split_of_a_request_reads_the_same(rig: Rig) -> None:
    data = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    client = await Client.open(rig.port)
    for octet in data:
        client.send(bytes([octet]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert json.loads((await client.answer()).body)["body"] == "abc"
    await client.close()


@pytest.mark.parametrize("path", ["/chunked", "/untilclose", "/interim", "/big/100000", "/bigchunked/100000"])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_answers_of_every_framing_arrive_whole(rig: Rig, path: str, version: str) -> None:
    client = await Client.open(rig.port)
    client.send(f"GET {path} HTTP/{version}\r\nHost: h\r\n\r\n".encode())
    answer = await client.answer()
    if answer.status == 103:
        assert version == "1.1"
        answer = await client.answer()
    assert answer.status == 200
    if path.startswith("/big"):
        assert answer.body == (bytes(range(256)) * 400)[:100000]
    else:
        assert json.loads(answer.body)["path"] == path
    if version == "1.0":
        assert answer.field("Transfer-Encoding") is None
        assert await client.to_end() == b""
    await client.close()


async def test_http10_with_keep_alive_is_kept_when_the_answer_has_a_length(rig: Rig) -> None:
    client = await Client.open(rig.port)
    for _ in range(2):
        client.send(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n")
        assert (await client.answer()).field("Connection") == "keep-alive"
    await client.close()


async def test_trailers_reach_clients_that_asked_for_them(rig: Rig) -> None:
    client = await Client.open(rig.port)
    client.send(b"GET /chunked HTTP/1.1\r\nHost: h\r\nTE: trailers\r\n\r\n")
    assert (await client.answer()).trailers == b"X-Sum: 1\r\n"
    client.send(b"GET /chunked HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (await client.answer()).trailers == b""
    await client.close()


async def test_an_upstreams_content_type_passes_as_it_came() -> None:
    async def page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nok")
        await writer.drain()

    async with upstream_of(page) as port, proxy_to(port) as rig:
        assert b"\r\nContent-Type: text/html\r\n" in await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")


async def test_answers_without_a_body(rig: Rig) -> None:
    client = await Client.open(rig.port)
    client.send(b"HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n")
    answer = await client.answer(head_only=True)
    assert int(answer.field("Content-Length") or "0") > 0
    for status in (204, 304):
        client.send(b"GET /status/%d HTTP/1.1\r\nHost: h\r\n\r\n" % status)
        assert (await client.answer()).status == status
    client.send(b"GET /last HTTP/1.1\r\nHost: h\r\n\r\n")
    assert json.loads((await client.answer()).body)["path"] == "/last"
    await client.close()


async def test_continue_is_sent_when_the_body_is_wanted_and_only_then(rig: Rig) -> None:
    client = await Client.open(rig.port)
    client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert (await client.answer()).status == 100
    client.send(b"hello")
    said = json.loads((await client.answer()).body)
    assert said["body"] == "hello"
    assert "expect" not in {name.lower() for name, _ in said["headers"]}
    await client.close()
    async with proxy_to(routes=[]) as empty:
        answer = await empty.ask(
            b"POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", close=True
        )
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"Connection: close" in answer


async def test_bodies_are_gathered_when_the_route_buffers_else_streamed(echo: tuple[int, EchoSettings]) -> None:
    head = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with proxy_to(echo[0]) as rig:
        client = await Client.open(rig.port)
        client.send(head + b"3\r\nabc\r\n")
        await until(lambda: rig.factory.in_flight == 1)
        client.send(b"2\r\nde\r\n0\r\n\r\n")
        said = json.loads((await client.answer()).body)
        assert ["Content-Length", "5"] in said["headers"]
        assert said["body"] == "abcde"
        await client.close()
    async with proxy_to(echo[0], routes=[route_to_first(request_buffering=False)]) as rig:
        client = await Client.open(rig.port)
        before = echo[1].requests
        client.send(head + b"3\r\nabc\r\n")
        await until(lambda: echo[1].requests > before)
        client.send(b"2\r\nde\r\n0\r\n\r\n")
        said = json.loads((await client.answer()).body)
        assert ["Transfer-Encoding", "chunked"] in said["headers"]
        assert said["body"] == "abcde"
        await client.close()


@pytest.mark.parametrize("chunked", [True, False])
@pytest.mark.parametrize("size", [65536, 65537, 3_000_000])
async def test_large_bodies_stream_through(rig: Rig, size: int, *, chunked: bool) -> None:
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    client = await Client.open(rig.port)
    if chunked:
        client.send(b"POST /sink HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for begin in range(0, size, 50_000):
            piece = body[begin : begin + 50_000]
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
    else:
        client.send(b"POST /sink HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + body)
    said = json.loads((await client.answer()).body)
    assert said == {"bodylen": size, "sha256": hashlib.sha256(body).hexdigest()}
    client.send(b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n")
    assert json.loads((await client.answer()).body)["path"] == "/next"
    await client.close()


async def test_no_route_is_answered_in_the_form_asked_for() -> None:
    async with proxy_to(routes=[]) as rig:
        for accept, kind, begins in (
            (b"", "application/json; charset=utf-8", b'{\n  "message":"no Route matched with those values",\n  "requ'),
            (b"Accept: text/html\r\n", "text/html; charset=utf-8", b"<!doctype html>"),
            (b"Accept: text/plain\r\n", "text/plain; charset=utf-8", b"no Route matched with those values\nrequest_id"),
            (b"Accept: application/xml\r\n", "application/xml; charset=utf-8", b"<?xml"),
            (b"Accept: text/html;q=0.5, application/json\r\n", "application/json; charset=utf-8", b"{"),
            (b"Accept: image/png\r\n", "application/json; charset=utf-8", b"{"),
        ):
            client = await Client.open(rig.port)
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + accept + b"\r\n")
            answer = await client.answer()
            assert answer.status == 404
            assert answer.field("Content-Type") == kind
            assert answer.body.startswith(begins)
            assert answer.field("Server") == "kong/3.10.0"
            assert answer.field("Via") is None
            assert answer.field("X-Kong-Response-Latency") is not None
            request_id = answer.field("X-Kong-Request-Id")
            assert request_id is not None
            assert request_id.encode() in answer.body
            client.send(b"HEAD / HTTP/1.1\r\nHost: h\r\n" + accept + b"\r\n")
            head = await client.answer(head_only=True)
            assert head.field("Content-Length") == str(len(answer.body))
            await client.close()


async def test_what_is_refused_is_answered_in_the_form_asked_for(rig: Rig) -> None:
    for request in (
        b"GET / HTTP/1.1\r\n",
        b"TRACE / HTTP/1.1\r\nHost: h\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nExpect: a miracle\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: cow\r\n",
    ):
        for accept, kind, begins in (
            (b"", b"text/plain; charset=utf-8", b""),
            (b"Accept: application/json\r\n", b"application/json; charset=utf-8", b'{\n  "message":"'),
        ):
            head, _, body = (await rig.ask(request + accept + b"\r\n", close=True)).partition(b"\r\n\r\n")
            assert b"\r\nContent-Type: " + kind + b"\r\n" in head
            assert body.startswith(begins)


async def test_no_service_and_no_endpoint_are_503() -> None:
    async with proxy_to() as rig:
        answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"failure to get a peer from the ring-balancer" in answer
        assert b"Via" not in answer
    async with proxy_to(routes=[route_to_first("gone")]) as rig:
        assert b"no Service found with those values" in await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")


async def test_https_only_routes_refuse_or_redirect() -> None:
    async with proxy_to(routes=[route_to_first(protocols=("https",))]) as rig:
        answer = await rig.ask(b"GET /a?b HTTP/1.1\r\nHost: H:80\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 426 ")
        assert b"\r\nUpgrade: TLS/1.2, HTTP/1.1\r\n" in answer
        assert b"Please use HTTPS protocol" in answer
    routes = [route_to_first(protocols=("https",), https_redirect_status_code=302)]
    async with proxy_to(routes=routes) as rig:
        answer = await rig.ask(b"GET /a?b HTTP/1.1\r\nHost: H:80\r\nX-Forwarded-Proto: https\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 302 Found")
        assert b"\r\nLocation: https://h/a?b\r\n" in answer


async def test_a_body_answered_here_is_read_to_its_end_or_the_connection_ends() -> None:
    async with proxy_to(routes=[]) as rig:
        client = await Client.open(rig.port)
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 30000\r\n\r\n")
        assert (await client.answer()).field("Connection") == "keep-alive"
        client.send(b"x" * 30000 + b"GET /2 HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).status == 404
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n")
        assert (await client.answer()).field("Connection") == "close"
        assert await client.to_end() == b""
        await client.close()


async def test_routes_may_look_at_headers(echo: tuple[int, EchoSettings]) -> None:
    routes = [
        route_to_first(headers=(HeaderCondition("X-Version", ("2",)),), id="with", service="gone"),
        route_to_first(),
    ]
    async with proxy_to(echo[0], routes=routes) as rig:
        client = await Client.open(rig.port)
        for version, status in ((b"2", 503), (b"1", 200), (b"2", 503)):
            client.send(b"GET / HTTP/1.1\r\nHost: h\r\nx-version: " + version + b"\r\n\r\n")
            assert (await client.answer()).status == status
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert (await client.answer()).status == 200
        await client.close()


async def test_trusted_peers_are_believed(echo: tuple[int, EchoSettings]) -> None:
    from ipaddress import ip_network

    settings = ProxySettings(trusted_ips=(ip_network("127.0.0.0/8"),))
    async with proxy_to(echo[0], settings=settings) as rig:
        answer = await rig.ask(
            b"GET /p HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: outer\r\n"
            b"X-Forwarded-For: 10.0.0.1\r\nX-Real-IP: 10.0.0.9\r\nX-Forwarded-Prefix: /pre\r\n\r\n"
        )
        fields = dict(json.loads(answer.partition(b"\r\n\r\n")[2])["headers"])
        assert fields["X-Forwarded-Proto"] == "https"
        assert fields["X-Forwarded-Host"] == "outer"
        assert fields["X-Forwarded-Prefix"] == "/pre"
        assert fields["X-Forwarded-Port"] == str(rig.port)
        assert fields["X-Forwarded-Path"] == "/p"
        assert fields["X-Forwarded-For"] == "10.0.0.1, 127.0.0.1"
        assert fields["X-Real-IP"] == "10.0.0.9"


async def test_chains_of_via_and_forwarded_for_grow(rig: Rig) -> None:
    answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n")
    assert b'["Via", "1.0 a, 1.1 kong/3.10.0"]' in answer
    assert b'["X-Forwarded-For", "9.9.9.9, 127.0.0.1"]' in answer
    assert b'["X-Real-IP", "127.0.0.1"]' in answer


async def test_settings_switch_our_fields_off(echo: tuple[int, EchoSettings]) -> None:
    settings = NodeSettings(headers=("off",), headers_upstream=("off",)).proxy()
    async with proxy_to(echo[0], settings=settings) as rig:
        answer = await rig.ask(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        head = answer.partition(b"\r\n\r\n")[0]
        assert b"Kong" not in head
        assert b"\r\nVia:" not in head
        assert b"X-Kong-Request-Id" not in answer


OURS = {
    "Server": {"answered", "failed"},
    "Via": {"proxied", "failed"},
    "X-Kong-Upstream-Latency": {"proxied", "failed"},
    "X-Kong-Proxy-Latency": {"proxied", "failed"},
    "X-Kong-Response-Latency": {"answered"},
    "X-Kong-Upstream-Status": {"proxied"},
    "X-Kong-Request-Id": {"proxied", "answered", "failed"},
}
"""Which fields of ours come with an upstream's answer (this one has its own Server), with one of ours, with a 502."""


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        *((name.swapcase(), {name}) for name in OURS),
        ("server_tokens", {"Server", "Via"}),
        ("latency_tokens", {"X-Kong-Upstream-Latency", "X-Kong-Proxy-Latency", "X-Kong-Response-Latency"}),
        ("X-Kong-Admin-Latency", set[str]()),
        ("off", set[str]()),
    ],
)
async def test_fields_of_ours_can_be_had_one_by_one(headers: str, named: set[str]) -> None:
    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"GET /p" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 201 Created\r\nServer: theirs\r\nContent-Length: 0\r\n\r\n")

    settings = NodeSettings(headers=(headers, "off")).proxy()
    routes = [route_to_first(paths=("/p", "/f"))]
    async with upstream_of(upstream) as port, proxy_to(port, settings=settings, routes=routes) as rig:
        for kind, path, status in (("proxied", "/p", 201), ("answered", "/nowhere", 404), ("failed", "/f", 502)):
            client = await Client.open(rig.port)
            client.send(f"GET {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())
            answer = await client.answer()
            await client.close()
            assert answer.status == status
            found = {name for name, value in answer.fields if name in OURS and value != "theirs"}
            assert found == {name for name in named if kind in OURS[name]}, kind
            if "X-Kong-Upstream-Status" in found:
                assert answer.field("X-Kong-Upstream-Status") == "201"


async def test_websocket_becomes_a_tunnel_and_other_upgrades_do_not() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head)
            if b"Upgrade: websocket" not in head:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                continue
            writer.write(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: 1\r\n\r\nhi")
            while data := await reader.read(1000):
                writer.write(data.upper())
            return

    async with upstream_of(handler) as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(
            b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
        )
        answer = await client.answer()
        assert answer.status == 101
        assert answer.field("Upgrade") == "websocket"
        assert answer.field("Connection") == "Upgrade"
        assert await client.reader.readexactly(2) == b"hi"
        client.send(b"abc")
        assert await client.reader.readexactly(3) == b"ABC"
        client.writer.write_eof()
        assert await client.to_end() == b""
        await client.close()
        assert b"\r\nSec-WebSocket-Key: k\r\n" in seen[0]
        answer2 = await rig.ask(b"GET /h2c HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert answer2.startswith(b"HTTP/1.1 200 ")
        assert b"h2c" not in seen[1].partition(b"\r\n")[2].replace(b"/h2c", b"")
        await rig.settled()


@pytest.mark.parametrize("content", [b"", b"hello", b"x" * 200_000])
async def test_trailers_of_a_request_go_on_when_they_may(content: bytes) -> None:
    async def upstream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"\r\nTransfer-Encoding: chunked\r\n" in head
        got = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            got += (await reader.readexactly(size + 2))[:-2]
        trailers = b""
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            trailers += line
        ok = got == content
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (2 + len(trailers), b"%d " % ok + trailers))
        await reader.read()

    async with upstream_of(upstream) as port, proxy_to(port) as rig:
        client = await Client.open(rig.port)
        client.send(b"POST /up HTTP/1.1\r\nHost: h\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n")
        if content:
            client.send(b"%x\r\n%b\r\n" % (len(content), content))
        client.send(b"0\r\nX-Sum: 9\r\nHost: evil\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n")
        assert (await client.answer()).body == b"1 X-Sum: 9\r\n"
        await client.close()
        await rig.settled()
