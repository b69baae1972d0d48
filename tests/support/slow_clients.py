"""Connections that hold a node up in the four known ways, and what a node's processes weigh.

slow = SlowClients(node.proxy_address, count=100)
await slow.start()            # all are open, 25 of each kind, and go on dribbling
...
await slow.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.processes import Node

PAUSE_S = 1.0
AT_ONCE = 100
SLOW_READ_PATH = "/big/4000000"


class SlowClients:
    """`count` connections, a fourth of each kind; one that the node ends is opened again."""

    def __init__(self, address: tuple[str, int], *, count: int, host: str = "example.test") -> None:
        self._address = address
        self._host = host
        self._count = count
        self._tasks: list[asyncio.Task[None]] = []
        self._gate = asyncio.Semaphore(AT_ONCE)
        self.opened = 0
        self.open = 0
        self.refused = 0

    async def start(self) -> None:
        """Open all of them."""
        kinds: list[Callable[[socket.socket], Awaitable[None]]] = [self._head, self._body, self._read, self._idle]
        self._tasks = [asyncio.create_task(self._keep(kinds[each % 4])) for each in range(self._count)]
        while self.open < self._count and self.refused < self._count:
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        """Close all of them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, kind: Callable[[socket.socket], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with socket.socket() as connection:
                connection.setblocking(False)
                # As little as the kernel gives, so that an answer waits in the node rather than here.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                try:
                    async with self._gate:
                        await loop.sock_connect(connection, self._address)
                    self.opened += 1
                    self.open += 1
                    try:
                        await kind(connection)
                    finally:
                        self.open -= 1
                except OSError:
                    self.refused += 1
            await asyncio.sleep(PAUSE_S)

    async def _head(self, connection: socket.socket) -> None:
        await self._dribble(connection, f"GET / HTTP/1.1\r\nHost: {self._host}\r\nX-Slow: ".encode(), b"a")

    async def _body(self, connection: socket.socket) -> None:
        head = f"POST /slow HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: 1000000\r\n\r\n"
        await self._dribble(connection, head.encode(), b"b")

    async def _read(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, f"GET {SLOW_READ_PATH} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        while await loop.sock_recv(connection, 64):
            await asyncio.sleep(PAUSE_S)

    async def _idle(self, connection: socket.socket) -> None:
        await asyncio.get_running_loop().sock_recv(connection, 64)

    async def _dribble(self, connection: socket.socket, first: bytes, then: bytes) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(connection, first)
        while True:
            with contextlib.suppress(TimeoutError):
                if not await asyncio.wait_for(loop.sock_recv(connection, 4096), PAUSE_S):
                    return
            await loop.sock_sendall(connection, then)


def processes_of(node: Node) -> list[int]:
    """Return the node process and its workers."""
    found = [node.pid]
    for pid in found:
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            found += [int(child) for child in children]
    return found


def resident_mib(pid: int) -> float:
    """Return what a process has in memory; 0 when it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


class MemoryWatch:
    """Samples a node's processes while it is entered; `worker_mib` and `node_mib` (all together) are the highest seen.

    `before_mib` is a worker's at the start.
    """

    def __init__(self, node: Node, *, every_s: float = 0.1) -> None:
        self._node = node
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None
        self.before_mib = 0.0
        self.worker_mib = 0.0
        self.node_mib = 0.0

    async def __aenter__(self) -> MemoryWatch:
        self._sample()
        self.before_mib = self.worker_mib
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._sample()

    async def _run(self) -> None:
        while True:
            self._sample()
            await asyncio.sleep(self._every_s)

    def _sample(self) -> None:
        node, *workers = (resident_mib(pid) for pid in processes_of(self._node))
        self.worker_mib = max(self.worker_mib, *workers, 0.0)
        self.node_mib = max(self.node_mib, node + sum(workers))
