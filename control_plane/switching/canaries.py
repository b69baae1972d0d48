"""Carries canaries out: writes what the machine of `canary.py` wishes, watches both sides, and does as operators say.

The machine is in the store and nowhere else. Every event is a transaction that reads it, tells it, and writes it back;
so operators may speak to any control plane, and whoever drives sees it. A step is a rollout whose decision, the version
and the machine's new state are one commit (`Owner`), so nothing has to be found out after a kill: a new driver reads
the state and does what it wishes. The lease says which control plane drives; what one that was thought dead has begun
can't be decided, because the state has moved on.

A canary holds its services and their settings from its first moment until all requests go to one side for good. While
it does, every other change of them is refused by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from control_plane.entities.errors import EntityError
from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.types import EntityBody
from control_plane.fleet.nodes import COME_BACK_S
from control_plane.fleet.rollout import State, TooLate
from control_plane.fleet.rollout_plan import Overtaken, Owner
from control_plane.fleet.rollouts import Entry, Rollouts, TooLarge, TooMany, Unchanged
from control_plane.fleet.side_figures import SideFigures
from control_plane.fleet.tenure import LEASE_S
from control_plane.fleet.waiting import Outcome, WaitReport
from control_plane.store.contract import AuditEntry, Change, Operation, Origin, Store, StoreError, Transaction
from control_plane.store.holds import check_not_held
from control_plane.switching.canary import Canary, Course, Phase, Shift, TakeBack, Wish
from control_plane.switching.canary_record import OPEN_STATES, Asked, from_record, record_of
from control_plane.switching.gates import NODES_KEPT_MAX, Pair, Verdict, judge
from control_plane.switching.moving import UNDO_POLICY, check_host, check_no_split, send_all, write_split
from control_plane.switching.preflight import Move
from control_plane.switching.refusals import Missing, Refusal
from control_plane.switching.windows import Windows

LEASE = "canaries"
CANARIES_MAX = 32
"""That may be open at once."""
TICK_S = 0.25
"""How often both sides are looked at."""
LOOK_EVERY_S = 1.0
"""How often canaries that nobody drives are looked for."""
RETURN_WAIT_S = 30.0
"""For nodes to say that they are back, where that was a plain write."""

log = logging.getLogger(__name__)


class Fleet(Protocol):
    """What is asked of the fleet."""

    def live_nodes(self) -> Mapping[str, str]:
        """The host name of each node that is live now, by id."""

    def side_figures(self, service_id: str) -> Mapping[str, Mapping[str, SideFigures]]:
        """What the connected nodes have counted of each side of a service, by node and upstream id."""

    def nodes_elsewhere(self) -> Mapping[str, str]:
        """Nodes at other control planes: a text that names each, by id."""

    def side_figures_elsewhere(self, service_id: str) -> Mapping[str, Mapping[str, SideFigures]]:
        """What those of them that are seen have counted."""

    async def wait_for(self, version: int, timeout_s: float) -> WaitReport:
        """Waits until all nodes live now run `version` or later."""


class _LostLease(StoreError):
    """Another control plane drives canaries now."""


@dataclass(slots=True)
class _Drive:
    """One canary that this process drives."""

    number: int
    sides: Mapping[str, str]
    """Ids of upstreams by name."""
    patient_until: float = 0.0
    """Monotonic: until then it does not go on without nodes that it began with."""
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    windows: Windows | None = None
    step: int = -1
    live: Verdict | None = None


class Canaries:
    """All canaries. `sole` = no other process uses the store."""

    def __init__(
        self,
        store: Store,
        rollouts: Rollouts,
        fleet: Fleet,
        *,
        sole: bool = True,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._rollouts = rollouts
        self._fleet = fleet
        self._holder = str(uuid.uuid4())
        self._sole = sole
        self._wall = wall
        self._drives: dict[int, _Drive] = {}
        self._look = asyncio.Event()
        self._fresh: set[int] = set()
        """Begun here and not driven yet."""
        self._tasks: list[asyncio.Task[None]] = []
        self._unlisten: Callable[[], None] | None = None
        self._listeners: list[Callable[[Asked, Canary], None]] = []

    async def start(self) -> None:
        """Takes up what is open in the store, here and whenever nobody else does."""
        self._unlisten = self._rollouts.listen(self._rollout_moved)
        self._tasks.append(asyncio.create_task(self._keep_driving(), name="canaries"))
        self._tasks.append(asyncio.create_task(self._keep_lease(), name="lease of canaries"))

    async def stop(self) -> None:
        """Leaves everything as it is; whoever comes next goes on from the store."""
        if self._unlisten is not None:
            self._unlisten()
        drives = [drive.task for drive in self._drives.values() if drive.task is not None]
        for task in (*self._tasks, *drives):
            task.cancel()
        await asyncio.gather(*self._tasks, *drives, return_exceptions=True)
        self._tasks.clear()
        self._drives.clear()

    def listen(self, listener: Callable[[Asked, Canary], None]) -> Callable[[], None]:
        """Calls `listener` with each canary driven here whenever it is looked at; returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    # --- what the verbs ask -----------------------------------------------------------------------------------------

    async def create(self, asked: Asked, course: Course, *, claim: Callable[[Transaction], int] | None = None) -> int:
        """Begins a canary; its number, which `claim` gives where there is one already.

        Raises HeldByRollout, Refusal, TooMany and StoreError.
        """

        def register(tx: Transaction) -> int:
            if len(tx.rollouts_in(OPEN_STATES)) >= CANARIES_MAX:
                raise TooMany(f"{CANARIES_MAX} canaries are open already; end one first")
            keys = []
            for move in asked.act.moves:
                check_host(tx, move, move.source, "while the canary was checked")
                check_no_split(tx, move)
                keys += [("services", move.id), (SERVICE_SETTINGS, move.id)]
                body = tx.get("services", move.id)
                check_not_held(tx, [Change(Operation.UPDATE, kind, key, body, body) for kind, key in keys[-2:]])
            number = tx.next_rollout() if claim is None else claim(tx)
            tx.hold(number, keys)
            tx.save_rollout(record_of(replace(asked, number=number), Canary.of(course)))
            return number

        number = (await self._store.write(register, asked.origin)).result
        self._fresh.add(number)
        self._look.set()
        return number

    async def find(self, number: int) -> tuple[Asked, Canary] | None:
        """A canary as the store has it; None when the number is none of a canary."""
        record = await self._store.read(lambda tx: tx.rollout(number))
        return from_record(record) if record is not None and record.is_canary else None

    def live(self, number: int) -> Verdict | None:
        """What the gates say this moment, if the canary is driven here."""
        drive = self._drives.get(number)
        return None if drive is None else drive.live

    async def tell(
        self, number: int, event: Callable[[Canary], None], origin: Origin, *, verb: str
    ) -> tuple[Asked, Canary]:
        """An operator's word, kept in the audit trail. Raises Missing, what `event` raises, and StoreError."""

        def work(tx: Transaction) -> tuple[Asked, Canary]:
            found = _tell(tx, number, event)
            details: EntityBody = {"canary": number, "verb": verb}
            tx.records.append_audit([AuditEntry(self._wall(), origin, "done", details=details)])
            return found

        told = (await self._store.write(work, origin)).result
        self._wake(number)
        return told

    async def until(self, number: int, done: Callable[[Canary], bool], wait_s: float) -> tuple[Asked, Canary]:
        """Waits until the canary is as wanted, or the time is over. Raises Missing."""
        deadline = time.monotonic() + wait_s
        while True:
            found = await self.find(number)
            if found is None:
                raise _missing(number)
            if done(found[1]) or time.monotonic() >= deadline:
                return found
            await asyncio.sleep(min(0.1, max(0.0, deadline - time.monotonic())))

    # --- driving ----------------------------------------------------------------------------------------------------

    async def _keep_driving(self) -> None:
        while True:
            self._look.clear()
            try:
                await self._take_up()
            except StoreError as error:
                log.warning("open canaries can't be looked at yet: %s", error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._look.wait()

    async def _take_up(self) -> None:
        def left(tx: Transaction) -> list[tuple[int, Mapping[str, str]]]:
            records = [record for record in tx.rollouts_in(OPEN_STATES) if record.number not in self._drives]
            return [(record.number, _sides(tx, from_record(record)[0])) for record in records]

        found = await self._store.read(left)
        if not found or not await self._take_lease():
            return
        for number, sides in found:
            drive = _Drive(number, sides)
            if number not in self._fresh:
                log.warning("canary %d is taken up again", number)
                drive.patient_until = time.monotonic() + COME_BACK_S
            self._fresh.discard(number)
            self._drives[number] = drive
            drive.task = asyncio.create_task(self._drive(drive), name=f"canary {number}")
            drive.task.add_done_callback(self._driven)

    async def _take_lease(self) -> bool:
        def take(tx: Transaction) -> bool:
            return tx.take_lease(LEASE, self._holder, for_s=LEASE_S, alone=self._sole) is not None

        return (await self._store.write(take, Origin())).result

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 4)
            if not self._drives:
                continue
            try:
                kept = await self._take_lease()
            except StoreError as error:
                log.warning("the lease of canaries is not renewed: %s", error)
                continue
            if not kept:
                log.warning("another control plane drives canaries now")
                for drive in list(self._drives.values()):
                    if drive.task is not None:
                        drive.task.cancel()

    def _driven(self, task: asyncio.Task[None]) -> None:
        for number, drive in list(self._drives.items()):
            if drive.task is task:
                del self._drives[number]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s is not driven any more, by a mistake of ours; it is taken up again", task, exc_info=error)

    async def _drive(self, drive: _Drive) -> None:
        """Until the canary has ended. What fails for want of the store is done again."""
        while True:
            try:
                found = await self.find(drive.number)
                if found is None:
                    return
                for listener in tuple(self._listeners):
                    listener(*found)
                if found[1].phase.final:
                    return
                moved = await self._one_turn(drive, *found)
            except _LostLease:
                return
            except StoreError as error:
                log.warning("canary %d waits for the store: %s", drive.number, error)
                moved = False
            if not moved:
                await self._pause(drive)

    async def _one_turn(self, drive: _Drive, asked: Asked, canary: Canary) -> bool:
        """Whether it may have moved, so that it is looked at again at once."""
        if canary.phase in (Phase.SETTLING, Phase.RETURNING):
            return await self._settle(drive, canary)
        if await self._watch(drive, asked, canary):
            return True
        wish = canary.wish(self._wall())
        if wish is None:
            return False
        if isinstance(wish, TakeBack) and canary.attempts:
            await self._take_back_plainly(drive, asked, wish)
        elif isinstance(wish, Shift) and self._nodes_are_away(drive, asked):
            return False
        else:
            await self._roll_out(drive, asked, canary, wish)
        return True

    def _nodes_are_away(self, drive: _Drive, asked: Asked) -> bool:
        """A control plane that has just started knows no node yet; they are on their way back."""
        live = {**self._fleet.nodes_elsewhere(), **self._fleet.live_nodes()}
        if time.monotonic() >= drive.patient_until:
            return not live
        nodes = asked.act.plan.get("nodes") if asked.act.plan is not None else None
        began_with = (node for node in (nodes if isinstance(nodes, list) else ()) if isinstance(node, dict))
        return any(node["node_id"] not in live for node in began_with)

    async def _pause(self, drive: _Drive) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TICK_S):
                await drive.wake.wait()
        drive.wake.clear()

    def _wake(self, number: int) -> None:
        if (drive := self._drives.get(number)) is not None:
            drive.wake.set()

    def _rollout_moved(self, entry: Entry) -> None:
        if entry.owner is not None:
            self._wake(entry.owner.number)

    # --- writing ----------------------------------------------------------------------------------------------------

    async def _roll_out(self, drive: _Drive, asked: Asked, canary: Canary, wish: Wish) -> None:
        """One step as a rollout, until it is decided or aborted. Who confirms it is not waited for here."""
        policy = UNDO_POLICY if isinstance(wish, TakeBack) else asked.policy
        act: EntityBody = {"verb": "step", "canary": drive.number, "share": _share(wish)}
        try:
            entry = await self._rollouts.create(
                lambda tx: self._apply(tx, drive, asked, wish),
                _origin(asked, canary, wish),
                policy,
                act=act,
                owner=self._owner(drive.number, wish),
            )
        except Overtaken:
            return  # it is not wanted any more
        except Unchanged:
            await self._plainly(drive, asked, wish)  # somebody's hand was faster; the state follows
            return
        except (EntityError, TooLarge, Refusal) as error:
            await self._failed(drive.number, wish, str(error))
            return
        while entry.machine.state not in (State.DECIDED, State.CONFIRMED, State.PARTIAL, State.ABORTED):
            await self._pause(drive)
            found = await self.find(drive.number)
            if found is None or found[1].wish(float("inf")) != wish or await self._watch(drive, *found):
                self._give_up(entry)
        if entry.machine.state is State.ABORTED:
            await self._failed(drive.number, wish, entry.machine.reason)

    def _give_up(self, entry: Entry) -> None:
        """The step is not wanted any more. When the decision is falling, its own check finds that out."""
        with contextlib.suppress(TooLate):
            self._rollouts.abort(entry.facts.number, "the canary has turned back", "")

    async def _take_back_plainly(self, drive: _Drive, asked: Asked, wish: TakeBack) -> None:
        """No rollout could be, for want of nodes perhaps. It is written all the same; nodes take it as they can."""
        log.warning("canary %d goes back by a plain write", drive.number)
        await self._rollouts.gate()
        await self._plainly(drive, asked, wish)

    async def _plainly(self, drive: _Drive, asked: Asked, wish: Wish) -> None:
        owner = self._owner(drive.number, wish)

        def work(tx: Transaction) -> None:
            owner.admit(tx)
            self._apply(tx, drive, asked, wish)
            changed = bool(tx.records.changes())
            _tell(tx, drive.number, lambda canary: canary.written(None, tx.head() + changed, self._wall()))

        with contextlib.suppress(Overtaken):
            await self._store.write(work, _origin(asked, None, wish))

    def _owner(self, number: int, wish: Wish) -> Owner:
        def check(tx: Transaction) -> None:
            record = tx.rollout(number)
            if record is None or from_record(record)[1].wish(float("inf")) != wish:
                raise Overtaken(f"canary {number} does not want this step any more")

        def decided(tx: Transaction, rollout: int, version: int) -> None:
            _tell(tx, number, lambda canary: canary.written(rollout, version, self._wall()))

        return Owner(number, check, decided)

    def _apply(self, tx: Transaction, drive: _Drive, asked: Asked, wish: Wish) -> None:
        now = self._wall()
        for move in asked.act.moves:
            if isinstance(wish, TakeBack):
                write_split(tx, move.id, None, now=now)
            elif wish.whole:
                send_all(tx, move, now=now)
            else:
                split: EntityBody = {"to": drive.sides[move.to], "share": wish.share, "sticky": asked.sticky}
                write_split(tx, move.id, split, now=now)

    async def _failed(self, number: int, wish: Wish, why: str) -> None:
        def event(canary: Canary) -> None:
            if canary.wish(float("inf")) == wish:
                canary.failed(why, self._wall())

        await self._change(number, event)

    async def _settle(self, drive: _Drive, canary: Canary) -> bool:
        """All is written; how the rollout of it ends is how the canary ends. Whether that is known."""
        returning = canary.phase is Phase.RETURNING
        rollout = canary.back_rollout if returning else canary.steps[canary.at].rollout
        if rollout is None:
            version = canary.back_version if returning else canary.steps[canary.at].version
            report = await self._fleet.wait_for(version or 0, RETURN_WAIT_S)
            lagging = ", ".join(node.hostname for node in report.nodes if node.outcome is not Outcome.APPLIED)
            whole, why = not lagging, f"{lagging} has not said that it runs the version" if lagging else ""
        else:
            view = await self._rollouts.view(rollout)
            if view is None or view["state"] not in (State.CONFIRMED.value, State.PARTIAL.value):
                return False
            whole, why = view["state"] == State.CONFIRMED.value, str(view["reason"])
        await self._change(drive.number, lambda canary: canary.settled(whole, why, self._wall()))
        return True

    # --- watching ---------------------------------------------------------------------------------------------------

    async def _watch(self, drive: _Drive, asked: Asked, canary: Canary) -> bool:
        """Weighs both sides; whether that moved the canary."""
        if canary.at < 0:
            return False
        now = self._wall()
        if drive.windows is None or drive.step != canary.at:
            drive.windows = Windows(length_s=canary.course.window_s)
            drive.step = canary.at
        live, elsewhere = self._fleet.live_nodes(), self._fleet.nodes_elsewhere()
        unwatched: set[str] = set()
        for move in asked.act.moves:
            distant = self._fleet.side_figures_elsewhere(move.id)
            unwatched |= elsewhere.keys() - distant.keys() - live.keys()
            readings = {node: distant[node] for node in elsewhere.keys() & distant.keys() if distant[node]}
            own = self._fleet.side_figures(move.id)
            readings |= {node: own[node] for node in own.keys() & live.keys()}
            drive.windows.note(move.id, readings, time.monotonic())
        watched = {**elsewhere, **live}
        names = tuple(sorted(watched.pop(node) for node in unwatched))
        verdict = _weigh(drive, asked.act.moves, canary.course, watched)
        verdict = replace(verdict, unwatched=names[:NODES_KEPT_MAX])
        drive.live = verdict
        before = canary.phase
        canary.judged(verdict, now)
        if canary.phase is before:
            return False
        await self._change(drive.number, lambda stored: stored.judged(verdict, now))
        return True

    async def _change(self, number: int, event: Callable[[Canary], None]) -> None:
        """The driver's own events: only who has the lease may tell them."""

        def work(tx: Transaction) -> None:
            if tx.take_lease(LEASE, self._holder, for_s=LEASE_S, alone=self._sole) is None:
                raise _LostLease("another control plane drives canaries now")
            _tell(tx, number, event)

        await self._store.write(work, Origin(source="canary"))


