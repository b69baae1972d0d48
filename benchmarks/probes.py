"""What active health checks cost: many upstreams probed each second, and what their node process and clients notice.

    python -m benchmarks.probes --upstreams 1000 --seconds 20

Starts a control plane, one node of one worker and a server that all targets point to. Measures the CPU of the node
process and of the worker, and the latency of a light load, with the checks off and then on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import uvloop

from tests.support.load import Destination, OpenLoop
from tests.support.moody_upstream import MoodyUpstream
from tests.support.processes import Fleet

HOST = "probes.test"
RATE = 200.0
SETTLE_S = 3.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figures:
    """One phase's figures: CPU in percent of a core, latency in milliseconds."""

    node_cpu: float
    worker_cpu: float
    p50_ms: float
    p99_ms: float


def configuration(target: str, upstreams: int, *, checked: bool) -> dict[str, object]:
    """So many upstreams of one target each; one of them serves the load."""
    checks = {
        "active": {
            "http_path": "/well",
            "healthy": {"interval": 1 if checked else 0, "successes": 1},
            "unhealthy": {"interval": 1 if checked else 0, "tcp_failures": 2, "timeouts": 2, "http_failures": 2},
        }
    }
    return {
        "_format_version": "3.0",
        "services": [{"name": "load", "host": "upstream-0", "routes": [{"name": "load", "hosts": [HOST]}]}],
        "upstreams": [
            {"name": f"upstream-{number}", "healthchecks": checks, "targets": [{"target": target}]}
            for number in range(upstreams)
        ],
    }


def cpu_s(pid: int) -> float:
    """The CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def first_child(pid: int) -> int:
    """The process id of the only worker."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def measure(fleet: Fleet, seconds: float) -> Figures:
    """A phase of load."""
    node = fleet.nodes[0]
    worker = first_child(node.pid)
    load = OpenLoop([Destination(*node.proxy_address)], rate=RATE, host=HOST)
    load.start()
    await asyncio.sleep(1.0)
    began, node_s, worker_s = time.monotonic(), cpu_s(node.pid), cpu_s(worker)
    await asyncio.sleep(seconds)
    took = time.monotonic() - began
    node_s, worker_s = cpu_s(node.pid) - node_s, cpu_s(worker) - worker_s
    await load.stop()
    times = sorted((record.answered - record.due) * 1000 for record in load.records if not record.problem)
    return Figures(node_s / took * 100, worker_s / took * 100, times[len(times) // 2], times[int(len(times) * 0.99)])


async def run(folder: Path, *, upstreams: int, seconds: float) -> tuple[Figures, Figures]:
    """Checks off, then on."""
    async with Fleet(folder, nodes=1) as fleet:
        target = MoodyUpstream("blue", "blue-1", folder)
        fleet.upstreams["blue-1"] = target
        await fleet.start({})
        phases = []
        for checked in (False, True):
            body = configuration(target.address, upstreams, checked=checked)
            answer = await fleet.admin("POST", "/config/sync", body, {"Prefer": "wait=60"})
            assert answer.status in {200, 202}, f"sync was answered {answer.status}: {answer.body}"
            await fleet.until_ready()
            await asyncio.sleep(SETTLE_S)
            phases.append(await measure(fleet, seconds))
        return phases[0], phases[1]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstreams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-probes-") as folder:
        off, on = uvloop.run(run(Path(folder), upstreams=options.upstreams, seconds=options.seconds))
    print(
        f"{options.upstreams:,} upstreams          node process   worker       p50        p99   at {RATE:g} requests/s"
    )
    for name, figures in (("checks off", off), ("a probe a second each", on)):
        print(
            f"{name:<24}{figures.node_cpu:>9.1f} %{figures.worker_cpu:>9.1f} %"
            f"{figures.p50_ms:>8.2f} ms{figures.p99_ms:>8.2f} ms"
        )


if __name__ == "__main__":
    main()
