"""Three control planes over one PostgreSQL database serve admins and nodes at once, without a leader."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from control_plane.store.opening import open_store
from tests.support.postgres import KEYRING, PostgresServer
from tests.support.processes import START_TIMEOUT_S, ControlPlane, Node, Process

PLANES = 3
WRITERS = 32


class Planes:
    """The control planes, a node on each, and a client."""

    def __init__(self, folder: Path, url: str, session: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.url = url
        self.session = session
        self.planes = [ControlPlane(folder, name=f"plane-{n}", database=url) for n in range(PLANES)]
        self.nodes: list[Node] = []

    def processes(self) -> list[Process]:
        return [*self.nodes, *self.planes]

    async def start(self) -> None:
        """All at once over an empty database: they must not make its schema in each other's way."""
        await asyncio.gather(*(plane.up() for plane in self.planes))
        self.nodes = [Node(f"node-{n}", self.folder, plane.fleet) for n, plane in enumerate(self.planes)]
        await asyncio.gather(*(node.up() for node in self.nodes))

    async def json(self, method: str, url: str, **more: object) -> tuple[int, dict[str, object]]:
        async with self.session.request(method, url, **more) as answer:  # type: ignore[arg-type]  # aiohttp's own
            return answer.status, await answer.json()

    async def write(self, writer: int, writes: int) -> None:
        plane = self.planes[writer % PLANES]
        for turn in range(writes):
            body = {"name": f"w{writer}-{turn}", "host": "example.test"}
            status, answer = await self.json("POST", f"{plane.url}/services", json=body)
            assert status == 201, answer

    async def until_versions(self, version: int) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            for node in self.nodes:
                while (await self.json("GET", f"http://{node.status}/status"))[1].get("version") != version:
                    await asyncio.sleep(0.05)


@pytest.fixture
async def several(tmp_path: Path, postgres: PostgresServer) -> AsyncIterator[Planes]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        planes = Planes(tmp_path, postgres.create(tmp_path.name), session)
        try:
            await planes.start()
            yield planes
        finally:
            for process in planes.processes():
                process.destroy()


async def check_writers(several: Planes, writes: int) -> int:
    """32 clients write through all control planes; returns the head that every node runs in the end."""
    await asyncio.gather(*(several.write(writer, writes) for writer in range(WRITERS)))
    store = await open_store(several.url, keyring=KEYRING)
    history = await store.changes_since(0)
    await store.close()
    assert [version.number for version in history] == list(range(1, WRITERS * writes + 1))
    names = [str((version.changes[0].after or {})["name"]) for version in history]
    for writer in range(WRITERS):  # each waited for an answer before its next write
        own = [name for name in names if name.startswith(f"w{writer}-")]
        assert own == [f"w{writer}-{turn}" for turn in range(writes)]
    await several.until_versions(len(history))
    return len(history)


async def test_writers_on_three_planes_make_one_dense_history_that_every_node_runs(several: Planes) -> None:
    await check_writers(several, writes=2)
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            _, listed = await several.json("GET", f"{several.planes[0].url}/fleet/nodes")
            states = sorted(str(node["state"]) for node in listed["data"])  # type: ignore[attr-defined]  # JSON
            if states == ["current", "elsewhere", "elsewhere"]:
                break
            await asyncio.sleep(0.1)


@pytest.mark.prove
async def test_three_planes_under_many_writers(several: Planes) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    head = await check_writers(several, writes=50)
    print(
        f"{WRITERS} writers over {PLANES} control planes: {head} versions, dense and in order, each node at the head; "
        f"{loop.time() - began:.1f} s"
    )
