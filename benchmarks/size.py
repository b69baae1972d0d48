"""How the control plane bears 100,000 entities: one sync, single PATCHes after it, list pages, its memory.

A control plane is started for this over a database of its own; the file is sent to `POST /config/sync` as one version.

    python -m benchmarks.size --entities 100000
    python -m benchmarks.size --entities 100000 --database postgres
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import uvloop

from tests.support.postgres import PostgresServer
from tests.support.processes import ControlPlane

PATCHES = 300
PAGES = 100


def big_file(entities: int) -> bytes:
    """Of each nine: a service with two routes, and an upstream with five targets."""
    groups = entities // 9
    services = [
        {
            "name": f"service-{n}",
            "host": f"upstream-{n}",
            "tags": [f"team-{n % 50}"],
            "routes": [{"name": f"route-{n}-{r}", "paths": [f"/s{n}/r{r}"], "methods": ["GET"]} for r in (0, 1)],
        }
        for n in range(groups)
    ]
    upstreams = [
        {"name": f"upstream-{n}", "targets": [{"target": f"10.{n >> 8 & 255}.{n & 255}.{t}:80"} for t in range(1, 6)]}
        for n in range(groups)
    ]
    return json.dumps({"_format_version": "3.0", "services": services, "upstreams": upstreams}).encode()


def resident_mib(pid: int) -> tuple[float, float]:
    """Now, and at most so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    now, peak = (int(status.split(key)[1].split()[0]) / 1024 for key in ("VmRSS:", "VmHWM:"))
    return now, peak


def spread(times_ms: Sequence[float]) -> str:
    ordered = sorted(times_ms)
    return f"p50 {ordered[len(ordered) // 2]:.1f} ms, p99 {ordered[len(ordered) * 99 // 100]:.1f} ms"


async def _lines(plane: ControlPlane, entities: int) -> list[str]:
    body = big_file(entities)
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(plane.url, timeout=timeout) as session:

        async def timed(method: str, path: str, **more: object) -> float:
            started = time.monotonic()
            async with session.request(method, path, **more) as answer:  # type: ignore[arg-type]  # aiohttp's own
                text = await answer.text()
                assert answer.status < 300, f"{method} {path}: {answer.status} {text[:500]}"
            return (time.monotonic() - started) * 1000

        before, _ = resident_mib(plane.pid)
        headers = {"Content-Type": "application/json"}
        sync_ms = await timed("POST", "/config/sync", data=body, headers=headers)
        after, peak = resident_mib(plane.pid)
        again_ms = await timed("POST", "/config/sync", data=body, headers=headers)
        patches = [
            await timed("PATCH", f"/services/service-{n}", json={"retries": n % 7}) for n in range(1, PATCHES + 1)
        ]
        pages = [await timed("GET", "/routes?size=1000") for _ in range(PAGES)]
        tagged = [await timed("GET", "/services?size=1000&tags=team-7") for _ in range(PAGES)]
    now, most = resident_mib(plane.pid)
    return [
        f"sync of {entities // 9 * 9} entities ({len(body) / 1e6:.0f} MB) in one version: {sync_ms / 1000:.1f} s",
        f"the same file again, nothing to change: {again_ms / 1000:.1f} s",
        f"PATCH of one service afterwards: {spread(patches)}",
        f"list page of 1,000 routes: {spread(pages)}; of services by tag: {spread(tagged)}",
        f"memory: {before:.0f} MiB empty, {after:.0f} after the sync (most {peak:.0f}), {now:.0f} in the end"
        f" (most {most:.0f})",
    ]


async def measure(entities: int, database: str) -> list[str]:
    """Runs it all; returns the lines to print."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-bench-")))
        url = ""
        if database == "postgres":
            server = PostgresServer("-c max_wal_size=4GB")
            stack.callback(server.destroy)
            url = server.create("size")
        plane = ControlPlane(folder, "--declarative-bytes-max", str(1 << 29), database=url)
        stack.callback(plane.destroy)
        await plane.up()
        return await _lines(plane, entities)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    arguments = parser.parse_args()
    for line in uvloop.run(measure(arguments.entities, arguments.database)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
