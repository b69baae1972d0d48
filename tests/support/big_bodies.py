"""Big bodies through one worker of a real node, and what that costs it in memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.node_rig import config, prepared_node, ready
from tests.support.processes import Node, Process
from tests.support.slow_clients import MemoryWatch

PIECE = bytes(range(256)) * 256
READ_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Cost:
    """How far a worker grew, MiB, and what came out."""

    grew_mib: float
    octets: int
    sha256: str


@asynccontextmanager
async def echo_process(folder: Path) -> AsyncIterator[int]:
    """An echo upstream in a process of its own; yields its port."""
    upstream = Process("echo", [sys.executable, "-m", "tests.support.echo_upstream", "--port", "0"], folder)
    upstream.start()
    try:
        yield int(await upstream.until(lambda: upstream.log_tail().strip() or None, "print its port"))
    finally:
        upstream.destroy()


@asynccontextmanager
async def node_before_echo(folder: Path) -> AsyncIterator[Node]:
    """A node with one worker before such an upstream."""
    async with echo_process(folder) as port:
        node = prepared_node(folder, config(f"127.0.0.1:{port}"), workers=1)
        try:
            await node.up()
            await ready(node)
            yield node
        finally:
            node.destroy()


async def upload(node: Node, octets: int) -> Cost:
    """Send so much to /sink; return what the upstream says that it got."""
    async with MemoryWatch(node, every_s=0.05) as memory:
        reader, writer = await asyncio.open_connection(*node.proxy_address)
        try:
            writer.write(b"POST /sink HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % octets)
            for _ in range(octets // len(PIECE)):
                writer.write(PIECE)
                await writer.drain()
            answer = await reader.read()
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    told = json.loads(body)
    return Cost(memory.worker_mib - memory.before_mib, told["bodylen"], told["sha256"])


async def download(node: Node, octets: int, *, path: str = "/big", pause_every: int = 0, pause_s: float = 0.0) -> Cost:
    """Get so much; with a pause every so many octets."""
    digest = hashlib.sha256()
    got = 0
    async with MemoryWatch(node, every_s=0.05) as memory:
        reader, writer = await asyncio.open_connection(*node.proxy_address)
        try:
            writer.write(f"GET {path}/{octets} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            next_pause = pause_every
            while piece := await reader.read(READ_AT_ONCE):
                digest.update(piece)
                got += len(piece)
                if pause_every and got >= next_pause:
                    next_pause += pause_every
                    await asyncio.sleep(pause_s)
        finally:
            writer.close()
    return Cost(memory.worker_mib - memory.before_mib, got, digest.hexdigest())


def expected_sha256(octets: int) -> str:
    """The hash of so many octets of the pattern that both directions use."""
    digest = hashlib.sha256()
    for _ in range(octets // len(PIECE)):
        digest.update(PIECE)
    digest.update(PIECE[: octets % len(PIECE)])
    return digest.hexdigest()


async def trickled_upload(folder: Path, octets: int, *, pause_s: float) -> Cost:
    """Upload to an upstream that reads nothing for `pause_s`, then all: the worker must not gather it meanwhile."""
    taken = asyncio.Event()
    digest = hashlib.sha256()
    got = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        # The stream's limit stops the reading; the kernel's buffers fill, and then it is the node's turn to wait.
        await asyncio.sleep(pause_s)
        while got < octets:
            piece = await reader.read(READ_AT_ONCE)
            if not piece:
                break
            digest.update(piece)
            got += len(piece)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        taken.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    node = prepared_node(folder, config(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"), workers=1)
    try:
        await node.up()
        await ready(node)
        async with MemoryWatch(node, every_s=0.05) as memory:
            reader, writer = await asyncio.open_connection(*node.proxy_address)
            try:
                writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % octets)
                for _ in range(octets // len(PIECE)):
                    writer.write(PIECE)
                    await writer.drain()
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
        await taken.wait()
    finally:
        node.destroy()
        server.close()
    return Cost(memory.worker_mib - memory.before_mib, got, digest.hexdigest())
