"""A real node with listeners that begin with a PROXY header, in the clear and before a handshake."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.test_node_tls import Served, ports_of
from tests.support.node_rig import Response, TinyUpstream, config, prepared_node, read_response, ready
from tests.support.patience import PATIENCE_S
from tests.support.tls import client_context

LISTEN = "127.0.0.1:0 proxy_protocol, 127.0.0.1:0 ssl proxy_protocol"
LINE = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 80\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
BINARY = SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 15) + bytes([192, 0, 2, 8, 192, 0, 2, 1]) + b"\x12\x34\0P\x04\0\0"
REQUEST = b"GET /anything HTTP/1.1\r\nHost: example.test\r\n\r\n"


async def node_with(folder: Path, upstream: TinyUpstream, *extra: str) -> Served:
    node = prepared_node(folder, config(upstream.address), "--real-ip-header=proxy_protocol", *extra, workers=1)
    node.proxy = LISTEN
    await node.up()
    await ready(node)
    plain, tls = ports_of(node, folder)
    return Served(node, plain, tls, upstream)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with TinyUpstream("blue") as upstream:
        served = await node_with(tmp_path, upstream, "--trusted-ips=127.0.0.0/8")
        try:
            yield served
        finally:
            served.node.destroy()


async def ask(address: tuple[str, int], *pieces: bytes) -> Response:
    """Send the pieces one by one, each in a packet of its own, and read the answer."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*address)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.002)
            return await read_response(reader)
        finally:
            writer.close()


async def ask_tls(address: tuple[str, int], header: bytes) -> Response:
    """Send the header in the clear, shake hands on the same connection, and ask."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(header)
            await writer.start_tls(client_context(by=None), server_hostname="main.test")
            writer.write(REQUEST)
            return await read_response(reader)
        finally:
            writer.close()


@pytest.mark.parametrize(("header", "client"), [(LINE, "192.0.2.7"), (BINARY, "192.0.2.8")])
async def test_the_header_names_the_client(served: Served, header: bytes, client: str) -> None:
    for pieces in ((header + REQUEST,), (header, REQUEST), (*(bytes([octet]) for octet in header), REQUEST)):
        assert (await ask(served.plain, *pieces)).status == 200
        assert f"\r\nX-Real-IP: {client}\r\n" in served.upstream.last_head
        assert f"\r\nX-Forwarded-For: {client}\r\n" in served.upstream.last_head
        assert f"\r\nX-Forwarded-Port: {served.plain[1]}\r\n" in served.upstream.last_head
    assert (await ask_tls(served.tls, header)).status == 200
    assert f"\r\nX-Real-IP: {client}\r\n" in served.upstream.last_head
    assert "\r\nX-Forwarded-Proto: https\r\n" in served.upstream.last_head


async def test_a_header_that_names_nobody_leaves_the_peer(served: Served) -> None:
    assert (await ask(served.plain, SIGNATURE + b"\x20\0\0\0" + REQUEST)).status == 200
    assert "\r\nX-Real-IP: 127.0.0.1\r\n" in served.upstream.last_head


async def test_without_a_header_nothing_is_served(served: Served) -> None:
    for address in (served.plain, served.tls):
        with pytest.raises(ConnectionError):
            await ask(address, REQUEST)
    with pytest.raises((ConnectionError, ssl.SSLError)):
        await ask_tls(served.tls, b"")
    assert served.upstream.requests == 0
    assert "without a PROXY header is closed" in served.node.log_tail()
    assert (await ask(served.plain, LINE + REQUEST)).status == 200


async def test_a_plain_request_behind_the_header_of_a_tls_port_is_told_so(served: Served) -> None:
    answer = await ask(served.tls, LINE + REQUEST)
    assert answer.status == 400
    assert "sent to HTTPS port" in answer.body


async def test_an_untrusted_peer_names_nobody(tmp_path: Path) -> None:
    async with TinyUpstream("blue") as upstream:
        served = await node_with(tmp_path, upstream)
        try:
            assert (await ask(served.plain, LINE + REQUEST)).status == 200
            assert "\r\nX-Real-IP: 127.0.0.1\r\n" in upstream.last_head
        finally:
            served.node.destroy()
