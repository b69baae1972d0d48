"""Carries rollouts out: plans the change, follows the machine of `rollout.py`, writes the decision, tells the nodes.

    create --plan, number, holds--> queued --its turn--> the machine --Decide--> one transaction: version + decision
                                                            | Activate, Abort, Release --> frames to the nodes

One rollout is on its way at a time, because workers stage one set of tables beside the live ones; the others wait their
turn, which is a moment. Two that would change the same entity never get that far: the second is refused by name when it
is created, and so is a plain write.

While a rollout is on its way its nodes are offered nothing else. When the head moves meanwhile, what was prepared is
made anew from it before the decision; from the second time on plain writes wait for that, at most `GATE_S_MAX`.

State is in the store at each step. A control plane that dies before the decision leaves a rollout that never was: it is
aborted by the next one, and nodes let go by themselves. One that dies after it leaves a version that is the head:
nodes that were armed activate without it, all others take the head when they connect, and the next control plane only
counts who runs it. The lease decides which of several control planes does any of this; its fence is checked in the
transaction of the decision, so that one that was thought dead can't decide any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from typing import TypeVar

from control_plane.entities.errors import EntityError
from control_plane.entities.types import EntityBody
from control_plane.fleet import rollout_messages as words
from control_plane.fleet.health import HealthBook
from control_plane.fleet.messages import RolloutWord, wire_delta
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.publisher import Publisher
from control_plane.fleet.rollout import (
    Abort,
    Action,
    Activate,
    Decide,
    Finish,
    Policy,
    Prepare,
    Release,
    Rollout,
    Standing,
    State,
    TooLate,
    lead_s,
)
from control_plane.fleet.rollout_plan import Overtaken, Owner, Plan, plan, replay
from control_plane.fleet.rollout_view import Drained, Facts, from_record, to_json
from control_plane.fleet.server import LinkServer
from control_plane.fleet.session import SnapshotRef
from control_plane.snapshot.builder import Snapshot
from control_plane.store.contract import Origin, RolloutRecord, Store, StoreError, Transaction
from control_plane.store.holds import check_not_held
from pointsman.wire.v1 import fleet_pb2

T = TypeVar("T")

LEASE = "rollouts"
LEASE_S = 5.0
RECOVER_EVERY_S = 0.5
RESUMED_S = 60.0
"""For nodes to come back after a restart of ours: they wait longer from one attempt to the next."""
WAITING_MAX = 32
"""Rollouts that may wait for their turn."""
RECENT_MAX = 64
"""Rollouts kept in memory after their end; older ones are in the store."""
GATE_S_MAX = 2.0
COMMIT_S = 0.004
"""What writing a decision takes, about. When it took longer the instant is set anew before anyone hears of it."""
DRAIN_S = 60.0
DRAIN_EVERY_S = 0.5
COUNTS_OLD_S = 2.0
"""A node's count of open requests may be this old when its beat brings it."""

_OPEN = (State.QUEUED, State.PREPARING, State.DECIDING, State.DECIDED)

log = logging.getLogger(__name__)


class Unchanged(Exception):
    """The unit of work changes nothing, so there is nothing to roll out; `result` is what it returned."""

    def __init__(self, result: object, head: int) -> None:
        super().__init__("nothing changes")
        self.result = result
        self.head = head


class Elsewhere(StoreError):
    """Another control plane coordinates rollouts now."""


class TooMany(StoreError):
    """Too many rollouts wait already."""


class TooLarge(Exception):
    """The change does not fit a rollout."""


class _Moved(Exception):
    """The head is not what was prepared for."""


class _Fenced(Exception):
    """The lease has changed hands."""


