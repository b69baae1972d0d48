"""What each route has served, counted where it is served.

A plan holds the `RouteTraffic` of its route, so a request reaches its sums by one attribute. Most requests are quick
and successful, and those add to one counter and five sums, right where they end (`Exchange.settle`); histogram buckets
and statuses are looked up only for the rest, and the quick ones are added to theirs when the sums are read. There is no
lock: a worker has one loop.

The sums outlive every swap of the tables, because they belong to names and not to versions. How many there are is
bounded: beyond `series_max` requests are counted in one overflow series, and how many were is counted too.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_plane.observe.histogram import KONG_BOUNDS_MS, UPSTREAM_BOUNDS_MS, bucket_of

OVERFLOW = "_overflow"
"""Service and route of the series that takes what the limit leaves no room for."""
SERIES_MAX = 10_000
"""Series of (service, route, code, source) by default."""
STATUS_CLIENT_GONE = 499
"""Counted when the client left before there was an answer; nginx's number for it."""
CLIENT_GONE = STATUS_CLIENT_GONE << 1 | 1
"""Its code."""

PROXIED_OK = 200 << 1
"""The code of a 200 that an upstream answered."""

QUICK_KONG_S = KONG_BOUNDS_MS[0] / 1000
QUICK_REQUEST_S = UPSTREAM_BOUNDS_MS[0] / 1000
"""A request within both, which are the first bounds, is in the first bucket of all three histograms."""


class RouteTraffic:
    """The sums of one service and route since the worker's start; written by exchanges, read by the worker.

    `codes` counts by status * 2, + 1 when the gateway answered by itself. `quick` counts the proxied 200s that are in
    the first bucket of every histogram; the lists and `codes` hold all others. `told` is what `total` was when the node
    process was told.
    """

    __slots__ = (
        "_book",
        "bytes_in",
        "bytes_out",
        "codes",
        "kong_ms",
        "kong_s",
        "quick",
        "request_ms",
        "request_s",
        "route",
        "service",
        "told",
        "upstream_ms",
        "upstream_s",
    )

    def __init__(self, book: TrafficBook, service: str, route: str) -> None:
        self._book = book
        self.service = service
        self.route = route
        self.quick: int = 0
        self.codes: dict[int, int] = {}
        self.kong_ms: list[int] = [0] * (len(KONG_BOUNDS_MS) + 1)
        self.upstream_ms: list[int] = [0] * (len(UPSTREAM_BOUNDS_MS) + 1)
        self.request_ms: list[int] = [0] * (len(UPSTREAM_BOUNDS_MS) + 1)
        self.kong_s: float = 0.0
        self.upstream_s: float = 0.0
        self.request_s: float = 0.0
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.told: int = 0

    @property
    def total(self) -> int:
        """How many requests there were."""
        return sum(self.request_ms) + self.quick

    def settled(self, code: int, kong_s: float, upstream_s: float, request_s: float) -> None:
        """Count a request that ended, but for its octets; what is not `quick` comes here."""
        self.request_s += request_s
        if code & 1:
            # The gateway's own answer: all of its time was ours, and no upstream's.
            kong_s = request_s
        else:
            self.upstream_s += upstream_s
            self.upstream_ms[bucket_of(UPSTREAM_BOUNDS_MS, upstream_s)] += 1
        self.kong_s += kong_s
        self.kong_ms[bucket_of(KONG_BOUNDS_MS, kong_s)] += 1
        self.request_ms[bucket_of(UPSTREAM_BOUNDS_MS, request_s)] += 1
        self._count(code)

    def _count(self, code: int) -> None:
        codes = self.codes
        if code in codes:
            codes[code] += 1
        elif code == PROXIED_OK or self._book.admit(self, code):
            codes[code] = 1


class TrafficBook:
    """All sums of a worker, by service and route as they are shown."""

    __slots__ = ("_series", "_series_max", "folded", "overflow", "routes")

    def __init__(self, series_max: int = SERIES_MAX) -> None:
        self.routes: dict[tuple[str, str], RouteTraffic] = {}
        self.overflow = RouteTraffic(self, OVERFLOW, OVERFLOW)
        self.folded: int = 0
        self._series: int = 0
        self._series_max = series_max

    def of(self, service: str, route: str) -> RouteTraffic:
        """The sums of a route, or the overflow's when there is no room for another."""
        traffic = self.routes.get((service, route))
        if traffic is None:
            if self._series >= self._series_max:
                return self.overflow
            traffic = self.routes[service, route] = RouteTraffic(self, service, route)
            self._series += 1  # for its proxied 200s, which are not asked for
        return traffic

    def admit(self, traffic: RouteTraffic, code: int) -> bool:
        """Tell whether a code may have a series of its own. If not, the request is counted here, in the overflow's."""
        if traffic is self.overflow:
            return True  # bounded by the statuses that there are
        if self._series < self._series_max:
            self._series += 1
            return True
        self.folded += 1
        codes = self.overflow.codes
        codes[code] = codes.get(code, 0) + 1
        return False

    @property
    def folded_total(self) -> int:
        """How many requests are counted in the overflow's series instead of in their own."""
        return self.folded + self.overflow.total

    def changed(self) -> Iterator[RouteTraffic]:
        """The sums that grew since they were yielded last; what is yielded counts as told."""
        for traffic in list(self.routes.values()):
            total = traffic.total
            if total != traffic.told:
                traffic.told = total
                yield traffic
        if self.folded_total != self.overflow.told:
            self.overflow.told = self.folded_total
            yield self.overflow
