"""What all workers of the node have counted of each side of a service, and the reports of it to the control plane.

Sums are kept like those of routes (`metrics_sum.py`): the latest of each worker, and those of workers that ended. The
control plane is told about once a second what differs; of too much at once the sides of services that are being
switched come first, then the busiest. After each hello it is told all, so that it knows what the next sums are
to be compared with.
"""

from __future__ import annotations

import heapq
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from pointsman.rules.latency_buckets import BUCKETS
from pointsman.wire.v1 import fleet_pb2

SIDES_MAX = 256
"""In one report."""
KEPT_MAX = 10_000
"""Sides of workers that ended; a node has no more that matter."""

SideKey = tuple[str, str]
"""Service and upstream, by id."""


@dataclass(slots=True)
class SideSum:
    """The sums of one side; see control_plane/fleet/side_figures.py. `open` is a level.

    `first_ns` is when its first answer began since the service uses it, `last_ns` when the last one did, by
    CLOCK_MONOTONIC; 0 = never.
    """

    requests: int = 0
    errors_5xx: int = 0
    connect_errors: int = 0
    latency: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    open: int = 0
    closed_late: int = 0
    mirror_sent: int = 0
    mirror_errors_5xx: int = 0
    mirror_failed: int = 0
    mirror_skipped: int = 0
    first_ns: int = 0
    last_ns: int = 0
    watched: bool = False
    service_name: str = ""
    upstream_name: str = ""

    @classmethod
    def told(cls, sums: fleet_pb2.SideSums) -> SideSum:
        """Read what a worker says."""
        mirror = sums.mirror
        return cls(
            requests=sums.requests,
            errors_5xx=sums.errors_5xx,
            connect_errors=sums.connect_errors,
            latency=list(sums.latency),
            open=sums.open,
            closed_late=sums.closed_late,
            mirror_sent=mirror.sent,
            mirror_errors_5xx=mirror.errors_5xx,
            mirror_failed=mirror.failed,
            mirror_skipped=mirror.skipped,
            first_ns=sums.first_answer_ns,
            last_ns=sums.last_answer_ns,
            watched=sums.watched,
            service_name=sums.service_name,
            upstream_name=sums.upstream_name,
        )

    def add(self, other: SideSum) -> None:
        """Add what another worker has counted."""
        self.requests += other.requests
        self.errors_5xx += other.errors_5xx
        self.connect_errors += other.connect_errors
        for bucket, count in enumerate(other.latency):
            self.latency[bucket] += count
        self.open += other.open
        self.closed_late += other.closed_late
        self.mirror_sent += other.mirror_sent
        self.mirror_errors_5xx += other.mirror_errors_5xx
        self.mirror_failed += other.mirror_failed
        self.mirror_skipped += other.mirror_skipped
        self.first_ns = min(self.first_ns or other.first_ns, other.first_ns or self.first_ns)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.watched |= other.watched
        self.service_name = other.service_name or self.service_name
        self.upstream_name = other.upstream_name or self.upstream_name

    @property
    def mirrored(self) -> int:
        """How many copies there were to be sent."""
        return self.mirror_sent + self.mirror_failed + self.mirror_skipped

    def row(self, key: SideKey, to_plane: Callable[[int], int]) -> fleet_pb2.SideSums:
        """Return it as the control plane is told; `to_plane` gives its time for one of ours, 0 = not known."""
        row = fleet_pb2.SideSums(
            service=key[0],
            upstream=key[1],
            requests=self.requests,
            errors_5xx=self.errors_5xx,
            connect_errors=self.connect_errors,
            latency=self.latency if any(self.latency) else (),
            open=self.open,
            closed_late=self.closed_late,
            first_answer_ns=to_plane(self.first_ns) if self.first_ns else 0,
            last_answer_ns=to_plane(self.last_ns) if self.last_ns else 0,
        )
        if self.mirrored:
            row.mirror.sent = self.mirror_sent
            row.mirror.errors_5xx = self.mirror_errors_5xx
            row.mirror.failed = self.mirror_failed
            row.mirror.skipped = self.mirror_skipped
        return row


class WorkerSides:
    """One worker's sums as it told them last, and which of them changed since somebody looked."""

    def __init__(self) -> None:
        self.sums: dict[SideKey, SideSum] = {}
        self.changed: set[SideKey] = set()

    def told(self, sides: Iterable[fleet_pb2.SideSums]) -> None:
        """Take in what the worker says. Buckets of another number come from no worker of ours."""
        for sums in sides:
            if len(sums.latency) == BUCKETS:
                key = sums.service, sums.upstream
                self.sums[key] = SideSum.told(sums)
                self.changed.add(key)


