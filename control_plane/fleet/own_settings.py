"""Follows our own settings for what the control plane itself does by them.

Three things: which upstreams sample their probes, which services nodes fence, and removing operators' words once their
time is over (nodes ignore expired words by themselves; the removal is what makes them vanish from the settings, as a
version like any other).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.service_settings import fence_after_s
from control_plane.entities.types import EntityBody
from control_plane.entities.upstream_settings import COLLECTION, manual_health, tidied
from control_plane.fleet.sampling import Sampling
from control_plane.store.contract import Origin, Store, StoreError, Transaction

log = logging.getLogger(__name__)

EXPIRY = Origin(author="control plane", source="expiry", reason="manual health is over, or its target is gone")
PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Fence:
    """A service that a node without a control plane serves for `after_s` and no longer."""

    service: str  # its name, its id when it has none
    after_s: float


@dataclass(frozen=True, slots=True)
class _Seen:
    modes: Mapping[str, Sampling] = field(default_factory=dict)
    untidy: tuple[str, ...] = ()
    next_end: float | None = None
    fences: tuple[Fence, ...] = ()


class OwnSettings:
    """What was read last. `wall` is seconds since 1970."""

    def __init__(self, store: Store, *, wall: Callable[[], float]) -> None:
        self._store = store
        self._wall = wall
        self._version = -1
        self._seen = _Seen()

    @property
    def modes(self) -> Mapping[str, Sampling]:
        """Upstreams by id whose `probe_sampling` is not `auto`."""
        return self._seen.modes

    @property
    def fences(self) -> tuple[Fence, ...]:
        """Services whose partition policy is `fence`."""
        return self._seen.fences

    async def follow(self, version: int) -> None:
        """Looks again if the store moved on to `version` or a word has ended, and removes what is over."""
        now = self._wall()
        ended = self._seen.next_end is not None and self._seen.next_end <= now
        if version == self._version and not ended:
            return
        try:
            self._seen = await self._store.read(lambda tx: _look(tx, now))
            self._version = version
            if self._seen.untidy:
                untidy = self._seen.untidy
                await self._store.write(lambda tx: _tidy(tx, untidy, now), EXPIRY)
        except StoreError as error:
            self._version = -1
            log.warning("settings of upstreams are not followed yet: %s", error)


def _look(tx: Transaction, now: float) -> _Seen:
    modes: dict[str, Sampling] = {}
    untidy: list[str] = []
    ends: list[float] = []
    for settings in tx.each(COLLECTION):
        upstream = str(settings["id"])
        mode = Sampling(str(settings["probe_sampling"]))
        if mode is not Sampling.AUTO:
            modes[upstream] = mode
        if _tidied(tx, settings, now) is not None:
            untidy.append(upstream)
        ends += [word.until for word in manual_health(settings) if word.until > now]
    return _Seen(modes, tuple(untidy), min(ends, default=None), tuple(_fences(tx)))


def _fences(tx: Transaction) -> Iterator[Fence]:
    for settings in tx.each(SERVICE_SETTINGS):
        after_s = fence_after_s(settings)
        if after_s is not None:
            service = tx.get("services", str(settings["id"])) or settings
            yield Fence(str(service.get("name") or settings["id"]), after_s)


def _tidy(tx: Transaction, upstreams: tuple[str, ...], now: float) -> None:
    for upstream in upstreams:
        settings = tx.get(COLLECTION, upstream)
        tidy = _tidied(tx, settings, now) if settings is not None else None
        if tidy is not None:
            tx.replace(COLLECTION, {**tidy, "updated_at": int(now)})


def _tidied(tx: Transaction, settings: EntityBody, now: float) -> EntityBody | None:
    if not settings.get("manual_health") and not settings.get("former_weights"):
        return None
    targets: set[str] = set()
    after = ""
    while True:
        page = tx.page("targets", size=PAGE, after=after, parent=("upstream", str(settings["id"])))
        targets.update(str(target["id"]) for target in page)
        if len(page) < PAGE:
            return tidied(settings, targets=targets, now=now)
        after = str(page[-1]["id"])
