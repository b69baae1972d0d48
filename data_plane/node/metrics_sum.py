"""What all workers of the node have counted, the dead ones included.

Each worker's sums are absolute since its start and arrive in messages of their own; here the latest of each are kept.
When a worker is gone, its sums are added once to those of the past: a counter that Prometheus has seen never falls, and
nothing is lost but what a crashed worker counted after it last spoke.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from data_plane.node.side_sums import SidesSum, WorkerSides
from data_plane.observe.histogram import KONG_BOUNDS_MS, UPSTREAM_BOUNDS_MS
from data_plane.observe.traffic import OVERFLOW, SERIES_MAX
from pointsman.wire.v1 import worker_pb2 as wire

_KONG_BUCKETS = len(KONG_BOUNDS_MS) + 1
_UPSTREAM_BUCKETS = len(UPSTREAM_BOUNDS_MS) + 1

RouteKey = tuple[str, str]
"""Service and route as they are shown."""


@dataclass(slots=True)
class RouteSums:
    """The sums of one service and route. `codes` by status * 2, + 1 when the gateway answered; buckets uncumulated."""

    codes: dict[int, int] = field(default_factory=dict)
    kong_ms: list[int] = field(default_factory=lambda: [0] * _KONG_BUCKETS)
    upstream_ms: list[int] = field(default_factory=lambda: [0] * _UPSTREAM_BUCKETS)
    request_ms: list[int] = field(default_factory=lambda: [0] * _UPSTREAM_BUCKETS)
    kong_s: float = 0.0
    upstream_s: float = 0.0
    request_s: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, other: RouteSums) -> None:
        """Add what another worker, or another route, has counted."""
        for code, count in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + count
        for mine, more in (
            (self.kong_ms, other.kong_ms),
            (self.upstream_ms, other.upstream_ms),
            (self.request_ms, other.request_ms),
        ):
            for bucket, count in enumerate(more):
                mine[bucket] += count
        self.kong_s += other.kong_s
        self.upstream_s += other.upstream_s
        self.request_s += other.request_s
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out


@dataclass(slots=True)
class PlainSums:
    """A worker's sums that belong to no route. All of them only grow."""

    requests: int = 0
    connections_accepted: int = 0
    requests_malformed: int = 0
    attempts_failed: int = 0
    retries: int = 0
    errors_internal: int = 0
    upstream_connections_opened: int = 0
    upstream_connections_reused: int = 0
    folded: int = 0
    log_lines: int = 0
    log_lines_dropped: int = 0

    def add(self, other: PlainSums) -> None:
        """Add another worker's."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class WorkerSums:
    """One worker's sums as it told them last."""

    def __init__(self) -> None:
        self.plain = PlainSums()
        self.routes: dict[RouteKey, RouteSums] = {}
        self.sides = WorkerSides()

    def told(self, traffic: wire.Traffic) -> None:
        """Take in one message; what it does not name is unchanged. A route with buckets of another number is skipped:
        no worker of this version sends it."""
        for route in traffic.routes:
            if len(route.kong_ms) != _KONG_BUCKETS or len(route.upstream_ms) != _UPSTREAM_BUCKETS:
                continue
            self.routes[route.service, route.route] = RouteSums(
                codes=dict(zip(route.codes, route.counts, strict=True)),
                kong_ms=list(route.kong_ms),
                upstream_ms=list(route.upstream_ms),
                request_ms=list(route.request_ms),
                kong_s=route.kong_s,
                upstream_s=route.upstream_s,
                request_s=route.request_s,
                bytes_in=route.bytes_in,
                bytes_out=route.bytes_out,
            )

    def counted(self, counters: wire.Counters) -> None:
        """Take in the counters."""
        for name in PlainSums.__slots__:
            setattr(self.plain, name, getattr(counters, name))


class CountingWorker(Protocol):
    """A worker process as it is looked at here."""

    @property
    def alive(self) -> bool: ...
    @property
    def sums(self) -> WorkerSums: ...


class MetricsSum:
    """The sums of a node: of the workers alive, and of all that ever were."""

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self._series_max = series_max
        self._workers: list[CountingWorker] = []
        self._past = PlainSums()
        self._past_routes: dict[RouteKey, RouteSums] = {}
        self._past_folded = 0
        self._sides = SidesSum()

    def watch(self, worker: CountingWorker) -> None:
        """Count this worker in, from now on and after its end."""
        self._bury()
        self._workers.append(worker)
        self._sides.watch(worker.sums.sides)

    def plain(self) -> PlainSums:
        """What belongs to no route."""
        self._bury()
        total = PlainSums()
        total.add(self._past)
        for worker in self._workers:
            total.add(worker.sums.plain)
        total.folded += self._past_folded
        return total

    @property
    def sides(self) -> SidesSum:
        """What is counted by side of a service."""
        self._bury()
        return self._sides

    def routes(self) -> Iterator[Mapping[RouteKey, RouteSums] | None]:
        """Yield None between steps, and in the end the sums of every route."""
        self._bury()
        total: dict[RouteKey, RouteSums] = {}
        series = 0
        sources = [self._past_routes, *(worker.sums.routes for worker in self._workers)]
        for source in sources:
            for number, (key, sums) in enumerate(list(source.items())):
                series, _ = _merge(total, key, sums, series, self._series_max)
                if number % 64 == 63:
                    yield None
        yield total

    def _bury(self) -> None:
        """Add those that ended to the past."""
        for worker in [worker for worker in self._workers if not worker.alive]:
            self._workers.remove(worker)
            self._past.add(worker.sums.plain)
            self._sides.bury(worker.sums.sides)
            series = sum(len(sums.codes) for sums in self._past_routes.values())
            for key, sums in worker.sums.routes.items():
                series, folded = _merge(self._past_routes, key, sums, series, self._series_max)
                self._past_folded += folded


def _merge(
    total: dict[RouteKey, RouteSums], key: RouteKey, sums: RouteSums, series: int, series_max: int
) -> tuple[int, int]:
    """Add a route's sums, in the overflow's place when the limit leaves no room; new series count and what was folded.

    Each worker keeps to the limit by itself; together they may have seen different routes.
    """
    into = total.get(key)
    new = sum(code not in into.codes for code in sums.codes) if into is not None else len(sums.codes)
    folded = 0
    if new and series + new > series_max and key != (OVERFLOW, OVERFLOW):
        key = (OVERFLOW, OVERFLOW)
        into = total.get(key)
        new = 0
        folded = sum(sums.codes.values())
    if into is None:
        into = total[key] = RouteSums()
    into.add(sums)
    return series + new, folded
