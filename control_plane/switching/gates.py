"""Is the new side worse than the old one? Figures of both sides over the same time, weighed by limits. Pure.

Each figure is compared with that of the other side at the same time, so that what ails both (a database, the network)
does not speak against the new one. What few requests show by chance breaks nothing: a gate breaks when even the
friendly end of what the figures allow is beyond its limit (`SURE`: one time in two hundred by chance, at one look).
Until then a figure beyond its limit is doubt, and a canary that is in doubt does not go on.

Nodes are judged one by one and all together: one node that can't reach the new side is as good a reason to go back as
a bad release, and is named; and a slight fault shows only in the sum.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.side_figures import SideFigures
from pointsman.rules.latency_buckets import BOUNDS_MS

SURE = 2.58
"""Standard deviations that a figure must be beyond its limit by."""
SLOWER_S_MIN = 0.010
"""A side that is slower by less than this is not slower, whatever the factor: 1 ms against 3 hurts nobody."""

NODES_KEPT_MAX = 100
"""Nodes whose tallies are kept and shown; those that break a gate are always named."""


class Gate(StrEnum):
    """The values are the operator's."""

    ERRORS = "errors"
    CONNECT = "connect"
    LATENCY = "latency"


class Outcome(StrEnum):
    """From the best to the worst."""

    GOOD = "good"
    TOO_FEW = "too_few"  # requests
    DOUBT = "doubt"  # beyond a limit, and it may be chance
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the new side may show. None = not asked for.

    `errors` and `connect` are shares of requests, beyond those of the old side. Latency is that of the share `quantile`
    of requests: at most `slower` times the old side's, or at most `latency_s`.
    """

    errors: float | None = 0.01
    connect: float | None = 0.01
    quantile: float = 0.99
    slower: float | None = 2.0
    latency_s: float | None = None
    min_requests: int = 50
    """Of the new side in the window, before it is judged; of the old one, before latencies are compared."""

    @property
    def any(self) -> bool:
        """Whether anything is asked for."""
        return not all(limit is None for limit in (self.errors, self.connect, self.slower, self.latency_s))

    def to_json(self) -> EntityBody:
        return {
            "errors": self.errors,
            "connect": self.connect,
            "quantile": self.quantile,
            "slower": self.slower,
            "latency_s": self.latency_s,
            "min_requests": self.min_requests,
        }


@dataclass(frozen=True, slots=True)
class Pair:
    """Both sides of a service over the same time; `node` = host name, empty for all nodes together."""

    service: str
    node: str
    old: SideFigures
    new: SideFigures


@dataclass(frozen=True, slots=True)
class Figure:
    """One comparison: what the new side showed, what the old one did meanwhile, and the limit. Shares, or seconds."""

    gate: Gate
    outcome: Outcome
    service: str
    node: str
    value: float | None
    other: float | None
    limit: float
    requests: int

    def to_json(self) -> EntityBody:
        return {
            "gate": self.gate.value,
            "outcome": self.outcome.value,
            "service": self.service,
            "node": self.node,
            "value": self.value,
            "other": self.other,
            "limit": self.limit,
            "requests": self.requests,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, JsonValue]) -> Figure:
        value, other, limit, requests = (told.get(name) for name in ("value", "other", "limit", "requests"))
        return cls(
            Gate(str(told["gate"])),
            Outcome(str(told["outcome"])),
            str(told["service"]),
            str(told["node"]),
            float(value) if isinstance(value, int | float) else None,
            float(other) if isinstance(other, int | float) else None,
            float(limit) if isinstance(limit, int | float) else 0.0,
            requests if isinstance(requests, int) else 0,
        )

    def text(self) -> str:
        """The figure in words: which one, of which node, against what."""
        where = f"on node {self.node}" if self.node else "over all nodes"
        match self.gate:
            case Gate.ERRORS:
                told = f"{_percent(self.value)} errors, the old side {_percent(self.other)}"
                limit = f"{_percent(self.limit)} more"
            case Gate.CONNECT:
                told = f"{_percent(self.value)} failed connections, the old side {_percent(self.other)}"
                limit = f"{_percent(self.limit)} more"
            case Gate.LATENCY:
                told = f"latency {_milliseconds(self.value)}, the old side {_milliseconds(self.other)}"
                limit = _milliseconds(self.limit)
            case _:
                assert_never(self.gate)
        return f"{self.service} {where}: {told} over {self.requests} requests; the limit is {limit}"


@dataclass(frozen=True, slots=True)
class Tally:
    """What one side did, for eyes; `latency_s` = of the quantile that the gates look at."""

    service: str
    node: str
    is_new: bool
    requests: int
    errors_5xx: int
    connect_errors: int
    latency_s: float | None

    def to_json(self) -> EntityBody:
        return {
            "service": self.service,
            "node": self.node,
            "side": "new" if self.is_new else "old",
            "requests": self.requests,
            "errors_5xx": self.errors_5xx,
            "connect_errors": self.connect_errors,
            "latency_s": self.latency_s,
        }

    @classmethod
    def from_json(cls, told: Mapping[str, JsonValue]) -> Tally:
        requests, errors, connect = (told.get(name) for name in ("requests", "errors_5xx", "connect_errors"))
        latency = told.get("latency_s")
        return cls(
            str(told["service"]),
            str(told["node"]),
            told["side"] == "new",
            requests if isinstance(requests, int) else 0,
            errors if isinstance(errors, int) else 0,
            connect if isinstance(connect, int) else 0,
            float(latency) if isinstance(latency, int | float) else None,
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gates say now; `figures` has the sum over all nodes first, then each node that could be judged.

    `tallies` has what they are founded on, in the same order and of every node, up to `NODES_KEPT_MAX` of them.
    `unwatched` names nodes that serve and whose figures are not known here: nothing of them is in the rest.
    """

    outcome: Outcome
    figures: tuple[Figure, ...] = ()
    tallies: tuple[Tally, ...] = ()
    unwatched: tuple[str, ...] = ()

    @property
    def worst(self) -> Figure | None:
        """The figure that the outcome is founded on; one that names a node before one that does not."""
        found = [figure for figure in self.figures if figure.outcome is self.outcome]
        return min(found, key=lambda figure: (not figure.node, -_excess(figure)), default=None)


