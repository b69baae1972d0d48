"""What each side did lately: the nodes' running sums, made into windows that move with the time. Pure.

The window of a step begins with the step and never grows longer than asked for, so that a fault late in a long step is
not lost among the many requests before it. Nodes report about once a second, so the first report after the step's begin
is of both times: a node's part of the window begins with that one. A node that starts anew counts from nothing, and
what it counts since is of the window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from control_plane.fleet.side_figures import SideFigures

SPACING_S = 0.5
"""Between the moments of the past that are remembered."""


@dataclass(slots=True)
class _Track:
    """One side on one node: the last reading, and what was added up to moments of the past."""

    last: SideFigures
    added: SideFigures
    past: deque[tuple[float, SideFigures]] = field(default_factory=deque)


class Windows:
    """The windows of one step of a canary. Times are seconds of a monotonic clock."""

    def __init__(self, *, length_s: float) -> None:
        self._length_s = length_s
        self._tracks: dict[str, dict[tuple[str, str], _Track]] = {}
        self._before: dict[tuple[str, str], Mapping[str, SideFigures]] = {}
        """What nodes, that have reported nothing new since, said of a service when the window began."""

    def note(self, service: str, readings: Mapping[str, Mapping[str, SideFigures]], now: float) -> None:
        """Takes in what nodes, by id, say of a service's sides, by upstream id."""
        tracks = self._tracks.setdefault(service, {})
        known = {node for node, _ in tracks}
        for node, sides in readings.items():
            if node not in known:
                self._begin(service, node, sides, now)
                continue
            for upstream, reading in sides.items():
                track = tracks.get((node, upstream))
                if track is None:  # a side that a node names for the first time has counted from nothing
                    track = tracks[node, upstream] = _Track(SideFigures(since=reading.since), SideFigures())
                    track.past.append((now, track.added))
                track.added += reading - track.last
                track.last = reading
        for track in tracks.values():
            if now - track.past[-1][0] >= SPACING_S:
                track.past.append((now, track.added))
            while len(track.past) > 1 and track.past[1][0] <= now - self._length_s:
                track.past.popleft()

    def _begin(self, service: str, node: str, sides: Mapping[str, SideFigures], now: float) -> None:
        """Waits for the node's first report of the window's time, and counts from that one."""
        before = self._before.setdefault((service, node), sides)
        if before == sides:
            return
        for upstream, reading in sides.items():
            track = self._tracks[service][node, upstream] = _Track(reading, SideFigures())
            track.past.append((now, track.added))

    def nodes(self, service: str) -> Iterator[str]:
        """Ids of the nodes that have said something of the service."""
        yield from dict.fromkeys(node for node, _ in self._tracks.get(service, ()))

    def of(self, service: str, node: str, upstream: str) -> SideFigures:
        """What the side did on the node within the window."""
        track = self._tracks.get(service, {}).get((node, upstream))
        return SideFigures() if track is None else track.added - track.past[0][1]
