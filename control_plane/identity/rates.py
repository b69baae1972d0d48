"""How much one caller may ask for: token buckets in a bounded table, by a clock that is handed in.

A bucket holds `burst` calls and refills at `per_s`. The table forgets the callers it has not heard of for longest; a
forgotten caller starts with a full bucket, so forgetting only ever errs in the caller's favour.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

CALLERS_MAX = 10_000


class Rate:
    """Calls a second, for each caller on its own."""

    def __init__(
        self, per_s: float, *, burst: float, clock: Callable[[], float], callers_max: int = CALLERS_MAX
    ) -> None:
        assert per_s > 0
        assert burst >= 1
        self._per_s = per_s
        self._burst = burst
        self._clock = clock
        self._callers_max = callers_max
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # what is left, and when that was so

    def take(self, caller: str) -> float:
        """Counts one call; 0.0 when it may go on, else the seconds until the next one may. A refusal is not counted."""
        left = self._left(caller)
        if left >= 1:
            self._keep(caller, left - 1)
            return 0.0
        self._keep(caller, left)
        return (1 - left) / self._per_s

    def wait_s(self, caller: str) -> float:
        """What `take` would answer, without counting."""
        left = self._left(caller)
        return 0.0 if left >= 1 else (1 - left) / self._per_s

    def _left(self, caller: str) -> float:
        left, since = self._buckets.get(caller, (self._burst, 0.0))
        return left if left >= self._burst else min(self._burst, left + (self._clock() - since) * self._per_s)

    def _keep(self, caller: str, left: float) -> None:
        self._buckets[caller] = (left, self._clock())
        self._buckets.move_to_end(caller)
        while len(self._buckets) > self._callers_max:
            self._buckets.popitem(last=False)
