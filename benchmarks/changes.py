"""How long a plain change takes until every node runs it, and what requests notice of it: real nodes, PATCH, traffic.

    python -m benchmarks.changes --nodes 10 --entities 10000

The change is that of a switch, a service's host between two upstreams; the first figure is what the caller of a PATCH
with `Prefer: wait` waits. The moment it has its answer, one request goes to each node on its own connection: all of
them must be answered by the new side. Meanwhile requests go to all nodes at a fixed rate; those that are due while a
change is on its way are set beside the others, by their time from the moment they were due.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.spent import Spent, children, each, spent
from tests.support.fleet_sim import spread
from tests.support.load import Destination, OpenLoop, Record
from tests.support.patience import PATIENCE_S
from tests.support.processes import Fleet

HOST = "example.test"
BETWEEN_S = 0.1
AFTER_S = 0.03
"""A request counts as due while a change is on its way for so long after the answer, too: workers tidy up then."""
SETTLE_S = 2.0
BESIDE_S = 10.0
"""What the processes use without changes is measured for so long, and taken off."""


class Client:
    """One keep-alive connection to one node."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name
        self._sent = 0

    @classmethod
    async def open(cls, address: tuple[str, int], name: str) -> Client:
        return cls(*await asyncio.open_connection(*address), name)

    async def side(self) -> tuple[str, float]:
        """Who answers a request now, and after how many milliseconds."""
        began = time.monotonic()
        self._sent += 1
        self._writer.write(f"GET /r0/{self._name}-{self._sent} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        text = await self._reader.readexactly(length)
        assert head.startswith(b"http/1.1 200 "), (head, text)
        return text.split(b" ")[1].decode(), (time.monotonic() - began) * 1000

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def configure(fleet: Fleet, entities: int) -> None:
    """A service that is switched, and as many others as it takes."""
    document = {
        "_format_version": "3.0",
        "upstreams": [
            {"name": colour, "targets": [{"target": fleet.upstreams[f"{colour}-1"].address}]}
            for colour in ("blue", "green")
        ],
        "services": [{"name": f"s{number}", "host": "blue"} for number in range(max(1, entities // 2))],
        "routes": [
            {"name": f"r{number}", "paths": [f"/r{number}/"], "service": {"name": f"s{number}"}}
            for number in range(max(1, entities // 2))
        ],
    }
    answer = await fleet.admin("POST", "/config/apply", document)
    assert answer.status < 300, answer.body
    head = int(answer.headers["X-Pointsman-Version"])
    async with asyncio.timeout(PATIENCE_S * 4):
        for node in fleet.nodes:
            while await fleet.node_version(node) < head:  # noqa: ASYNC110 - another process moves on
                await asyncio.sleep(0.1)


async def measure(
    folder: Path, *, nodes: int, entities: int, changes: int, rate: float, beside_s: float = BESIDE_S
) -> dict[str, object]:
    """The figures of `changes` PATCHes, one after the other, under `rate` requests a second to all nodes together."""
    async with Fleet(folder, nodes=nodes, workers=1) as fleet:
        await fleet.start({"blue": 1, "green": 1})
        await configure(fleet, entities)
        load = OpenLoop(
            [Destination(*node.proxy_address) for node in fleet.nodes],
            rate=rate,
            host=HOST,
            path="/r0",
            body_every=0,
        )
        load.start()
        clients = [await Client.open(node.proxy_address, node.name) for node in fleet.nodes]
        await asyncio.sleep(SETTLE_S)
        beside_from, beside_began = readings(fleet), time.monotonic()
        await asyncio.sleep(beside_s)
        beside_spent = {role: now.since(beside_from[role]) for role, now in readings(fleet).items()}
        beside_took_s = time.monotonic() - beside_began
        before, began_all = readings(fleet), time.monotonic()
        windows: list[tuple[float, float]] = []
        first: list[tuple[bool, float]] = []
        for number in range(changes):
            colour = ("green", "blue")[number % 2]
            began = time.monotonic()
            answer = await fleet.admin("PATCH", "/services/s0", {"host": colour}, {"Prefer": "wait=30"})
            windows.append((began, time.monotonic()))
            assert answer.status == 200, answer.body
            sides = await asyncio.gather(*(client.side() for client in clients))
            first += [(side == colour, took_ms) for side, took_ms in sides]
            await asyncio.sleep(BETWEEN_S)
        after, took_s = readings(fleet), time.monotonic() - began_all
        for client in clients:
            await client.close()
        await load.stop()
    quiet, meanwhile = apart(load.records, windows)
    return {
        "nodes": nodes,
        "entities": entities,
        "changes": changes,
        "load_average": round(os.getloadavg()[0], 1),
        "patch_to_all_applied_ms": spread([(end - began) * 1000 for began, end in windows]),
        "first_requests_after_the_answer": len(first),
        "of_these_by_the_new_side": sum(new for new, _ in first),
        "first_request_ms": spread([took_ms for _, took_ms in first]),
        "requests": len(load.records),
        "requests_lost": sum(record.answers != 1 or record.status != 200 for record in load.records),
        "request_ms_beside_changes": spread(quiet),
        "request_ms_while_one_is_on_its_way": spread(meanwhile),
        "spent_per_change": each(
            {role: (before[role], after[role]) for role in before},
            changes=changes,
            beside=beside_spent,
            ratio=took_s / beside_took_s,
        ),
    }


def readings(fleet: Fleet) -> dict[str, Spent]:
    """What each kind of process has used so far, all of one kind together."""
    nodes = [node.pid for node in fleet.nodes]
    return {
        "control plane": spent([fleet.control_plane.pid]),
        "node processes": spent(nodes),
        "workers": spent([child for node in nodes for child in children(node)]),
    }


def apart(records: Sequence[Record], windows: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Milliseconds from due to answered: of requests beside all changes, and of those due while one was on its way."""
    beside: list[float] = []
    meanwhile: list[float] = []
    for record in records:
        if record.answers:
            took_ms = (record.answered - record.due) * 1000
            within = any(began <= record.due <= end + AFTER_S for began, end in windows)
            (meanwhile if within else beside).append(took_ms)
    return beside, meanwhile


def main() -> None:
    """Runs it and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second, over all nodes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-changes-") as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), **vars(options))), indent=2))


if __name__ == "__main__":
    main()
