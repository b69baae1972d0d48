"""Probing by a few for all: which nodes probe, and what the others are told. Pure.

With N nodes a target is probed N times an interval; beyond some fifty nodes that is a load of its own. So in each zone
a few nodes probe, chosen by rendezvous hash: each node has a fixed rank, the lowest ranks probe, and when one goes the
next takes over while the others stay what they were. All other nodes of the zone hear from us what the probers of
*their* zone see, so a network split between zones stays visible.

A target that is not named in a hint, or not for a while, is probed by every node itself. That is the rule which keeps
this safe: silence of ours means more probes, never fewer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

from control_plane.fleet import messages
from control_plane.fleet.health import AddressReport, HealthBook, Key, TargetReport, TargetVerdict

TARGETS_PER_FRAME = 500
"""Keeps a hint well below what a node receives in one message."""


class Sampling(StrEnum):
    """An upstream's `probe_sampling`."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


def probers(zones: Mapping[str, str], *, per_zone: int) -> dict[str, tuple[str, ...]]:
    """Return each zone's probing nodes from the zone of each live node; all of them where there are no more."""
    members: dict[str, list[str]] = {}
    for node, zone in zones.items():
        members.setdefault(zone, []).append(node)
    return {zone: tuple(sorted(sorted(nodes, key=_rank)[:per_zone])) for zone, nodes in members.items()}


def sampled(mode: Sampling, *, nodes: int, nodes_min: int) -> bool:
    """Whether an upstream is probed by a few; `nodes` are live, `auto` samples above `nodes_min`."""
    return mode is Sampling.ON or (mode is Sampling.AUTO and nodes > nodes_min)


class Hints:
    """What each zone was told, and what it must be told now."""

    def __init__(self, book: HealthBook, *, refresh_s: float, per_zone: int, nodes_min: int) -> None:
        self._book = book
        self._refresh_s = refresh_s
        self._per_zone = per_zone
        self._nodes_min = nodes_min
        self._told: dict[str, tuple[str, ...]] = {}  # probers by zone
        self._full_at: dict[str, float] = {}

    def due(self, zones: Mapping[str, str], modes: Mapping[str, Sampling], *, now: float) -> dict[str, Sequence[bytes]]:
        """Return the frames to send by zone: changed targets, or all of them when that is due.

        `zones` has each live node's zone, `modes` the upstreams whose sampling is not `auto`; `now` is monotonic.
        """
        changed = self._book.take_changed()
        auto = sampled(Sampling.AUTO, nodes=len(zones), nodes_min=self._nodes_min)
        if not auto and Sampling.ON not in modes.values():
            return self._silence()
        frames: dict[str, Sequence[bytes]] = {}
        for zone, chosen in probers(zones, per_zone=self._per_zone).items():
            full = now - self._full_at.get(zone, -self._refresh_s) >= self._refresh_s or self._told.get(zone) != chosen
            keys = self._book.targets(chosen) if full else changed
            wanted = sorted(
                key
                for key in keys
                if sampled(modes.get(key[0], Sampling.AUTO), nodes=len(zones), nodes_min=self._nodes_min)
            )
            if full:
                self._full_at[zone] = now
                self._told[zone] = chosen
            if full or wanted:
                frames[zone] = _frames([self._hint(key, chosen) for key in wanted], chosen)
        for gone in self._told.keys() - set(zones.values()):
            del self._told[gone]
            del self._full_at[gone]
        return frames

    def _silence(self) -> dict[str, Sequence[bytes]]:
        """The last word where there was sampling: every node probes."""
        frames: dict[str, Sequence[bytes]] = {zone: _frames([], ()) for zone in self._told}
        self._told.clear()
        self._full_at.clear()
        return frames

    def _hint(self, key: Key, chosen: Sequence[str]) -> TargetReport:
        verdict = self._book.verdict(*key, chosen)
        return TargetReport(*key, removed=True) if verdict is None or not verdict.nodes else _as_report(verdict)


def _as_report(verdict: TargetVerdict) -> TargetReport:
    addresses = []
    for address in verdict.addresses:
        agreeing = [report for report in address.said.values() if report.state is address.state]
        first = min(agreeing, key=lambda report: report.since)
        addresses.append(
            AddressReport(address.ip, address.port, address.weight, address.state, first.since, first.reason)
        )
    return TargetReport(
        upstream=verdict.upstream,
        target=verdict.target,
        error=verdict.error if not addresses else "",
        record_type=verdict.record_type,
        addresses=tuple(addresses),
    )


def _frames(reports: Sequence[TargetReport], chosen: Sequence[str]) -> list[bytes]:
    starts: Iterable[int] = range(0, max(1, len(reports)), TARGETS_PER_FRAME)
    return [messages.fleet_health(reports[start : start + TARGETS_PER_FRAME], chosen) for start in starts]


def _rank(node: str) -> bytes:
    return hashlib.blake2b(node.encode(), digest_size=8).digest()
