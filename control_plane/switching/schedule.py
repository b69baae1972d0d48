"""Switches for later: kept in the store under the number that they will have, and begun at their time.

    scheduled --at its time, and the checks let it--> what it becomes: queued, preparing ... or a canary
        |  |  `---------- the checks refuse it --> refused
        |  `--- nobody could begin it within `LATE_S_MAX` --> missed
        `-- an operator's word --> cancelled

Nothing is held until then: the service can be changed and switched, and what is checked is the world of that moment.
The number changes hands in the transaction that registers the rollout, so a switch is begun once, however many control
planes look at the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from control_plane.entities.errors import EntityError
from control_plane.entities.types import EntityBody
from control_plane.fleet.rollout import Policy, Rollout
from control_plane.fleet.rollout_view import Facts, to_json
from control_plane.fleet.rollouts import TooLarge, Unchanged
from control_plane.store.contract import AuditEntry, Origin, RolloutRecord, Store, StoreError, Transaction
from control_plane.switching.acts import Act
from control_plane.switching.refusals import Missing, Refusal

SCHEDULED, CANCELLED, REFUSED, MISSED = "scheduled", "cancelled", "refused", "missed"
NOTHING_CAME_OF_IT = (SCHEDULED, CANCELLED, REFUSED, MISSED)
SCHEDULED_MAX = 100
AHEAD_S_MAX = 366 * 86_400.0
LATE_S_MAX = 60.0
"""How late a switch is still begun: longer, and who planned it for a quiet minute would be surprised."""
LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)

Claim = Callable[[Transaction], int]
"""Gives a rollout its number, in the transaction that registers it."""


@dataclass(frozen=True, slots=True)
class Due:
    """A switch whose time has come. `asked` = the request as it was sent."""

    number: int
    asked: EntityBody
    origin: Origin

    def claim(self, tx: Transaction) -> int:
        """The number that the switch has had all along. Raises Refusal when it is not scheduled any more."""
        record = tx.rollout(self.number)
        if record is None or record.state != SCHEDULED:
            raise Refusal("NOT_SCHEDULED", f"switch {self.number} is not scheduled any more", "nothing to do")
        return self.number


class Schedule:
    """All switches for later. `wall` is seconds since 1970; `begin` carries one out, raising what speaks against it."""

    def __init__(self, store: Store, *, wall: Callable[[], float] = time.time) -> None:
        self.begin: Callable[[Due], Awaitable[None]] | None = None
        self._store = store
        self._wall = wall
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._listeners: list[Callable[[EntityBody], None]] = []

    def listen(self, listener: Callable[[EntityBody], None]) -> Callable[[], None]:
        """Calls `listener` with the record of each switch that was scheduled, or ended without having begun, here.

        Returns how to stop that. What begins is the rollout's or the canary's to tell.
        """
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def start(self) -> None:
        """Begins to look at the clock."""
        self._task = asyncio.create_task(self._keep_looking(), name="scheduled switches")

    async def stop(self) -> None:
        """Leaves what is scheduled to whoever comes next."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def add(self, asked: EntityBody, act: Act, policy: Policy, at: float, origin: Origin) -> EntityBody:
        """Keeps a switch for later; its record. Raises Refusal and StoreError."""
        now = self._wall()
        facts = Facts(0, origin, created_at=now, act=act.to_json())

        def keep(tx: Transaction) -> EntityBody:
            if len(tx.rollouts_in([SCHEDULED])) >= SCHEDULED_MAX:
                what = f"{SCHEDULED_MAX} switches are scheduled already"
                raise Refusal("TOO_MANY_SCHEDULED", what, "abort one first: pointsman switch history")
            facts.number = tx.next_rollout()
            body = {**to_json(facts, Rollout(policy, {})), "state": SCHEDULED, "at": at, "asked": asked}
            tx.save_rollout(RolloutRecord(facts.number, SCHEDULED, body))
            details: EntityBody = {"switch": facts.number, "verb": "schedule"}
            tx.records.append_audit([AuditEntry(now, origin, "done", details=details)])
            return body

        body = (await self._store.write(keep, origin)).result
        self._look.set()
        self._tell(body)
        return body

    async def cancel(self, number: int, origin: Origin) -> bool:
        """Takes a switch back that has not begun; whether it was scheduled. Raises StoreError."""
        why = f"by {origin.author or 'an operator'}" + (f": {origin.reason}" if origin.reason else "")
        details: EntityBody = {"switch": number, "verb": "cancel"}
        entry = AuditEntry(self._wall(), origin, "done", details=details)
        return await self._end(number, CANCELLED, why, origin, entry)

    # --- the clock --------------------------------------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        while True:
            self._look.clear()
            try:
                next_at = await self._begin_due()
            except StoreError as error:
                log.warning("scheduled switches can't be looked at yet: %s", error)
                next_at = None
            rest_s = LOOK_EVERY_S if next_at is None else min(LOOK_EVERY_S, max(0.0, next_at - self._wall()))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(rest_s, 0.005)):
                    await self._look.wait()

    async def _begin_due(self) -> float | None:
        """Begins what is due; the time of the next one."""
        records = await self._store.read(lambda tx: tx.rollouts_in([SCHEDULED]))
        ahead = []
        for record in records:
            at = _time(record.body)
            late_s = self._wall() - at
            if late_s < 0:
                ahead.append(at)
            elif late_s > LATE_S_MAX:
                why = f"it was to begin {late_s:.0f} s ago, and no control plane could"
                await self._end(record.number, MISSED, why, _origin(record.body))
            else:
                await self._carry_out(record)
        return min(ahead, default=None)

    async def _carry_out(self, record: RolloutRecord) -> None:
        asked, origin = record.body.get("asked"), _origin(record.body)
        assert self.begin is not None
        assert isinstance(asked, dict)
        try:
            await self.begin(Due(record.number, asked, origin))
        except (
            StoreError
        ) as error:  # another one coordinates, or there is no store now: tried again until it is too late
            log.warning("scheduled switch %d can't begin yet: %s", record.number, error)
        except Unchanged:
            await self._end(record.number, REFUSED, "its services point there already", origin)
        except (Missing, Refusal, EntityError, TooLarge) as error:
            log.warning("scheduled switch %d is refused: %s", record.number, error)
            await self._end(record.number, REFUSED, str(error), origin)
        except Exception:
            log.exception("scheduled switch %d failed by a mistake of ours", record.number)
            await self._end(record.number, REFUSED, "an unexpected error in the control plane; see its log", origin)

    async def _end(self, number: int, state: str, why: str, origin: Origin, entry: AuditEntry | None = None) -> bool:
        now = self._wall()

        def end(tx: Transaction) -> EntityBody | None:
            record = tx.rollout(number)
            if record is None or record.state != SCHEDULED:
                return None
            body: EntityBody = {**record.body, "state": state, "reason": why, "ended_at": now}
            tx.save_rollout(RolloutRecord(number, state, body))
            if entry is not None:
                tx.records.append_audit([entry])
            return body

        ended = (await self._store.write(end, origin)).result
        if ended is not None:
            self._tell(ended)
        return ended is not None

    def _tell(self, body: EntityBody) -> None:
        for listener in tuple(self._listeners):
            listener(body)


def _time(body: EntityBody) -> float:
    at = body.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def _origin(body: EntityBody) -> Origin:
    return Origin(author=str(body["author"]), source=str(body["source"]), reason=str(body["why"]))
