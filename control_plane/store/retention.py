"""How much of the past is kept, and the task that lets go of the rest, a portion at a time.

Only versions go: the configuration itself is whole without them, and the audit trail keeps its record of each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from control_plane.store.contract import Origin, Store, StoreError, Transaction

_log = logging.getLogger(__name__)

ALWAYS_KEPT = 100
"""Newest versions that no setting drops: control planes over one database and nodes catch up by them."""
PORTION = 5_000
"""Changes dropped in one transaction, so that writes need not wait for more."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep; 0 = all. A version goes when either limit says so."""

    versions: int = 0
    days: float = 0

    @property
    def unlimited(self) -> bool:
        """Whether nothing ever goes."""
        return not self.versions and not self.days


async def drop_old_versions(store: Store, retention: Retention, *, now: float) -> int:
    """Drops what is not to be kept at `now` (seconds since the epoch); returns how many versions went."""
    if retention.unlimited:
        return 0

    def portion(tx: Transaction) -> int:
        head = tx.records.hold_versions()
        below = 0
        if retention.versions:
            below = head + 1 - retention.versions
        if retention.days:
            below = max(below, tx.records.first_at_or_after(now - retention.days * 86_400))
        below = min(below, head + 1 - ALWAYS_KEPT)
        return tx.records.drop_below(below, changes_max=PORTION) if below > 1 else 0

    dropped = 0
    while count := (await store.write(portion, Origin(source="retention"))).result:
        dropped += count
    return dropped


class Housekeeping:
    """Runs `drop_old_versions` now and then."""

    def __init__(
        self, store: Store, retention: Retention, *, every_s: float = 60.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._retention = retention
        self._every_s = every_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins, unless there is nothing to do."""
        if not self._retention.unlimited:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                dropped = await drop_old_versions(self._store, self._retention, now=self._clock())
                if dropped:
                    _log.info("old versions were dropped", extra={"versions": dropped})
            except StoreError as error:
                _log.warning("old versions could not be dropped; it is tried again", extra={"why": error})
            await asyncio.sleep(self._every_s)
