"""Restarts of one of two nodes by SIGTERM, under load of a client that repeats nothing."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.support.long_work import LongUpstreams, LongWork
from tests.support.node_rig import config, prepared_node, ready
from tests.support.processes import Upstream
from tests.support.ready_client import ReadyClient

NODES = 2
LONGER_S = 1.5
"""What is under way outlasts the time in which the node goes on accepting by this."""
FINISH_WITHIN_S = 30
ENDS_AFTER_S = 20.0
"""A node's own deadlines come first: what it cuts then shows as a loss, and its log says what that was."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    sent: int
    answered: int
    closed_by_answer: int
    problems: list[str]
    long_problems: list[str]
    exits: list[int]


async def run(
    folder: Path, *, restarts: int, rate: float, drain_delay_s: float, downloads: int, tunnels: int
) -> Outcome:
    """Restart the nodes in turn so often, each as soon as the one before is ready and the client knows.

    Each has so many downloads and WebSockets under way that outlast its `drain_delay_s`.
    """
    async with LongUpstreams() as long:
        return await _run(
            folder,
            long,
            restarts=restarts,
            rate=rate,
            drain_delay_s=drain_delay_s,
            downloads=downloads,
            tunnels=tunnels,
        )


async def _run(
    folder: Path,
    long: LongUpstreams,
    *,
    restarts: int,
    rate: float,
    drain_delay_s: float,
    downloads: int,
    tunnels: int,
) -> Outcome:
    upstream = Upstream("blue", "blue-1", folder)
    await upstream.up()
    nodes = [
        prepared_node(
            folder,
            long.behind(config(upstream.address)),
            f"--drain-delay-s={drain_delay_s}",
            f"--drain-timeout-s={FINISH_WITHIN_S}",
            "--log-level=info",
            workers=1,
            name=f"node-{each}",
        )
        for each in range(NODES)
    ]
    try:
        for node in nodes:
            await node.up()
            await ready(node)
        client = ReadyClient(nodes, rate=rate)
        client.start()
        exits: list[int] = []
        long_problems: list[str] = []
        for number in range(restarts):
            node = nodes[number % NODES]
            while not all(client.is_ready(each) for each in nodes):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            work = LongWork(node, downloads=downloads, tunnels=tunnels, seconds=drain_delay_s + LONGER_S)
            await work.begin()
            node.kill(signal.SIGTERM)
            exits.append(await node.wait(drain_delay_s + FINISH_WITHIN_S + ENDS_AFTER_S))
            long_problems += await work.finished()
            await node.up()
            await ready(node)
        await client.stop()
    finally:
        for node in nodes:
            node.destroy()
        upstream.destroy()
    return Outcome(client.sent, client.answered, client.closed_by_answer, client.problems, long_problems, exits)
