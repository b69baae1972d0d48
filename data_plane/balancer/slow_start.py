"""Slow start: an endpoint that is new or has recovered gets its share little by little.

A cold endpoint that at once gets all that its weight promises answers slowly, and may fall over again. For the set time
after it came, a pick that falls on it is kept with a probability that grows evenly from a tenth to one; otherwise
another endpoint takes the request. That needs nothing of the policies and leaves the others' proportions as they are.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from data_plane.balancer.endpoint import Endpoint

LEAST_SHARE = 0.1
"""Never nothing: an endpoint without any request would not warm up."""


class SlowStart:
    """The endpoints of one upstream that are on their way to their full share; false when there are none."""

    def __init__(self, clock: Callable[[], float], rng: random.Random) -> None:
        self.over_s = 0.0
        self._clock = clock
        self._rng = rng
        self._began: dict[Endpoint, float] = {}

    def __bool__(self) -> bool:
        return bool(self._began)

    def begin(self, endpoint: Endpoint) -> None:
        """The endpoint has just come, or come back."""
        if self.over_s > 0:
            self._began[endpoint] = self._clock()

    def end(self, endpoint: Endpoint) -> None:
        """The endpoint is down or gone."""
        self._began.pop(endpoint, None)

    def admits(self, endpoint: Endpoint) -> bool:
        """Tell whether a pick that fell on the endpoint stays there."""
        began = self._began.get(endpoint)
        if began is None:
            return True
        elapsed = self._clock() - began
        if elapsed >= self.over_s:
            del self._began[endpoint]
            return True
        return self._rng.random() < max(elapsed / self.over_s, LEAST_SHARE)
