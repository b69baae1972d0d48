"""Restarts of one of two nodes by SIGTERM, under load of a client that repeats nothing."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.support.node_rig import config, prepared_node, ready
from tests.support.processes import Upstream
from tests.support.ready_client import ReadyClient

NODES = 2


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    sent: int
    answered: int
    closed_by_answer: int
    problems: list[str]
    exits: list[int]


async def run(folder: Path, *, restarts: int, rate: float, drain_delay_s: float) -> Outcome:
    """Restart the nodes in turn so often, each as soon as the one before is ready and the client knows."""
    upstream = Upstream("blue", "blue-1", folder)
    await upstream.up()
    nodes = [
        prepared_node(
            folder,
            config(upstream.address),
            f"--drain-delay-s={drain_delay_s}",
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
        for number in range(restarts):
            node = nodes[number % NODES]
            while not all(client.is_ready(each) for each in nodes):
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            node.kill(signal.SIGTERM)
            exits.append(await node.wait())
            await node.up()
            await ready(node)
        await client.stop()
    finally:
        for node in nodes:
            node.destroy()
        upstream.destroy()
    return Outcome(client.sent, client.answered, client.closed_by_answer, client.problems, exits)