class Entry:
    """One rollout of this process."""

    def __init__(self, facts: Facts, machine: Rollout, result: object, owner: Owner | None = None) -> None:
        self.facts = facts
        self.machine = machine
        self.result = result
        self.owner = owner
        self.ended = asyncio.Event()
        self.base: Snapshot | None = None
        self.proposed: Snapshot | None = None
        self.fence = 0
        self.began = time.monotonic()
        self.activated_s = 0.0  # monotonic: the instant
        self.wake = asyncio.Event()

    def view(self) -> EntityBody:
        """All of it, for the Admin API and the store."""
        return to_json(self.facts, self.machine)

    def record(self) -> RolloutRecord:
        return RolloutRecord(self.facts.number, self.machine.state.value, self.view())


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
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._publisher = publisher
        self._server = server
        self._nodes = nodes
        self._health = health
        self._sole = sole
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
        self._stop_listening: Callable[[], None] = _nothing
        self._listeners: list[Callable[[Entry], None]] = []
        self.counts: dict[str, int] = {state.value: 0 for state in State if state.final}
        """How many ended so, since the start."""

    async def start(self) -> None:
        """Begins to listen, and takes over what an earlier process left open."""
        self._epoch = await self._store.epoch()
        self._server.on_rollout = self._heard
        self._stop_listening = self._nodes.listen(self._node_changed)
        self._own(self._recover(), "rollouts left open")
        if not self._sole:
            self._own(self._keep_lease(), "lease of rollouts")

    async def stop(self) -> None:
        """Ends all that is under way; what was decided goes on without us."""
        self._stop_listening()
        self._stop_listening = _nothing
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
    ) -> Entry:
        """Plans a rollout of what `work` changes, gives it a number and lets it begin.

        `act` is kept with it and shown, as it is: what the operator's verb that asked for it wants to find again.
        A rollout with an `owner` changes what the owner holds, and holds nothing itself.
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
        entry = await self._register(planned, origin, policy, act, owner)
        self._open[entry.facts.number] = entry
        self._own(self._coordinate(entry), f"rollout {entry.facts.number}")
        return entry

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

    async def _register(
        self, planned: Plan[T], origin: Origin, policy: Policy, act: EntityBody | None, owner: Owner | None
    ) -> Entry:
        holder, now = self._server.plane_id, self._wall()
        facts = Facts(0, origin, planned.changes, planned.gain, planned.lose, created_at=now, act=act)
        entry = Entry(facts, Rollout(policy, {}), planned.result, owner)

        def register(tx: Transaction) -> None:
            lease = tx.take_lease(LEASE, holder, now=self._lease_now(now), expires_at=now + LEASE_S)
            if lease is None:
                raise Elsewhere("another control plane coordinates a rollout now; ask it, or ask again shortly")
            if owner is not None:
                owner.admit(tx)
            check_not_held(tx, planned.changes)
            entry.fence = lease.fence
            facts.number = tx.next_rollout()
            tx.save_rollout(entry.record())
            if owner is None:
                tx.hold(facts.number, [(change.collection, change.id) for change in planned.changes])

        await self._store.write(register, origin)
        return entry

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
        head = await self._propose(entry)
        while self._server.trying:  # a plain change is on its first node; what comes of that takes a moment
            self._gate.clear()
            await asyncio.sleep(0.002)
            head = await self._propose(entry)
        self._gate.set()
        released = self._server.released
        base = released.snapshot if released is not None else head
        assert isinstance(base, Snapshot)
        live = {node.id: node.hostname for node in self._nodes.live()}
        entry.machine.members.update(Rollout.of(entry.machine.policy, live).members)
        self._server.pin(live, released)
        entry.base = base
        entry.facts.base_version = base.version
        at_base = [node.id for node in self._nodes.live() if node.running == _ref(base)]
        self._perform(entry, entry.machine.begin(at_base, _now()))

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

    async def _decide(self, entry: Entry) -> None:
        """The one transaction: all changes as the next version, and the decision with it."""
        machine, facts, proposed = entry.machine, entry.facts, entry.proposed
        assert proposed is not None
        errors = [member.vote.clock_error_us for member in machine.members.values() if member.vote is not None]
        lead = lead_s(nodes=len(machine.members), clock_errors_us=errors)
        holder = self._server.plane_id

        def commit(tx: Transaction) -> int:
            now = self._wall()
            lease = tx.take_lease(LEASE, holder, now=self._lease_now(now), expires_at=now + LEASE_S)
            if lease is None or lease.fence != entry.fence:
                raise _Fenced
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

        self._server.withhold()  # who takes no part takes the version at the instant, not before
        try:
            written = await self._store.write(commit, facts.origin)
        except _Moved:
            self._server.let_go(None)
            await self._rebase(entry)
            return
        except (_Fenced, Overtaken, StoreError, EntityError) as error:
            self._server.let_go(None)
            why = "another control plane has taken over" if isinstance(error, _Fenced) else str(error)
            self._perform(entry, machine.not_decided(why))
            return
        self._gate.set()
        at_plane_ns = written.result
        now_ns = time.monotonic_ns()
        if at_plane_ns - now_ns < int(lead * 0.8e9):
            at_plane_ns = now_ns + int(lead * 1e9)  # the disk took its time; nobody has heard of the first instant
        facts.at_plane_ns, facts.lead_s = at_plane_ns, lead
        remaining = (at_plane_ns - now_ns) / 1e9
        entry.activated_s = _now() + remaining
        self._publisher.hurry(written.version)
        asyncio.get_running_loop().call_later(remaining + 0.002, self._instant_passed, entry)
        self._perform(entry, machine.decided(written.version, _now(), lead_s=remaining))

    def _instant_passed(self, entry: Entry) -> None:
        """Who was not ready, or not there, takes the version now."""
        self._server.let_go(entry.machine.version)
        members = entry.machine.members.values()
        self._release(entry, [member.id for member in members if member.standing is not Standing.ARMED])

    async def _rebase(self, entry: Entry) -> None:
        """The head moved: the proposal is made anew, and plain writes wait until it is decided."""
        self._gate.clear()
        await self._propose(entry)
        self._perform(entry, entry.machine.moved(_now()))

    def _release(self, entry: Entry, nodes: Sequence[str]) -> None:
        other = self._current if self._current is not entry else None
        busy = set(other.machine.members) if other is not None and not other.machine.state.final else set()
        self._server.unpin([node for node in nodes if node not in busy])

    async def _finish(self, entry: Entry) -> None:
        facts, machine = entry.facts, entry.machine
        facts.ended_at = self._wall()
        facts.took_s = _now() - entry.began
        self._gate.set()
        self.counts[machine.state.value] += 1
        if machine.state is not State.ABORTED:
            facts.drained = [Drained(upstream) for upstream in facts.lose]
        level = logging.INFO if machine.state is State.CONFIRMED else logging.WARNING
        log.log(
            level, "rollout %d is %s: %s", facts.number, machine.state.value, machine.reason or "every node runs it"
        )
        self._open.pop(facts.number, None)
        self._recent[facts.number] = entry
        while len(self._recent) > RECENT_MAX:
            self._recent.popitem(last=False)
        if machine.state is State.ABORTED:
            await self._save(entry, release=True)  # before anyone hears: what it held is free then
            entry.ended.set()
        else:
            entry.ended.set()
            await self._save(entry, release=False)
        entry.wake.set()
        self._tell(entry)
        if facts.drained:
            self._own(self._drain(entry), f"drain of rollout {facts.number}")

    async def _save(self, entry: Entry, *, release: bool) -> None:
        def save(tx: Transaction) -> None:
            lease = tx.lease(LEASE)
            if lease is not None and entry.fence and lease.fence != entry.fence:
                return  # whoever has it now has brought the rollout to its end
            tx.save_rollout(entry.record())
            if release:
                tx.release(entry.facts.number)

        for _ in range(5):
            try:
                await self._store.write(save, entry.facts.origin)
            except StoreError as error:
                log.warning("the end of rollout %d is not saved yet: %s", entry.facts.number, error)
                await asyncio.sleep(0.5)
            else:
                return

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

    def _node_changed(self, node: Node) -> None:
        if node.running.epoch == self._epoch:
            self._running[node.id] = node.running.version
        for entry in list(self._open.values()):
            if node.id not in entry.machine.members:
                continue
            if not node.connected or node.leaving:
                self._perform(entry, entry.machine.gone(node.id, node.reason))
                if entry.machine.state is State.DECIDED:
                    remaining = max(0.0, entry.activated_s - _now())
                    asyncio.get_running_loop().call_later(remaining, self._release, entry, (node.id,))
                continue
            if node.running.epoch != self._epoch:
                continue
            if entry.base is not None and node.running == _ref(entry.base):
                self._perform(entry, entry.machine.at_base(node.id))
            self._perform(entry, entry.machine.runs(node.id, node.running.version))

    # --- the old side -----------------------------------------------------------------------------------------------

    async def _drain(self, entry: Entry) -> None:
        """Watches the upstreams that lost their traffic come to rest, and says when nothing is open any more."""
        facts = entry.facts
        deadline = _now() + DRAIN_S
        since = max(entry.activated_s, entry.began) + COUNTS_OLD_S
        for each in facts.drained:
            each.still_used_by = await self._users(each.upstream)
        while _now() < deadline:
            nodes = {node.id: node.hostname for node in self._nodes.live()}
            for each in facts.drained:
                total, waiting = 0, []
                each.by_node = {}
                for node, hostname in nodes.items():
                    counted = self._health.open_requests(node, each.upstream)
                    if counted is None or counted[0] < since:
                        waiting.append(hostname)
                    else:
                        total += counted[1]
                        each.by_node[node] = counted[1]
                lagging = [m.hostname for m in entry.machine.members.values() if m.standing is Standing.LAGGING]
                each.in_flight, each.waiting_for = total, tuple(sorted({*waiting, *lagging}))
            if all(each.in_flight == 0 and not each.waiting_for for each in facts.drained):
                break
            await asyncio.sleep(DRAIN_EVERY_S)
        self._tell(entry)
        await self._save(entry, release=False)

    async def _users(self, upstream: str) -> tuple[str, ...]:
        """Services that still point to an upstream: traffic may begin there again at any time."""

        def users(tx: Transaction) -> tuple[str, ...]:
            found = tx.get("upstreams", upstream)
            if found is None:
                return ()
            return tuple(
                str(service.get("name") or service["id"])
                for service in tx.each("services")
                if service.get("host") == found["name"] and service.get("enabled") is not False
            )[:16]

        return await self._store.read(users)

    # --- after a restart --------------------------------------------------------------------------------------------

    def _lease_now(self, now: float) -> float:
        """With a store of our own whoever had the lease is dead: it is over, whatever it says."""
        return float("inf") if self._sole else now

    async def _keep_lease(self) -> None:
        """While a rollout of ours is open nobody else must take us for dead."""
        holder = self._server.plane_id
        while True:
            await asyncio.sleep(LEASE_S / 4)
            if not self._open:
                continue
            now = self._wall()

            def renew(tx: Transaction, now: float = now) -> None:
                tx.take_lease(LEASE, holder, now=now, expires_at=now + LEASE_S)

            try:
                await self._store.write(renew, Origin())
            except StoreError as error:
                log.warning("the lease of rollouts is not renewed: %s", error)

    async def _recover(self) -> None:
        """Brings what another process left open to its end, as soon as the lease is ours."""
        while True:
            try:
                if await self._take_over():
                    return
            except StoreError as error:
                log.warning("rollouts left open can't be looked at yet: %s", error)
            await asyncio.sleep(RECOVER_EVERY_S)

    async def _take_over(self) -> bool:
        """True when nothing is left to take over now. With several control planes it is asked for ever."""
        states = [state.value for state in _OPEN]
        holder = self._server.plane_id

        def left_open(tx: Transaction) -> Sequence[RolloutRecord]:
            return [record for record in tx.rollouts_in(states) if record.number not in self._open]

        if await self._store.read(left_open):
            now = self._wall()
            took: list[tuple[Facts, Rollout, int]] = []

            def take(tx: Transaction) -> None:
                took.clear()
                lease = tx.take_lease(LEASE, holder, now=self._lease_now(now), expires_at=now + LEASE_S)
                if lease is None:
                    return
                for record in left_open(tx):
                    facts, machine = from_record(record)
                    if machine.state is not State.DECIDED:
                        machine.state = State.ABORTED
                        machine.reason = "the control plane ended before the decision"
                        facts.ended_at = now
                        tx.release(facts.number)
                        tx.save_rollout(RolloutRecord(facts.number, State.ABORTED.value, to_json(facts, machine)))
                        log.warning("rollout %d is aborted: %s", facts.number, machine.reason)
                    else:
                        took.append((facts, machine, lease.fence))

            await self._store.write(take, Origin())
            for facts, machine, fence in took:
                log.warning("rollout %d was decided as version %s; its end is awaited", facts.number, machine.version)
                entry = Entry(facts, machine, None)
                entry.fence = fence
                entry.activated_s = _now()
                machine.due = _now() + RESUMED_S
                self._open[facts.number] = entry
                for node in self._nodes.live():
                    self._node_changed(node)
                self._own(self._until_ended(entry), f"rollout {facts.number}, resumed")
        return self._sole

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


def _ref(snapshot: Snapshot) -> SnapshotRef:
    return SnapshotRef(snapshot.epoch, snapshot.version, snapshot.snapshot_hash)


def _now() -> float:
    return time.monotonic()


def _nothing() -> None:
    """Not listening."""


__all__ = ["Elsewhere", "Entry", "Rollouts", "TooLarge", "TooLate", "TooMany", "Unchanged"]
