"""WebSocket through a real node with a real client and server: whatever they say passes unchanged, and nothing is a
tunnel before the upstream's 101."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.http11 import Request, Response

from tests.support.node_rig import TinyUpstream, config, prepared_node, ready
from tests.support.patience import PATIENCE_S
from tests.support.processes import Node
from tests.support.split_config import with_second_service

BIG_BYTES = 16 << 20


@dataclass
class Talk:
    """The node, and what the WebSocket server saw."""

    node: Node
    codes: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"ws://{self.node.proxy}"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Talk]:
    """A node with an echoing WebSocket server below /ws and an ordinary one for all else.

    For all tests of this module, which therefore run in one event loop.
    """

    async def echo(connection: ServerConnection) -> None:
        assert connection.request is not None
        told.connections += 1
        told.paths.append(connection.request.path)
        try:
            async for message in connection:
                if message == "bye":
                    await connection.close(4001, "as asked")
                else:
                    await connection.send(message)
        finally:
            if connection.close_code is not None:
                told.codes.append(connection.close_code)

    async def refuse(connection: ServerConnection, request: Request) -> Response | None:
        return connection.respond(403, "not you\n") if request.path.startswith("/ws/refused") else None

    async with TinyUpstream("plain") as plain:
        server: Server = await serve(echo, "127.0.0.1", 0, max_size=BIG_BYTES * 2, process_request=refuse)
        port = next(iter(server.sockets)).getsockname()[1]
        snapshot = with_second_service(config(plain.address), paths=["/ws"], address=f"127.0.0.1:{port}")
        told = Talk(prepared_node(tmp_path_factory.mktemp("node"), snapshot, workers=1))
        try:
            await told.node.up()
            await ready(told.node)
            yield told
        finally:
            told.node.destroy()
            server.close()
            await server.wait_closed()


@pytest_asyncio.fixture(loop_scope="module")
async def talk(shared: Talk) -> AsyncIterator[Talk]:
    """With nothing seen yet."""
    shared.codes.clear()
    shared.paths.clear()
    shared.connections = 0
    async with asyncio.timeout(PATIENCE_S):
        yield shared


async def test_text_binary_and_ping_come_back(talk: Talk) -> None:
    async with connect(f"{talk.url}/ws/a?b=c", compression=None) as client:
        await client.send("grüße")
        assert await client.recv() == "grüße"
        await client.send(bytes(range(256)))
        assert await client.recv() == bytes(range(256))
        await (await client.ping(b"are you there"))
    assert talk.paths == ["/ws/a?b=c"]


async def test_messages_of_16_mib_come_back_whole(talk: Talk) -> None:
    message = hashlib.shake_256(b"seed").digest(BIG_BYTES)
    async with connect(f"{talk.url}/ws", compression=None, max_size=BIG_BYTES * 2) as client:
        await client.send(message)
        assert await client.recv() == message


async def test_compression_is_agreed_end_to_end(talk: Talk) -> None:
    async with connect(f"{talk.url}/ws", compression="deflate") as client:
        assert "permessage-deflate" in str(client.response and client.response.headers["Sec-WebSocket-Extensions"])
        await client.send("a" * 100_000)
        assert await client.recv() == "a" * 100_000


async def test_close_codes_pass_both_ways(talk: Talk) -> None:
    async with connect(f"{talk.url}/ws") as client:
        await client.send("bye")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4001, "as asked")
    async with connect(f"{talk.url}/ws") as client:
        await client.close(3000, "client's wish")
    while not {4001, 3000} <= set(talk.codes):
        await asyncio.sleep(0.01)


async def test_many_connections_talk_at_once(talk: Talk) -> None:
    async def one(number: int) -> None:
        async with connect(f"{talk.url}/ws/{number}") as client:
            for each in range(20):
                await client.send(f"{number}.{each}")
                assert await client.recv() == f"{number}.{each}"

    await asyncio.gather(*(one(number) for number in range(20)))


async def test_a_refusal_stays_an_answer(talk: Talk) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{talk.url}/ws/refused")
    assert refused.value.response.status_code == 403
    assert refused.value.response.body == b"not you\n"


UPGRADE = "GET {} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {}\r\n\r\n"


async def raw(talk: Talk, octets: str, *, until: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*talk.node.proxy_address)
    try:
        writer.write(octets.encode())
        got = b""
        while until not in got and (piece := await reader.read(65536)):
            got += piece
        return got
    finally:
        writer.close()


async def test_there_is_no_tunnel_before_the_101(talk: Talk) -> None:
    """What comes behind an upgrade that the upstream does not grant is the next request, never its octets."""
    ahead = "GET /second HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    got = await raw(talk, UPGRADE.format("/first", "websocket") + ahead, until=b"plain" * 9)
    assert got.count(b"HTTP/1.1 200 OK") == 2
    assert b"101" not in got


@pytest.mark.parametrize("protocol", ["h2c", "HTTP/2.0", "TLS/1.0", "websockets", "websocket, h2c"])
async def test_other_upgrades_are_not_passed_on(talk: Talk, protocol: str) -> None:
    """The request is proxied without its upgrade, so the WebSocket server sees an ordinary one and refuses it."""
    before = talk.connections
    got = await raw(talk, UPGRADE.format("/ws", protocol), until=b"\r\n\r\n")
    assert b" 101 " not in got
    assert talk.connections == before
