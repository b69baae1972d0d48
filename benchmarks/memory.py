"""What a worker weighs: at rest, with 1,000 and 10,000 routes, and for each idle connection of a client.

python -m benchmarks.memory --idle 1000
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
HOST = "bench.test"
START_WITHIN_S = 60.0
SETTLE_S = 2.0
UNMATCHED = b"GET /nothing HTTP/1.1\r\nHost: nobody.test\r\n\r\n"


@contextlib.contextmanager
def node(routes: int, folder: Path) -> Iterator[tuple[int, int]]:
    """Run a node of one worker with so many routes; yields the worker's process id and the node's port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.node", "--port", str(port), "--host", HOST]
    command += ["--targets", "127.0.0.1:9", "--routes", str(routes), "--work", str(folder)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    try:
        end = time.monotonic() + START_WITHIN_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            if time.monotonic() > end or process.poll() is not None:
                raise SystemExit("the node did not start")
            time.sleep(0.1)
        time.sleep(SETTLE_S)
        yield int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]), port
    finally:
        process.kill()
        process.wait()


def resident_kib(pid: int) -> int:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def idle_kib(worker: int, port: int, count: int) -> float:
    """What each of so many connections costs that have had one answer and are kept."""
    before = resident_kib(worker)
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(UNMATCHED)
            connection.recv(4096)
        time.sleep(SETTLE_S)
        return (resident_kib(worker) - before) / count


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-memory-") as folder:
        for routes in (1, 1_000, 10_000):
            with node(routes, Path(folder) / str(routes)) as (worker, port):
                print(f"{routes:>6,} routes: worker {resident_kib(worker) / 1024:.1f} MiB")
                if routes == 1:
                    each = idle_kib(worker, port, options.idle)
                    print(f"{options.idle:,} idle connections: {each:.1f} KiB each")


if __name__ == "__main__":
    main()
