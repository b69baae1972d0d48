"""Carries rollouts out: plans the change, follows the machine of `rollout.py`, writes the decision, tells the nodes.

    create --plan, number, holds--> queued --its turn--> the machine --Decide--> one transaction: version + decision
                                                            | Activate, Abort, Release --> frames to the nodes

One rollout is on its way at a time, because workers stage one set of tables beside the live ones; the others wait their
turn, which is a moment. Two that would change the same entity never get that far: the second is refused by name when it
is created, and so is a plain write.

While a rollout is on its way its nodes are offered nothing else. When the head moves meanwhile, what was prepared is
made anew from it before the decision; from the second time on plain writes wait for that, at most `GATE_S_MAX`.

The record of a rollout says who coordinates it under which fence (`tenure.py`): only that one writes its end.

State is in the store at each step. A control plane that dies before the decision leaves a rollout that never was: it is
aborted by the next one, and nodes let go by themselves. One that dies after it leaves a version that is the head:
nodes that were armed activate without it, all others take the head when they connect, and the next control plane only
counts who runs it. The lease decides which of several control planes does any of this; its fence is checked in the
transaction of the decision, so that one that was thought dead can't decide any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from control_plane.entities.errors import EntityError
from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.types import EntityBody
from control_plane.fleet import relay_words
from control_plane.fleet import rollout_messages as words
from control_plane.fleet.distant_sides import DistantSides
from control_plane.fleet.draining import Draining, at
from control_plane.fleet.health import HealthBook
from control_plane.fleet.messages import RolloutWord, ref, wire_delta
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.others import Others, Remote
from control_plane.fleet.publisher import Publisher
from control_plane.fleet.relay import Relay
from control_plane.fleet.rollout import (
    NO_NODE,
    Abort,
    Action,
    Activate,
    Decide,
    Finish,
    Member,
    Policy,
    Prepare,
    Release,
    Rollout,
    Standing,
    State,
    TooLate,
    arming_s,
    lead_s,
)
from control_plane.fleet.rollout_entry import Elsewhere, Entry, Figures, TooLarge, TooMany, Unchanged
from control_plane.fleet.rollout_plan import Overtaken, Owner, Plan, plan, replay
from control_plane.fleet.rollout_view import Drained, Facts, from_record, newest_decided
from control_plane.fleet.server import LinkServer
from control_plane.fleet.tenure import LEASE, LEASE_S, Fenced, Tenure
from control_plane.snapshot.builder import Snapshot
from control_plane.store.contract import Lease, Origin, RolloutRecord, Store, StoreError, Transaction
from control_plane.store.holds import check_not_held
from pointsman.snapshots import NOTHING, SnapshotRef
from pointsman.wire.v1 import fleet_pb2

T = TypeVar("T")

LEASE_WAIT_S = LEASE_S + 0.5
"""How long a new rollout waits for another control plane's to end before it is refused: longer than a dead one's lease
lasts, so that an undo after a control plane was killed needs no second try."""
LEASE_ASK_S = 0.05
RETURNING_EVERY_S = 0.02
RESUMED_S = 60.0
"""For nodes to come back after a restart of ours: they wait longer from one attempt to the next."""
WAITING_MAX = 32
"""Rollouts that may wait for their turn."""
RECENT_MAX = 64
"""Rollouts kept in memory after their end; older ones are in the store."""
ARMINGS_MAX = 20
"""Rollouts by which the lead of the next one is judged."""
GATE_S_MAX = 2.0
REHEARSAL_S = 0.3
"""What a plain write may be late on the nodes for a rehearsal."""
COMMIT_S = 0.004
"""What writing a decision takes, about. When it took longer the instant is set anew before anyone hears of it."""
SAVES_QUICK = 5
"""Tries to save the end of a rollout before those who wait for it are told all the same."""
ANSWERS_OLD_S = 1.5
"""Nodes say about once a second who answered last."""

log = logging.getLogger(__name__)


class _Moved(Exception):
    """The head is not what was prepared for."""


class Rollouts:
    """All rollouts that this control plane coordinates. `sole` = no other process uses the store."""

    def __init__(
        self,
        store: Store,
        publisher: Publisher,
        server: LinkServer,
        nodes: Nodes,
        health: HealthBook,
        *,
        sole: bool = True,
        hostname: str = "",
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._server = server
        self._nodes = nodes
        self._sole = sole
        self._ending: set[int] = set()  # ended, and their record does not say so yet
        self._wall = wall
        self._turn = asyncio.Lock()
        self._open: dict[int, Entry] = {}
        self._recent: OrderedDict[int, Entry] = OrderedDict()
        self._current: Entry | None = None
        self._gate = asyncio.Event()
        self._gate.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._epoch = b""
        self._running: dict[str, int] = {}
        self._armings_s: deque[float] = deque(maxlen=ARMINGS_MAX)
        self._others = Others(
            store, nodes, tell=self._tell_plane, own=self._own, on_message=self._heard_there, on_gone=self._gone_there
        )
        self._relay = Relay(
            store, publisher, server, nodes, health, tell=self._tell_plane, own=self._own, gate=self._gate
        )
        self.distant_sides = DistantSides(nodes, server.sides, tell=self._tell_plane)
        self._draining = Draining(store, nodes, health, self._others)
        self._tenure = Tenure(
            store,
            f"{server.plane_id} on {hostname}" if hostname else server.plane_id,
            sole=sole,
            wall=wall,
            ours=lambda: self._open.keys() | self._ending,
            busy=lambda: bool(self._open),
            lost=self._lost,
            resume=self._resume,
        )
        self._stop_listening: list[Callable[[], None]] = []
        self._listeners: list[Callable[[Entry], None]] = []
        self.figures = Figures()

    async def start(self) -> None:
        """Begins to listen, and takes over what an earlier process left open."""
        self._epoch = await self._store.epoch()
        self._server.min_ready_version = await self._store.read(newest_decided)
        self._server.on_rollout = self._heard
        self._stop_listening += [self._nodes.listen(self._node_changed), self._store.subscribe(self._written)]
        self._own(self._tenure.recover(), "rollouts left open")
        if not self._sole:
            self._stop_listening.append(self._store.hear_planes(self._heard_plane))
            self._own(self._tenure.keep(), "lease of rollouts")
            self._own(self._relay.watch(), "rollouts of other control planes")

    async def stop(self) -> None:
        """Ends all that is under way; what was decided goes on without us."""
        for stop in self._stop_listening:
            stop()
        self._stop_listening.clear()
        self._relay.stop()
        for entry in list(self._open.values()):
            if entry.machine.state in (State.QUEUED, State.PREPARING):
                self._perform(entry, entry.machine.abort("the control plane stops", ""))
        finishing = [task for task in self._tasks if task.get_name().startswith("end of")]
        if finishing:
            await asyncio.wait(finishing, timeout=2.0)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- what the Admin API asks ------------------------------------------------------------------------------------

    async def gate(self) -> None:
        """Plain writes pass here. Open but for the moment in which a rollout catches up with the head."""
        if not self._gate.is_set():
            try:
                async with asyncio.timeout(GATE_S_MAX):
                    await self._gate.wait()
            except TimeoutError:
                return

    def listen(self, listener: Callable[[Entry], None]) -> Callable[[], None]:
        """Calls `listener` after each step of a rollout; returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def create(
        self,
        work: Callable[[Transaction], T],
        origin: Origin,
        policy: Policy,
        *,
        act: EntityBody | None = None,
        owner: Owner | None = None,
        rehearsal: bool = False,
        claim: Callable[[Transaction], int] | None = None,
    ) -> Entry:
        """Plans a rollout of what `work` changes, gives it a number and lets it begin.

        `act` is kept with it and shown, as it is: what the operator's verb that asked for it wants to find again.
        `claim` gives the number in the transaction that registers it, where it has one already.
        A rollout with an `owner` changes what the owner holds, and holds nothing itself. A rehearsal asks the nodes for
        their votes and changes nothing; it holds nothing either, and ends when a rollout that means it comes.
        Raises what `work` and the checks raise (HeldByRollout among it), Unchanged, Elsewhere, TooMany, TooLarge and
        StoreError; nothing has happened then.
        """
        if len(self._open) >= WAITING_MAX:
            raise TooMany(f"{WAITING_MAX} rollouts are waiting already; ask again when some have ended")

        def owned(tx: Transaction) -> T:
            if owner is not None:
                owner.admit(tx)
            return work(tx)

        planned = await plan(self._store, owned)
        if not planned.changes:
            raise Unchanged(planned.result, planned.head)
        machine = Rollout(policy, {}, rehearsal=rehearsal)
        entry = await self._register(planned, origin, machine, act, owner=owner, claim=claim)
        for other in self._rehearsals() if not rehearsal else ():
            self._end_rehearsal(other, f"gave way to rollout {entry.facts.number}")
        self._own(self._coordinate(entry), f"rollout {entry.facts.number}")
        return entry

    @property
    def open(self) -> int:
        """How many are on their way or wait for their turn here."""
        return len(self._open)

    def find(self, number: int) -> Entry | None:
        """A rollout of this process that is open or ended lately."""
        return self._open.get(number) or self._recent.get(number)

    async def view(self, number: int) -> EntityBody | None:
        """One rollout, also of earlier processes."""
        entry = self.find(number)
        if entry is not None:
            return entry.view()
        record = await self._store.read(lambda tx: tx.rollout(number))
        return record.body if record is not None and not record.is_canary else None

    async def views(self, *, size: int, before: int | None = None) -> Sequence[EntityBody]:
        """Rollouts, newest first; canaries, which are kept among them, are left out."""

        def newest(tx: Transaction) -> Sequence[RolloutRecord]:
            found: list[RolloutRecord] = []
            below = before
            while len(found) < size:
                page = tx.rollouts(size=size, before=below)
                found += [record for record in page if not record.is_canary]
                if len(page) < size:
                    break
                below = page[-1].number
            return found[:size]

        records = await self._store.read(newest)
        return [entry.view() if (entry := self.find(r.number)) is not None else r.body for r in records]

    def abort(self, number: int, reason: str, by: str) -> Entry | None:
        """Ends a rollout that is not decided. None when it is not open here; raises TooLate."""
        entry = self._open.get(number)
        if entry is None:
            return None
        self._perform(entry, entry.machine.abort(reason, by))
        entry.wake.set()
        return entry

    # --- one rollout ------------------------------------------------------------------------------------------------

    def _written(self, version: int) -> None:
        """Nodes of a rehearsal are offered nothing else: a plain write must not wait for a slow one's vote."""
        for entry in self._rehearsals():
            rest_s = max(0.0, entry.began + REHEARSAL_S - _now())
            reason = f"gave way to version {version}, written meanwhile"
            asyncio.get_running_loop().call_later(rest_s, self._end_rehearsal, entry, reason)

    def _rehearsals(self) -> list[Entry]:
        return [entry for entry in self._open.values() if entry.machine.rehearsal]

    def _end_rehearsal(self, entry: Entry, reason: str) -> None:
        """Nobody waits for votes that nothing will come of."""
        if entry.machine.state in (State.QUEUED, State.PREPARING):
            self._perform(entry, entry.machine.abort(reason, ""))
            entry.wake.set()

    async def _register(
        self,
        planned: Plan[T],
        origin: Origin,
        machine: Rollout,
        act: EntityBody | None,
        *,
        owner: Owner | None,
        claim: Callable[[Transaction], int] | None,
    ) -> Entry:
        facts = Facts(0, origin, planned.changes, planned.gain, planned.lose, created_at=self._wall(), act=act)
        facts.coordinator = self._tenure.holder
        entry = Entry(facts, machine, planned.result, owner)

        def register(tx: Transaction) -> Lease | None:
            """None, or who has the lease instead of us."""
            if owner is not None:
                owner.admit(tx)
            if not machine.rehearsal:
                check_not_held(tx, planned.changes)
            lease = self._tenure.take(tx)
            if lease is None:
                return tx.lease(LEASE)
            facts.fence = lease.fence
            facts.number = tx.next_rollout() if claim is None else claim(tx)
            tx.save_rollout(entry.record())
            if owner is None and not machine.rehearsal:
                tx.hold(facts.number, [(change.collection, change.id) for change in planned.changes])
            return None

        until = _now() + LEASE_WAIT_S
        while True:
            began = _now()
            async with self._tenure.book:
                other = (await self._store.write(register, origin)).result
                if other is None:
                    self._tenure.taken(began)
                    self._open[facts.number] = entry
                    return entry
            if _now() >= until:
                raise Elsewhere(f"control plane {other.holder} coordinates a rollout now; ask it, or ask again shortly")
            await asyncio.sleep(LEASE_ASK_S)

    async def _coordinate(self, entry: Entry) -> None:
        machine = entry.machine
        try:
            async with self._turn:
                if not machine.state.final:
                    self._current = entry
                    await self._begin(entry)
                    await self._until_settled(entry)
            # The turn is over with the instant; who is late is waited for beside the next rollout.
            await self._until_ended(entry)
        except (StoreError, EntityError, TooLarge) as error:
            self._fail(entry, str(error))
        except Exception:
            log.exception("rollout %d ended by a mistake of ours", entry.facts.number)
            self._fail(entry, "an unexpected error in the control plane; see its log")
        finally:
            self._gate.set()
            if self._current is entry:
                self._current = None

    async def _begin(self, entry: Entry) -> None:
        """What nodes run is the base: the head, unless that is held because the first node refused it."""
        await self._until_back(entry)
        remote = entry.remote = await self._others.take(entry.facts.number, entry.facts.fence)
        head = await self._propose(entry)
        # What comes of it takes a moment, and is what this rollout begins at.
        while self._server.offers.unsettled and not entry.machine.state.final:
            self._gate.clear()
            await asyncio.sleep(0.002)
            head = await self._propose(entry)
        self._gate.set()
        if entry.machine.state.final:
            self._end_remote(entry)
            return  # aborted while the head was looked at
        published = self._server.offers.released
        if published is None or published.ref.version < remote.version:
            published = self._server.offers.head  # nodes of others are beyond what ours run
        base = published.snapshot if published is not None else head
        assert isinstance(base, Snapshot)
        live = {node.id: node.hostname for node in self._nodes.live()}
        for node in live.keys() & remote.nodes.keys():
            del remote.nodes[node]  # it came over to us meanwhile
        elsewhere = [node for node in self._nodes.elsewhere() if node.id not in remote.nodes]
        entry.facts.elsewhere = tuple(sorted(at(node) for node in elsewhere))
        members = live | {node: remote.hostnames[node] for node in remote.nodes}
        entry.machine.members.update(Rollout.of(entry.machine.policy, members).members)
        self._server.offers.pin(live, published, owner=entry.facts.number)
        entry.base = base
        entry.facts.base_version = base.version
        at_base = [node.id for node in self._nodes.live() if node.running == _ref(base)]
        if not members and entry.facts.elsewhere:
            where = f"{entry.facts.elsewhere[0]} for one; ask where nodes are"
            self._perform(entry, entry.machine.abort(f"{NO_NODE}, but to others: {where}", ""))
            return
        self._perform(entry, entry.machine.begin([*at_base, *remote.nodes], _now()))

    async def _until_back(self, entry: Entry) -> None:
        """A control plane that has just started knows no node yet; they serve, and are on their way back."""
        while self._nodes.returning() and not entry.machine.state.final:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETURNING_EVERY_S):
                    await entry.wake.wait()
            entry.wake.clear()

    async def _propose(self, entry: Entry) -> Snapshot:
        while True:
            head, proposed = await self._publisher.proposal(entry.facts.changes)
            if self._publisher.published == head.version:  # nothing was published since: there was no pause
                entry.proposed = proposed
                return head

    async def _until_settled(self, entry: Entry) -> None:
        """Until the instant has passed and all who were armed said so, or a grace is over, or the rollout ended."""
        machine = entry.machine
        while not machine.state.final:
            armed = any(member.standing is Standing.ARMED for member in machine.members.values())
            if machine.state is State.DECIDED and not armed:
                return
            if machine.state is State.DECIDED and _now() > entry.activated_s + 1.0:
                return
            await self._rest(entry)

    async def _until_ended(self, entry: Entry) -> None:
        while not entry.machine.state.final:
            await self._rest(entry)

    async def _rest(self, entry: Entry) -> None:
        """Waits for something to happen, and lets the machine know that time passes."""
        try:
            async with asyncio.timeout(0.1):
                await entry.wake.wait()
        except TimeoutError:
            pass
        entry.wake.clear()
        for node in self._nodes.elsewhere():  # lost here, or asked by a control plane that is gone
            if node.running.epoch == self._epoch:
                self._perform(entry, entry.machine.runs(node.id, node.running.version))
        running = {node: version for node, version in self._running.items() if node in entry.machine.members}
        self._perform(entry, entry.machine.tick(_now(), running=running))

    def _perform(self, entry: Entry, actions: Sequence[Action]) -> None:
        """Carries out what the machine decided."""
        number = entry.facts.number
        for action in actions:
            match action:
                case Prepare():
                    self._prepare(entry, action)
                case Decide():
                    entry.facts.prepared_s = _now() - entry.began
                    self._own(self._decide(entry), f"decision of rollout {number}")
                case Activate():
                    assert entry.proposed is not None
                    assert entry.facts.at_plane_ns is not None
                    frame = words.activate(number, _ref(entry.proposed), entry.facts.at_plane_ns)
                    self._server.send(action.nodes, frame)
                    self._others.activate(entry.remote, entry.facts.at_plane_ns)
                case Abort():
                    self._server.send(action.nodes, words.abort(number, entry.machine.reason or "not ready"))
                case Release():
                    self._release(entry, action.nodes)
                case Finish():
                    self._own(self._finish(entry), f"end of rollout {number}")
        if actions:
            entry.wake.set()
            self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        for listener in tuple(self._listeners):
            listener(entry)

    def _prepare(self, entry: Entry, action: Prepare) -> None:
        assert entry.base is not None
        assert entry.proposed is not None
        base, proposed, policy = entry.base, entry.proposed, entry.machine.policy
        delta = wire_delta(_ref(base), _ref(proposed), proposed.changes_since(base), entities=proposed.entity_count)
        if problem := words.check_size(delta):
            self._fail(entry, problem)
            return
        frame = words.prepare(
            entry.facts.number,
            action.round,
            delta,
            vote_within_s=policy.vote_by_s * 0.8,
            hold_s=policy.hold_s,
            warming=words.Warming(entry.facts.gain, policy.connections_per_target, len(entry.machine.members)),
            warm=action.warm,
        )
        self._server.send(action.nodes, frame)
        if entry.remote.nodes.keys() & set(action.nodes):
            self._own(self._prepare_there(entry, action.round, frame), f"frame of rollout {entry.facts.number}")

    async def _prepare_there(self, entry: Entry, round_number: int, frame: bytes) -> None:
        try:
            await self._others.prepare(entry.remote, round_number, frame, sorted(entry.machine.policy.tolerate))
        except StoreError as error:
            self._fail(entry, str(error))

    async def _decide(self, entry: Entry) -> None:
        """The one transaction: all changes as the next version, and the decision with it."""
        machine, facts, proposed = entry.machine, entry.facts, entry.proposed
        assert proposed is not None
        errors = [member.vote.clock_error_us for member in machine.members.values() if member.vote is not None]
        lead = lead_s(nodes=len(machine.members), clock_errors_us=errors, armings_s=self._armings_s)

        def commit(tx: Transaction) -> int:
            self._tenure.check(tx, facts.fence)
            if tx.head() != proposed.version - 1:
                raise _Moved
            if entry.owner is not None:
                entry.owner.admit(tx)
            replay(tx, facts.changes)
            tx.release(facts.number)
            at_plane_ns = time.monotonic_ns() + int((lead + COMMIT_S) * 1e9)
            body = entry.view()
            body["state"], body["version"], body["at_plane_ns"] = State.DECIDED.value, proposed.version, at_plane_ns
            for node in body["nodes"] if isinstance(body["nodes"], list) else ():
                if isinstance(node, dict) and node["standing"] == Standing.READY.value:
                    node["standing"] = Standing.ARMED.value
            tx.save_rollout(RolloutRecord(facts.number, State.DECIDED.value, body))
            if entry.owner is not None:
                entry.owner.decided(tx, facts.number, proposed.version)
            return at_plane_ns

        self._server.offers.withhold()  # who takes no part takes the version at the instant, not before
        try:
            written = await self._store.write(commit, facts.origin)
        except _Moved:
            self._server.offers.let_go(None)
            await self._rebase(entry)
            return
        except (Fenced, Overtaken, StoreError, EntityError) as error:
            self._server.offers.let_go(None)
            self._perform(entry, machine.not_decided(str(error)))
            return
        except Exception:
            self._server.offers.let_go(None)
            raise
        self._gate.set()
        at_plane_ns = written.result
        now_ns = time.monotonic_ns()
        if at_plane_ns - now_ns < int(lead * 0.8e9):
            at_plane_ns = now_ns + int(lead * 1e9)  # the disk took its time; nobody has heard of the first instant
        facts.at_plane_ns, facts.lead_s = at_plane_ns, lead
        remaining = (at_plane_ns - now_ns) / 1e9
        entry.activated_s, entry.lead_s = _now() + remaining, remaining
        self._publisher.hurry(written.version)
        asyncio.get_running_loop().call_later(remaining + 0.002, self._instant_passed, entry)
        self._perform(entry, machine.decided(written.version, _now(), lead_s=remaining))

    def _instant_passed(self, entry: Entry) -> None:
        """Who was not ready, or not there, takes the version now."""
        self._server.offers.let_go(entry.machine.version)
        members = entry.machine.members.values()
        self._release(entry, [member.id for member in members if member.standing is not Standing.ARMED])

    async def _rebase(self, entry: Entry) -> None:
        """The head moved: the proposal is made anew, and plain writes wait until it is decided."""
        self._gate.clear()
        await self._propose(entry)
        self._perform(entry, entry.machine.moved(_now()))

    def _release(self, entry: Entry, nodes: Sequence[str]) -> None:
        self._server.offers.unpin(nodes, owner=entry.facts.number)

    def _end_remote(self, entry: Entry) -> None:
        machine = entry.machine
        self._others.end(entry.remote, (machine.reason or "aborted") if machine.state is State.ABORTED else "")

    async def _finish(self, entry: Entry) -> None:
        facts, machine = entry.facts, entry.machine
        facts.ended_at = self._wall()
        facts.took_s = _now() - entry.began
        self._gate.set()
        self._end_remote(entry)
        if not machine.rehearsal:
            self._count(entry)
        aheads_us = [member.activation.ahead_us for member in machine.members.values() if member.activation is not None]
        if aheads_us:
            self._armings_s.append(arming_s(entry.lead_s, aheads_us))
        if machine.state is not State.ABORTED:
            self._server.min_ready_version = max(self._server.min_ready_version, machine.version or 0)
            facts.drained = [Drained(upstream) for upstream in facts.lose]
        level = logging.INFO if machine.state is State.CONFIRMED or machine.rehearsal else logging.WARNING
        log.log(
            level, "rollout %d is %s: %s", facts.number, machine.state.value, machine.reason or "every node runs it"
        )
        self._ending.add(facts.number)
        self._open.pop(facts.number, None)
        self._recent[facts.number] = entry
        while len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        if machine.state is not State.ABORTED:
            entry.ended.set()
        after_all = await self._save(entry)  # of what was aborted, before anyone hears: what it held is free then
        self._ending.discard(facts.number)
        if after_all is not None:
            self._was_decided(entry, after_all)
            return
        entry.ended.set()
        entry.wake.set()
        self._tell(entry)
        if facts.drained:
            self._own(self._drain(entry), f"drain of rollout {facts.number}")

    async def _save(self, entry: Entry) -> RolloutRecord | None:
        """Writes what became of the rollout, however long the store can't be written to; lets go of what it held.

        Not when another control plane has it now. Returns the record when that says that it was decided although we
        took it for aborted: the answer to our commit was lost.
        """
        facts, aborted = entry.facts, entry.machine.state is State.ABORTED

        def save(tx: Transaction) -> RolloutRecord | None:
            stored = tx.rollout(facts.number)
            if stored is not None and stored.body.get("fence", facts.fence) != facts.fence:
                return None
            if aborted and stored is not None and stored.state == State.DECIDED.value:
                return stored
            tx.save_rollout(entry.record())
            tx.release(facts.number)
            self._tenure.ended(tx, facts.number)
            return None

        tries = 0
        while True:
            try:
                return (await self._store.write(save, facts.origin)).result
            except StoreError as error:
                tries += 1
                if tries in (1, SAVES_QUICK) or tries % 60 == 0:
                    log.warning("the end of rollout %d is not saved yet: %s", facts.number, error)
                if tries == SAVES_QUICK:
                    entry.ended.set()  # whoever waits must not wait for the store's disk
                await asyncio.sleep(0.5 if tries < SAVES_QUICK else 1.0)

    def _was_decided(self, entry: Entry, stored: RolloutRecord) -> None:
        """Our commit went through and its answer was lost: from here on it is as after a restart."""
        number = entry.facts.number
        log.warning("rollout %d was decided after all; nodes follow as fast as they can", number)
        self._recent.pop(number, None)
        self.figures.ended[entry.machine.state.value] -= 1
        entry.facts, entry.machine = from_record(stored)
        self._resume(entry)

    def _count(self, entry: Entry) -> None:
        machine, figures = entry.machine, self.figures
        figures.ended[machine.state.value] += 1
        if entry.facts.took_s is not None and not entry.facts.resumed:
            figures.took.add(entry.facts.took_s)
        members = machine.members.values()
        for member in members:
            if member.activation is not None and member.activation.late_us:
                figures.late.add(max(member.activation.late_us) / 1e6)
        if machine.state is not State.ABORTED:
            figures.left_behind = sum(member.standing is Standing.LAGGING for member in members)

    def _fail(self, entry: Entry, why: str) -> None:
        if entry.machine.state is State.DECIDING:
            self._perform(entry, entry.machine.not_decided(why))
        elif entry.machine.state in (State.QUEUED, State.PREPARING):
            self._perform(entry, entry.machine.abort(why, ""))
        else:
            log.error("rollout %d: %s", entry.facts.number, why)

    # --- what nodes say ---------------------------------------------------------------------------------------------

    def _heard(self, node: str, word: RolloutWord) -> None:
        entry = self._open.get(word.rollout)
        if entry is None:
            self._relay.node_said(node, word)
            return
        if isinstance(word, fleet_pb2.RolloutVote):
            told = words.voted(word)
            self._perform(entry, entry.machine.voted(node, told.round, told.voted))
            return
        activated = words.activated(word)
        if activated.problem:
            self._perform(entry, entry.machine.not_activated(node, activated.problem))
        else:
            self._perform(entry, entry.machine.activated(node, activated.report))

    def _tell_plane(self, plane: str, word: relay_words.Word) -> None:
        self._store.tell_planes(relay_words.to_text(word, plane=self._server.plane_id, to=plane))

    def _heard_plane(self, text: str) -> None:
        heard = relay_words.parse(text, to=self._server.plane_id)
        if heard is not None and not self.distant_sides.heard(*heard) and not self._relay.heard(*heard):
            self._others.heard(*heard)

    def _heard_there(self, remote: Remote, node: str, message: fleet_pb2.NodeMessage) -> None:
        """A node said something to its own control plane, which passed it on."""
        if message.HasField("vote"):
            self._heard(node, message.vote)
            return
        told = message.rollout_activated
        if not told.HasField("fault"):
            self._nodes.runs_elsewhere(node, ref(told.snapshot))
        self._heard(node, told)

    def _gone_there(self, remote: Remote, node: str, why: str) -> None:
        entry, known = self._open.get(remote.number), self._nodes.get(node)
        if entry is not None and not (known is not None and known.connected):
            self._perform(entry, entry.machine.gone(node, why))

    def _node_changed(self, node: Node) -> None:
        self._relay.node_changed(node)
        if node.running.epoch == self._epoch:
            self._running[node.id] = node.running.version
        for entry in list(self._open.values()):
            if node.id not in entry.machine.members:
                continue
            if node.connected:
                entry.remote.nodes.pop(node.id, None)  # it is ours from now on
            elif node.id in entry.remote.nodes:
                continue  # its control plane says what becomes of it
            if not node.connected or node.leaving:
                self._perform(entry, entry.machine.gone(node.id, node.reason))
                if entry.machine.state is State.DECIDED:
                    remaining = max(0.0, entry.activated_s - _now())
                    asyncio.get_running_loop().call_later(remaining, self._release, entry, (node.id,))
                continue
            if entry.base is not None and node.running == _ref(entry.base):
                self._perform(entry, entry.machine.at_base(node.id))
            if node.running.epoch != self._epoch:
                continue
            self._perform(entry, entry.machine.runs(node.id, node.running.version))

    async def _drain(self, entry: Entry) -> None:
        lagging = [m.hostname for m in entry.machine.members.values() if m.standing is Standing.LAGGING]
        since = max(entry.activated_s, entry.began)
        await self._draining.watch(
            entry.facts.drained, since=since, lagging=lagging, meanwhile=lambda: self._note_answers(entry)
        )
        self._tell(entry)
        await asyncio.sleep(ANSWERS_OLD_S)  # the nodes' last word on who answered comes after that on what is open
        self._note_answers(entry)
        await self._save(entry)

    def _note_answers(self, entry: Entry) -> None:
        """What each node of ours has said of its first answer by the new side, and its last one by the old."""
        facts, at_ns = entry.facts, entry.facts.at_plane_ns
        if at_ns is None or facts.resumed:
            return  # it was by another process' clock
        services = {change.id for change in facts.changes if change.collection in ("services", SERVICE_SETTINGS)}
        for member in entry.machine.members.values():
            first_ns = self._server.sides.first_ns(member.id, services, facts.gain)
            last_ns = self._server.sides.last_ns(member.id, services, facts.lose)
            if member.first_new_us is None and first_ns and first_ns >= at_ns - 1000 * _doubt_us(member):
                member.first_new_us = (first_ns - at_ns) // 1000
            if last_ns:
                member.last_old_us = (last_ns - at_ns) // 1000

    # --- after a restart --------------------------------------------------------------------------------------------

    def _lost(self, lease: Lease | None, why: str) -> None:
        """Lets go of what is not decided and not under this lease. A decision that is being written meets the fence."""
        for entry in list(self._open.values()):
            if lease is not None and lease.fence == entry.facts.fence:
                continue
            if entry.machine.state in (State.QUEUED, State.PREPARING):
                self._perform(entry, entry.machine.abort(why, ""))

    def _resume(self, entry: Entry) -> None:
        """Waits for the end of a rollout that was decided, without telling nodes anything: the version is the head."""
        entry.activated_s = _now()
        entry.machine.due = _now() + RESUMED_S
        self._open[entry.facts.number] = entry
        for node in self._nodes.live():
            self._node_changed(node)
        self._own(self._until_ended(entry), f"rollout {entry.facts.number}, resumed")

    def _own(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s ended by a mistake of ours", task.get_name(), exc_info=error)
            if self._current is not None:
                self._fail(self._current, "an unexpected error in the control plane; see its log")


def _doubt_us(member: Member) -> int:
    """How far a node's word on a time may be off."""
    return member.activation.clock_error_us if member.activation is not None else 0


def _ref(snapshot: Snapshot) -> SnapshotRef:
    """As nodes know it: an empty store's was never published, and they begin at nothing."""
    if snapshot.version == 0:
        return NOTHING
    return SnapshotRef(snapshot.epoch, snapshot.version, snapshot.snapshot_hash)


def _now() -> float:
    return time.monotonic()


__all__ = ["Elsewhere", "Entry", "Figures", "Rollouts", "TooLarge", "TooLate", "TooMany", "Unchanged"]
