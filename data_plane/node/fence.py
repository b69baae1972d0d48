"""Services that this node must not serve without a control plane, and when their time is up.

    in touch --lost--> counting --fence_after_s of the service--> fenced --caught up--> in touch

Time counts from the control plane's last word, also over a restart of the node: `Contact` keeps that moment on disk,
because a restart must not buy a fenced service more time. A fence falls when the node has caught up, not when it is
merely connected: what it runs at that moment may be what the fence is for. `link.py` says what happened, the applier
which settings come into force, and workers are told the whole set whenever it changes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from data_plane.node.diff import Diff
from data_plane.pools import service_settings
from pointsman.wire.v1 import config_pb2
from pointsman.wire.v1 import worker_pb2 as wire

TICK_S = 0.25
CONTACT_EVERY_S = 5.0
"""How far the moment on disk may be behind; a fence comes that much sooner after a restart, never later."""

log = logging.getLogger(__name__)


class Fences:
    """The rules, without any I/O. All times are those of one clock, in seconds."""

    def __init__(self, now: float) -> None:
        self._after: dict[str, float] = {}
        self._fenced: frozenset[str] = frozenset()
        self._in_touch = False
        self._last_word = now
        self._due: float | None = None

    @property
    def fenced(self) -> frozenset[str]:
        """Ids of the services that are answered 503."""
        return self._fenced

    @property
    def in_touch(self) -> bool:
        """Whether the control plane speaks to this node."""
        return self._in_touch

    @property
    def wanted(self) -> bool:
        """Whether any service would be fenced one day."""
        return bool(self._after)

    def fenced_since(self, service: str) -> float:
        """When the time of a fenced service was up."""
        return self._last_word + self._after[service]

    def follow(self, diff: Diff) -> None:
        """The settings of another version come into force."""
        for collection, service in diff.deletes:
            if collection in ("service_settings", "services"):
                self._after.pop(service, None)
        for (collection, service), data in diff.upserts.items():
            if collection != "service_settings":
                continue
            try:
                after_s = service_settings(config_pb2.Entity.FromString(data).service_settings).fence_after_s
            except DecodeError:
                continue  # the workers refuse it with a reason
            if after_s is None:
                self._after.pop(service, None)
            else:
                self._after[service] = after_s
        self._fenced &= self._after.keys()
        self._plan()

    def last_heard(self, at: float) -> None:
        """A node that starts knows when its control plane was last heard of."""
        self._last_word = at
        self._plan()

    def heard(self, now: float) -> None:
        """A word of the control plane: the count begins anew. What is fenced stays so."""
        self._last_word = now
        self._in_touch = True
        self._due = None

    def caught_up(self, now: float) -> None:
        """The node runs what the control plane wants it to, or has said why not."""
        self.heard(now)
        self._fenced = frozenset()

    def lost(self) -> None:
        """The conversation is over."""
        self._in_touch = False
        self._plan()

    def tick(self, now: float) -> None:
        """Fence those whose time is up."""
        if self._due is None or now < self._due:
            return
        silent_s = now - self._last_word
        self._fenced |= {service for service, after_s in self._after.items() if silent_s >= after_s}
        self._plan()

    def _plan(self) -> None:
        if self._in_touch:
            self._due = None
            return
        waiting = (after_s for service, after_s in self._after.items() if service not in self._fenced)
        first = min(waiting, default=None)
        self._due = None if first is None else self._last_word + first


class Contact:
    """The moment of the control plane's last word, on disk: the time of a file. Wall-clock seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def age_s(self) -> float | None:
        """How long ago that was; None = never. A clock that went back says nothing, which counts as for ever."""
        try:
            age_s = time.time() - self._path.stat().st_mtime
        except OSError:
            return None
        return age_s if age_s >= 0 else float("inf")

    def now(self) -> None:
        """Remember this moment. A disk that refuses it costs at most an early fence after a restart."""
        try:
            self._path.touch()
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error.strerror)


@dataclass(frozen=True, slots=True)
class Fenced:
    """One fenced service; `since` is seconds since 1970."""

    id: str
    since: float


class FenceKeeper:
    """Drives `Fences` by the clock and tells the workers. `clock` goes on while the host sleeps."""

    def __init__(
        self,
        broadcast: Callable[[bytes], None],
        contact: Contact,
        *,
        clock: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._broadcast = broadcast
        self._contact = contact
        self._clock = clock
        self._wall = wall
        self._fences = Fences(clock())
        self._told: frozenset[str] = frozenset()
        self._noted_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to count, from the last word that an earlier life of this node heard."""
        age_s = self._contact.age_s()
        if age_s is not None:
            self._fences.last_heard(self._clock() - age_s)
        self._task = asyncio.create_task(self._run(), name="fences")

    async def stop(self) -> None:
        """Stop counting; workers stay as they are."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def fenced(self) -> list[Fenced]:
        """What is fenced now, for people."""
        now, wall = self._clock(), self._wall()
        return [
            Fenced(service, wall - (now - self._fences.fenced_since(service)))
            for service in sorted(self._fences.fenced)
        ]

    # what the applier says

    def deciding(self, diff: Diff) -> None:
        """`diff` is about to become active: no worker may serve what it fences."""
        self._fences.follow(diff)
        self._fences.tick(self._clock())
        self._tell()

    def active(self) -> None:
        """It is. With the first fence there must be a moment on disk to count from, also if the end comes at once."""
        if self._fences.wanted and self._fences.in_touch and self._noted_at is None:
            self._noted_at = self._clock()
            self._contact.now()

    def whole(self) -> Sequence[bytes]:
        """What a new worker is told first."""
        return (self._message(),) if self._fences.fenced else ()

    # what the link says

    def heard(self) -> None:
        """Any word of the control plane."""
        self._fences.heard(self._clock())

    def caught_up(self) -> None:
        """The node runs what it should, or has said why not."""
        self._fences.caught_up(self._clock())
        self._tell()

    def lost(self) -> None:
        """The conversation is over."""
        self._fences.lost()

    def _tell(self) -> None:
        fenced = self._fences.fenced
        if fenced == self._told:
            return
        for service in sorted(fenced - self._told):
            log.error("service %s is fenced: there has been no control plane for too long", service)
        for service in sorted(self._told - fenced):
            log.warning("service %s is served again", service)
        self._told = fenced
        self._broadcast(self._message())

    def _message(self) -> bytes:
        return wire.ToWorker(fences=wire.Fences(services=sorted(self._fences.fenced))).SerializeToString()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self._clock()
            self._fences.tick(now)
            self._tell()
            if self._fences.wanted and self._fences.in_touch and self._note_due(now):
                self._noted_at = now
                await asyncio.to_thread(self._contact.now)

    def _note_due(self, now: float) -> bool:
        return self._noted_at is None or now - self._noted_at >= CONTACT_EVERY_S
