"""Three control planes over one PostgreSQL database serve admins and nodes at once, without a leader."""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from control_plane.store.opening import open_store
from tests.support.patience import PATIENCE_S
from tests.support.postgres import KEYRING, PostgresServer
from tests.support.processes import ControlPlane, Node, Process

PLANES = 3
WRITERS = 32
ATTEMPTS_MAX = 5

pytestmark = pytest.mark.asyncio(loop_scope="module")


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

    async def write(self, writer: int, writes: int, *, prefix: str) -> None:
        plane = self.planes[writer % PLANES]
        for turn in range(writes):
            body = {"name": f"{prefix}w{writer}-{turn}", "host": "example.test"}
            status, answer = await self.json("POST", f"{plane.url}/services", json=body)
            assert status == 201, answer

    async def until_known(self, count: int) -> None:
        """Waits until every plane knows on which plane each node is, and that they are on that many."""
        async with asyncio.timeout(PATIENCE_S):
            for plane in self.planes:
                while True:
                    _, listed = await self.json("GET", f"{plane.url}/fleet/nodes")
                    data = listed["data"]
                    assert isinstance(data, list)
                    if len({node["plane"]["id"] for node in data if node["plane"]}) == count:
                        break
                    await asyncio.sleep(0.05)

    async def until_versions(self, version: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            for node in self.nodes:
                while (await self.json("GET", f"http://{node.status}/status"))[1].get("version") != version:
                    await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def several(tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer) -> AsyncIterator[Planes]:
    """For all tests of this module, which therefore run in one event loop and leave every process running."""
    folder = tmp_path_factory.mktemp("planes")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2 * PATIENCE_S)) as session:
        planes = Planes(folder, postgres.create(f"planes_{uuid.uuid4().hex}"), session)
        try:
            await planes.start()
            yield planes
        finally:
            for process in planes.processes():
                process.destroy()


async def check_writers(several: Planes, writes: int) -> int:
    """32 clients write through all control planes; returns the head that every node runs in the end."""
    store = await open_store(several.url, keyring=KEYRING)
    before = await store.head()
    prefix = f"after{before}-"  # the planes serve several tests, one after the other
    await asyncio.gather(*(several.write(writer, writes, prefix=prefix) for writer in range(WRITERS)))
    history = await store.changes_since(before)
    await store.close()
    assert [version.number - before for version in history] == list(range(1, WRITERS * writes + 1))
    names = [str((version.changes[0].after or {})["name"]) for version in history]
    for writer in range(WRITERS):  # each waited for an answer before its next write
        own = [name for name in names if name.startswith(f"{prefix}w{writer}-")]
        assert own == [f"{prefix}w{writer}-{turn}" for turn in range(writes)]
    await several.until_versions(history[-1].number)
    return len(history)


async def test_writers_on_three_planes_make_one_dense_history_that_every_node_runs(several: Planes) -> None:
    await check_writers(several, writes=2)
    await several.until_known(PLANES)
    _, listed = await several.json("GET", f"{several.planes[0].url}/fleet/nodes")
    states = sorted(str(node["state"]) for node in listed["data"])  # type: ignore[attr-defined]  # JSON
    assert states == ["current", "elsewhere", "elsewhere"]


async def test_a_wait_on_one_plane_counts_the_nodes_of_all(several: Planes) -> None:
    """Nodes of other planes are waited for as the own ones are; a stopped one of another plane is told of by name."""
    first, *_ = several.planes

    async def put(host: str, wait_s: int) -> tuple[int, dict[str, object]]:
        body = {"host": host}
        return await several.json("PUT", f"{first.url}/services/s", json=body, headers={"Prefer": f"wait={wait_s}"})

    await several.until_known(PLANES)
    status, answer = await put("b.test", 20)
    assert status == 200, answer
    stopped = several.nodes[1]
    stopped.kill(signal.SIGSTOP)
    try:
        status, answer = await put("c.test", 1)
    finally:
        stopped.kill(signal.SIGCONT)
    assert status == 202, answer
    told = answer["nodes"]
    assert isinstance(told, dict)
    assert (told["total"], told["applied"]) == (PLANES, PLANES - 1)
    (lagging,) = told["lagging"]
    assert (lagging["node_id"], lagging["state"]) == (stopped.node_id, "lagging")
    assert "another control plane" in lagging["reason"]


async def test_a_rollout_moves_the_nodes_of_all_planes_at_one_instant(several: Planes) -> None:
    """Whichever it is given to; each node votes through its own plane and swaps by its own plane's clock.

    A plane or node that had no processor time for too long takes no part, as it should, and is given another turn.
    """
    await several.until_known(PLANES)
    for turn, plane in enumerate(several.planes):
        view = await _rolled_by_all(several, plane, f"turn-{turn}")
        assert (view["state"], view["elsewhere"]) == ("confirmed", []), view
        assert all(node["activated_us_after_instant"] >= -node["clock_error_us"] for node in view["nodes"])
        await several.until_versions(view["version"])


async def _rolled_by_all(several: Planes, plane: ControlPlane, name: str) -> dict[str, Any]:
    """The first rollout that was given to this plane and that every node took part in."""
    told: object = None
    for attempt in range(ATTEMPTS_MAX):
        body, prefer = {"host": f"{name}-{attempt}.test"}, {"Prefer": "rollout, wait=20"}
        status, _ = await several.json("PUT", f"{plane.url}/services/rolled", json=body, headers=prefer)
        _, listed = await several.json("GET", f"{plane.url}/fleet/rollouts?size=1")
        newest = listed["data"]
        assert isinstance(newest, list)
        view: dict[str, Any] = newest[0]
        told = view
        assert all(late >= 0 for node in view["nodes"] for late in node["late_us"] or ())
        if status == 200 and [node["standing"] for node in view["nodes"]] == ["activated"] * PLANES:
            return view
    pytest.fail(f"not by all nodes in {ATTEMPTS_MAX} attempts; the last one: {told}")


@pytest.mark.prove
async def test_three_planes_under_many_writers(several: Planes) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    head = await check_writers(several, writes=50)
    print(
        f"{WRITERS} writers over {PLANES} control planes: {head} versions, dense and in order, each node at the head; "
        f"{loop.time() - began:.1f} s"
    )


async def test_a_plane_whose_database_is_restored_beneath_it_ends(several: Planes, postgres: PostgresServer) -> None:
    database = several.url.partition("@/")[2].partition("?")[0]
    postgres.psql("UPDATE head SET epoch = decode(repeat('ab', 16), 'hex')", database)
    assert await asyncio.gather(*(plane.wait() for plane in several.planes)) == [1] * PLANES
    assert all("was put back to another history" in plane.log_tail() for plane in several.planes)
    await asyncio.gather(*(plane.up() for plane in several.planes))
    status, answer = await several.json("POST", f"{several.planes[0].url}/services", json={"host": "a.test"})
    assert status == 201, answer
