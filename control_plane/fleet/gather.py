"""When a change goes out to the nodes: the timing core of coalescing, without clock or I/O.

A change after a quiet time goes out at once, because an operator's single edit must not wait for one that never comes.
Changes that follow each other closely are gathered, so that a burst costs the fleet one snapshot and not one a write.
The window stays short until writes come faster than nodes gain from seeing each; it never grows beyond a tenth of a
second, so that "gathered" can't become "late". A writer that waits for the nodes ends the gathering.

Times are seconds of a monotonic clock that the caller reads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GatherSettings:
    """How long changes are gathered."""

    quiet_s: float = 0.020
    """Silence before a change that lets it go out at once; also the shortest window of a burst."""
    window_s_max: float = 0.100
    """The longest window of a burst; a change is never held back longer than this."""
    busy_per_s: float = 50.0
    """Writes a second above which the window grows, in proportion, up to `window_s_max`."""


class Gather:
    """Holds back changes until they are due.

    `due` is the time at which what is pending should go out, or None when nothing is pending.
    """

    def __init__(self, settings: GatherSettings | None = None) -> None:
        self._settings = settings or GatherSettings()
        self._last_change: float = -math.inf
        self._rate = 0.0
        self._due: float | None = None

    @property
    def due(self) -> float | None:
        return self._due

    def changed(self, now: float) -> None:
        """A version was committed."""
        since = now - self._last_change
        self._last_change = now
        # The sum of all writes, each fading with an age of one second: in a steady stream, writes per second.
        self._rate = self._rate * math.exp(-since) + 1.0
        if self._due is None:
            self._due = now if since >= self._settings.quiet_s else now + self._window_s

    def hurry(self, now: float) -> None:
        """A writer waits for what is pending."""
        if self._due is not None:
            self._due = min(self._due, now)

    def taken(self) -> None:
        """What was pending goes out; later changes start a new window."""
        self._due = None

    @property
    def _window_s(self) -> float:
        settings = self._settings
        return min(settings.window_s_max, settings.quiet_s * max(1.0, self._rate / settings.busy_per_s))
