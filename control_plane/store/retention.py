"""How much of the past is kept, and what lets go of the rest, a portion at a time.

Only versions and kept answers go: the configuration itself is whole without them, and the audit trail keeps its record
of each.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from control_plane.store.contract import Dropped, Origin, Store, StoreError, Transaction

_log = logging.getLogger(__name__)

ANSWERS_KEPT_S = 24 * 3600.0
"""How long a request with an Idempotency-Key gets its first answer again."""
ANSWERS_KEPT_MAX = 10_000
"""Answers kept at most; of more within a day the oldest are forgotten."""
ALWAYS_KEPT = 100
"""Newest versions that no setting drops: control planes over one database and nodes catch up by them."""
PORTION = 1_000
"""Changes dropped in one transaction, so that writes need not wait for more."""
PAUSE_S = 0.02
"""Between two such transactions, for the writes that wait."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What to keep; 0 = all. A version goes when either limit says so."""

    versions: int = 0
    days: float = 0

    @property
    def unlimited(self) -> bool:
        """Whether nothing ever goes."""
        return not self.versions and not self.days


async def drop_old_versions(store: Store, retention: Retention, *, now: float, portion: int = PORTION) -> int:
    """Drops what is not to be kept at `now` (seconds since the epoch), `portion` changes at a time.

    Returns how many versions went.
    """
    if retention.unlimited:
        return 0

    def boundary(tx: Transaction) -> int:
        head = tx.head()
        below = 0
        if retention.versions:
            below = head + 1 - retention.versions
        if retention.days:
            below = max(below, tx.records.first_at_or_after(now - retention.days * 86_400))
        return min(below, head + 1 - ALWAYS_KEPT)

    below = await store.read(boundary)
    dropped = 0
    while below > 1:
        went = (await store.write(partial(_drop, below=below, portion=portion), Origin(source="retention"))).result
        dropped += went.versions
        if not went.more:
            break
        await asyncio.sleep(PAUSE_S)
    return dropped


def _drop(tx: Transaction, *, below: int, portion: int) -> Dropped:
    tx.records.hold_versions()
    return tx.records.drop_below(below, changes_max=portion)


async def forget_old_answers(store: Store, *, now: float) -> None:
    """Forgets the answers to requests with an Idempotency-Key that are older than a day, or too many."""

    def work(tx: Transaction) -> None:
        tx.records.forget_answers(answered_before=now - ANSWERS_KEPT_S, count_max=ANSWERS_KEPT_MAX)

    await store.write(work, Origin(source="retention"))


async def keep_house(
    store: Store, retention: Retention, *, every_s: float = 60.0, clock: Callable[[], float] = time.time
) -> None:
    """Does both now and then, until it is cancelled. `clock` is seconds since the epoch."""
    while True:
        try:
            await forget_old_answers(store, now=clock())
            dropped = await drop_old_versions(store, retention, now=clock())
            if dropped:
                _log.info("old versions were dropped", extra={"versions": dropped})
        except StoreError as error:
            _log.warning("what is old could not be dropped; it is tried again", extra={"why": error})
        await asyncio.sleep(every_s)
