"""Further services beside that of `node_rig.config`, each with a route for some paths."""

from __future__ import annotations

from collections.abc import Sequence

from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire


def with_second_service(
    snapshot: NodeSnapshot, *, paths: Sequence[str], address: str, buffered: bool = True, name: str = "s2"
) -> NodeSnapshot:
    """Return the snapshot with these paths going to `address`."""
    entities = dict(snapshot.entities)
    service = wire.Entity.FromString(entities[("services", "s1")])
    route = wire.Entity.FromString(entities[("routes", "r0")])
    host, _, port = address.rpartition(":")
    service.service.id = service.service.name = name
    service.service.host, service.service.port = host, int(port)
    route.route.id, route.route.service = f"r-{name}", name
    route.route.request_buffering = route.route.response_buffering = buffered
    del route.route.paths[:]
    route.route.paths.extend(paths)
    entities[("services", name)] = service.SerializeToString()
    entities[("routes", f"r-{name}")] = route.SerializeToString()
    return NodeSnapshot(snapshot.epoch, snapshot.version, snapshot_hash(entities), entities)