NOT_ASKED = Verdict(Outcome.GOOD)
_ORDER = (Outcome.GOOD, Outcome.TOO_FEW, Outcome.DOUBT, Outcome.BROKEN)


def judge(limits: Limits, nodes: Sequence[Pair], sums: Sequence[Pair]) -> Verdict:
    """Weighs each node's sides and their sums, one a service."""
    tallies = tuple(_tallies(limits, (*sums, *nodes[:NODES_KEPT_MAX])))
    if not limits.any:
        return Verdict(Outcome.GOOD, (), tallies)
    figures: list[Figure] = []
    for pair in sums:
        figures += _figures(limits, pair)
    for pair in nodes:
        if pair.new.requests + pair.new.connect_errors >= limits.min_requests:
            figures += _figures(limits, pair)
    worst = max((figure.outcome for figure in figures), key=_ORDER.index, default=Outcome.TOO_FEW)
    return Verdict(worst, tuple(figures), tallies)


def _tallies(limits: Limits, pairs: Sequence[Pair]) -> Iterator[Tally]:
    for pair in pairs:
        for is_new, side in ((False, pair.old), (True, pair.new)):
            latency_s = _quantile_s(side, limits.quantile)
            counted = side.requests, side.errors_5xx, side.connect_errors
            yield Tally(pair.service, pair.node, is_new, *counted, latency_s)


def _figures(limits: Limits, pair: Pair) -> list[Figure]:
    found = []
    if limits.errors is not None:
        found.append(_share(Gate.ERRORS, limits, pair, limits.errors))
    if limits.connect is not None:
        found.append(_share(Gate.CONNECT, limits, pair, limits.connect))
    if limits.slower is not None or limits.latency_s is not None:
        found.append(_latency(limits, pair))
    return found


