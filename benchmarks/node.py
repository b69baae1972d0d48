"""One node for the side-by-side benchmark: one worker, from a prepared last-good file, with no control plane.

Writes the last-good file with one route for the benchmark's host and as many others as asked for, then becomes the
node (exec), so that the benchmark measures nothing but it.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import uuid
from pathlib import Path

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody
from control_plane.snapshot.encode import encode
from data_plane.node.last_good import LastGood
from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash


def _unresolvable(_collection: str, _field: str, _value: str) -> str | None:
    return None


class Entities:
    """Entity bytes by key, made by the control plane's own schemas and encoder."""

    def __init__(self) -> None:
        self.encoded: dict[tuple[str, str], bytes] = {}

    def add(self, collection: str, body: EntityBody) -> EntityBody:
        """Adds one entity and returns the reference to it."""
        made = SCHEMAS[collection].on_insert(body, now=time.time(), resolve=_unresolvable)
        entity_id = str(made["id"])
        self.encoded[(collection, entity_id)] = encode(collection, made)
        return {"id": entity_id}


def configuration(host: str, targets: list[str], routes: int) -> dict[tuple[str, str], bytes]:
    """A service over an upstream with `targets`, routed to by `host`, among `routes` routes with hosts of their own."""
    entities = Entities()
    upstream = entities.add("upstreams", {"name": "bench-upstream"})
    for target in targets:
        entities.add("targets", {"target": target, "upstream": upstream})
    service = entities.add("services", {"name": "bench-service", "host": "bench-upstream"})
    entities.add("routes", {"name": "bench-route", "hosts": [host], "preserve_host": True, "service": service})
    for number in range(routes - 1):
        entities.add("routes", {"hosts": [f"host-{number}.test"], "paths": [f"/api/{number}"], "service": service})
    return entities.encoded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--targets", nargs="+", required=True)
    parser.add_argument("--routes", type=int, default=1)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    encoded = configuration(options.host, options.targets, options.routes)
    LastGood(options.work / "last-good").save(NodeSnapshot(uuid.uuid4().bytes, 1, snapshot_hash(encoded), encoded))
    os.execv(
        sys.executable,
        [
            sys.executable, "-m", "data_plane",
            # Nothing listens on the discard port of loopback: the node goes on by its last-good file.
            "--control-plane", "127.0.0.1:9",
            "--state-dir", str(options.work),
            "--proxy-listen", f"127.0.0.1:{options.port}",
            "--status-listen", "127.0.0.1:0",
            "--workers", "1",
            "--log-level", "error",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
