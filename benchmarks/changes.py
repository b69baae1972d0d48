"""How long a plain change takes until every node runs it: PATCH with `Prefer: wait` on real nodes.

    python -m benchmarks.changes --nodes 10 --entities 10000

The change is that of a switch, a service's host between two upstreams; the figure is what the caller waits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from tests.support.fleet_sim import spread
from tests.support.patience import PATIENCE_S
from tests.support.processes import Fleet


async def measure(folder: Path, *, nodes: int, entities: int, changes: int) -> dict[str, object]:
    """Seconds of `changes` PATCHes, one after the other."""
    async with Fleet(folder, nodes=nodes, workers=1) as fleet:
        await fleet.start({})
        document = {
            "_format_version": "3.0",
            "upstreams": [{"name": colour} for colour in ("blue", "green")],
            "services": [{"name": f"s{number}", "host": "blue"} for number in range(max(1, entities // 2))],
            "routes": [
                {"name": f"r{number}", "paths": [f"/r{number}"], "service": {"name": f"s{number}"}}
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
        took: list[float] = []
        for number in range(changes):
            began = time.monotonic()
            colour = ("green", "blue")[number % 2]
            answer = await fleet.admin("PATCH", "/services/s0", {"host": colour}, {"Prefer": "wait=30"})
            took.append(time.monotonic() - began)
            assert answer.status == 200, answer.body
            await asyncio.sleep(0.05)
    return {"nodes": nodes, "entities": entities, "changes": changes, "patch_to_all_applied_s": spread(took)}


def main() -> None:
    """Runs it and prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--entities", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-changes-") as folder:
        figures = asyncio.run(
            measure(Path(folder), nodes=options.nodes, entities=options.entities, changes=options.changes)
        )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
