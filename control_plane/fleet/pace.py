"""In what row a plain change goes out to the nodes that do not try it first: a few, and others as these come through.

    join(nodes) --> three are told --each answer--> one more
                          `----each `widen_s`-----> four times as many at the same time

Told all at once, every node of a fleet turns to the change in the same few milliseconds: on machines that nodes share
with each other, with us or with what they proxy to, requests then wait in line behind all of them, and the change is
everywhere no sooner. A fleet of ten is through before the row is widened. A thousand nodes that are far away are all
told when it was widened five times; one that never answers holds nothing up.

Pure: events and the clock come in, the nodes to tell come out. `offers.py` does the telling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

AT_FIRST = 3
WIDEN_BY = 4
WIDEN_S = 0.040


class Pace:
    """Who is told next. Times are seconds; the number of nodes bounds all that is kept."""

    def __init__(self, *, widen_s: float = WIDEN_S) -> None:
        self._widen_s = widen_s
        self._waiting: dict[str, None] = {}
        self._told: set[str] = set()
        self._at_once = AT_FIRST
        self._due = 0.0

    @property
    def due(self) -> float | None:
        """When more are told at the same time; None = nobody waits."""
        return self._due if self._waiting else None

    def join(self, nodes: Iterable[str], *, now: float) -> Sequence[str]:
        """These have something to be told. Who waits already keeps its place, so that no node is passed over for ever
        where changes follow each other faster than a row comes to its end."""
        if not self._waiting:
            self._told.clear()
            self._at_once = AT_FIRST
            self._due = now + self._widen_s
        for node in nodes:
            self._waiting.setdefault(node)
        return self._next()

    def answered(self, node: str) -> Sequence[str]:
        """It has done with what it was told, or is gone."""
        if node not in self._told:
            return []
        self._told.discard(node)
        return self._next()

    def overdue(self, *, now: float) -> Sequence[str]:
        """More of them, once it is time."""
        if not self._waiting or now < self._due:
            return []
        self._at_once *= WIDEN_BY
        self._due = now + self._widen_s
        return self._next()

    def _next(self) -> Sequence[str]:
        chosen: list[str] = []
        while self._waiting and len(self._told) < self._at_once:
            node = next(iter(self._waiting))
            del self._waiting[node]
            self._told.add(node)
            chosen.append(node)
        return chosen
