"""The buckets in which latencies of a service's sides are counted, the same on nodes and in the control plane.

They are finer than Kong's, because two sides are compared by them: within a factor of about 1.4 from 1 ms to a minute,
so that a quantile read from them is off by no more than that. Counts are not cumulated; the last bucket has no bound.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BOUNDS_MS = (
    1, 2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 450, 640, 900, 1280, 1800, 2560, 3600, 5120,
    7200, 10240, 14400, 20480, 30000, 45000, 60000,
)  # fmt: skip
"""Upper bounds, inclusive."""
BUCKETS = len(BOUNDS_MS) + 1


def bucket_of(seconds: float) -> int:
    """Return the bucket of a duration."""
    return bisect_left(BOUNDS_MS, seconds * 1000)


def quantile_ms(counts: Sequence[int], q: float) -> float | None:
    """Return the `q` quantile of what was counted, in milliseconds; None when nothing was.

    Within its bucket the place is interpolated, as Prometheus does; in the last bucket it is the bound below.

    Raises:
        ValueError: `q` is not between 0 and 1, or there are not `BUCKETS` counts.
    """
    if not 0 <= q <= 1:
        raise ValueError(f"a quantile is between 0 and 1, not {q}")
    if len(counts) != BUCKETS:
        raise ValueError(f"there are {len(counts)} counts instead of {BUCKETS}")
    total = sum(counts)
    if not total:
        return None
    wanted = q * total
    below = 0
    for bucket, count in enumerate(counts):
        if count and below + count >= wanted:
            if bucket == len(BOUNDS_MS):
                return float(BOUNDS_MS[-1])
            low = BOUNDS_MS[bucket - 1] if bucket else 0
            return low + (BOUNDS_MS[bucket] - low) * max(wanted - below, 0) / count
        below += count
    return float(BOUNDS_MS[-1])
