"""Slow connections beside good requests on one node: the short form for `make test`, the long one for `make prove`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tests.support.big_bodies import echo_process
from tests.support.load import Destination, OpenLoop
from tests.support.node_rig import config, prepared_node, ready
from tests.support.processes import Upstream
from tests.support.slow_clients import MemoryWatch, SlowClients
from tests.support.split_config import with_second_service

BURST_S = 5.0
"""The slow readers fill their sockets first, gigabytes in all; what comes later is told apart."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    sent: int
    problems: list[str]
    slow_open: int
    slow_refused: int
    p99_ms: float
    p99_settled_ms: float
    node_mib: float
    worker_mib: float


async def run(folder: Path, *, slow: int, rate: float, seconds: float, workers: int = 1) -> Outcome:
    """Hold `slow` slow connections and send `rate` good requests a second for so long."""
    good = Upstream("blue", "blue-1", folder)
    await good.up()
    try:
        # In a process of its own: it fills 500 sockets at once, which must not keep the good requests from being sent.
        async with echo_process(folder) as big_port:
            snapshot = with_second_service(
                config(good.address), paths=["/big", "/slow"], address=f"127.0.0.1:{big_port}"
            )
            node = prepared_node(folder, snapshot, workers=workers)
            try:
                await node.up()
                await ready(node)
                attack = SlowClients(node.proxy_address, count=slow)
                load = OpenLoop([Destination(*node.proxy_address)], rate=rate, host="example.test")
                async with MemoryWatch(node, every_s=0.25) as memory:
                    await attack.start()
                    load.start()
                    await asyncio.sleep(seconds / 2)
                    # Half-way: towards the end the node's own limits, 60 s, end many of them, and they come again.
                    still_open = attack.open
                    await asyncio.sleep(seconds / 2)
                    await load.stop()
                    await attack.stop()
                assert node.running, node.log_tail()
            finally:
                node.destroy()
    finally:
        good.destroy()
    took = sorted(record.answered - record.due for record in load.records if record.answered)
    calm = load.records[0].due + BURST_S
    settled = sorted(record.answered - record.due for record in load.records if record.answered and record.due > calm)
    return Outcome(
        sent=len(load.records),
        problems=[f"{record.id}: {record.problem}" for record in load.records if record.problem],
        slow_open=still_open,
        slow_refused=attack.refused,
        p99_ms=_p99_ms(took),
        p99_settled_ms=_p99_ms(settled),
        node_mib=memory.node_mib,
        worker_mib=memory.worker_mib,
    )


def _p99_ms(took: list[float]) -> float:
    return took[len(took) * 99 // 100] * 1000 if took else 0.0
