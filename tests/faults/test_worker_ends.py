"""Workers and node processes that are killed, while clients go on asking.

Goal: a worker that dies costs its own requests in flight and nothing else; a node process that dies takes its workers
with it in good order, and the next one can start at once. Method: SIGKILL, and a request on a connection of its own
every few milliseconds, so that many of them arrive while nobody accepts on the dead worker's socket.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.support.node_rig import TinyUpstream, config, prepared_node, ready, request, status_address
from tests.support.patience import PATIENCE_S
from tests.support.processes import Node

ROUTES = 10_000


@pytest.fixture
async def blue() -> AsyncIterator[TinyUpstream]:
    async with TinyUpstream("blue") as upstream:
        yield upstream


@pytest.fixture
async def node(tmp_path: Path, blue: TinyUpstream) -> AsyncIterator[Node]:
    node = prepared_node(tmp_path, config(blue.address, routes=ROUTES))
    try:
        await node.up()
        await ready(node)
        yield node
    finally:
        node.destroy()


def workers_of(node: Node) -> list[int]:
    """Process ids of the node's children."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return [int(child) for child in children]


async def gone(pid: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while _alive(pid):
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        # A process of another parent is a zombie until that parent looks; for us it has ended.
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False


async def test_no_connection_is_lost_while_a_worker_is_replaced(
    node: Node, record_property: Callable[[str, object], None]
) -> None:
    victim = workers_of(node)[0]
    await request(node.proxy_address)
    os.kill(victim, signal.SIGKILL)
    began = time.monotonic()
    asked = []
    while time.monotonic() - began < 1.5:
        asked.append(asyncio.create_task(request(node.proxy_address)))
        await asyncio.sleep(0.01)
    answers = await asyncio.gather(*asked)
    assert {answer.status for answer in answers} == {200}
    await ready(node)
    record_property("back_after_s", time.monotonic() - began)
    assert victim not in workers_of(node)
    assert len(workers_of(node)) == 2


async def test_every_worker_killed_again_and_again_comes_back(node: Node) -> None:
    for _ in range(2):
        for pid in workers_of(node):
            os.kill(pid, signal.SIGKILL)
            await gone(pid)
        assert (await request(node.proxy_address)).status == 200
        await ready(node)
    assert (await request(status_address(node), "/status")).status == 200


async def test_a_killed_node_lets_its_workers_finish_and_a_new_one_serves_at_once(
    node: Node, blue: TinyUpstream
) -> None:
    slow = asyncio.create_task(request(node.proxy_address, "/slow"))
    await asyncio.wait_for(blue.asked.wait(), PATIENCE_S)
    orphans = workers_of(node)
    node.kill(signal.SIGKILL)
    await node.wait()
    await node.up()  # the same port, while an orphan still has a request in flight
    blue.go.set()  # now, for an orphan waits ten seconds and no more
    await ready(node)
    assert (await request(node.proxy_address)).status == 200
    assert (await slow).status == 200
    for pid in orphans:
        await gone(pid)
    assert (await request(node.proxy_address)).status == 200
