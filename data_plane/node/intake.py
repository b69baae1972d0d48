"""Which snapshot this node takes next, and its way from there to "applied": made or pulled, applied, kept, told.

The session decides; this carries out what it says and tells it what came of it. There is at most one piece of work (a
pull, then its apply), which outlives a conversation once the workers have it. Serving never depends on any of this:
whatever fails here, the node goes on with what it runs. `link.py` brings the control plane's words and takes ours.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Coroutine, Sequence
from typing import Protocol, TypeVar, assert_never

import grpc.aio

from data_plane.node import messages, session
from data_plane.node.bases import Bases
from data_plane.node.crash_guard import STABLE_S, CrashGuard
from data_plane.node.keeping import Keeper, Ready
from data_plane.node.last_good import Ahead, Generation, LastGood, Loaded
from data_plane.node.outcomes import Applied, ApplyOutcome, Refused
from data_plane.node.pull import Pulls, SnapshotGone
from data_plane.node.session import Session
from data_plane.node.snapshot import Delta, NodeSnapshot, Offer, SnapshotRefused, apply_delta, make_delta
from pointsman.snapshots import Fault, SnapshotRef, Stage
from pointsman.wire.v1 import fleet_pb2

T = TypeVar("T")

INLINE_BYTES_MAX = 64 * 1024
"""Raw bytes of a delta that is made on the loop: in well under a millisecond."""

log = logging.getLogger(__name__)


class SnapshotSink(Protocol):
    """Who makes snapshots active; see `applying.py`."""

    @property
    def running(self) -> NodeSnapshot | None: ...
    async def apply(self, snapshot: NodeSnapshot) -> ApplyOutcome: ...
    async def restore(self, ahead: Ahead, loading: Awaitable[NodeSnapshot | None]) -> ApplyOutcome | None: ...


class Conversing(Protocol):
    """What the present conversation does for the intake; see `link.py`."""

    @property
    def channel(self) -> grpc.aio.Channel:
        """Where to pull from; only while connected."""
        ...

    def say(self, message: fleet_pb2.NodeMessage) -> None:
        """Queue a message; only while connected."""
        ...

    def caught_up(self) -> None:
        """The node runs what the control plane wants it to."""
        ...


class Intake:
    """See the module. Lives as long as the node process, over many conversations; `stop` it in the end."""

    def __init__(
        self, conversing: Conversing, sink: SnapshotSink, last_good: LastGood, pulls: Pulls, *, snapshot_bytes_max: int
    ) -> None:
        self._conversing = conversing
        self._sink = sink
        self._last_good = last_good
        self._pulls = pulls
        self._snapshot_bytes_max = snapshot_bytes_max
        self._session = Session()
        self.loaded = asyncio.Event()
        """Whether `restore` has read what there is: from then on the workers are at work, and this process is not."""
        self._pulled: Ready | None = None
        self._bases = Bases()
        self._work: asyncio.Task[None] | None = None
        self._keeper = Keeper(last_good)
        self._guard = CrashGuard(last_good.folder)
        self._stable: asyncio.TimerHandle | None = None

    @property
    def running(self) -> SnapshotRef:
        """What serves traffic now."""
        return self._session.running

    @property
    def idle(self) -> bool:
        """Whether this node has done what it was told."""
        return self._session.work is None

    @property
    def problem(self) -> str:
        """Why the last good files are not up to date or were not usable; empty when all is well."""
        return self._keeper.problem

    async def stop(self) -> None:
        """Wait for the last good file. A pull is given up; so is an undecided apply."""
        await self._end_work()
        if self._stable is not None:
            self._stable.cancel()
        self._guard.ended()
        await self._keeper.stop(self._sink.running)

    # --- what the link says -----------------------------------------------------------------------------------------

    def connected(self) -> None:
        """The control plane welcomed this node."""
        self._session.connected()

    async def disconnected(self) -> None:
        """The conversation is over; a pull ends with it."""
        actions = self._session.disconnected()
        self._perform(actions)
        if actions:
            await self._end_work()

    def offered(self, offer: Offer | Delta) -> None:
        """The control plane's latest word on what this node should run."""
        self._perform(self._session.offered(offer))

    # --- what is on the disk ----------------------------------------------------------------------------------------

    async def restore(self) -> bool:
        """Serves from the last good snapshot, or the one before it; whether one of them is active now.

        Call it before the link runs, so that the first hello can say what runs.
        """
        await asyncio.to_thread(self._guard.begin)
        try:
            return await self._restore_or_forgive()
        finally:
            self.loaded.set()

    async def _restore_or_forgive(self) -> bool:
        if await self._restore():
            return True
        if self._guard.refused:
            log.error("there is nothing to serve but the configuration that the node ended with; trying it again")
            self._guard.forgive()
            return await self._restore()
        return False

    async def _restore(self) -> bool:
        for generation in Generation:
            loaded, outcome = await self._load(generation)
            for problem in loaded.problems:
                self._keeper.problem = problem
                log.error("last good snapshot: %s", problem)
            if loaded.snapshot is None:
                continue
            if outcome is None:
                outcome = await self._hand_over(loaded.snapshot, restored=True)
            match outcome:
                case Applied():
                    self._bases.add(loaded.snapshot)
                    self._session.restored(loaded.snapshot.ref)
                    self._keeper.restored(loaded.snapshot)
                    log.info("serving %s from %s", loaded.snapshot.ref, generation.value)
                    _say_running(loaded.snapshot, kept=True, restored=True)
                    return True
                case Refused():
                    self._keeper.problem = f"{generation.value} was refused: {_first(outcome)}"
                    log.error("last good snapshot: %s", self._keeper.problem)
        return False

    async def _load(self, generation: Generation) -> tuple[Loaded, ApplyOutcome | None]:
        """A generation, and what became of it where the workers could have it ahead; None = it is still to be applied.

        A file that turns out to be damaged has cost the workers some building, and nobody was served by it.
        """
        loop = asyncio.get_running_loop()
        told: asyncio.Future[Ahead] = loop.create_future()
        loading = asyncio.create_task(
            asyncio.to_thread(
                self._last_good.load, generation, ahead=lambda ahead: loop.call_soon_threadsafe(told.set_result, ahead)
            ),
            name="loading",
        )

        async def verified() -> NodeSnapshot | None:
            snapshot = (await loading).snapshot
            if snapshot is not None:
                self.loaded.set()
            return snapshot

        checking = asyncio.create_task(verified(), name="verifying")
        await asyncio.wait((told, checking), return_when=asyncio.FIRST_COMPLETED)
        outcome: ApplyOutcome | None = None
        if told.done() and self._guard.refusal(told.result().ref.snapshot_hash) is None:
            ahead = told.result()
            outcome = await self._hand_to(self._sink.restore(ahead, asyncio.shield(checking)), ahead.ref, restored=True)
            if outcome is None:
                self._withdrawn()
        await checking
        return await loading, outcome

    # --- what rollouts make active ----------------------------------------------------------------------------------

    def refusal(self, snapshot: NodeSnapshot) -> Refused | None:
        """Why this content must not become active on this node."""
        return self._guard.refusal(snapshot.snapshot_hash)

    def arming(self, snapshot: NodeSnapshot) -> None:
        """This snapshot is about to become active."""
        self._arming(snapshot.snapshot_hash, restored=False)

    def _arming(self, snapshot_hash: bytes, *, restored: bool) -> None:
        self._guard.activating(snapshot_hash, restored=restored)
        if self._stable is not None:
            self._stable.cancel()
        self._stable = asyncio.get_running_loop().call_later(STABLE_S, self._guard.stable)

    def _withdrawn(self) -> None:
        """What was about to become active did not, whatever becomes of it later."""
        self._guard.withdrawn()
        if self._stable is not None:
            self._stable.cancel()

    async def activated(self, snapshot: NodeSnapshot, delta: Delta | None) -> None:
        """It is active in all workers. Returns when a kill of this process can't undo that any more."""
        self._bases.add(snapshot)
        _say_running(snapshot, kept=await self._keeper.keep(Ready(snapshot, delta=delta)))

    def told(self, snapshot: NodeSnapshot, took_s: float) -> None:
        """A rollout's report of the activation is on its way."""
        self._perform(self._session.rolled_out(snapshot.ref, took_s))

    # --- work -------------------------------------------------------------------------------------------------------

    def _perform(self, actions: Sequence[session.Action]) -> None:
        """Carries out what the session decided."""
        for action in actions:
            match action:
                case session.StartPull():
                    self._start(self._pull(action.offer))
                case session.StartMake():
                    self._start(self._make(action.delta))
                case session.StopPull():
                    if self._work is not None:
                        self._work.cancel()
                case session.ApplyPulled():
                    ready, self._pulled = self._pulled, None
                    assert ready is not None
                    assert ready.snapshot.ref == action.ref
                    self._start(self._apply(ready))
                case session.Adopt():
                    running = self._sink.running
                    assert running is not None, "only what runs can take another name"
                    adopted = running.adopt(action.ref)
                    self._start(self._apply(Ready(adopted, delta=make_delta(running, adopted))))
                case session.TellApplied():
                    if self._session.work is None:
                        self._conversing.caught_up()
                    self._conversing.say(messages.applied(action.ref, took_s=action.took_s))
                case session.TellUnusable():
                    log.warning("%s is wanted whole: %s", action.ref, action.fault.message)
                    self._conversing.say(
                        messages.delta_unusable(
                            action.ref, running=action.running, code=action.fault.code, message=action.fault.message
                        )
                    )
                case session.TellRejected():
                    log.error("rejected %s: %s", action.ref, _first(action.refused))
                    self._conversing.say(messages.rejected(action.ref, action.refused, running=action.running))
                case _:
                    assert_never(action)

    def _start(self, work: Coroutine[None, None, tuple[session.Action, ...]]) -> None:
        """Begins the next piece of work. The one before it has fed its end to the session, which asked for this one."""
        self._work = asyncio.create_task(self._do(work), name="fleet link work")

    async def _do(self, work: Coroutine[None, None, tuple[session.Action, ...]]) -> None:
        try:
            self._perform(await work)
        except Exception:  # the owner of this task has nobody to raise to; serving goes on and the log says why
            log.exception("the fleet link's work ended by a mistake of ours")

    async def _end_work(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))

    async def _make(self, delta: Delta) -> tuple[session.Action, ...]:
        base = self._bases.find(delta.base)
        if base is None:
            return self._session.delta_unusable(
                Fault("UNKNOWN_BASE", message=f"this node has not got version {delta.base.version}")
            )
        try:
            if delta.raw_bytes <= INLINE_BYTES_MAX:
                snapshot = apply_delta(delta, base, raw_bytes_max=self._snapshot_bytes_max)
            else:
                snapshot = await asyncio.to_thread(apply_delta, delta, base, raw_bytes_max=self._snapshot_bytes_max)
        except SnapshotRefused as error:
            return self._session.delta_unusable(error.refused.faults[0])
        except Exception as error:  # as in _hand_over
            log.exception("making %s failed", delta.ref)
            return self._session.pull_refused(_internal(Stage.VERIFY, error))
        self._pulled = Ready(snapshot, delta=delta)
        return self._session.pulled()

    async def _pull(self, offer: Offer) -> tuple[session.Action, ...]:
        channel = self._conversing.channel
        try:
            base = self._sink.running
            repaired = await self._pulls.repair(channel, offer, base) if base is not None else None
            ready = repaired or await self._pulls.fetch(
                channel, offer, give_up=lambda: self._session.waiting is not None
            )
        except SnapshotRefused as error:
            return self._session.pull_refused(error.refused)
        except SnapshotGone as error:
            log.warning("%s can't be pulled any longer: %s", offer.ref, error)
            return self._session.pull_gone()
        except Exception as error:  # as in _hand_over
            log.exception("pulling %s failed", offer.ref)
            return self._session.pull_refused(_internal(Stage.PULL, error))
        self._pulled = ready
        return self._session.pulled()

    async def _apply(self, ready: Ready) -> tuple[session.Action, ...]:
        running = self._sink.running
        if running is not None and running.epoch == ready.snapshot.epoch and running.version > ready.snapshot.version:
            return self._session.overtaken()  # by a rollout, while this one was on its way
        outcome = await self._hand_over(ready.snapshot)
        match outcome:
            case Applied():
                small = ready.delta is not None and ready.delta.raw_bytes <= INLINE_BYTES_MAX
                self._bases.add(ready.snapshot, differs_little=small)
                # Before the report: what was reported must not be undone by a kill a moment later.
                kept = await self._keeper.keep(ready)
                _say_running(ready.snapshot, kept=kept, took_s=outcome.took_s)
                return self._session.applied(outcome.took_s)
            case Refused():
                return self._session.refused(outcome)

    async def _hand_over(self, snapshot: NodeSnapshot, *, restored: bool = False) -> ApplyOutcome:
        if (refusal := self.refusal(snapshot)) is not None:
            return refusal
        return await self._hand_to(self._sink.apply(snapshot), snapshot.ref, restored=restored)

    async def _hand_to(self, applying: Awaitable[T], ref: SnapshotRef, *, restored: bool) -> T | Refused:
        self._arming(ref.snapshot_hash, restored=restored)
        try:
            return await applying
        except Exception as error:  # a mistake of ours must show as a refusal, not as a node that never answers
            log.exception("applying %s failed", ref)
            return _internal(Stage.ACTIVATE, error)


def _say_running(snapshot: NodeSnapshot, *, kept: bool, restored: bool = False, took_s: float | None = None) -> None:
    """One line a version, before it is reported, for whoever wants to know later what this node ran and when.

    `kept` = a kill brings it back to this version; `restored` = that is what happened.
    """
    facts: dict[str, object] = {} if took_s is None else {"took_ms": round(took_s * 1000, 1)}
    facts |= {
        "epoch": snapshot.epoch.hex(),
        "version": snapshot.version,
        "snapshot_hash": snapshot.snapshot_hash.hex(),
        "kept": kept,
        "restored": restored,
    }
    log.info("this node runs %s", snapshot.ref, extra=facts)


def _internal(stage: Stage, error: Exception) -> Refused:
    return Refused(stage, (Fault("INTERNAL", message=f"{type(error).__name__}: {error}"),))


def _first(refused: Refused) -> str:
    if not refused.faults:
        return f"refused at {refused.stage.value}"
    fault = refused.faults[0]
    where = " ".join(part for part in (fault.collection, fault.entity_name or fault.entity_id, fault.field) if part)
    return f"{fault.code} {where}: {fault.message}" if where else f"{fault.code}: {fault.message}"
