"""SIGTERM under load: whoever got a connection gets an answer.

Method: clients open connections as fast as they can until they are refused. A refusal is what a load balancer knows how
to handle; a connection that is accepted (also by the kernel alone, in the queue) and then reset is a lost request.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.support.node_rig import TinyUpstream, config, prepared_node, ready, request
from tests.support.patience import PATIENCE_S
from tests.support.processes import Node

CLIENTS = 8
RESTARTS = 3


async def ask_until_refused(node: Node, lost: list[OSError]) -> int:
    answered = 0
    while True:
        try:
            assert (await request(node.proxy_address)).status == 200
            answered += 1
        except ConnectionRefusedError:
            return answered
        except OSError as error:
            lost.append(error)


async def test_no_accepted_connection_goes_without_an_answer(tmp_path: Path) -> None:
    async with TinyUpstream("blue") as blue:
        node = prepared_node(tmp_path, config(blue.address))
        try:
            for _ in range(RESTARTS):
                await node.up()
                await ready(node)
                lost: list[OSError] = []
                clients = [asyncio.create_task(ask_until_refused(node, lost)) for _ in range(CLIENTS)]
                await request(node.proxy_address)
                node.kill(signal.SIGTERM)
                async with asyncio.timeout(PATIENCE_S):
                    answered = await asyncio.gather(*clients)
                assert await node.wait() == 0
                assert lost == []
                assert sum(answered) > 0
        finally:
            node.destroy()
