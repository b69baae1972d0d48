"""Drain deadlines: what is still open on a side that its service has left is closed when the time is over.

A side is left when no request of the service can go there any more. Coming back in time calls it off.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from data_plane.worker.build import Moves

_log = logging.getLogger(__name__)

Side = tuple[str, str]
"""Service and upstream, by id."""


class Leaving:
    """The deadlines of one worker. `close` ends what is open on sides and returns how many requests that were."""

    def __init__(self, close: Callable[[Collection[Side]], int]) -> None:
        self._close = close
        self._timers: dict[Side, asyncio.TimerHandle] = {}

    def follow(self, moves: Moves) -> None:
        """A version with these moves has become active. A side that was left before keeps its earlier deadline."""
        for service, upstream in moves.back:
            for side in [side for side in self._timers if side[0] == service and upstream in (None, side[1])]:
                self._timers.pop(side).cancel()
        loop = asyncio.get_running_loop()
        for service, upstream, deadline_s in moves.left:
            side = (service, upstream)
            if side not in self._timers:
                self._timers[side] = loop.call_later(deadline_s, self._over, side)

    def stop(self) -> None:
        """Call all of them off."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _over(self, side: Side) -> None:
        del self._timers[side]
        closed = self._close({side})
        if closed:
            service, upstream = side
            _log.warning(
                "drain deadline: %d requests of service %s were still open on upstream %s and are closed",
                closed,
                service,
                upstream or "-",
            )
