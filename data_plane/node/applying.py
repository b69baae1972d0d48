"""A snapshot into all workers of this node, or into none of them.

    stage in every worker, names meanwhile --all prepared--> decided --activate in every worker--> running
                        `--one refused, died thrice, or was too slow--> discarded; the running config stays

Nothing is active anywhere before every worker has prepared, and after the decision there is one goal only: a worker
that ends in between comes back straight in the new config, because `bring_up` stages the goal of the moment. Only a
config that kills workers while they activate it is taken back, from all of them.

A rollout takes the same way in two halves: `prepare` stages and stops there, `activate` goes on with a common instant
that every worker arms. In between anything else may be applied; what was staged is then staged again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from data_plane.node.diff import Again, Diff, ahead_messages, stage_messages
from data_plane.node.last_good import Ahead
from data_plane.node.names import NameIndex, Names
from data_plane.node.outcomes import FAULTS_MAX, Applied, ApplyOutcome, Refused
from data_plane.node.snapshot import NodeSnapshot
from data_plane.node.supervisor import KeepsDying, Slot, Supervisor
from data_plane.node.workers import Activation, WarmedEndpoint, WorkerDied, WorkerProcess, WorkerRefused
from data_plane.resolve.answers import Answer
from pointsman.snapshots import Fault, Stage

T = TypeVar("T")

ENTITIES_AT_ONCE_MAX = 16
"""A change of so few entities is searched for names at once; of more, while the workers build."""
ENDS_MAX = 3
"""Ends of one worker during one apply before the config is blamed for them."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ApplyLimits:
    """How long each step may take, in seconds. `names_s` is waited for once per apply, then the apply goes on."""

    names_s: float = 2.0
    prepare_s: float = 60.0
    activate_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Activated:
    """A rollout's snapshot is active in all workers. Nanoseconds of CLOCK_MONOTONIC; one lateness a worker.

    `ahead_us` is how long before the instant the last worker was armed; 0 = it had passed.
    """

    last_swap_ns: int
    late_us: tuple[int, ...]
    ahead_us: int = 0


class HealthFollower(Protocol):
    """Who tells the workers which endpoints are down; see `health.py`."""

    def deciding(self, diff: Diff) -> None:
        """`diff` is about to become active."""
        ...

    def active(self) -> None:
        """It is, in all workers, or it was taken back."""
        ...

    def whole(self) -> Sequence[bytes]:
        """What a new worker must be told first."""
        ...


@dataclass(frozen=True, slots=True)
class _Staged:
    """A snapshot that workers hold beside what serves, and the names it will need."""

    snapshot: NodeSnapshot
    diff: Diff
    processes: dict[int, WorkerProcess]
    needed: frozenset[str]


class _NotPrepared(Exception):
    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.faults[0].message if refused.faults else refused.stage.value)
        self.refused = refused


