"""Targets of the running snapshot with their addresses and states, as `/metrics` shows them.

The list of targets is made once for each snapshot; what is said of each comes from the health table at each scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError

from data_plane.node.metrics import TargetState
from data_plane.node.snapshot import NodeSnapshot
from pointsman.wire.v1 import config_pb2 as wire
from pointsman.wire.v1 import fleet_pb2

TargetKey = tuple[str, str]
"""Upstream and target, by id."""

_STATES = {
    fleet_pb2.HEALTH_STATE_HEALTHY: "healthy",
    fleet_pb2.HEALTH_STATE_UNHEALTHY: "unhealthy",
}


class TargetStates:
    """See the module. `row` is what the health table says of a target, None when it does not know it."""

    def __init__(self, row: Callable[[TargetKey], fleet_pb2.TargetHealth | None]) -> None:
        self._row = row
        self._snapshot: NodeSnapshot | None = None
        self._targets: list[tuple[str, str, TargetKey]] = []  # the upstream's name, the target as written, its key

    def count(self, snapshot: NodeSnapshot | None) -> int:
        """How many targets there are."""
        self._follow(snapshot)
        return len(self._targets)

    def of(self, snapshot: NodeSnapshot | None) -> Iterator[TargetState]:
        """Yield every target."""
        self._follow(snapshot)
        for upstream, target, key in self._targets:
            row = self._row(key)
            addresses = row.addresses if row is not None else ()
            yield TargetState(
                upstream,
                target,
                tuple(
                    (
                        f"[{each.ip}]:{each.port}" if ":" in each.ip else f"{each.ip}:{each.port}",
                        _STATES.get(each.state, "healthchecks_off"),
                    )
                    for each in addresses
                ),
            )

    def _follow(self, snapshot: NodeSnapshot | None) -> None:
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._targets = list(_targets(snapshot)) if snapshot is not None else []


def _targets(snapshot: NodeSnapshot) -> Iterator[tuple[str, str, TargetKey]]:
    names: dict[str, str] = {}
    targets: list[wire.Target] = []
    for (collection, _), data in snapshot.entities.items():
        if collection not in ("upstreams", "targets"):
            continue
        try:
            entity = wire.Entity.FromString(data)
        except DecodeError:
            continue  # the workers refuse such a snapshot; it does not run
        if collection == "upstreams":
            names[entity.upstream.id] = entity.upstream.name
        else:
            targets.append(entity.target)
    for target in targets:
        yield names.get(target.upstream, ""), target.target, (target.upstream, target.id)
