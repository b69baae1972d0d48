"""What one change of a large configuration costs a real node: bytes on the wire, and how long a worker's loop stands.

    python -m benchmarks.stalls --entities 100000 --changes 40

The control plane's end of the link runs here, the node and its worker are real processes. A heartbeat of 1 ms inside
each of them tells the longest time between two beats, as CPU time of that thread, which other work on the machine does
not lengthen, and by the clock. Each change is a switch: a service's host between two upstreams. In the end the node is
killed and started without a control plane; the time until it serves from its last good file is the last figure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from benchmarks.node import Entities
from data_plane.node.last_good import Generation, LastGood
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import Snap, plane
from tests.support.fleet_sim import spread
from tests.support.node_rig import NOBODY, TinyUpstream, request
from tests.support.patience import until
from tests.support.processes import Node

WARM_UP_S = 3.0
BETWEEN_S = 0.3

HEARTBEAT = """
import asyncio, os, sys, time

FOLDER = os.environ.get("POINTSMAN_BENCH_BEATS")


async def _beat(name):
    loop = asyncio.get_running_loop()
    wall, cpu = time.monotonic(), time.thread_time()
    with open(os.path.join(FOLDER, f"{name}.{os.getpid()}"), "w", buffering=1) as out:
        while True:
            future = loop.create_future()
            loop.call_later(0.001, future.set_result, None)
            await future
            now, used = time.monotonic(), time.thread_time()
            if used - cpu > 0.001:
                out.write(f"{wall} {now} {used - cpu}\\n")
            wall, cpu = now, used


def _install():
    run = asyncio.Runner.run

    def beating(self, coro, **options):
        name = "worker" if "--channel-fd" in " ".join(sys.orig_argv) else "node"

        async def both():
            task = asyncio.ensure_future(_beat(name))
            try:
                return await coro
            finally:
                task.cancel()

        return run(self, both(), **options)

    asyncio.Runner.run = beating


if FOLDER:
    _install()
"""


def content(
    entities: int, upstream: str
) -> tuple[dict[tuple[str, str], bytes], dict[str, tuple[tuple[str, str], bytes]]]:
    """Half services, half routes, two upstreams; and the switched service's bytes by colour."""
    made = Entities()
    for colour in ("blue", "green"):
        of = made.add("upstreams", {"name": colour})
        made.add("targets", {"target": upstream, "upstream": of})
    for number in range((entities - 6) // 2):
        service = made.add("services", {"name": f"s{number}", "host": "blue"})
        made.add("routes", {"name": f"r{number}", "paths": [f"/r{number}"], "service": service})
    switched = made.add("services", {"name": "switched", "host": "blue"})
    made.add("routes", {"name": "switched", "paths": ["/switched"], "service": switched})
    other = Entities()
    other.add("services", {"id": switched["id"], "name": "switched", "host": "green"})
    key = ("services", str(switched["id"]))
    return made.encoded, {"blue": (key, made.encoded[key]), "green": (key, other.encoded[key])}


def longest(folder: Path, name: str, windows: list[tuple[float, float]]) -> dict[str, float]:
    """The longest stall in each change's window, over all processes of that name; in ms."""
    cpu, wall = [], []
    beats = [
        tuple(map(float, line.split()))
        for path in folder.glob(f"{name}.*")
        for line in path.read_text().splitlines()
        if line.count(" ") == 2
    ]
    for begin, end in windows:
        here = [(used, now - before) for before, now, used in beats if now > begin and before < end]
        cpu.append(max((used for used, _ in here), default=0.001) * 1000)
        wall.append(max((took for _, took in here), default=0.001) * 1000)
    return {"cpu_ms_max": round(max(cpu), 2), "cpu_ms_median": round(sorted(cpu)[len(cpu) // 2], 2),
            "clock_ms_max": round(max(wall), 2)}  # fmt: skip


async def measure(folder: Path, *, entities: int, changes: int) -> dict[str, object]:
    """The figures of one run."""
    site, beats = folder / "site", folder / "beats"
    site.mkdir()
    beats.mkdir()
    (site / "sitecustomize.py").write_text(HEARTBEAT)
    figures: dict[str, object] = {"entities": entities, "changes": changes}
    async with TinyUpstream("up") as upstream:
        held, by_colour = await asyncio.to_thread(content, entities, upstream.address)
        async with plane(beat_interval_s=30.0) as control, FaultProxy(control.server.port) as proxy:
            node = Node("node", folder, proxy.address, "--log-level=warning", workers=1)
            node.environment.update(PYTHONPATH=str(site), POINTSMAN_BENCH_BEATS=str(beats))
            try:
                await node.up()
                first = await asyncio.to_thread(Snap, 1, held)
                control.publish(first)
                await until(lambda: any(view.version == 1 for view in control.nodes.views()), patience_s=120.0)
                await asyncio.sleep(WARM_UP_S)
                windows: list[tuple[float, float]] = []
                wire: list[int] = []
                took: list[float] = []
                for number in range(changes):
                    version = number + 2
                    key, body = by_colour[("green", "blue")[number % 2]]
                    held = {**held, key: body}
                    snapshot = await asyncio.to_thread(Snap, version, held)
                    await asyncio.sleep(BETWEEN_S)
                    before, began = proxy.bytes_to_client, time.monotonic()
                    control.publish(snapshot)
                    await until(lambda version=version: control.nodes.views()[0].version == version)  # type: ignore[misc]  # lambda defaults
                    took.append(time.monotonic() - began)
                    await asyncio.sleep(BETWEEN_S)  # what is tidied after the swap stalls, too
                    windows.append((began, time.monotonic()))
                    wire.append(proxy.bytes_to_client - before)
            finally:
                node.destroy()
        figures["bytes_to_the_node"] = {"median": sorted(wire)[len(wire) // 2], "max": max(wire)}
        figures["published_to_applied_s"] = spread(took)
        figures["worker_stall"] = longest(beats, "worker", windows)
        figures["node_process_stall"] = longest(beats, "node", windows)
        figures["restart"] = await restart(folder, node)
    return figures


async def restart(folder: Path, node: Node) -> dict[str, float]:
    """Seconds from the start of the command, with no control plane, to its first answer; and of loading alone."""
    node.fleet_address = NOBODY
    node.environment.clear()
    took = []
    for _ in range(2):
        began = time.monotonic()
        up = asyncio.create_task(node.up())
        address = node.proxy_address
        while True:
            try:
                if (await request(address, "/switched")).status == 200:
                    break
            except OSError:
                await asyncio.sleep(0.01)
        took.append(time.monotonic() - began)
        await up
        await node.stop()  # in good order: two kills so soon after a start look like a configuration that kills
    last_good = LastGood(folder / "node.state" / "last-good")
    began = time.monotonic()
    assert last_good.load(Generation.CURRENT).snapshot is not None
    loaded = time.monotonic() - began
    return {"serves_after_s_best": round(min(took), 2), "serves_after_s_worst": round(max(took), 2),
            "of_that_loading_s": round(loaded, 2)}  # fmt: skip


def main() -> None:
    """Runs it and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--changes", type=int, default=40)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-stalls-") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), **vars(options))), indent=2))


if __name__ == "__main__":
    main()
