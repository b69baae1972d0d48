"""How long a node with a large configuration takes from its start to its first answer, with no control plane.

    python -m benchmarks.restart --entities 100000 --runs 5

The last-good file is made once: half services, half routes, two upstreams. Each run starts the node by its command and
asks for one route until it is answered; then the node ends in good order. CPU seconds are those that its processes had
used when the answer came, by what the kernel's scheduler counted: other work on the machine lengthens the clock's time
and hardly theirs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.spent import children, spent
from benchmarks.stalls import content
from data_plane.node.last_good import LastGood
from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from tests.support.fleet_sim import rss_bytes
from tests.support.node_rig import NOBODY, TinyUpstream, request
from tests.support.processes import Node

ASK_EVERY_S = 0.005


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds by the clock until the first answer, and the CPU seconds used until then."""

    serves_after_s: float
    node_cpu_s: float
    workers_cpu_s: float
    worker_mib: float


def write_last_good(folder: Path, entities: int, upstream: str) -> None:
    encoded, _ = content(entities, upstream)
    LastGood(folder).save(NodeSnapshot(uuid.uuid4().bytes, 1, snapshot_hash(encoded), encoded))


async def one_start(node: Node) -> Start:
    """Start the node, wait for its first answer, end it."""
    began = time.monotonic()
    up = asyncio.create_task(node.up())
    try:
        while True:
            try:
                if (await request(node.proxy_address, "/switched")).status == 200:
                    break
            except OSError:
                await asyncio.sleep(ASK_EVERY_S)
        took = time.monotonic() - began
        workers = children(node.pid)
        node_cpu_s, workers_cpu_s = spent([node.pid]).cpu_ms / 1000, spent(workers).cpu_ms / 1000
        start = Start(took, node_cpu_s, workers_cpu_s, max(map(rss_bytes, workers)) / 2**20)
        await up
    finally:
        up.cancel()
        await node.stop()
    return start


async def measure(folder: Path, *, entities: int, runs: int, workers: int) -> list[Start]:
    """All runs after a first one, in which the node chooses its ports and the files come into the page cache."""
    async with TinyUpstream("up") as upstream:
        await asyncio.to_thread(write_last_good, folder / "node.state" / "last-good", entities, upstream.address)
        node = Node("node", folder, NOBODY, "--log-level=error", "--drain-delay-s=0", workers=workers)
        await node.up()
        await node.stop()
        return [await one_start(node) for _ in range(runs)]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {
        "best": round(min(values), 2),
        "median": round(statistics.median(values), 2),
        "worst": round(max(values), 2),
    }


def main() -> None:
    """Runs it and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-restart-") as folder:
        starts = asyncio.run(measure(Path(folder), **vars(options)))
    figures = {
        "serves_after_s": spread([start.serves_after_s for start in starts]),
        "node_cpu_s": spread([start.node_cpu_s for start in starts]),
        "workers_cpu_s": spread([start.workers_cpu_s for start in starts]),
        "worker_mib": spread([start.worker_mib for start in starts]),
    }
    print(json.dumps({**vars(options), **figures}, indent=2))


if __name__ == "__main__":
    main()
