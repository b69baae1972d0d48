"""Whether this control plane coordinates rollouts now, and what it takes over from one that did.

The lease is kept while a rollout is open and dropped after the last one, so that another control plane's turn comes at
once. Who could not renew it in time, because it was stopped or cut off from the database, has lost it: `lost` is told
to let go of what is not decided. Every write of a rollout's state checks the lease or its fence.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence

from control_plane.fleet.others import forget_frame
from control_plane.fleet.rollout import State
from control_plane.fleet.rollout_entry import Entry
from control_plane.fleet.rollout_view import from_record, to_json
from control_plane.store.contract import Lease, Origin, RolloutRecord, Store, StoreError, Transaction

LEASE = "rollouts"
LEASE_S = 5.0
RECOVER_EVERY_S = 0.5
RECOVER_SOLE_S = 5.0
"""How often rollouts that nobody coordinates are looked for; a sole control plane leaves none but by a broken store."""

_OPEN = [state.value for state in State if not state.final]

log = logging.getLogger(__name__)


class Fenced(Exception):
    """The lease has changed hands, or was over."""

    def __init__(self, lease: Lease | None, holder: str) -> None:
        super().__init__(
            "this control plane was held up for longer than its lease"
            if lease is None or lease.holder in ("", holder)
            else f"control plane {lease.holder} has taken over"
        )


class Tenure:
    """The lease of one process. `ours` are the numbers of the rollouts that it has open or is about to end, `busy`
    tells whether any is open: who renewed the lease when the last one has ended would take it anew, for nothing."""

    def __init__(
        self,
        store: Store,
        holder: str,
        *,
        sole: bool,
        wall: Callable[[], float],
        ours: Callable[[], Collection[int]],
        busy: Callable[[], bool],
        lost: Callable[[Lease | None, str], None],
        resume: Callable[[Entry], None],
    ) -> None:
        self._store = store
        self.holder = holder
        self._sole = sole
        self._wall = wall
        self._ours = ours
        self._busy = busy
        self._lost = lost
        self._resume = resume
        self._until = 0.0  # monotonic: the lease is ours at least until then
        self.book = asyncio.Lock()
        """Who writes which rollouts of the store are ours, and who looks."""

    def take(self, tx: Transaction) -> Lease | None:
        """Renews the lease, or takes it when it is free or over; None = another one has it."""
        return tx.take_lease(LEASE, self.holder, for_s=LEASE_S, alone=self._sole)

    def check(self, tx: Transaction, fence: int) -> None:
        """What was begun under `fence` may go on. Raises Fenced."""
        lease = self.take(tx)
        if lease is None or lease.fence != fence:
            raise Fenced(tx.lease(LEASE) if lease is None else lease, self.holder)

    def taken(self, began: float) -> None:
        """It was taken in a write that began then, monotonic."""
        self._until = max(self._until, began + LEASE_S)

    def ended(self, tx: Transaction, number: int) -> None:
        """A rollout is over: removes what others were left of it, and drops the lease after the last one."""
        if self._sole:
            return
        forget_frame(tx, number)
        if not tx.rollouts_in(_OPEN):
            tx.drop_lease(LEASE, self.holder)

    async def keep(self) -> None:
        """While a rollout of ours is open nobody else must take us for dead."""

        def renew(tx: Transaction) -> tuple[Lease | None, Lease | None]:
            """Ours, and whose it is."""
            return self.take(tx), tx.lease(LEASE)

        while True:
            await asyncio.sleep(LEASE_S / 4)
            if not self._busy():
                continue
            began = time.monotonic()
            try:
                mine, lease = (await self._store.write(renew, Origin())).result
            except StoreError as error:
                log.warning("the lease of rollouts is not renewed: %s", error)
                if time.monotonic() >= self._until:
                    self._lost(None, f"the lease of rollouts could not be renewed: {error}")
                continue
            if mine is not None:
                self.taken(began)
            self._lost(mine, str(Fenced(lease, self.holder)))

    async def recover(self) -> None:
        """Brings what another process left open to its end, as soon as the lease is ours; looks again for ever."""
        while True:
            try:
                async with self.book:
                    await self._take_over()
            except StoreError as error:
                log.warning("rollouts left open can't be looked at yet: %s", error)
            await asyncio.sleep(RECOVER_SOLE_S if self._sole else RECOVER_EVERY_S)

    async def _take_over(self) -> None:
        if not await self._store.read(self._left_open):
            return
        took: list[Entry] = []

        def take(tx: Transaction) -> None:
            took.clear()
            lease = self.take(tx)
            if lease is None:
                return
            for record in self._left_open(tx):
                facts, machine = from_record(record)
                facts.coordinator, facts.fence = self.holder, lease.fence
                if machine.state is not State.DECIDED:
                    machine.state = State.ABORTED
                    machine.reason = "the control plane ended before the decision"
                    facts.ended_at = self._wall()
                    tx.release(facts.number)
                    forget_frame(tx, facts.number)
                    log.warning("rollout %d is aborted: %s", facts.number, machine.reason)
                else:
                    took.append(Entry(facts, machine, None))
                tx.save_rollout(RolloutRecord(facts.number, machine.state.value, to_json(facts, machine)))
            if not self._sole and not self._busy() and not took:
                tx.drop_lease(LEASE, self.holder)

        began = time.monotonic()
        await self._store.write(take, Origin())
        self.taken(began)
        for entry in took:
            log.warning(
                "rollout %d was decided as version %s; its end is awaited", entry.facts.number, entry.machine.version
            )
            self._resume(entry)

    def _left_open(self, tx: Transaction) -> Sequence[RolloutRecord]:
        ours = self._ours()
        return [record for record in tx.rollouts_in(_OPEN) if record.number not in ours]
