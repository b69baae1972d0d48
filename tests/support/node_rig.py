"""One real node without a control plane: its last good file, a tiny upstream, and requests on connections of their own.

async with TinyUpstream("blue") as blue:
    node = prepared_node(folder, config(blue.address), workers=2)
    await node.up()
    answer = await request(node.proxy_address, "/anything")
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from google.protobuf.duration_pb2 import Duration

from data_plane.node.last_good import LastGood
from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire
from tests.support.patience import PATIENCE_S, last_callers
from tests.support.processes import Node

NOBODY = "127.0.0.1:1"
"""A control plane that is never there: port 1 on loopback refuses."""

Entities = dict[tuple[str, str], bytes]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: str


class TinyUpstream:
    """Answers every request with its name; `/slow` only when `go` is set, after saying so by `asked`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests = 0
        self.last_head = ""
        self.go = asyncio.Event()
        self.asked = asyncio.Event()
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.close()
        await last_callers()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._server is not None
        if not self._server.is_serving():
            writer.close()
            return
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    self.requests += 1
                    self.last_head = head.decode("latin-1")
                    if b"/slow " in head.split(b"\r\n", 1)[0]:
                        self.asked.set()
                        await self.go.wait()
                    body = self.name.encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()


def config(*targets: str, routes: int = 1, version: int = 1) -> NodeSnapshot:
    """One service on upstream `blue` with these targets; the first route takes every path, the others just exist."""
    minute = Duration(seconds=60)
    entities: Entities = {}

    def put(collection: str, entity_id: str, entity: wire.Entity) -> None:
        entities[(collection, entity_id)] = entity.SerializeToString()

    put("upstreams", "u1", wire.Entity(upstream=wire.Upstream(id="u1", name="blue", slots=10000)))
    for number, target in enumerate(targets):
        put(
            "targets",
            f"t{number}",
            wire.Entity(target=wire.Target(id=f"t{number}", upstream="u1", target=target, weight=100)),
        )
    put(
        "services",
        "s1",
        wire.Entity(
            service=wire.Service(
                id="s1",
                name="example",
                protocol="http",
                host="blue",
                port=80,
                retries=5,
                connect_timeout=minute,
                write_timeout=minute,
                read_timeout=minute,
            )
        ),
    )
    for number in range(routes):
        put(
            "routes",
            f"r{number}",
            wire.Entity(
                route=wire.Route(
                    id=f"r{number}",
                    protocols=["http", "https"],
                    paths=["/" if number == 0 else f"/unused/{number}"],
                    hosts=[] if number == 0 else [f"host{number % 100}.test"],
                    https_redirect_status_code=426,
                    path_handling="v0",
                    request_buffering=True,
                    response_buffering=True,
                    service="s1",
                )
            ),
        )
    return NodeSnapshot(b"e" * 16, version, snapshot_hash(entities), entities)


def prepared_node(
    folder: Path, snapshot: NodeSnapshot | None, *extra: str, workers: int = 2, name: str = "node"
) -> Node:
    """A node, not started, that finds `snapshot` as its last good config and no control plane."""
    node = Node(name, folder, NOBODY, "--drain-delay-s=0.2", "--log-level=debug", *extra, workers=workers)
    if snapshot is not None:
        LastGood(folder / f"{name}.state" / "last-good").save(snapshot)
    return node


async def request(
    address: tuple[str, int], path: str = "/", *, method: str = "GET", body: str = "", headers: Sequence[str] = ()
) -> Response:
    """One request on a connection of its own; raises OSError when it is refused or reset."""
    async with asyncio.timeout(PATIENCE_S):
        reader, writer = await asyncio.open_connection(*address)
        try:
            lines = [f"{method} {path} HTTP/1.1", "Host: example.test", f"Content-Length: {len(body)}", *headers]
            writer.write("\r\n".join([*lines, "", body]).encode())
            return await read_response(reader)
        finally:
            writer.close()


async def read_response(reader: asyncio.StreamReader) -> Response:
    """The next response of a connection, which must say its length."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError(f"the connection ended after {error.partial!r}") from None
    return Response(int(head[0].split(" ")[1]), headers, body.decode())


def status_address(node: Node) -> tuple[str, int]:
    host, port = node.status.rsplit(":", 1)
    return host, int(port)


async def ready(node: Node) -> None:
    """Wait until the node says that it is ready."""
    async with asyncio.timeout(PATIENCE_S):
        while (await request(status_address(node), "/status/ready")).status != 200:
            assert node.running, node.log_tail()
            await asyncio.sleep(0.02)
