"""The events of this process: the newest few, kept for those who follow them.

Everyone who follows has a place in the one ring and no queue of their own, so that a reader who is slow costs nobody
anything: what the ring has dropped in the meantime is told as a gap.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from control_plane.entities.types import EntityBody

EVENTS_MAX = 1_000


class Kind(StrEnum):
    """What an event is about."""

    VERSION = "version"  # a write was committed
    NODE = "node"  # a node came, went, or refused something
    ROLLOUT = "rollout"  # a rollout took a step
    SWITCH = "switch"  # so did a switch or an undo, which is a rollout too
    GAP = "gap"  # events before this one are gone


@dataclass(frozen=True, slots=True)
class Event:
    """`id` names it for ever: the process that saw it, and its place there. `at` is seconds since 1970."""

    id: str
    kind: Kind
    at: float
    data: EntityBody

    def to_json(self) -> EntityBody:
        return {"id": self.id, "type": self.kind.value, "at": self.at, "data": self.data}


class Ring:
    """The newest events, by ascending number. `wall` is seconds since 1970."""

    def __init__(self, *, wall: Callable[[], float], events_max: int = EVENTS_MAX, boot: str = "") -> None:
        self._wall = wall
        self._boot = boot or secrets.token_hex(4)
        self._kept: deque[Event] = deque(maxlen=events_max)
        self._count = 0
        self._wakes: set[asyncio.Event] = set()
        self.closed = False

    def add(self, kind: Kind, data: EntityBody) -> None:
        """Something happened just now."""
        self._count += 1
        self._kept.append(Event(f"{self._boot}-{self._count}", kind, self._wall(), data))
        self._wake_all()

    def close(self) -> None:
        """No more events will come: all who follow are told the rest and then the end."""
        self.closed = True
        self._wake_all()

    def follow(self, *, after: str = "", kinds: frozenset[Kind] = frozenset()) -> Follower:
        """Begins behind the event with the id `after`; without it, behind the newest. No kinds = all of them.

        An id of another process, or of an event that is gone, leads to the oldest event and a gap before it; `0` to
        the oldest without one.
        """
        oldest = self._count - len(self._kept)
        if not after:
            return Follower(self, self._count, kinds)
        boot, _, place = after.rpartition("-")
        if after == "0":
            return Follower(self, oldest, kinds)
        if boot == self._boot and place.isascii() and place.isdecimal() and int(place) <= self._count:
            return Follower(self, int(place), kinds)
        return Follower(self, -1, kinds)

    # --- for followers ----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Events so far."""
        return self._count

    def behind(self, place: int) -> tuple[Event | None, Iterator[Event]]:
        """A gap, where there is one, and the kept events behind a place."""
        oldest = self._count - len(self._kept)
        gap = None
        if place < oldest or place < 0:
            missed = oldest - place if place >= 0 else None
            gap = Event(f"{self._boot}-{oldest}", Kind.GAP, self._wall(), {"missed": missed})
            place = oldest
        return gap, iter(list(self._kept)[place - oldest :])

    def listen(self, wake: asyncio.Event) -> Callable[[], None]:
        """Sets `wake` at each event; returns how to stop that."""
        self._wakes.add(wake)
        return lambda: self._wakes.discard(wake)

    def _wake_all(self) -> None:
        for wake in self._wakes:
            wake.set()


class Follower:
    """One reader's place in the ring."""

    def __init__(self, ring: Ring, place: int, kinds: frozenset[Kind]) -> None:
        self._ring = ring
        self._place = place
        self._kinds = kinds
        self._wake = asyncio.Event()
        self._wake.set()
        self._ended = False
        self._stop: Callable[[], None] | None = None

    def end(self) -> None:
        """Whoever waits in `next` is told that the end has come."""
        self._ended = True
        self._wake.set()

    def close(self) -> None:
        """Follows no longer."""
        if self._stop is not None:
            self._stop()

    async def next(self, *, wait_s: float | None) -> list[Event] | None:
        """What has happened since the last call: none when nothing did for `wait_s`; None when the end has come."""
        if self._stop is None:
            self._stop = self._ring.listen(self._wake)
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return []
        if self._ended:
            return None
        self._wake.clear()
        gap, events = self._ring.behind(self._place)
        self._place = self._ring.count
        found = [event for event in events if not self._kinds or event.kind in self._kinds]
        if gap is not None:
            found.insert(0, gap)
        if self._ring.closed:
            self._wake.set()
            return found or None
        return found