def _tell(tx: Transaction, number: int, event: Callable[[Canary], None]) -> tuple[Asked, Canary]:
    """One event as part of a unit of work. Lets go of the services once their traffic goes one way for good."""
    record = tx.rollout(number)
    if record is None or not record.is_canary:
        raise _missing(number)
    asked, canary = from_record(record)
    event(canary)
    if canary.phase.decided or canary.phase in (Phase.RETURNING, Phase.ABORTED, Phase.UNDONE):
        tx.release(number)
    tx.save_rollout(record_of(asked, canary))
    return asked, canary


def _missing(number: int) -> Missing:
    return Missing("NO_SUCH_CANARY", f"switch {number} is no canary", "see what there is: pointsman switch history")


def _sides(tx: Transaction, asked: Asked) -> Mapping[str, str]:
    names = {name for move in asked.act.moves for name in (move.source, move.to)}
    found = {name: tx.find("upstreams", {"name": name}) for name in names}
    return {name: str(body["id"]) for name, body in found.items() if body is not None}


def _weigh(drive: _Drive, moves: Sequence[Move], course: Course, nodes: Mapping[str, str]) -> Verdict:
    """The gates' word on each node and on their sums."""
    windows = drive.windows
    assert windows is not None
    each: list[Pair] = []
    sums: list[Pair] = []
    names = _names(nodes)
    for move in moves:
        old_id, new_id = drive.sides.get(move.source, ""), drive.sides.get(move.to, "")
        old_sum, new_sum = SideFigures(), SideFigures()
        for node in windows.nodes(move.id):
            if node not in nodes:
                continue
            old, new = windows.of(move.id, node, old_id), windows.of(move.id, node, new_id)
            each.append(Pair(move.service, names[node], old, new))
            old_sum, new_sum = old_sum + old, new_sum + new
        sums.append(Pair(move.service, "", old_sum, new_sum))
    return judge(course.limits, each, sums)


def _names(nodes: Mapping[str, str]) -> Mapping[str, str]:
    """Host names, with enough of the id behind them where several nodes are on one host."""
    times = Counter(nodes.values())
    return {node: host if times[host] == 1 else f"{host} {node[:8]}" for node, host in nodes.items()}


def _share(wish: Wish) -> int:
    return wish.share if isinstance(wish, Shift) else 0


def _origin(asked: Asked, canary: Canary | None, wish: Wish) -> Origin:
    """Who a version is by: the operator who asked for the canary or ended it; the canary itself when a gate did."""
    if isinstance(wish, Shift):
        reason = f"canary {asked.number}: {wish.share / 100:g} % to {asked.act.to}"
        return Origin(author=asked.origin.author, source="canary", reason=reason)
    why = f": {canary.reason}" if canary is not None else ""
    author = canary.by if canary is not None and canary.by else f"canary {asked.number}"
    return Origin(author=author, source="canary", reason=f"canary {asked.number} goes back{why}"[:1000])
