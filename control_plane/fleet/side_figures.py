"""What the nodes count of each side of a service, as two readings can be compared: pure values.

A side is an upstream that a service's requests go to: its host's, or one that its settings name. Each node reports sums
since its start, so what happened in between is the difference of two readings (`later - earlier`), and a node that
started anew in between is seen by its token and counts from nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pointsman.rules.latency_buckets import BUCKETS, quantile_ms

NO_COUNTS = (0,) * BUCKETS


@dataclass(frozen=True, slots=True)
class SideFigures:
    """Sums of one node and side, or the difference of two readings of them.

    `requests` that ended: answered, or failed by the side. `errors_5xx` are those of them whose client saw the side
    fail: a 5xx of the side, the gateway's own because the side gave no answer, or an answer that broke off.
    `connect_errors` are attempts that brought no whole answer (refused, reset, too slow, no target to try): retries
    hide them from clients, so there may be more than requests. `latency_counts` are of requests that got an answer, by
    `latency_buckets.BOUNDS_MS`, from the last attempt's start to the answer's head; who left before it counts with the
    time waited. `open` is how many are under way; a difference keeps the later one. `since` names the node's start that
    the sums count from.
    """

    requests: int = 0
    errors_5xx: int = 0
    connect_errors: int = 0
    latency_counts: tuple[int, ...] = NO_COUNTS
    open: int = 0
    since: int = 0

    def __sub__(self, earlier: SideFigures) -> SideFigures:
        """Return what happened after `earlier`; all of it when the node started anew since then."""
        if self.since != earlier.since or self._below(earlier):
            return self
        return SideFigures(
            self.requests - earlier.requests,
            self.errors_5xx - earlier.errors_5xx,
            self.connect_errors - earlier.connect_errors,
            tuple(now - then for now, then in zip(self.latency_counts, earlier.latency_counts, strict=True)),
            self.open,
            self.since,
        )

    def __add__(self, other: SideFigures) -> SideFigures:
        """Return the figures of two nodes together; `since` means nothing any more unless both have the same."""
        return SideFigures(
            self.requests + other.requests,
            self.errors_5xx + other.errors_5xx,
            self.connect_errors + other.connect_errors,
            tuple(one + two for one, two in zip(self.latency_counts, other.latency_counts, strict=True)),
            self.open + other.open,
            self.since if self.since == other.since else 0,
        )

    def _below(self, earlier: SideFigures) -> bool:
        """Tell whether a sum fell: the node forgot the side in between, and counts it from nothing."""
        return (
            self.requests < earlier.requests
            or self.errors_5xx < earlier.errors_5xx
            or self.connect_errors < earlier.connect_errors
            or any(now < then for now, then in zip(self.latency_counts, earlier.latency_counts, strict=True))
        )

    @property
    def error_ratio(self) -> float | None:
        """Requests that failed of all that ended, None when none did."""
        return self.errors_5xx / self.requests if self.requests else None

    def quantile(self, q: float) -> float | None:
        """Return the latency in milliseconds that `q` of the answered requests kept to; None when there were none."""
        return quantile_ms(self.latency_counts, q)


def together(figures: Iterable[SideFigures]) -> SideFigures:
    """Return the figures of several nodes as one."""
    total = SideFigures()
    for each in figures:
        total = total + each
    return total


@dataclass(frozen=True, slots=True)
class MirrorFigures:
    """Sums of the copies that one node sent to an upstream; `failed` got no answer, `skipped` were over a limit."""

    sent: int = 0
    errors_5xx: int = 0
    failed: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class SideRow:
    """One side as a node reports it. `closed_late` counts what the drain deadline ended.

    `first_ns` is when its first answer began since the service uses it, `last_ns` when the last one did, by our
    monotonic clock as the node knows it; 0 = never, or not known.
    """

    service: str
    upstream: str
    figures: SideFigures
    mirror: MirrorFigures | None = None
    closed_late: int = 0
    first_ns: int = 0
    last_ns: int = 0


WINDOW_S = 10.0
"""What rates are of."""
READING_EVERY_S = 2.0
REPORT_EVERY_S = 1.0
ROWS_MAX = 20_000
"""Sides of all nodes together that are kept; later ones are not taken in."""


class _Kept:
    """The latest row of a side, and readings of the last seconds: the first is the last one outside of the window."""

    __slots__ = ("at", "readings", "row")

    def __init__(self, row: SideRow, now: float, *, new: bool) -> None:
        """`new` = it has counted all of that since the last report; else it is not known when."""
        self.row = row
        self.at = now
        begin = (now - REPORT_EVERY_S, SideFigures(since=row.figures.since)) if new else (now, row.figures)
        self.readings: list[tuple[float, SideFigures]] = [begin]

    def replace(self, row: SideRow, now: float) -> None:
        self.row = row
        self.at = now
        if now - self.readings[-1][0] >= READING_EVERY_S:
            self.readings.append((now, row.figures))
        while len(self.readings) > 1 and self.readings[1][0] <= now - WINDOW_S:
            self.readings.pop(0)

    def lately(self, now: float) -> tuple[float, SideFigures]:
        """Return over how many seconds, and what happened in them."""
        begin = now - WINDOW_S
        if self.at <= begin:
            return WINDOW_S, self.row.figures - self.row.figures
        at, figures = self.readings[0]
        for reading in self.readings[1:]:
            if reading[0] > begin:
                break
            at, figures = reading
        # Nodes say nothing while nothing changes: an old reading stands for the window's beginning.
        seconds = now - at if at > begin - READING_EVERY_S else WINDOW_S
        return max(seconds, 1.0), self.row.figures - figures


@dataclass(frozen=True, slots=True)
class SideRate:
    """What one node counted of one side in the last `seconds`, and all of it so far."""

    node: str
    row: SideRow
    seconds: float
    lately: SideFigures


class SideBook:
    """What each node said last of each side. `now` is a monotonic time in seconds."""

    def __init__(self) -> None:
        self._nodes: dict[str, dict[tuple[str, str], _Kept]] = {}
        self._incomplete: set[str] = set()  # nodes whose full report had no room for all
        self._rows = 0

    def report(self, node: str, rows: Iterable[SideRow], *, full: bool, now: float, omitted: int = 0) -> None:
        """Take in a report; after a `full` one sides that it does not name have counted nothing, unless some had to be
        omitted."""
        kept = self._nodes.setdefault(node, {})
        if full:
            self._incomplete.discard(node)
            if omitted:
                self._incomplete.add(node)
            self._rows -= len(kept)
            kept = self._nodes[node] = {}
        for row in rows:
            key = row.service, row.upstream
            known = kept.get(key)
            if known is not None:
                known.replace(row, now)
            elif self._rows < ROWS_MAX:
                kept[key] = _Kept(row, now, new=not full and node not in self._incomplete)
                self._rows += 1

    def keep_only(self, nodes: Collection[str]) -> None:
        """Forget all other nodes."""
        for node in self._nodes.keys() - set(nodes):
            self._rows -= len(self._nodes.pop(node))
            self._incomplete.discard(node)

    def figures(self, service: str) -> Mapping[str, Mapping[str, SideFigures]]:
        """Return the sums of a service's sides, by node and upstream; a side that a node never counted is not there."""
        found: dict[str, dict[str, SideFigures]] = {}
        for node, kept in self._nodes.items():
            for (of, upstream), each in kept.items():
                if of == service:
                    found.setdefault(node, {})[upstream] = each.row.figures
        return found

    def first_ns(self, node: str, services: Collection[str], upstreams: Collection[str]) -> int:
        """Return when the first answer of these sides began on a node, 0 when it is not known."""
        return min((row.first_ns for row in self._rows_of(node, services, upstreams) if row.first_ns), default=0)

    def last_ns(self, node: str, services: Collection[str], upstreams: Collection[str]) -> int:
        """Return when the last answer of these sides began on a node, 0 when it is not known."""
        return max((row.last_ns for row in self._rows_of(node, services, upstreams)), default=0)

    def _rows_of(self, node: str, services: Collection[str], upstreams: Collection[str]) -> Iterator[SideRow]:
        kept = self._nodes.get(node, {})
        for service in services:
            for upstream in upstreams:
                if (each := kept.get((service, upstream))) is not None:
                    yield each.row

    def rates(self, *, now: float) -> Sequence[SideRate]:
        """Return all that is known, with what happened lately."""
        return [
            SideRate(node, each.row, *each.lately(now)) for node, kept in self._nodes.items() for each in kept.values()
        ]
