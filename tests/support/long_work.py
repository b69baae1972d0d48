"""What may still be under way on a node that is told to end: long downloads and WebSockets. Each must end well.

async with LongUpstreams() as upstreams:
    snapshot = upstreams.behind(snapshot)         # /long and /talk
    work = LongWork(node, downloads=50, tunnels=20, seconds=3.0)
    await work.begin()                            # every one has had its first octets
    ...
    problems = await work.finished()
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import WebSocketException

from data_plane.node.snapshot import NodeSnapshot
from tests.support.patience import PATIENCE_S
from tests.support.processes import Node
from tests.support.split_config import with_second_service

PIECE = bytes(range(256)) * 64
PAUSE_S = 0.25


class LongUpstreams:
    """One server that trickles bodies (`/long/PIECES`), one that echoes messages (`/talk`)."""

    def __init__(self) -> None:
        self._trickling: asyncio.Server
        self._echoing: Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._trickling = await asyncio.start_server(self._trickle, "127.0.0.1", 0)
        self._echoing = await serve(_echo, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._trickling.close()
        self._echoing.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._echoing.wait_closed()

    def behind(self, snapshot: NodeSnapshot) -> NodeSnapshot:
        """Return the snapshot with routes to both."""
        for name, path, server in (("long", "/long", self._trickling), ("talk", "/talk", self._echoing)):
            port = next(iter(server.sockets)).getsockname()[1]
            snapshot = with_second_service(snapshot, paths=[path], address=f"127.0.0.1:{port}", name=name)
        return snapshot

    async def _trickle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    pieces = int(head.split(b" ", 2)[1].rpartition(b"/")[2])
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (pieces * len(PIECE)))
                    for _ in range(pieces):
                        writer.write(PIECE)
                        await writer.drain()
                        await asyncio.sleep(PAUSE_S)
        finally:
            writer.close()
            self._tasks.discard(task)


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


class LongWork:
    """So many downloads and conversations through one node, each of some seconds."""

    def __init__(self, node: Node, *, downloads: int, tunnels: int, seconds: float) -> None:
        self._address = node.proxy_address
        self._pieces = max(1, round(seconds / PAUSE_S))
        self._begun = [asyncio.Event() for _ in range(downloads + tunnels)]
        self._tasks = [asyncio.create_task(self._download(begun)) for begun in self._begun[:downloads]]
        self._tasks += [asyncio.create_task(self._talk(begun)) for begun in self._begun[downloads:]]

    async def begin(self) -> None:
        """Wait until all are under way; a connection of which nothing has come yet may be refused fairly."""
        async with asyncio.timeout(PATIENCE_S):
            for begun in self._begun:
                await begun.wait()

    async def finished(self) -> list[str]:
        """Wait for all of them; return what went wrong."""
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        return [f"{type(fault).__name__}: {fault}" for fault in outcomes if fault is not None]

    async def _download(self, begun: asyncio.Event) -> None:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(*self._address)
            try:
                writer.write(f"GET /long/{self._pieces} HTTP/1.1\r\nHost: example.test\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
                if not head.startswith(b"HTTP/1.1 200 "):
                    raise ValueError(f"a download was answered {head[:60]!r}")
                for number in range(self._pieces):
                    if await reader.readexactly(len(PIECE)) != PIECE:
                        raise ValueError(f"piece {number} of a download is another")
                    begun.set()
            finally:
                begun.set()
                writer.close()

    async def _talk(self, begun: asyncio.Event) -> None:
        try:
            host, port = self._address
            async with asyncio.timeout(PATIENCE_S), connect(f"ws://{host}:{port}/talk", compression=None) as client:
                for number in range(self._pieces):
                    await client.send(str(number))
                    if await client.recv() != str(number):
                        raise ValueError(f"message {number} came back as another")
                    begun.set()
                    await asyncio.sleep(PAUSE_S)
            if client.close_code != 1000:
                raise WebSocketException(f"a conversation was ended with {client.close_code}")
        finally:
            begun.set()
