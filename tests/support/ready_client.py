"""A client that never repeats a request, as a plain load balancer does not: it asks every node's `/status/ready` every
200 ms, opens connections only to those that are ready, uses the ones it has in turn, and honours `Connection: close`.

    client = ReadyClient(nodes, rate=100)
    client.start(); ...; await client.stop()
    client.sent, client.problems
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Sequence

from tests.support.patience import PATIENCE_S
from tests.support.processes import Node

POLL_S = 0.2
WORKERS_MAX = 128


class _Link:
    """One kept connection to a node."""

    def __init__(self, node: Node, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.node = node
        self.reader = reader
        self.writer = writer


class ReadyClient:
    """See the module."""

    def __init__(self, nodes: Sequence[Node], *, rate: float) -> None:
        self._nodes = nodes
        self._rate = rate
        self._ready: set[Node] = set()
        self._turn = 0
        self._idle: deque[_Link] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._open: set[asyncio.Task[None]] = set()
        self._running = False
        self.sent = 0
        self.answered = 0
        self.closed_by_answer = 0
        self.problems: list[str] = []

    def is_ready(self, node: Node) -> bool:
        """Tell what was known of the node at the last look."""
        return node in self._ready

    def start(self) -> None:
        """Begin to look and to send."""
        self._running = True
        self._tasks = [asyncio.create_task(self._poll(node)) for node in self._nodes]
        self._tasks.append(asyncio.create_task(self._send()))

    async def stop(self) -> None:
        """Send no more, wait for the answers, close everything."""
        self._running = False
        await self._tasks[-1]
        if self._open:
            await asyncio.wait(self._open, timeout=PATIENCE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for link in self._idle:
            link.writer.close()

    async def _poll(self, node: Node) -> None:
        while True:
            ready = False
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(1.0):
                    host, port = node.status.rsplit(":", 1)
                    reader, writer = await asyncio.open_connection(host, int(port))
                    try:
                        writer.write(b"GET /status/ready HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                        ready = b" 200 " in await reader.readuntil(b"\r\n")
                    finally:
                        writer.close()
            (self._ready.add if ready else self._ready.discard)(node)
            await asyncio.sleep(POLL_S)

    async def _send(self) -> None:
        while not self._ready:
            await asyncio.sleep(0.05)
        start = time.monotonic()
        sent = 0
        while self._running:
            due = int((time.monotonic() - start) * self._rate) + 1
            while sent < due:
                sent += 1
                task = asyncio.create_task(self._request(sent))
                self._open.add(task)
                task.add_done_callback(self._open.discard)
            await asyncio.sleep(max(0.001, start + sent / self._rate - time.monotonic()))

    async def _request(self, number: int) -> None:
        self.sent += 1
        where = "no node"
        try:
            async with asyncio.timeout(PATIENCE_S):
                link = await self._link()
                where = link.node.name
                await self._ask(link, number)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError) as error:
            self.problems.append(f"request {number} to {where}: {type(error).__name__} {error}")

    async def _link(self) -> _Link:
        # In turn, so that every connection to a node that goes hears of it with an answer.
        while self._idle:
            link = self._idle.popleft()
            if not link.reader.at_eof() and not link.writer.is_closing():
                return link
            link.writer.close()
        while not (ready := [node for node in self._nodes if node in self._ready]):
            await asyncio.sleep(0.01)
        self._turn += 1
        node = ready[self._turn % len(ready)]
        reader, writer = await asyncio.open_connection(*node.proxy_address)
        return _Link(node, reader, writer)

    async def _ask(self, link: _Link, number: int) -> None:
        link.writer.write(f"GET /orders/{number} HTTP/1.1\r\nHost: example.test\r\n\r\n".encode())
        head = (await link.reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        body = await link.reader.readexactly(length)
        if not head.startswith(b"http/1.1 200 ") or not body.startswith(f"{number} ".encode()):
            raise ValueError(f"{head[:40]!r} {body[:60]!r}")
        self.answered += 1
        if b"\r\nconnection: close" in head:
            self.closed_by_answer += 1
            link.writer.close()
        else:
            self._idle.append(link)