def _share(gate: Gate, limits: Limits, pair: Pair, limit: float) -> Figure:
    """A share of requests. An attempt without a connection may have ended without a request being counted."""
    new = pair.new.errors_5xx if gate is Gate.ERRORS else pair.new.connect_errors
    old = pair.old.errors_5xx if gate is Gate.ERRORS else pair.old.connect_errors
    new_all, old_all = max(pair.new.requests, new), max(pair.old.requests, old)
    value = new / new_all if new_all else None
    other = old / old_all if old_all else None
    if new_all < limits.min_requests:
        outcome = Outcome.TOO_FEW
    elif value is None or value - (other or 0.0) <= limit:
        outcome = Outcome.GOOD
    elif _least_excess(new, new_all, old, old_all) > limit:
        outcome = Outcome.BROKEN
    else:
        outcome = Outcome.DOUBT
    return Figure(gate, outcome, pair.service, pair.node, value, other, limit, new_all)


def _latency(limits: Limits, pair: Pair) -> Figure:
    """A quantile is judged by how many requests were slower than the limit: of 100, one may be, of 1000, ten.

    It never leaves doubt: the p99 of few requests is the luck of one of them, and no reason to stop.
    """
    q, new, old = limits.quantile, pair.new, pair.old
    value, other = _quantile_s(new, q), _quantile_s(old, q)
    bounds = [] if limits.latency_s is None else [limits.latency_s]
    if limits.slower is not None and other is not None and old.requests >= limits.min_requests:
        bounds.append(max(other * limits.slower, other + SLOWER_S_MIN))
    if new.requests < limits.min_requests:
        return Figure(
            Gate.LATENCY, Outcome.TOO_FEW, pair.service, pair.node, value, other, min(bounds, default=0.0), new.requests
        )
    if not bounds:
        return Figure(Gate.LATENCY, Outcome.GOOD, pair.service, pair.node, value, other, 0.0, new.requests)
    limit = min(bounds)
    slow = _slower_than(new, limit)
    outcome = Outcome.BROKEN if _least(slow, new.requests) > 1 - q else Outcome.GOOD
    return Figure(Gate.LATENCY, outcome, pair.service, pair.node, value, other, limit, new.requests)


def _quantile_s(side: SideFigures, q: float) -> float | None:
    milliseconds = side.quantile(q)
    return None if milliseconds is None else milliseconds / 1000


def _slower_than(side: SideFigures, seconds: float) -> int:
    """Requests that surely took longer: those of the buckets that begin there or later."""
    first = bisect_left(BOUNDS_MS, seconds * 1000) + 1
    return sum(side.latency_counts[first:])


def _least(count: int, of: int) -> float:
    """The least share that so many of so many allow: the lower end of Wilson's interval."""
    return _wilson(count, of)[0]


def _least_excess(new: int, new_all: int, old: int, old_all: int) -> float:
    """The least difference between two shares that the counts allow (Newcombe's interval of two of Wilson's)."""
    share, low = new / new_all, _wilson(new, new_all)[0]
    if not old_all:
        return low
    other, high = old / old_all, _wilson(old, old_all)[1]
    return share - other - math.hypot(share - low, high - other)


def _wilson(count: int, of: int) -> tuple[float, float]:
    share, square = count / of, SURE * SURE
    middle = share + square / (2 * of)
    spread = SURE * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    whole = 1 + square / of
    return (middle - spread) / whole, (middle + spread) / whole


def _excess(figure: Figure) -> float:
    """How far beyond the limit, in limits, so that figures of different kinds can be put in order."""
    beyond = (figure.value or 0.0) - (0.0 if figure.gate is Gate.LATENCY else figure.other or 0.0)
    return beyond / figure.limit if figure.limit else beyond


def _percent(share: float | None) -> str:
    return "no figure" if share is None else f"{100 * share:.3g} %"


def _milliseconds(seconds: float | None) -> str:
    return "no figure" if seconds is None else f"{1000 * seconds:.3g} ms"
