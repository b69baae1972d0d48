"""Least connections: the endpoint with the fewest requests in flight for its weight.

The score is (in flight + 1) / weight, as in Kong; the + 1 lets an idle pool begin with the heaviest. Equal scores take
turns: whoever was used last goes behind the others, so that workers with idle pools do not all pick the same one.

A heap holds the scores. An endpoint whose score changes gets a new entry and a new stamp, and entries with old stamps
are dropped when they come up, which keeps pick, take and release at O(log n) with any number of endpoints.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Collection, Sequence

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.policy import STEP, Steps, at_once, let_go

_Entry = tuple[float, int, Endpoint]


class LeastConnections:
    """The policy. `load_changed` must follow every change of an endpoint's `in_flight`."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng
        self._stamps: dict[Endpoint, int] = {}
        self._stamp = 0
        self._heap: list[_Entry] = []
        self._touched: set[Endpoint] | None = None  # whose load changed while a new heap is made

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        at_once(self.reconcile_steps(endpoints))

    def reconcile_steps(self, endpoints: Sequence[Endpoint]) -> Steps:
        before = self._stamps
        touched = self._touched = set[Endpoint]()
        new: list[Endpoint] = []
        stamps: dict[Endpoint, int] = {}
        heap: list[_Entry] = []
        for number, endpoint in enumerate(endpoints):
            if endpoint in before:
                stamps[endpoint] = stamp = before[endpoint]
                if endpoint.available:
                    heap.append((_score(endpoint), stamp, endpoint))
            else:
                new.append(endpoint)
            if number % STEP == STEP - 1:
                yield
        rng = self._rng
        for last in range(len(new) - 1, 0, -1) if rng is not None else ():
            assert rng is not None
            drawn = int(rng.random() * (last + 1))
            new[last], new[drawn] = new[drawn], new[last]
            if last % STEP == 0:
                yield
        for number, endpoint in enumerate(new):
            self._stamp += 1
            stamps[endpoint] = self._stamp
            if endpoint.available:
                heap.append((_score(endpoint), self._stamp, endpoint))
            if number % STEP == STEP - 1:
                yield
        yield
        heapq.heapify(heap)
        yield
        old_heap = self._heap
        self._stamps, self._heap = stamps, heap
        self._touched = None
        for endpoint in touched:
            self.load_changed(endpoint)
        yield from let_go(old_heap, before)

    def availability_changed(self, endpoint: Endpoint) -> None:
        if endpoint in self._stamps:
            self.load_changed(endpoint)

    def load_changed(self, endpoint: Endpoint) -> None:
        """Follow a change of the endpoint's `in_flight`."""
        if self._touched is not None:
            self._touched.add(endpoint)
        if endpoint not in self._stamps:
            return  # retired, or of weight 0, with requests still in flight
        self._stamp += 1
        self._stamps[endpoint] = self._stamp
        if endpoint.available:
            heapq.heappush(self._heap, (_score(endpoint), self._stamp, endpoint))
            if len(self._heap) > 4 * len(self._stamps) + 64:
                self._rebuild()

    def pick(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        del key
        heap = self._heap
        passed: list[_Entry] = []
        found: Endpoint | None = None
        while heap:
            entry = heap[0]
            endpoint = entry[2]
            if entry[1] != self._stamps.get(endpoint) or not endpoint.available:
                heapq.heappop(heap)
            elif endpoint in excluded:
                passed.append(heapq.heappop(heap))
            else:
                found = endpoint
                break
        for entry in passed:
            heapq.heappush(heap, entry)
        return found

    def _rebuild(self) -> None:
        self._heap = [
            (_score(endpoint), stamp, endpoint) for endpoint, stamp in self._stamps.items() if endpoint.available
        ]
        heapq.heapify(self._heap)


def _score(endpoint: Endpoint) -> float:
    return (endpoint.in_flight + 1) / endpoint.weight
