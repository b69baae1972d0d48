"""What the control plane is told of this node's health table: changes at once, all of it when asked, a digest always.

    something changes --> the row is marked --> the link takes the next report when it has nothing more urgent to say
    the control plane asks, or a conversation begins --> all rows are marked, the first report says `full`

Rows are read when they are sent, so a target that flaps faster than the link takes reports costs one row, and nothing
queues. A table that does not fit one message goes on as changes.

The digest in a beat is that of the table *as told*, because rows still marked will be told anyway; it differs from the
control plane's exactly when something got lost. It is a CRC-32 of each row, mixed and summed; the canonical form of a
row and the sum are in `pointsman/rules/health_digest.py`, because both planes must compute them alike:

    row    = CRC-32 of "upstream NUL target NUL error NUL record type NUL address NUL address ...", UTF-8, mixed
    address = "ip port weight state since", sorted; state is the number of HealthState, since is whole seconds
    digest = sum of all rows modulo 2^32, 1 instead of 0, and 0 for an empty table
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from data_plane.node.health import NodeHealth, TargetKey
from pointsman.rules.health_digest import ADDRESSES_MAX, TableDigest, clipped, row_digest
from pointsman.wire.v1 import fleet_pb2

REPORT_BYTES_MAX = 48 * 1024
LOADS_MAX = 500
SMALL_TABLE = 200
"""A table up to this size is told at once when a conversation begins; a larger one when the digests differ."""


class HealthSource(Protocol):
    """What the link carries for whoever knows about health. All calls come from the loop and return at once."""

    @property
    def digest(self) -> int:
        """For the next beat."""
        ...

    def loads(self) -> Iterable[fleet_pb2.UpstreamLoad]:
        """For the next beat."""
        ...

    def connected(self, wake: Callable[[], None], *, beat_interval_s: float) -> None:
        """A conversation begins; `wake` is to be called whenever there is a report to take."""
        ...

    def disconnected(self) -> None:
        """It is over."""
        ...

    def next_report(self) -> fleet_pb2.HealthReport | None:
        """What is to be told next, None when there is nothing."""
        ...

    def asked(self) -> None:
        """The control plane wants all of it."""
        ...

    def hinted(self, health: fleet_pb2.FleetHealth) -> None:
        """The control plane says what the probing nodes see."""
        ...


class HealthReports:
    """The `HealthSource` of a node. `loads` tells how many requests are open towards each target."""

    def __init__(self, health: NodeHealth, *, loads: Callable[[], Iterable[tuple[TargetKey, int]]]) -> None:
        self._health = health
        self._loads = loads
        self._wake: Callable[[], None] = _nobody
        self._marked: dict[TargetKey, None] = {}
        self._told: TableDigest[TargetKey] = TableDigest()
        self._told_rows: dict[TargetKey, int] = {}
        self._full = False

    def mark(self, key: TargetKey) -> None:
        """A target's row may differ from what was told."""
        self._marked[key] = None
        self._wake()

    @property
    def digest(self) -> int:
        return self._told.value

    def loads(self) -> list[fleet_pb2.UpstreamLoad]:
        busiest = sorted(self._loads(), key=lambda load: -load[1])[:LOADS_MAX]
        return [fleet_pb2.UpstreamLoad(upstream=key[0], target=key[1], in_flight=open_) for key, open_ in busiest]

    def connected(self, wake: Callable[[], None], *, beat_interval_s: float) -> None:
        self._wake = wake
        self._health.lease_s = 3 * beat_interval_s
        if len(self._health.targets()) <= SMALL_TABLE:
            self.asked()
        elif self._marked:
            wake()

    def disconnected(self) -> None:
        self._wake = _nobody

    def asked(self) -> None:
        self._full = True
        self._told.clear()
        self._told_rows.clear()
        self._marked = dict.fromkeys(self._health.targets())
        self._wake()

    def next_report(self) -> fleet_pb2.HealthReport | None:
        if not self._marked and not self._full:
            return None
        report = fleet_pb2.HealthReport(full=self._full)
        self._full = False
        size = 0
        while self._marked and size < REPORT_BYTES_MAX:
            key = next(iter(self._marked))
            del self._marked[key]
            row = self._row(key)
            if row is not None:
                report.targets.append(row)
                size += row.ByteSize() + 4
        report.digest = self._told.value
        return report if report.targets or report.full else None

    def hinted(self, health: fleet_pb2.FleetHealth) -> None:
        self._health.hinted(health)

    def _row(self, key: TargetKey) -> fleet_pb2.TargetHealth | None:
        """The row as it is told, counted in the digest; None when there is nothing to tell."""
        row = self._health.row(key)
        if row is None:
            if key not in self._told_rows:
                return None
            del self._told_rows[key]
            self._told.remove(key)
            return fleet_pb2.TargetHealth(upstream=key[0], target=key[1], removed=True)
        row.error = clipped(row.error)
        del row.addresses[ADDRESSES_MAX:]
        for address in row.addresses:
            address.reason = clipped(address.reason)
        addresses = ((each.ip, each.port, each.weight, int(each.state), each.since) for each in row.addresses)
        digest = row_digest(key[0], key[1], error=row.error, record_type=row.record_type, addresses=addresses)
        if self._told_rows.get(key) == digest:
            return None
        self._told_rows[key] = digest
        self._told.put(key, digest)
        return row


def _nobody() -> None:
    """Nobody listens."""
