"""Latency: of two endpoints drawn at random, the one that has answered sooner of late, for its weight.

Each endpoint has an average of its attempts' times that forgets with a window of ten seconds and follows a rise at once
(peak EWMA): a slow answer says more about now than the fast ones before it. Kong's is a plain average, compares all
endpoints, and so sends every request of every worker to the same one until it is slow; two random choices are as good
at finding fast ones and leave the others enough requests to be measured by. A failed attempt counts as a slow one: Kong
takes a refused connection for the fastest answer of all.

Whoever loses every draw is measured no more, and one slow answer, of a server that has just started, would keep it out
for as long as its average takes to fade: most of a minute. So an endpoint that nobody has asked for a while gets one
request to be measured by, and what that takes replaces the average. An endpoint that stays slow costs at most a tenth
of one connection's time.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Sequence

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.policy import STEP, Steps, at_once, let_go

WINDOW_S = 10.0
FAILURE_S = 1.0
"""What a failed attempt counts as, at least."""
UNASKED_S = 1.0
UNASKED_AVERAGES = 10.0
"""An endpoint is measured when nobody has asked it for the longer of these: seconds, and times its average."""


class _Average:
    """`at` is when it was renewed, `measured_from` when a request that is to renew it was sent; -1 = none is under way.

    That request may never be reported (its client went away), so another one follows after the same time.
    """

    __slots__ = ("at", "measured_from", "seconds")

    def __init__(self, seconds: float, at: float) -> None:
        self.seconds = seconds
        self.at = at
        self.measured_from = -1.0

    def now(self, now: float) -> float:
        return self.seconds * math.exp(-max(0.0, now - self.at) / WINDOW_S)

    def unasked(self, now: float) -> bool:
        """Whether it is time to measure."""
        since = self.at if self.at > self.measured_from else self.measured_from
        return now - since > UNASKED_S and now - since > UNASKED_AVERAGES * self.seconds


class Latency:
    """The policy. `observed` must follow every attempt that ended by itself."""

    def __init__(self, clock: Callable[[], float], rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rng = rng if rng is not None else random.Random(0)  # noqa: S311 - drawing lots is not cryptography
        self._averages: dict[Endpoint, _Average] = {}
        self._live: list[Endpoint] = []
        self._flips = 0

    def reconcile(self, endpoints: Sequence[Endpoint]) -> None:
        at_once(self.reconcile_steps(endpoints))

    def reconcile_steps(self, endpoints: Sequence[Endpoint]) -> Steps:
        now = self._clock()
        before = self._averages
        averages: dict[Endpoint, _Average] = {}
        new: list[Endpoint] = []
        total, known = 0.0, 0
        for number, endpoint in enumerate(endpoints):
            if endpoint in before:
                averages[endpoint] = average = before[endpoint]
                if endpoint.available:
                    total += average.now(now)
                    known += 1
            else:
                new.append(endpoint)
            if number % STEP == STEP - 1:
                yield
        mean = total / (known + len(new)) if new else 0.0
        for number, endpoint in enumerate(new):
            averages[endpoint] = _Average(mean, now)
            if number % STEP == STEP - 1:
                yield
        live: list[Endpoint] = []
        flips = self._flips
        for number, endpoint in enumerate(endpoints):
            if endpoint.available:
                live.append(endpoint)
            if number % STEP == STEP - 1:
                yield
        if flips != self._flips:
            live = [endpoint for endpoint in endpoints if endpoint.available]
        self._averages, self._live = averages, live
        yield from let_go(before)

    def availability_changed(self, endpoint: Endpoint) -> None:
        self._flips += 1
        if endpoint not in self._averages:
            return
        if endpoint.available:
            # Whoever comes back begins in the middle: at nothing it would get everything at once.
            now = self._clock()
            self._averages[endpoint] = _Average(self._mean(now), now)
            self._live.append(endpoint)
        else:
            self._live.remove(endpoint)

    def observed(self, endpoint: Endpoint, seconds: float, *, failed: bool = False) -> None:
        """Follow the time of an attempt, from the start of connecting to the end of the answer."""
        average = self._averages.get(endpoint)
        if average is None:
            return
        now = self._clock()
        if failed:
            seconds = max(seconds, FAILURE_S)
        before = average.now(now)
        if seconds >= before or average.measured_from >= 0:
            average.seconds = seconds
            average.measured_from = -1.0
        else:
            kept = math.exp(-max(0.0, now - average.at) / WINDOW_S)
            average.seconds = average.seconds * kept + seconds * (1 - kept)
        average.at = now

    def pick(self, excluded: Collection[Endpoint], key: bytes) -> Endpoint | None:
        del key
        live = self._live
        if excluded:
            live = [endpoint for endpoint in live if endpoint not in excluded]
        if not live:
            return None
        if len(live) == 1:
            return live[0]
        first = int(self._rng.random() * len(live))
        second = int(self._rng.random() * (len(live) - 1))
        if second >= first:
            second += 1
        one, other = live[first], live[second]
        now = self._clock()
        if self._score(one, now) > self._score(other, now):
            one, other = other, one
        loser = self._averages[other]
        if loser.unasked(now) and not excluded:  # a repeated attempt is no time for experiments
            loser.measured_from = now
            return other
        return one

    def _score(self, endpoint: Endpoint, now: float) -> float:
        return self._averages[endpoint].now(now) / endpoint.weight

    def _mean(self, now: float) -> float:
        """The mean of all that are available, one newcomer counting as nothing."""
        known = [self._averages[endpoint].now(now) for endpoint in self._live if endpoint in self._averages]
        return sum(known) / (len(known) + 1)