class SidesSum:
    """The sums of the node: of the workers that there are, and of those that ended."""

    def __init__(self) -> None:
        self._workers: list[WorkerSides] = []
        self._past = WorkerSides()

    def watch(self, worker: WorkerSides) -> None:
        """Count this worker in, from now on and after its end."""
        self._workers.append(worker)

    def bury(self, worker: WorkerSides) -> None:
        """It has ended: nothing of it is open any more, and what it counted stays."""
        self._workers.remove(worker)
        past = self._past
        for key, sums in worker.sums.items():
            sums.open, sums.watched, sums.first_ns = 0, False, 0
            into = past.sums.get(key)
            if into is not None:
                into.add(sums)
            elif len(past.sums) < KEPT_MAX:
                past.sums[key] = sums
            past.changed.add(key)

    def keys(self) -> set[SideKey]:
        """Every side that anything was counted of."""
        return {key for worker in self._sources() for key in worker.sums}

    def changed(self) -> set[SideKey]:
        """The sides that changed since this was asked last."""
        found: set[SideKey] = set()
        for worker in self._sources():
            found |= worker.changed
            worker.changed = set()
        return found

    def requests(self, key: SideKey) -> tuple[bool, int]:
        """Return whether the side's service is watched, and the requests: what costs least to know."""
        found = [sums for worker in self._sources() if (sums := worker.sums.get(key)) is not None]
        return any(sums.watched for sums in found), sum(sums.requests for sums in found)

    def of(self, key: SideKey) -> SideSum:
        """Return the sums of a side."""
        total = SideSum()
        for worker in self._sources():
            sums = worker.sums.get(key)
            if sums is not None:
                total.add(sums)
        return total

    def several(self, most: int) -> list[tuple[tuple[str, str], SideSum]]:
        """Return the sums by the names of service and upstream, of services with more sides than one.

        At most so many, and two that go by the same names are one.
        """
        keys = self.keys()
        sides_of = Counter(service for service, _ in keys)
        found: dict[tuple[str, str], SideSum] = {}
        for key in sorted(keys):
            if sides_of[key[0]] < 2 and not self.requests(key)[0]:
                continue
            sums = self.of(key)
            names = sums.service_name, sums.upstream_name
            if names in found:
                found[names].add(sums)
            elif len(found) < most:
                found[names] = sums
        return list(found.items())

    def _sources(self) -> Iterator[WorkerSides]:
        yield self._past
        yield from self._workers


class SideSource(Protocol):
    """Who has something to report of sides; what the link asks of `SideReports`."""

    def connected(self, wake: Callable[[], None]) -> None: ...
    def disconnected(self) -> None: ...
    def next_report(self) -> fleet_pb2.SideReport | None: ...


def _not_known(_monotonic_ns: int) -> int:
    return 0


class SideReports:
    """What is to be said of the sides. Latest wins: what waits is which sides, and what they count is looked up."""

    def __init__(self, sums: SidesSum, to_plane: Callable[[int], int] = _not_known) -> None:
        self._sums = sums
        self._to_plane = to_plane
        # Names this start of the node process: counts of another one begin at nothing.
        self._since = secrets.randbits(63) | 1
        self._told: dict[SideKey, int] = {}  # requests when they were reported last
        self._waiting: set[SideKey] = set()
        self._wake: Callable[[], None] | None = None
        self._full = False
        self._due = False

    def connected(self, wake: Callable[[], None]) -> None:
        """A conversation begins: all is to be said anew. `wake` has the link ask for the next report."""
        self._wake = wake
        self._told.clear()
        self._waiting = self._sums.keys()
        self._full = self._due = True
        wake()

    def disconnected(self) -> None:
        """It is over."""
        self._wake = None

    def counted(self) -> None:
        """The workers have told what they counted."""
        self._due = True
        if self._wake is not None:
            self._wake()

    def next_report(self) -> fleet_pb2.SideReport | None:
        """Return what changed, None when nothing is to be said now. Of too much, the rest waits for the next time."""
        if not self._due:
            return None
        self._due = False
        self._waiting |= self._sums.changed()
        if not self._waiting and not self._full:
            return None
        report = fleet_pb2.SideReport(
            since=self._since, full=self._full, omitted=max(len(self._waiting) - SIDES_MAX, 0)
        )
        self._full = False
        for key in heapq.nsmallest(SIDES_MAX, self._waiting, key=self._rank):
            self._waiting.discard(key)
            sums = self._sums.of(key)
            self._told[key] = sums.requests
            report.sides.append(sums.row(key, self._to_plane))
        return report

    def _rank(self, key: SideKey) -> tuple[bool, int]:
        watched, requests = self._sums.requests(key)
        return not watched, self._told.get(key, 0) - requests