class Applier:
    """Applies one snapshot after the other; which one is next is the session's business."""

    def __init__(
        self,
        supervisor: Supervisor,
        names: Names,
        *,
        limits: ApplyLimits | None = None,
        health: HealthFollower | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._supervisor = supervisor
        self._names = names
        self._limits = limits or ApplyLimits()
        self._health = health
        self._clock = clock
        self._lock = asyncio.Lock()
        self._index = NameIndex()
        self._goal: NodeSnapshot | None = None
        self._goal_at_ns = 0
        self._running: NodeSnapshot | None = None
        self._prepared: _Staged | None = None

    @property
    def running(self) -> NodeSnapshot | None:
        """The snapshot that is active in all workers; a new one only when the last worker has it."""
        return self._running

    async def apply(self, snapshot: NodeSnapshot) -> ApplyOutcome:
        """Make `snapshot` active in all workers, or leave everything as it was. One at a time; others wait.

        Cancelling discards what is staged; once the decision has fallen it only ends the caller's wait for the outcome.
        """
        async with self._lock:
            began = self._clock()
            self._prepared = None  # staging replaces what workers held for a rollout
            refused, _ = await self._apply(snapshot, 0, None)
            return self._told(snapshot, refused, began)

    async def restore(self, ahead: Ahead, loading: Awaitable[NodeSnapshot | None]) -> ApplyOutcome | None:
        """Stage what is on disk in all workers while it is verified, and make it active when it is what it should be.

        The first snapshot of this node's life; `loading` gives the verified one, None if there is none. None = nothing
        came of it, and what was loaded, if anything, is to be applied as any other: it is not what was staged, or the
        workers refuse it, which they may because of what a change of the journal took out again.
        """
        async with self._lock:
            assert self._goal is None, "nothing serves yet"
            began = self._clock()
            messages = Again(ahead_messages(ahead))
            preparing = asyncio.create_task(
                self._prepare_everywhere(ahead.ref.version, None, messages), name="staging ahead"
            )
            try:
                snapshot = await loading
                if snapshot is None or snapshot.ref != ahead.ref:
                    return None
                refused, _ = await self._apply(snapshot, 0, None, preparing)
            finally:
                preparing.cancel()
                await asyncio.gather(preparing, return_exceptions=True)
                if self._goal is None:
                    for process in self._supervisor.processes:
                        process.discard(ahead.ref.version)
            return None if refused is not None and ahead.changes else self._told(snapshot, refused, began)

    def _told(self, snapshot: NodeSnapshot, refused: Refused | None, began: float) -> ApplyOutcome:
        if refused is not None:
            _log.error("%s is refused: %s", snapshot.ref, "; ".join(fault.message for fault in refused.faults[:3]))
            return refused
        took_s = self._clock() - began
        _log.debug("%s is active in all workers after %.1f ms", snapshot.ref, took_s * 1000)
        return Applied(took_s)

    async def prepare(self, snapshot: NodeSnapshot) -> Refused | None:
        """Stage `snapshot` in all workers and resolve its names; what serves is untouched. None = it is ready.

        It takes the place of what was prepared before, and goes when anything else is applied.
        """
        async with self._lock:
            self._prepared = None
            diff = Diff.between(self._goal, snapshot)
            known = frozenset(self._index.needed)
            try:
                processes = await self._stage(snapshot, diff, known)
                needed = frozenset(self._index.needed)
                self._prepared = _Staged(snapshot, diff, processes, needed)
            except _NotPrepared as not_prepared:
                return not_prepared.refused
            finally:
                self._index.undo(diff)
                self._keep_names()
            answers = self._names.answers(needed - known)
            for process in processes.values():
                process.push_names(answers)  # so that connections can be opened
            return None

    async def warm(
        self, snapshot: NodeSnapshot, upstreams: Sequence[str], *, connections: int, timeout_s: float
    ) -> list[WarmedEndpoint]:
        """Open connections to `upstreams` in all workers that have `snapshot` prepared."""
        staged = self._prepared
        if staged is None or staged.snapshot is not snapshot:
            return []
        told: list[WarmedEndpoint] = []
        asked = [
            process.warm(snapshot.version, upstreams, connections=connections, timeout_s=timeout_s)
            for process in staged.processes.values()
        ]
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, tuple):
                told.extend(answer)
            elif not isinstance(answer, WorkerDied | TimeoutError):
                raise answer
        return told

    def is_prepared(self, snapshot: NodeSnapshot) -> bool:
        """Whether the workers still hold it."""
        return self._prepared is not None and self._prepared.snapshot is snapshot

    def drop_prepared(self, snapshot: NodeSnapshot) -> None:
        """Let the workers forget what was prepared, if it still is."""
        if self.is_prepared(snapshot):
            self._prepared = None
            for process in self._supervisor.processes:
                process.discard(snapshot.version)
            self._keep_names()

    async def activate(self, snapshot: NodeSnapshot, at_ns: int) -> Activated | Refused:
        """Make what was prepared active in every worker at `at_ns`, by CLOCK_MONOTONIC; never before it.

        Cancelling only ends the wait for the outcome: the decision has fallen, and not on this node.
        """
        async with self._lock:
            staged, self._prepared = self._prepared, None
            if staged is None or staged.snapshot is not snapshot or staged.diff.before is not self._goal:
                staged = None
            refused, activations = await self._apply(snapshot, at_ns, staged)
            if refused is not None:
                return refused
            late = tuple((activation.at_monotonic_ns - at_ns) // 1000 for activation in activations)
            _log.info("%s is active in all workers, at most %d us late", snapshot.ref, max(late, default=0))
            last = max((activation.at_monotonic_ns for activation in activations), default=time.monotonic_ns())
            return Activated(last, late, min((activation.ahead_us for activation in activations), default=0))

    async def _apply(
        self,
        snapshot: NodeSnapshot,
        at_ns: int,
        staged: _Staged | None,
        preparing: asyncio.Task[dict[int, WorkerProcess]] | None = None,
    ) -> tuple[Refused | None, list[Activation]]:
        """Stage unless that is done or on its way, then activate everywhere. The lock is held."""
        diff = staged.diff if staged is not None else Diff.between(self._goal, snapshot)
        known = frozenset(self._index.needed)
        activations: list[Activation] = []
        try:
            if staged is not None:
                self._index.apply(diff.upserts, diff.deletes)
                prepared = staged.processes
            else:
                prepared = await self._stage(snapshot, diff, known, preparing)
            answers = self._names.answers(self._index.needed - known)
            activating = self._activate_everywhere(
                snapshot, diff, prepared, answers, at_ns=at_ns, activations=activations
            )
            return await _to_the_end(activating), activations
        except _NotPrepared as not_prepared:
            return not_prepared.refused, []
        finally:
            # Whatever happened, the names in use are those of what the node serves from now on.
            if self._goal is not snapshot:
                self._index.undo(diff)
            self._keep_names()

    def _keep_names(self) -> None:
        self._names.keep_only(self._index.needed | (self._prepared.needed if self._prepared is not None else set()))

    async def bring_up(self, process: WorkerProcess) -> None:
        """Make a new worker serve what the node serves; nothing to do before the first config.

        Raises WorkerRefused, WorkerDied or TimeoutError, after which the process is of no use.
        """
        while (goal := self._goal) is not process.snapshot:
            assert goal is not None, "a worker can't have what the node does not serve"
            process.push_names(self._names.answers(self._index.needed))
            if self._health is not None:
                for message in self._health.whole():
                    process.push(message)
            messages = stage_messages(Diff.between(process.snapshot, goal))
            await process.prepare(messages, goal.version, timeout_s=self._limits.prepare_s)
            # Between a rollout's decision and its instant a new worker waits for the instant, too.
            await process.activate(goal.version, self._goal_at_ns, timeout_s=self._activate_within_s())
            process.snapshot = goal

    def push_names(self, answers: Sequence[Answer]) -> None:
        """Tell all workers what changed; this is what `Names` calls."""
        for process in self._supervisor.processes:
            process.push_names(answers)

    async def _stage(
        self,
        snapshot: NodeSnapshot,
        diff: Diff,
        known: frozenset[str],
        preparing: asyncio.Task[dict[int, WorkerProcess]] | None = None,
    ) -> dict[int, WorkerProcess]:
        """Prepare every worker, and find and resolve the names that are new meanwhile; returns who prepared, by slot.

        `preparing` does the first where it has begun. However it ends, `diff` is in the index of names, wholly or in
        part.
        """
        steps: Iterable[None] = ()
        if len(diff.upserts) + len(diff.deletes) <= ENTITIES_AT_ONCE_MAX:
            self._index.apply(diff.upserts, diff.deletes)
        else:
            steps = self._index.steps(diff.upserts, diff.deletes)
        resolving: asyncio.Task[bool] | None = None
        if steps or self._index.needed - known:
            resolving = asyncio.create_task(self._resolve(steps, known), name="names of a snapshot")
        try:
            if preparing is not None:
                prepared = await preparing
            else:
                messages = Again(stage_messages(diff))
                prepared = await self._prepare_everywhere(snapshot.version, diff.before, messages, snapshot)
            if resolving is not None and not await resolving:
                _log.warning("%s is activated although some of its names have no answer yet", snapshot.ref)
        except BaseException:
            for process in self._supervisor.processes:
                process.discard(snapshot.version)
            raise
        finally:
            if resolving is not None:
                resolving.cancel()
                await asyncio.wait((resolving,))
        return prepared

    async def _resolve(self, steps: Iterable[None], known: frozenset[str]) -> bool:
        """Take the names that are needed after `steps` into use; whether all have an answer in time.

        To find the names of 100,000 entities takes a while, in which the workers should get their messages.
        """
        for _ in steps:
            await asyncio.sleep(0)
        return await self._names.require(self._index.needed - known, within_s=self._limits.names_s)

    async def _activate_everywhere(
        self,
        snapshot: NodeSnapshot,
        diff: Diff,
        prepared: dict[int, WorkerProcess],
        answers: Sequence[Answer],
        *,
        at_ns: int,
        activations: list[Activation],
    ) -> Refused | None:
        for process in self._supervisor.processes:
            process.push_names(answers)
        # Verdicts first: no worker may serve an endpoint of the new config that is known to be down.
        if self._health is not None:
            self._health.deciding(diff)
        # The decision. From here on workers that start are brought up in the new config.
        self._goal, self._goal_at_ns = snapshot, at_ns

        async def activate(slot: Slot) -> None:
            activation = await self._activate(slot, snapshot, prepared.get(slot.index), at_ns)
            if activation is not None:
                activations.append(activation)

        try:
            await self._everywhere(activate)
        except KeepsDying as error:
            if self._health is not None:
                self._health.deciding(Diff.between(snapshot, diff.before))
            await self._take_back(diff.before, snapshot)
            if self._health is not None:
                self._health.active()
            return Refused(Stage.ACTIVATE, (Fault("WORKER_DIED", message=f"{error} with this config"),))
        self._running = snapshot
        if self._health is not None:
            self._health.active()
        return None

    async def _prepare_everywhere(
        self, version: int, before: NodeSnapshot | None, messages: Iterable[bytes], snapshot: NodeSnapshot | None = None
    ) -> dict[int, WorkerProcess]:
        """All workers; returns who prepared, by slot. Raises _NotPrepared.

        `messages` stage `version` over `before`. A worker that came back with another snapshot than that is sent what
        makes `snapshot` of what it has; before the first activation there is no other.
        """
        prepared: dict[int, WorkerProcess] = {}

        async def prepare(slot: Slot) -> None:
            prepared[slot.index] = await self._prepare(slot, version, before, messages, snapshot)

        await self._everywhere(prepare)
        return prepared

    async def _prepare(
        self,
        slot: Slot,
        version: int,
        before: NodeSnapshot | None,
        messages: Iterable[bytes],
        snapshot: NodeSnapshot | None,
    ) -> WorkerProcess:
        """One worker, over its ends; returns the process that prepared. Raises _NotPrepared."""
        deadline = self._clock() + self._limits.prepare_s
        for _ in range(ENDS_MAX):
            process = slot.process if slot.ready else None
            try:
                if process is None:
                    async with asyncio.timeout(max(deadline - self._clock(), 0.0)):
                        process = await slot.serving(failures_max=ENDS_MAX)
                if process.snapshot is not before:
                    messages = stage_messages(Diff.between(process.snapshot, snapshot))
                await process.prepare(messages, version, timeout_s=max(deadline - self._clock(), 0.0))
            except WorkerDied:
                if process is not None:
                    await slot.changed_from(process)
                continue
            except WorkerRefused as refusal:
                raise _NotPrepared(Refused(_stage_of(refusal.faults), refusal.faults[:FAULTS_MAX])) from None
            except KeepsDying as error:
                raise _NotPrepared(Refused(Stage.BUILD, (Fault("WORKER_DIED", message=str(error)),))) from None
            except TimeoutError:
                if process is not None:
                    process.kill()  # it hangs: its replacement serves the running config
                text = f"worker {slot.index} was not prepared within {self._limits.prepare_s:g} s"
                raise _NotPrepared(Refused(Stage.BUILD, (Fault("TIMEOUT", message=text),))) from None
            return process
        text = f"worker {slot.index} ended {ENDS_MAX} times while it prepared this config"
        raise _NotPrepared(Refused(Stage.BUILD, (Fault("WORKER_DIED", message=text),)))

    def _activate_within_s(self) -> float:
        return self._limits.activate_s + max(0.0, (self._goal_at_ns - time.monotonic_ns()) / 1e9)

    async def _activate(
        self, slot: Slot, snapshot: NodeSnapshot, prepared: WorkerProcess | None, at_ns: int
    ) -> Activation | None:
        """One worker, over its ends; None when it came back in the new config by itself. Raises KeepsDying."""
        for _ in range(ENDS_MAX):
            process = await slot.serving(failures_max=ENDS_MAX)
            if process.snapshot is snapshot:
                return None  # it came back straight in the new config
            try:
                if process is not prepared:
                    await self.bring_up(process)  # it came back between its predecessor's "prepared" and the decision
                    return None
                activation = await process.activate(snapshot.version, at_ns, timeout_s=self._activate_within_s())
            except (WorkerDied, WorkerRefused):
                process.kill()
            except TimeoutError:
                _log.error("worker %d did not activate %s in time and is killed", slot.index, snapshot.ref)
                process.kill()
            else:
                process.snapshot = snapshot
                _log.debug("worker %d activated %s, %d us late", slot.index, snapshot.ref, activation.late_us)
                return activation
            # The slot notices the end by itself; until then it would hand out the same process.
            await slot.changed_from(process)
        raise KeepsDying(f"worker {slot.index} ended {ENDS_MAX} times")

    async def _take_back(self, before: NodeSnapshot | None, snapshot: NodeSnapshot) -> None:
        """Return every worker to `before` after a config that workers do not survive."""
        _log.error("%s is taken back: workers end when they activate it", snapshot.ref)
        self._goal, self._goal_at_ns = before, 0
        if before is None:
            for process in self._supervisor.processes:
                process.kill()
            return
        messages = list(stage_messages(Diff.between(snapshot, before)))

        async def back(slot: Slot) -> None:
            process = slot.process
            if process is None or process.snapshot is not snapshot:
                return
            try:
                await process.prepare(messages, before.version, timeout_s=self._limits.prepare_s)
                await process.activate(before.version, 0, timeout_s=self._limits.activate_s)
                process.snapshot = before
            except (WorkerDied, WorkerRefused, TimeoutError):
                process.kill()

        await asyncio.gather(*(back(slot) for slot in self._supervisor.slots))

    async def _everywhere(self, step: Callable[[Slot], Awaitable[object]]) -> None:
        """Run a step for all workers at once; the first exception ends the others and is raised as it is."""
        if len(self._supervisor.slots) == 1:
            await step(self._supervisor.slots[0])
            return
        tasks = [asyncio.ensure_future(_run(step, slot)) for slot in self._supervisor.slots]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _run(step: Callable[[Slot], Awaitable[object]], slot: Slot) -> None:
    await step(slot)


async def _to_the_end(steps: Coroutine[object, object, T]) -> T:
    """Await `steps` to their end even when cancelled, then be cancelled: half of them done is a state nobody wants."""
    task = asyncio.ensure_future(steps)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def _stage_of(faults: Sequence[Fault]) -> Stage:
    """Entities that could not be read are told apart from tables that could not be made."""
    return Stage.DECODE if faults and faults[0].code in ("UNKNOWN_ENTITY", "UNDECODABLE", "BAD_VALUE") else Stage.BUILD
