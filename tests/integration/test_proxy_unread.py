"""A POST on a connection that ends under it: sent again when it is proved that nobody read it, and only then."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from data_plane.proxy.client import ClientConnection
from tests.support.patience import until
from tests.support.proxying import Client, Rig, proxy_to

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nab"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Race:
    """A proxy with one kept connection, whose other end is in the test's hands."""

    def __init__(self, rig: Rig, listener: socket.socket, client: Client) -> None:
        self.rig = rig
        self.client = client
        self._listener = listener
        self.kept: socket.socket

    async def serve(self) -> bytes:
        """Accepts a connection and answers one request on it."""
        loop = asyncio.get_running_loop()
        self.kept, _ = await loop.sock_accept(self._listener)
        self.kept.setblocking(False)
        request = await loop.sock_recv(self.kept, 65536)
        await loop.sock_sendall(self.kept, OK)
        return request

    def request(self, data: bytes) -> None:
        """Hands the proxy a request in this very instant, before it can look at any other socket."""
        (connection,) = self.rig.factory._shared.clients
        assert isinstance(connection, ClientConnection)
        connection.data_received(data)


@asynccontextmanager
async def race() -> AsyncIterator[Race]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        async with proxy_to(listener.getsockname()[1]) as rig:
            client = await Client.open(rig.port)
            made = Race(rig, listener, client)
            client.send(GET)
            await made.serve()
            assert (await client.answer()).status == 200
            await until(lambda: rig.counters.in_flight == 0)
            try:
                yield made
            finally:
                made.kept.close()
                await client.close()


async def test_a_post_to_a_connection_that_had_ended_before_is_sent_again() -> None:
    async with race() as made:
        made.kept.close()
        made.request(POST)
        assert (await made.serve()).endswith(b"\r\n\r\nab")
        assert (await made.client.answer()).status == 200
        assert made.rig.counters.retries == 1


def end(kept: socket.socket) -> None:
    kept.close()


def reset(kept: socket.socket) -> None:
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    kept.close()


@pytest.mark.parametrize("leave", [end, reset])
async def test_a_post_that_was_read_is_never_sent_again(leave: Callable[[socket.socket], None]) -> None:
    async with race() as made:
        made.request(POST)
        read = await asyncio.get_running_loop().sock_recv(made.kept, 65536)
        assert read.endswith(b"\r\n\r\nab")
        leave(made.kept)
        assert (await made.client.answer()).status == 502
        assert made.rig.counters.retries == 0


@pytest.mark.parametrize("leave", [end, reset])
async def test_a_post_that_may_have_been_read_in_part_is_not_sent_again(leave: Callable[[socket.socket], None]) -> None:
    async with race() as made:
        made.request(POST)
        await asyncio.get_running_loop().sock_recv(made.kept, 10)
        leave(made.kept)
        assert (await made.client.answer()).status == 502
        assert made.rig.counters.retries == 0
