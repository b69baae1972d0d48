"""How many entities a second the Admin API creates, each fsynced and each its own version.

Four keep-alive clients create services one by one on a control plane over SQLite, started for this.

    python -m benchmarks.admin_writes --seconds 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import uvloop

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


async def measure(seconds: float) -> str:
    """Runs the clients and returns one line with the rate and the latencies."""
    with tempfile.TemporaryDirectory(prefix="pointsman-bench-") as folder:
        plane = ControlPlane(Path(folder))
        try:
            await plane.up()
            host, port = plane.admin.rsplit(":", 1)
            latencies_ms: list[float] = []
            started = time.monotonic()
            await asyncio.gather(
                *(_client(host, int(port), number, started + seconds, latencies_ms) for number in range(CLIENTS))
            )
            elapsed = time.monotonic() - started
        finally:
            plane.destroy()
    latencies_ms.sort()
    return (
        f"Admin API: {len(latencies_ms) / elapsed:.0f} creates/s by {CLIENTS} clients, SQLite fsynced, a version each;"
        f" p50 {latencies_ms[len(latencies_ms) // 2]:.1f} ms, p99 {latencies_ms[len(latencies_ms) * 99 // 100]:.1f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0)
    print(uvloop.run(measure(parser.parse_args().seconds)), flush=True)


if __name__ == "__main__":
    main()
