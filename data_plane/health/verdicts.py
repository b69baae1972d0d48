"""The verdicts of one node on all endpoints of all upstreams: what is tracked, what a report changes, what is kept.

Upstreams are known by name and endpoints by key (`data_plane/balancer/endpoint.py`), so that nothing an operator may
edit (weights, ids, thresholds) forgets a verdict. What vanishes from the config keeps its verdict for five minutes, as
in Kong: a target that is deleted and made again is not innocent because of that.

Times come from the caller; nothing here waits or looks at a clock.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import assert_never

from data_plane.health.state import EndpointHealth, Event, State
from data_plane.model import Healthchecks, Thresholds

KEPT_S = 300.0


class Source(enum.Enum):
    """Who saw it: a probe, or a proxied request."""

    ACTIVE = "active"
    PASSIVE = "passive"


@dataclass(frozen=True, slots=True)
class Transition:
    """An endpoint that became available or stopped being so."""

    upstream: str
    key: str
    available: bool


@dataclass(frozen=True, slots=True)
class EndpointVerdict:
    """What is thought of an endpoint now. `state` is None where nothing is tracked; then it is available."""

    key: str
    state: State | None
    available: bool


class _Upstream:
    def __init__(self, checks: Healthchecks) -> None:
        self.checks = checks
        self.endpoints: dict[str, EndpointHealth] = {}
        self.gone: dict[str, tuple[EndpointHealth, float]] = {}  # with the time until which it is kept


class Verdicts:
    """All upstreams of a node. Calls return the transitions they cause, which is what workers are told."""

    def __init__(self) -> None:
        self._upstreams: dict[str, _Upstream] = {}

    def reconcile(self, upstream: str, checks: Healthchecks, keys: Iterable[str], *, now: float) -> list[Transition]:
        """Track the endpoints with these keys (those of a positive weight) by these checks.

        Returns what differs from "available" or from before, so that the caller can pass it on as it is. With checking
        off nothing is tracked and everything is available.
        """
        known = self._upstreams.get(upstream)
        if not checking_enabled(checks):
            self._upstreams.pop(upstream, None)
            return [] if known is None else _all_available(upstream, known)
        if known is None:
            known = self._upstreams[upstream] = _Upstream(checks)
        known.checks = checks
        wanted = set(keys)
        for key in known.endpoints.keys() - wanted:
            known.gone[key] = (known.endpoints.pop(key), now + KEPT_S)
        transitions = []
        for key in sorted(wanted - known.endpoints.keys()):
            before = known.gone.pop(key, None)
            kept = before is not None and before[1] > now
            known.endpoints[key] = health = before[0] if before is not None and kept else EndpointHealth()
            if not health.available:
                transitions.append(Transition(upstream, key, available=False))
        return transitions

    def rename(self, names: Mapping[str, str]) -> None:
        """Upstreams have got other names (before -> after): their verdicts go with them."""
        moved = {after: self._upstreams.pop(before) for before, after in names.items() if before in self._upstreams}
        self._upstreams.update(moved)

    def forget(self, upstream: str, *, now: float) -> None:
        """The upstream is gone from the config; its verdicts are kept for a while in case it comes back."""
        known = self._upstreams.get(upstream)
        if known is not None:
            for key, health in known.endpoints.items():
                known.gone[key] = (health, now + KEPT_S)
            known.endpoints = {}

    def purge(self, *, now: float) -> None:
        """Let go of what was kept long enough. To be called every now and then."""
        for name, known in list(self._upstreams.items()):
            known.gone = {key: kept for key, kept in known.gone.items() if kept[1] > now}
            if not known.endpoints and not known.gone:
                del self._upstreams[name]

    def observe(self, upstream: str, key: str, source: Source, event: Event) -> Transition | None:
        """Count what was seen; what is not tracked is ignored."""
        known = self._upstreams.get(upstream)
        health = known.endpoints.get(key) if known is not None else None
        if known is None or health is None:
            return None
        if health.observe(event, limit_of(known.checks, source, event)):
            return Transition(upstream, key, available=health.available)
        return None

    def observe_status(self, upstream: str, key: str, source: Source, status: int) -> Transition | None:
        """Count an answer by its status; 0 is one that could not be read."""
        known = self._upstreams.get(upstream)
        if known is None:
            return None
        event = event_of_status(known.checks, source, status)
        return None if event is None else self.observe(upstream, key, source, event)

    def put(self, upstream: str, key: str, *, available: bool) -> Transition | None:
        """Set a verdict by hand. Nothing happens to what is not tracked."""
        known = self._upstreams.get(upstream)
        health = known.endpoints.get(key) if known is not None else None
        if health is not None and health.put(available=available):
            return Transition(upstream, key, available=available)
        return None

    def tracks(self, upstream: str, key: str) -> bool:
        """Tell whether there is a verdict that can be set."""
        known = self._upstreams.get(upstream)
        return known is not None and key in known.endpoints

    def verdict(self, upstream: str, key: str) -> EndpointVerdict:
        """Return what is thought of an endpoint."""
        known = self._upstreams.get(upstream)
        health = known.endpoints.get(key) if known is not None else None
        if health is None:
            return EndpointVerdict(key, None, available=True)
        return EndpointVerdict(key, health.state, available=health.available)

    def unavailable(self, upstream: str) -> list[str]:
        """Return the keys of the endpoints that are down, for a worker that has just started."""
        known = self._upstreams.get(upstream)
        return [] if known is None else [key for key, health in known.endpoints.items() if not health.available]

    def to_probe(self, upstream: str, *, available: bool) -> list[str]:
        """Return the keys that the probes of available endpoints, or of the others, go to."""
        known = self._upstreams.get(upstream)
        if known is None:
            return []
        return [key for key, health in known.endpoints.items() if health.available == available]


def checking_enabled(checks: Healthchecks) -> bool:
    """Tell whether anything is checked. Thresholds of successes alone switch nothing on."""
    active, passive = checks.active, checks.passive.unhealthy
    return bool(
        active.healthy.interval_s
        or active.unhealthy.interval_s
        or passive.tcp_failures
        or passive.timeouts
        or passive.http_failures
    )


def event_of_status(checks: Healthchecks, source: Source, status: int) -> Event | None:
    """Return what a status means to a source: success, failure, or nothing. A status in both lists is a success."""
    healthy, unhealthy = _halves(checks, source)
    if status in healthy.http_statuses:
        return Event.SUCCESS
    if status in unhealthy.http_statuses or status == 0:
        return Event.HTTP
    return None


def limit_of(checks: Healthchecks, source: Source, event: Event) -> int:
    """Return how many such events flip the verdict; 0 = they don't count."""
    healthy, unhealthy = _halves(checks, source)
    match event:
        case Event.SUCCESS:
            return healthy.successes
        case Event.HTTP:
            return unhealthy.http_failures
        case Event.TCP:
            return unhealthy.tcp_failures
        case Event.TIMEOUT:
            return unhealthy.timeouts
        case _:
            assert_never(event)


def _halves(checks: Healthchecks, source: Source) -> tuple[Thresholds, Thresholds]:
    match source:
        case Source.ACTIVE:
            return checks.active.healthy, checks.active.unhealthy
        case Source.PASSIVE:
            return checks.passive.healthy, checks.passive.unhealthy
        case _:
            assert_never(source)


def _all_available(upstream: str, known: _Upstream) -> list[Transition]:
    return [
        Transition(upstream, key, available=True) for key, health in known.endpoints.items() if not health.available
    ]
