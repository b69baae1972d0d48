"""A real node with TLS listeners: certificates by name, schemes in routing, resumption, and rotation under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from cryptography import x509
from google.protobuf.duration_pb2 import Duration

from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire
from tests.support.node_rig import (
    Entities,
    Response,
    TinyUpstream,
    config,
    prepared_node,
    read_response,
    ready,
    request,
)
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import ControlPlane, Node
from tests.support.slow_clients import processes_of
from tests.support.tls import Issued, authority_pem, client_context, issued

LISTEN = "127.0.0.1:0, 127.0.0.1:0 ssl"

MAIN = issued("main.test")
WILD = issued("*.wild.test", "wild.test")
TRAILING = issued("tail.org", "tail.net")
ANY = issued("any.test")
RSA = issued("both.test", ecdsa=False)
ECDSA = issued("both.test")


@dataclass
class Served:
    """A node with its two ports."""

    node: Node
    plain: tuple[str, int]
    tls: tuple[str, int]
    upstream: TinyUpstream


def certified(base: NodeSnapshot, *, catch_all: bool = False) -> NodeSnapshot:
    """The config with certificates and some routes that look at the connection."""
    entities: Entities = dict(base.entities)

    def certificate(of: str, shows: Issued, *names: str, alt: Issued | None = None) -> None:
        entities["certificates", of] = wire.Entity(
            certificate=wire.Certificate(
                id=of, cert=shows.cert, key=shows.key, cert_alt=alt.cert if alt else "", key_alt=alt.key if alt else ""
            )
        ).SerializeToString()
        for name in names:
            key = f"{of}-{name}"
            entities["snis", key] = wire.Entity(sni=wire.Sni(id=key, name=name, certificate=of)).SerializeToString()

    certificate("main", MAIN, "Main.test")
    certificate("wild", WILD, "*.wild.test")
    certificate("tail", TRAILING, "tail.*")
    certificate("both", RSA, "both.test", alt=ECDSA)
    if catch_all:
        certificate("any", ANY, "*")
    minute = Duration(seconds=60)
    entities["services", "s2"] = wire.Entity(
        service=wire.Service(
            id="s2", name="other", protocol="http", host="127.0.0.1", port=1, connect_timeout=minute,
            write_timeout=minute, read_timeout=minute,
        )
    ).SerializeToString()  # fmt: skip
    for of, fields in {
        "secure": {"protocols": ["https"], "paths": ["/secure"], "https_redirect_status_code": 426},
        "moved": {"protocols": ["https"], "paths": ["/moved"], "https_redirect_status_code": 301},
        "named": {
            "protocols": ["https"],
            "paths": ["/named"],
            "snis": ["Main.test"],
            "https_redirect_status_code": 426,
        },
    }.items():
        entities["routes", of] = wire.Entity(
            route=wire.Route(id=of, path_handling="v0", service="s1", **fields)  # type: ignore[arg-type]  # by name
        ).SerializeToString()
    return NodeSnapshot(base.epoch, base.version, snapshot_hash(entities), entities)


def ports_of(node: Node, folder: Path) -> list[tuple[str, int]]:
    told = json.loads((folder / f"{node.name}.ports").read_text())["proxy"]
    return [(host, int(port)) for host, _, port in (address.rpartition(":") for address in told)]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with TinyUpstream("blue") as upstream:
        node = prepared_node(tmp_path, certified(config(upstream.address)), workers=1)
        node.proxy = LISTEN
        await node.up()
        try:
            await ready(node)
            plain, tls = ports_of(node, tmp_path)
            yield Served(node, plain, tls, upstream)
        finally:
            node.destroy()


async def shown(address: tuple[str, int], name: str | None, context: ssl.SSLContext | None = None) -> x509.Certificate:
    """The certificate that a client gets for a name."""
    context = context or client_context(by=None)
    _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name or "127.0.0.1")
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return x509.load_der_x509_certificate(der)


def leaf(of: Issued) -> x509.Certificate:
    return x509.load_pem_x509_certificate(of.cert.encode())


async def get(
    address: tuple[str, int], path: str = "/", *, name: str = "main.test", context: ssl.SSLContext | None = None
) -> Response:
    async with asyncio.timeout(PATIENCE_S):
        context = context or client_context()
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            return await read_response(reader)
        finally:
            writer.close()


async def test_certificates_by_name(served: Served) -> None:
    for name, expected in {
        "main.test": MAIN,
        "MAIN.test": MAIN,
        "a.wild.test": WILD,
        "tail.org": TRAILING,
        "tail.example": TRAILING,
    }.items():
        assert await shown(served.tls, name) == leaf(expected), name
    for unknown in (None, "unknown.test", "a.b.wild.test", "wild.test", "deep.tail.org"):
        certificate = await shown(served.tls, unknown)
        assert certificate.subject == certificate.issuer, unknown
        assert "localhost" in certificate.subject.rfc4514_string()


async def test_a_star_is_shown_for_every_name_but_not_for_none(tmp_path: Path) -> None:
    async with TinyUpstream("blue") as upstream:
        node = prepared_node(tmp_path, certified(config(upstream.address), catch_all=True), workers=1)
        node.proxy = LISTEN
        await node.up()
        try:
            await ready(node)
            _, tls = ports_of(node, tmp_path)
            assert await shown(tls, "unknown.test") == leaf(ANY)
            assert await shown(tls, "main.test") == leaf(MAIN)
            assert await shown(tls, None) != leaf(ANY)
        finally:
            node.destroy()


async def test_an_rsa_and_an_ecdsa_certificate_by_what_the_client_takes(served: Served) -> None:
    for cipher, expected in (("ECDHE-RSA-AES128-GCM-SHA256", RSA), ("ECDHE-ECDSA-AES128-GCM-SHA256", ECDSA)):
        context = client_context(by=None)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(cipher)
        assert await shown(served.tls, "both.test", context) == leaf(expected)


async def test_requests_are_verified_served_and_told_the_scheme(served: Served) -> None:
    response = await get(served.tls, "/anything")

    assert (response.status, response.body) == (200, "blue")
    assert (await request(served.plain, "/anything")).status == 200


async def test_routes_look_at_the_scheme_and_the_name(served: Served) -> None:
    assert (await request(served.plain, "/secure")).status == 426
    moved = await request(served.plain, "/moved?a=1")
    assert (moved.status, moved.headers["location"]) == (301, "https://example.test/moved?a=1")
    for _ in range(2):  # the second by the plan cache
        assert (await get(served.tls, "/secure")).status == 200
        assert (await get(served.tls, "/moved")).status == 200
        assert (await get(served.tls, "/named")).body == "blue"
        # Without that name the route is none for this connection, and the one for everything is taken.
        assert (await get(served.tls, "/named", name="a.wild.test")).status == 200
    assert (await request(served.plain, "/secure")).status == 426


async def test_versions_and_protocols(served: Served) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client_context()
        context.minimum_version = context.maximum_version = version
        context.set_alpn_protocols(["h2", "http/1.1"])
        reader, writer = await asyncio.open_connection(*served.tls, ssl=context, server_hostname="main.test")
        connection = cast(ssl.SSLObject, writer.get_extra_info("ssl_object"))
        assert connection.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2"}.get(version, "TLSv1.3")
        assert connection.selected_alpn_protocol() == "http/1.1"
        writer.close()
        del reader


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions_are_resumed_within_a_worker(tmp_path: Path, version: ssl.TLSVersion) -> None:
    import socket

    async def start() -> tuple[Node, tuple[str, int]]:
        node = prepared_node(tmp_path, certified(config("127.0.0.1:1")), workers=1)
        node.proxy = LISTEN
        await node.up()
        await ready(node)
        return node, ports_of(node, tmp_path)[1]

    node, address = asyncio.run(start())
    try:
        context = client_context()
        context.minimum_version = context.maximum_version = version
        session: ssl.SSLSession | None = None
        for resumed in (False, True):
            with (
                socket.create_connection(address, timeout=PATIENCE_S) as raw,
                context.wrap_socket(raw, server_hostname="main.test", session=session) as connection,
            ):
                connection.sendall(b"GET /none HTTP/1.1\r\nHost: main.test\r\nConnection: close\r\n\r\n")
                while connection.recv(65536):
                    pass
                assert connection.session_reused is resumed
                session = connection.session
    finally:
        node.destroy()


async def test_a_plain_request_on_a_tls_port_is_told_so_and_nothing_else_suffers(served: Served) -> None:
    for method, body in (("GET", ""), ("POST", "x" * 100_000)):
        answer = await request(served.tls, "/anything", method=method, body=body)
        assert answer.status == 400
        assert answer.body.startswith("The plain HTTP request was sent to HTTPS port\nrequest_id: ")
        assert answer.headers["connection"] == "close"
    told = await request(served.tls, "/anything", headers=["Accept: application/json"])
    assert '"message":"The plain HTTP request was sent to HTTPS port"' in told.body
    assert served.upstream.requests == 0
    assert (await get(served.tls, "/anything")).status == 200


async def test_a_pair_that_does_not_load_refuses_the_config_and_keeps_its_key_to_itself(tmp_path: Path) -> None:
    broken = certified(config("127.0.0.1:1"))
    entities = dict(broken.entities)
    entities["certificates", "main"] = wire.Entity(
        certificate=wire.Certificate(id="main", cert=MAIN.cert, key=WILD.key)
    ).SerializeToString()
    node = prepared_node(tmp_path, NodeSnapshot(broken.epoch, 1, snapshot_hash(entities), entities), workers=1)
    node.proxy = LISTEN
    await node.up()
    try:
        await node.until(lambda: "does not match the key" in node.log_tail() or None, "refuse the config")
        assert "PRIVATE KEY" not in node.log_tail()
    finally:
        node.destroy()


async def test_certificates_rotate_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    import aiohttp

    plane = ControlPlane(tmp_path)
    node: Node | None = None
    async with TinyUpstream("blue") as upstream:
        try:
            await plane.up()
            async with aiohttp.ClientSession(plane.url) as admin:

                async def write(method: str, path: str, body: object) -> dict[str, str]:
                    async with admin.request(method, path, json=body, headers={"Prefer": PREFER}) as response:
                        answer = await response.json()
                        assert response.status < 300, answer
                        return cast(dict[str, str], answer.get("entity", answer))

                await write("POST", "/services", {"name": "s", "url": f"http://{upstream.address}"})
                await write("POST", "/services/s/routes", {"paths": ["/"], "protocols": ["https"]})
                versions = [issued("main.test", serial=serial) for serial in range(6)]
                first = versions[0]
                made = await write(
                    "POST", "/certificates", {"cert": first.cert, "key": first.key, "snis": ["main.test"]}
                )
                node = Node("node", tmp_path, plane.fleet, "--drain-delay-s=0.2", workers=1)
                node.proxy = LISTEN
                await node.up()
                await ready(node)
                _, tls = ports_of(node, tmp_path)
                assert await shown(tls, "main.test") == leaf(first)

                stop = asyncio.Event()
                served = 0

                async def keep_asking(*, anew: bool) -> None:
                    nonlocal served
                    context = client_context()
                    reader, writer = await asyncio.open_connection(*tls, ssl=context, server_hostname="main.test")
                    while not stop.is_set():
                        if anew:
                            writer.close()
                            reader, writer = await asyncio.open_connection(
                                *tls, ssl=context, server_hostname="main.test"
                            )
                        writer.write(b"GET / HTTP/1.1\r\nHost: main.test\r\n\r\n")
                        assert (await read_response(reader)).status == 200
                        served += 1
                        await asyncio.sleep(0.002)
                    writer.close()

                load = [asyncio.create_task(keep_asking(anew=number % 2 == 0)) for number in range(4)]
                for version in versions[1:]:
                    await write("PATCH", f"/certificates/{made['id']}", {"cert": version.cert, "key": version.key})
                    assert await shown(tls, "main.test") == leaf(version)
                    before = served
                    while served < before + 20:
                        await asyncio.sleep(0.01)
                        assert not any(task.done() for task in load), [t.exception() for t in load if t.done()]
                stop.set()
                await asyncio.gather(*load)
                assert served >= 100
                assert authority_pem() not in node.log_tail()
        finally:
            if node is not None:
                node.destroy()
            plane.destroy()


async def test_a_client_that_ends_its_stream_while_it_waits_leaves_nothing_behind(served: Served) -> None:
    reader, writer = await asyncio.open_connection(*served.tls, ssl=client_context(), server_hostname="main.test")
    writer.write(b"GET /slow HTTP/1.1\r\nHost: main.test\r\n\r\n")
    await served.upstream.asked.wait()
    writer.close()
    served.upstream.go.set()
    assert (await get(served.tls, "/anything")).status == 200
    assert "has no effect when using ssl" not in served.node.log_tail()
    del reader


async def test_default_certificates_are_read_anew_on_sighup_without_loss(tmp_path: Path) -> None:
    first, second = issued("default.test"), issued("default.test", serial=1)
    cert, key = tmp_path / "default.crt", tmp_path / "default.key"

    def put(pair: Issued, *, key_of: Issued | None = None) -> None:
        cert.write_text(pair.cert)
        key.write_text((key_of or pair).key)

    async def until_shown(wanted: Issued) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while await shown(tls, None) != leaf(wanted):
                await asyncio.sleep(0.02)

    put(first)
    async with TinyUpstream("blue") as upstream:
        node = prepared_node(
            tmp_path, certified(config(upstream.address)), f"--ssl-cert={cert}", f"--ssl-cert-key={key}", workers=1
        )
        node.proxy = LISTEN
        try:
            await node.up()
            await ready(node)
            _, tls = ports_of(node, tmp_path)
            assert await shown(tls, None) == await shown(tls, "nobody.test") == leaf(first)
            context = client_context()
            reader, writer = await asyncio.open_connection(*tls, ssl=context, server_hostname="default.test")
            put(second, key_of=first)
            node.kill(signal.SIGHUP)
            await node.until(lambda: "stay as they were" in node.log_tail() or None, "refuse the new pair")
            assert await shown(tls, None) == leaf(first)
            put(second)
            node.kill(signal.SIGHUP)
            await until_shown(second)
            assert await shown(tls, "nobody.test") == leaf(second)
            assert await shown(tls, "main.test") == leaf(MAIN)
            writer.write(b"GET / HTTP/1.1\r\nHost: default.test\r\n\r\n")
            assert (await read_response(reader)).status == 200
            writer.close()
            for worker in processes_of(node)[1:]:
                os.kill(worker, signal.SIGKILL)
            await until_shown(second)
            assert "PRIVATE KEY" not in node.log.read_text()
        finally:
            node.destroy()
