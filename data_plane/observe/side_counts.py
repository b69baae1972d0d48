"""What each side of a service has answered: counted where it is served, for comparing sides with each other.

A side is an upstream that a service's requests go to. A `ServiceRuntime` holds the counts of its side, so an answer
reaches them by one attribute; most are quick and fine, and cost one addition to a list. What is counted as what is told
in control_plane/fleet/side_figures.py. The counts outlive swaps, since they belong to ids and not to versions, and so
does a service's place in counting out who goes where (`Turns`).
"""

from __future__ import annotations

import random
from collections.abc import Container, Iterable, Iterator

from data_plane.balancer.turns import Turn
from pointsman.rules.latency_buckets import BUCKETS, bucket_of

QUICK_MS = 32
"""Answers with a status below 500 within so many milliseconds are counted by whole milliseconds first."""
_QUICK_BUCKETS = tuple(bucket_of((ms + 0.5) / 1000) for ms in range(QUICK_MS))
SIDES_PER_SERVICE_MAX = 8
"""Sides of one service that are remembered; a service that is pointed here and there forgets where it was first."""


class SideCounts:
    """The sums of one side since the worker's start; written by exchanges and by mirroring, read by the worker.

    `quick_ms` counts answers with a status below 500 by whole milliseconds, up to `QUICK_MS`; `latency` and `slow` hold
    all others. `first_at` is when the side's first answer began since the service uses it (`entered`), `last_at` when
    the last one did, by the monotonic clock; 0 = never. `told` is what the node process was told last.
    """

    __slots__ = (
        "closed_late",
        "connect_errors",
        "errors_5xx",
        "first_at",
        "last_at",
        "latency",
        "mirror_errors_5xx",
        "mirror_failed",
        "mirror_sent",
        "mirror_skipped",
        "quick_ms",
        "service",
        "service_name",
        "slow",
        "told",
        "upstream",
        "upstream_name",
    )

    def __init__(self, service: str, upstream: str) -> None:
        self.service = service
        self.upstream = upstream
        self.service_name = ""
        self.upstream_name = ""
        self.quick_ms: list[int] = [0] * QUICK_MS
        self.slow: int = 0
        self.latency: list[int] = [0] * BUCKETS
        self.errors_5xx: int = 0
        self.connect_errors: int = 0
        self.closed_late: int = 0
        self.first_at: float = 0.0
        self.last_at: float = 0.0
        self.mirror_sent: int = 0
        self.mirror_errors_5xx: int = 0
        self.mirror_failed: int = 0
        self.mirror_skipped: int = 0
        self.told: tuple[int, ...] = ()

    @property
    def requests(self) -> int:
        """How many requests ended, or have an answer begun."""
        return sum(self.quick_ms) + self.slow

    @property
    def mirrored(self) -> bool:
        """Whether there were copies for this side."""
        return bool(self.mirror_sent or self.mirror_failed or self.mirror_skipped)

    def state(self, opened: int) -> tuple[int, ...]:
        """Return what differs whenever anything counted here, or the requests under way, does."""
        copies = self.mirror_sent + self.mirror_failed + self.mirror_skipped
        began = int(self.first_at * 1e6)
        return self.requests, self.errors_5xx, self.connect_errors, opened, self.closed_late, copies, began

    def latency_counts(self) -> list[int]:
        """Return all answers by bucket."""
        counts = list(self.latency)
        for bucket, count in zip(_QUICK_BUCKETS, self.quick_ms, strict=True):
            counts[bucket] += count
        return counts

    def answered(self, status: int, seconds: float) -> None:
        """Count an answer that is not quick, or a failure of the side's own."""
        self.slow += 1
        self.latency[bucket_of(seconds)] += 1
        if status >= 500:
            self.errors_5xx += 1

    def failed(self) -> None:
        """Count a request that got no answer of the side."""
        self.slow += 1
        self.errors_5xx += 1

    def left(self, seconds: float) -> None:
        """Count a request whose client did not wait any longer."""
        self.slow += 1
        self.latency[bucket_of(seconds)] += 1

    def broke_off(self, status: int) -> None:
        """Count an answer of that status that was begun, and counted, and did not come to its end."""
        self.connect_errors += 1
        if status < 500:
            self.errors_5xx += 1


class SideBook:
    """All counts of a worker by service and upstream, and whose turn it is in each service."""

    __slots__ = ("_rng", "_turns", "sides")

    def __init__(self, rng: random.Random | None = None) -> None:
        self.sides: dict[str, dict[str, SideCounts]] = {}
        self._turns: dict[str, tuple[Turn, Turn]] = {}
        self._rng = rng or random.Random()  # noqa: S311 - where counting out begins is no secret

    def of(self, service: str, upstream: str) -> SideCounts:
        """Return the counts of a side."""
        sides = self.sides.setdefault(service, {})
        counts = sides.pop(upstream, None) or SideCounts(service, upstream)
        while len(sides) >= SIDES_PER_SERVICE_MAX:
            del sides[next(iter(sides))]
        sides[upstream] = counts  # last among them: it is in use
        return counts

    def entered(self, sides: Iterable[tuple[str, str]]) -> None:
        """Services begin to use these upstreams: the next answer of each is its first."""
        for service, upstream in sides:
            counts = self.sides.get(service, {}).get(upstream)
            if counts is not None:
                counts.first_at = 0.0

    def turns(self, service: str) -> tuple[Turn, Turn]:
        """Return whose turn it is in a service: for its split, and for its mirror.

        Each begins at a place of its own, or all workers of a fleet would send their first request elsewhere at the
        same moment, and none of them before.
        """
        turns = self._turns.get(service)
        if turns is None:
            turns = self._turns[service] = Turn(self._rng), Turn(self._rng)
        return turns

    def keep_only(self, services: Container[str]) -> Iterator[None]:
        """Forget other services; yields between steps."""
        for known in (self.sides, self._turns):
            for number, service in enumerate(list(known)):
                if service not in services:
                    del known[service]
                if number % 64 == 63:
                    yield
