"""How many entities a second the Admin API creates, each fsynced and each its own version.

Four keep-alive clients create services one by one on a control plane that is started for this. The rate depends on what
else the machine does; the control plane's CPU time for each create, which is told too, hardly does.

    python -m benchmarks.admin_writes --seconds 5
    python -m benchmarks.admin_writes --seconds 5 --database postgres
    sudo python -m benchmarks.admin_writes --seconds 2 --first

With `--first` the scheduler lets the control plane and the clients go before everything else on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from tests.support.postgres import PostgresServer
from tests.support.processes import ControlPlane

CLIENTS = 4


async def _client(host: str, port: int, number: int, end: float, latencies_ms: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    count = 0
    while time.monotonic() < end:
        body = json.dumps({"name": f"service-{number}-{count}", "host": "blue.test"}).encode()
        started = time.monotonic()
        writer.write(
            b"POST /services HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        at = lowered.index(b"content-length:")
        await reader.readexactly(int(lowered[at + 15 : lowered.index(b"\r\n", at)]))
        if not head.startswith(b"HTTP/1.1 201 "):
            sys.exit(f"a create was answered {head.splitlines()[0].decode()}")
        latencies_ms.append((time.monotonic() - started) * 1000)
        count += 1
    writer.close()


def _cpu_s(pid: int) -> float:
    """What a process has used so far, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _schedule(pids: Sequence[int], policy: int, priority: int) -> None:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(thread.name), policy, os.sched_param(priority))


async def measure(seconds: float, database: str = "sqlite", *, first: bool = False) -> str:
    """Runs the clients and returns one line with the rate and the latencies."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pointsman-bench-")))
        url, name = "", "SQLite"
        if database == "postgres":
            server = PostgresServer()
            stack.callback(server.destroy)
            url, name = server.create("writes"), "PostgreSQL"
        plane = ControlPlane(folder, database=url)
        stack.callback(plane.destroy)
        await plane.up()
        host, port = plane.admin.rsplit(":", 1)
        latencies_ms: list[float] = []
        if first:
            _schedule((plane.pid, os.getpid()), os.SCHED_RR, 10)
        cpu_before_s, started = _cpu_s(plane.pid), time.monotonic()
        await asyncio.gather(
            *(_client(host, int(port), number, started + seconds, latencies_ms) for number in range(CLIENTS))
        )
        elapsed, cpu_s = time.monotonic() - started, _cpu_s(plane.pid) - cpu_before_s
        if first:
            _schedule((os.getpid(),), os.SCHED_OTHER, 0)
    latencies_ms.sort()
    return (
        f"Admin API: {len(latencies_ms) / elapsed:.0f} creates/s by {CLIENTS} clients, {name} fsynced, a version each;"
        f" p50 {latencies_ms[len(latencies_ms) // 2]:.1f} ms, p99 {latencies_ms[len(latencies_ms) * 99 // 100]:.1f} ms;"
        f" {cpu_s / len(latencies_ms) * 1000:.2f} ms of CPU each"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--first", action="store_true", help="before all other processes; takes root")
    arguments = parser.parse_args()
    print(uvloop.run(measure(arguments.seconds, arguments.database, first=arguments.first)), flush=True)


if __name__ == "__main__":
    main()
