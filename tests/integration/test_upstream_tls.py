"""TLS towards upstream servers, over real handshakes: who is believed, what is shown, which connections are shared."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from data_plane.model import CertificateConfig, RouteConfig, ServiceConfig
from data_plane.observe.counters import Counters
from data_plane.proxy.serving import client_factory
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Active, ServiceRuntime, Tables
from data_plane.proxy.upstream_tls import UpstreamContexts, UpstreamTls
from tests.support.patience import until
from tests.support.proxying import Client, HandBalancer, endpoint_at, route_to_first, router_of
from tests.support.tls import Issued, authority_pem, issued, server_context

UP = "up.test"


@dataclass
class TlsUpstream:
    """Answers each request with the certificate name it was asked for and its own count of connections."""

    context: ssl.SSLContext
    port: int = 0
    names: list[str] = field(default_factory=list)
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    shown: list[object] = field(default_factory=list)

    def note(self, _connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> None:
        self.names.append(name or "")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.shown.append(writer.get_extra_info("peercert"))
        try:
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def tls_upstream(shows: Issued, *, wants_client_of: str | None = None) -> AsyncIterator[TlsUpstream]:
    upstream = TlsUpstream(server_context(shows, wants_client_of=wants_client_of))
    upstream.context.sni_callback = upstream.note
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, ssl=upstream.context)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        await asyncio.sleep(0.02)


@dataclass
class Service:
    """One service of the proxy under test, at its path `/id`."""

    id: str
    tls: UpstreamTls
    retries: int = 0
    host_header: str = UP
    preserve_host: bool = False


@asynccontextmanager
async def proxy(services: Sequence[Service], *ports: int) -> AsyncIterator[tuple[Client, HandBalancer]]:
    loop = asyncio.get_running_loop()
    balancer = HandBalancer([endpoint_at(port) for port in ports])
    runtimes = {
        service.id: ServiceRuntime(
            ServiceConfig(id=service.id, protocol="https", host=UP, port=443, retries=service.retries),
            balancer,
            host_header=service.host_header,
            tls=service.tls,
        )
        for service in services
    }
    routes: list[RouteConfig] = [
        route_to_first(service.id, id=service.id, paths=(f"/{service.id}",), preserve_host=service.preserve_host)
        for service in services
    ]
    factory = client_factory(Active(Tables(1, router_of(routes), runtimes)), ProxySettings(), loop, Counters())
    factory.start()
    server = await loop.create_server(factory, "127.0.0.1", 0)
    client = await Client.open(server.sockets[0].getsockname()[1])
    try:
        yield client, balancer
    finally:
        await client.close()
        server.close()
        factory.cut()
        factory.stop()
        await until(lambda: factory.connections == 0)
        await asyncio.sleep(0.02)
        assert balancer.in_flight == 0


async def ask(client: Client, path: str, *, method: str = "GET", host: str = "client.test") -> int:
    client.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
    return (await client.answer()).status


def identity(
    contexts: UpstreamContexts | None = None,
    *,
    verify: bool | None = True,
    depth: int | None = None,
    by: str | None = "one",
    shows: Issued | None = None,
) -> UpstreamTls:
    return (contexts or UpstreamContexts(ProxySettings())).of(
        verify=verify,
        depth=depth,
        authorities=None if by is None else [authority_pem(by)],
        certificate=None if shows is None else CertificateConfig("c", shows.cert, shows.key),
    )


async def test_a_verified_server_is_asked_by_its_name_and_the_connection_is_used_again() -> None:
    async with tls_upstream(issued(UP)) as upstream, proxy([Service("a", identity())], upstream.port) as (client, _):
        assert [await ask(client, "/a") for _ in range(3)] == [200, 200, 200]
        assert upstream.names == [UP]
        assert upstream.connections == 1


@pytest.mark.parametrize(
    ("shows", "by"),
    [
        (issued("other.test"), "one"),
        (issued(UP, by="stranger"), "one"),
        (issued(UP), None),
    ],
    ids=["another name", "an unknown authority", "nobody is trusted"],
)
async def test_what_does_not_verify_is_502_and_nothing_is_sent(shows: Issued, by: str | None) -> None:
    async with (
        tls_upstream(shows) as upstream,
        proxy([Service("a", identity(by=by))], upstream.port) as (client, _),
    ):
        assert await ask(client, "/a") == 502
        assert upstream.requests == []


async def test_without_verification_anything_goes() -> None:
    tls = identity(verify=None, by=None)  # the node's own setting is not to verify
    async with (
        tls_upstream(issued("other.test", by="stranger")) as upstream,
        proxy([Service("a", tls)], upstream.port) as (client, _),
    ):
        assert await ask(client, "/a") == 200


async def test_the_node_s_own_setting_holds_where_the_service_says_nothing() -> None:
    contexts = UpstreamContexts(ProxySettings(upstream_tls_verify=True), trusted=authority_pem("one"))
    async with (
        tls_upstream(issued(UP)) as good,
        tls_upstream(issued(UP, by="stranger")) as bad,
        proxy([Service("a", identity(contexts, verify=None, by=None))], good.port, bad.port) as (client, _),
    ):
        assert sorted([await ask(client, "/a"), await ask(client, "/a")]) == [200, 502]


@pytest.mark.parametrize(
    ("intermediates", "depth", "status"), [(0, 0, 200), (1, 0, 502), (1, None, 200), (2, None, 502), (2, 2, 200)]
)
async def test_depth_counts_the_intermediates_of_the_verified_chain(
    intermediates: int, depth: int | None, status: int
) -> None:
    async with (
        tls_upstream(issued(UP, depth=intermediates)) as upstream,
        proxy([Service("a", identity(depth=depth))], upstream.port) as (client, _),
    ):
        assert await ask(client, "/a") == status
        assert len(upstream.requests) == (status == 200)


async def test_a_client_certificate_is_shown() -> None:
    shown = issued("gateway.test", by="clients")
    async with (
        tls_upstream(issued(UP), wants_client_of="clients") as upstream,
        proxy([Service("with", identity(shows=shown)), Service("without", identity())], upstream.port) as (client, _),
    ):
        assert await ask(client, "/without") == 502
        assert await ask(client, "/with") == 200
        assert "gateway.test" in str(upstream.shown[-1])


async def test_connections_are_never_shared_between_identities() -> None:
    contexts = UpstreamContexts(ProxySettings())
    services = [
        Service("a", identity(contexts)),
        Service("b", identity(contexts, verify=False)),
        Service("c", identity(contexts, shows=issued("gateway.test", by="clients"))),
        Service("same", identity(contexts)),
        Service("named", identity(contexts, verify=False), host_header="another.test"),
    ]
    async with tls_upstream(issued(UP)) as upstream, proxy(services, upstream.port) as (client, _):
        for _ in range(2):
            for service in services:
                assert await ask(client, f"/{service.id}") == 200
        assert upstream.connections == 4
        assert sorted(upstream.names) == ["another.test", UP, UP, UP]


async def test_a_preserved_host_is_the_name_that_is_asked_for() -> None:
    service = Service("a", identity(verify=False), preserve_host=True)
    async with tls_upstream(issued(UP)) as upstream, proxy([service], upstream.port) as (client, _):
        for host in ("One.test:8443", "two.test", "one.test", "two.test:1"):
            assert await ask(client, "/a", host=host) == 200
        assert upstream.names == ["one.test", "two.test"]


async def test_a_failed_handshake_is_repeated_on_the_next_target_even_for_a_post() -> None:
    async with (
        tls_upstream(issued(UP, by="stranger")) as bad,
        tls_upstream(issued(UP)) as good,
        proxy([Service("a", identity(), retries=1)], bad.port, good.port) as (client, balancer),
    ):
        assert await ask(client, "/a", method="POST") == 200
        assert [endpoint.port for endpoint in balancer.picked] == [bad.port, good.port]


async def test_a_server_in_the_clear_is_502() -> None:
    async def shout(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with (
        server,
        proxy([Service("a", identity(verify=False))], server.sockets[0].getsockname()[1]) as (client, _),
    ):
        assert await ask(client, "/a") == 502


def test_equal_settings_are_one_identity() -> None:
    contexts = UpstreamContexts(ProxySettings())
    one = identity(contexts)

    assert identity(contexts) is one
    assert identity(contexts, verify=False) is not one
    assert identity(contexts, depth=3) is not one
    assert identity(contexts, by="stranger") is not one
    assert identity(contexts, shows=issued("gateway.test", by="clients")) is not one
