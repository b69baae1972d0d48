"""Weighted round-robin: exact over every revolution, smooth within it, O(log n) a pick and O(n) memory.

A revolution is one turn for each unit of weight, after dividing all weights by their greatest common divisor. The k-th
of an endpoint's w turns is due at (k + 1/2) / w of the revolution, and a pick takes the earliest due. So in any
`sum(weights)` picks in a row each endpoint gets exactly its weight, and its turns lie evenly among the others'. Kong
shuffles a list of that length; this has the same counts without the list (weights 65535 and 65534 would need 131,069
entries in each worker) and without the bursts. The usual smooth weighted round-robin looks at every endpoint for every
pick, which is 1 ms with 10,000 of them.

Due times are floats and need not be exact: which turns belong to a revolution is counted in whole numbers.
"""

from __future__ import annotations

import heapq
import math
import random
import zlib
from collections.abc import Collection, Sequence

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.policy import STEP, Steps, at_once, let_go


class _Turns:
    """One endpoint's place in the revolution. `taken` may exceed `weight`: turns borrowed from the next revolution.

    `revolution` is the one `taken` counts in, for an endpoint that is down and comes back.
    """

    __slots__ = ("endpoint", "order", "revolution", "taken", "weight")

    def __init__(self, endpoint: Endpoint, order: int, weight: int, taken: int) -> None:
        self.endpoint = endpoint
        self.order = order
        self.weight = weight
        self.taken = taken
        self.revolution = 0

    def due(self) -> float:
        return (self.taken + 0.5) / self.weight


class RoundRobin:
    """The policy. With an `rng` it begins at a random place, so that the workers of a fleet don't march in step."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._turns: dict[Endpoint, _Turns] = {}
        self._live: list[_Turns] = []
        self._due: list[tuple[float, int, _Turns]] = []
        # Where in the revolution we are, 0 to 1.
        self._now = rng.random() if rng is not None else 0.0
        self._revolution = 0
        self._live_changed = False
        self._flips = 0
        self._salt = rng.getrandbits(32) if rng is not None else None

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        at_once(self.reconcile_steps(endpoints))

    def reconcile_steps(self, endpoints: Sequence[Endpoint]) -> Steps:
        divisor = math.gcd(*(endpoint.weight for endpoint in endpoints))
        if self._live_changed:
            self._queue_live()
        if not self._due and self._turns:
            self._now = 1.0  # the revolution is over, only the next has not begun: nobody is ahead or behind
        now = self._now
        before = self._turns
        made: dict[Endpoint, _Turns] = {}
        live: list[_Turns] = []
        due: list[tuple[float, int, _Turns]] = []
        flips = self._flips
        for index, endpoint in enumerate(endpoints):
            weight = endpoint.weight // divisor
            old = before.get(endpoint)
            if old is None:
                taken = _taken_by(now, weight)
            elif old.weight == weight:
                taken = old.taken
            else:
                # How far it is ahead of its share stays the same, in requests.
                ahead = old.taken - now * old.weight
                taken = max(0, math.floor(now * weight + ahead + 0.5))
            turns = made[endpoint] = _Turns(endpoint, self._order(index, endpoint), weight, taken)
            if endpoint.available:
                live.append(turns)
                if taken < weight:
                    due.append((turns.due(), turns.order, turns))
            if index % STEP == STEP - 1:
                yield
        yield
        heapq.heapify(due)
        yield
        old_live, old_due = self._live, self._due
        self._turns = made
        if flips != self._flips:
            self._queue_live()
        else:
            self._live_changed = False
            self._live, self._due = live, due
        yield from let_go(old_due, old_live, before)

    def availability_changed(self, endpoint: Endpoint) -> None:
        self._flips += 1
        turns = self._turns.get(endpoint)
        if turns is None:
            return
        if endpoint.available:
            if not self._due and not self._live_changed:
                self._now = 1.0  # the revolution is over, as in `reconcile`: the one who comes back waits for the next
            # The turns it missed are gone: it does not get the next ones all at once.
            taken = turns.taken if turns.revolution == self._revolution else 0
            turns.taken = max(taken, _taken_by(self._now, turns.weight))
        else:
            turns.revolution = self._revolution
        # Queued again by the next pick, so that many changes at once cost one walk over the endpoints.
        self._due = []
        self._live_changed = True

    def pick(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        del key
        if excluded:
            return self._pick_other(excluded)
        if not self._due and not self._queue():
            return None
        due, order, turns = self._due[0]
        self._now = due
        turns.taken += 1
        if turns.taken < turns.weight:
            heapq.heapreplace(self._due, (turns.due(), order, turns))
        else:
            heapq.heappop(self._due)
        return turns.endpoint

    def _pick_other(self, excluded: Collection[Endpoint]) -> Endpoint | None:
        # A look at all is fine here: it happens once a failed attempt. A turn taken out of order is borrowed, so the
        # counts of later revolutions make up for it.
        if self._live_changed:
            self._queue_live()
        others = [turns for turns in self._live if turns.endpoint not in excluded]
        if not others:
            return None
        turns = min(others, key=lambda turns: (turns.due(), turns.order))
        turns.taken += 1
        self._due = [entry for entry in self._due if entry[2] is not turns]
        if turns.taken < turns.weight:
            self._due.append((turns.due(), turns.order, turns))
        heapq.heapify(self._due)
        return turns.endpoint

    def _queue(self) -> bool:
        """Queue turns when none is queued; False when nobody is live."""
        if self._live_changed:
            self._queue_live()
            if self._due:
                return True
        if not self._live:
            return False
        self._now = 0.0
        self._revolution += 1
        while not self._due:
            for turns in self._live:
                turns.taken = max(0, turns.taken - turns.weight)
            self._fill()
        return True

    def _queue_live(self) -> None:
        self._live_changed = False
        self._live = [turns for turns in self._turns.values() if turns.endpoint.available]
        self._fill()

    def _fill(self) -> None:
        self._due = [(turns.due(), turns.order, turns) for turns in self._live if turns.taken < turns.weight]
        heapq.heapify(self._due)

    def _order(self, index: int, endpoint: Endpoint) -> int:
        """Who is first among those due at the same time; an endpoint keeps its place as far as the set allows."""
        if self._salt is None:
            return index
        return zlib.crc32(endpoint.key.encode(), self._salt) << 32 | index


def _taken_by(now: float, weight: int) -> int:
    """How many of its turns are due before `now`."""
    return max(0, math.ceil(now * weight - 0.5))
