"""How long to wait before dialling again: full jitter over an exponentially growing span.

Each wait is drawn from the whole span, not added to its end. A thousand nodes that lost the same control plane then
spread evenly, where "base plus a little jitter" would have them return in waves.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReconnectSettings:
    """All in seconds."""

    base_s: float = 0.2
    """Span of the first wait; it doubles with each failure."""
    cap_s: float = 15.0
    """The longest span, and so the longest time until all nodes are back after the control plane is."""
    stable_s: float = 60.0
    """A connection that lasted this long ends the growth."""
    refused_s: float = 300.0
    """Pace of knocking after a permanent refusal. It can end only by an upgrade of one side, so there is no hurry;
    giving up altogether would need an operator at each node after the upgrade."""


class Reconnect:
    """Counts failures and draws waits."""

    def __init__(self, settings: ReconnectSettings, rng: random.Random) -> None:
        self._settings = settings
        self._rng = rng
        self._failures = 0

    def after_loss(self, *, connected_s: float) -> float:
        """The wait after a failed dial (`connected_s` = 0) or a lost connection."""
        if connected_s >= self._settings.stable_s:
            self._failures = 0
        span = min(self._settings.cap_s, self._settings.base_s * 2.0 ** min(self._failures, 32))
        self._failures += 1
        return self._rng.uniform(0.0, span)

    def after_goodbye(self, *, min_s: float, max_s: float) -> float:
        """The wait that the control plane asked for; never longer than an hour, whatever it asked."""
        low = min(max(0.0, min_s), 3600.0)
        return self._rng.uniform(low, min(max(low, max_s), 3600.0))

    def after_refusal(self) -> float:
        """The wait after a permanent refusal."""
        return self._settings.refused_s * self._rng.uniform(0.8, 1.2)
