"""Buckets of latencies: Kong's bounds, and the place of a duration in them without a search.

Bounds are whole milliseconds, so the bucket of a duration follows from its whole milliseconds alone: what took 1.4 ms
is over one bound of 1 and under one of 2. Counts are kept per bucket and only cumulated when they are shown.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

KONG_BOUNDS_MS = (1, 2, 5, 7, 10, 15, 20, 30, 50, 75, 100, 200, 500, 750, 1000, 3000, 6000)
"""Of `kong_kong_latency_ms`."""
UPSTREAM_BOUNDS_MS = (25, 50, 80, 100, 250, 400, 700, 1000, 2000, 5000, 10000, 30000, 60000)
"""Of `kong_upstream_latency_ms` and `kong_request_latency_ms`."""


def bucket_of(bounds_ms: Sequence[int], seconds: float) -> int:
    """The bucket of a duration: the first whose bound is not below it; one past the last bound is +Inf."""
    return bisect_left(bounds_ms, seconds * 1000)


def cumulated(counts: Sequence[int]) -> list[int]:
    """What Prometheus shows: how many are at or below each bound, +Inf last."""
    total = 0
    sums: list[int] = []
    for count in counts:
        total += count
        sums.append(total)
    return sums
