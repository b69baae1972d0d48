"""A snapshot goes into all workers or into none, whatever workers do on the way.

The workers are fakes that keep the protocol: they refuse changes over a version they do not serve, activate only what
they prepared, and answer nothing once they have ended. What each of them does is scripted per step.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import cast

import pytest

from data_plane.node.applying import Applier, ApplyLimits
from data_plane.node.last_good import Ahead
from data_plane.node.names import Names
from data_plane.node.outcomes import Applied, Refused
from data_plane.node.snapshot import NodeSnapshot
from data_plane.node.supervisor import Slot, Supervisor
from data_plane.node.workers import Activation, WorkerDied, WorkerProcess, WorkerRefused
from data_plane.resolve.answers import Answer, Record
from data_plane.resolve.cache import Cache, CacheRules, Found, Outcome
from pointsman.snapshots import Fault, Stage
from pointsman.wire.v1 import worker_pb2 as wire
from tests.unit.data_plane.node.entities import service, snapshot

ONE = snapshot(1, service("s1", "10.0.0.1"))
TWO = snapshot(2, service("s1", "10.0.0.2"))
THREE = snapshot(3, service("s1", "10.0.0.2"), service("s2", "10.0.0.3"))
FAULT = Fault("BAD_REGEX", "routes", "r1", "", "paths", "no valid regex")

REFUSE, DIE, HANG, OK = "refuse", "die", "hang", "ok"


class FakeWorker:
    """One process. `script` has what happens at the next steps, in order: `prepare`, `activate`, `prepare` ..."""

    def __init__(self, index: int, pid: int, script: deque[str]) -> None:
        self.index = index
        self.pid = pid
        self.script = script
        self.snapshot: NodeSnapshot | None = None
        self.version = 0
        self.entities: dict[bytes, None] = {}
        self.prepared_version = 0
        self.names: list[Answer] = []
        loop = asyncio.get_running_loop()
        self.gone: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.ended: asyncio.Event = asyncio.Event()

    @property
    def alive(self) -> bool:
        return not self.gone.done()

    async def started(self, *, timeout_s: float) -> None:
        await asyncio.sleep(0)

    async def _step(self) -> None:
        await asyncio.sleep(0)
        what = self.script.popleft() if self.script else OK
        if what == DIE:
            self.kill()
        if what == HANG:
            await self.ended.wait()
        if what == REFUSE:
            raise WorkerRefused((FAULT,))
        if not self.alive:
            raise WorkerDied("it is gone")

    async def prepare(self, messages: Iterable[bytes], version: int, *, timeout_s: float) -> None:
        decoded = [wire.ToWorker.FromString(message) for message in messages]
        assert decoded[0].stage_begin.base_version == self.version, "changes are over what the worker serves"
        assert decoded[0].stage_begin.snapshot.version == version
        assert decoded[-1].WhichOneof("kind") == "stage_end"
        async with asyncio.timeout(timeout_s):
            await self._step()
        self.prepared_version = version

    async def activate(self, version: int, at_monotonic_ns: int, *, timeout_s: float) -> Activation:
        assert self.prepared_version == version, "only what was prepared is activated"
        async with asyncio.timeout(timeout_s):
            await self._step()
        self.version = version
        return Activation(1, 0)

    def discard(self, version: int) -> None:
        if self.prepared_version == version:
            self.prepared_version = 0

    def push_names(self, answers: Sequence[Answer]) -> None:
        self.names.extend(answers)

    def kill(self) -> None:
        if self.alive:
            self.gone.set_result(None)
            self.exited.set_result(-9)
            self.ended.set()


class World:
    """Two workers under a real supervisor, and a real applier."""

    def __init__(self, *scripts: Sequence[str], limits: ApplyLimits | None = None, spawned: int = 10) -> None:
        self.scripts = [deque(script) for script in scripts or ((), ())]
        self.processes: list[FakeWorker] = []
        self.spawns_left = spawned
        self.supervisor = Supervisor(
            [Slot(index, []) for index in range(len(self.scripts))], spawn=self.spawn, rng=random.Random(1)
        )
        self.resolved: dict[str, str] = {}
        self.names = Names(
            self.resolve,
            Cache(CacheRules()),
            on_change=lambda answers: self.applier.push_names(answers),  # noqa: PLW0108 - made below
        )
        self.applier = Applier(self.supervisor, self.names, limits=limits)

    async def spawn(self, slot: Slot) -> WorkerProcess:
        worker = FakeWorker(slot.index, len(self.processes), self.scripts[slot.index])
        self.processes.append(worker)
        return cast("WorkerProcess", worker)

    async def resolve(self, name: str) -> Outcome:
        while name not in self.resolved:
            await asyncio.sleep(0.001)
        return Found((Record(self.resolved[name]),), 60.0)

    async def __aenter__(self) -> World:
        self.names.start()
        self.supervisor.start(self.applier.bring_up)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.supervisor.stop()
        await self.names.stop()

    async def all_serving(self) -> list[FakeWorker]:
        return [cast("FakeWorker", await slot.serving(failures_max=5)) for slot in self.supervisor.slots]

    async def versions(self) -> list[int]:
        return [worker.version for worker in await self.all_serving()]


async def test_a_snapshot_becomes_active_in_all_workers() -> None:
    async with World() as world:
        assert world.applier.running is None
        assert isinstance(await world.applier.apply(ONE), Applied)
        assert await world.versions() == [1, 1]
        assert world.applier.running is ONE
        assert isinstance(await world.applier.apply(TWO), Applied)
        assert await world.versions() == [2, 2]
        assert world.applier.running is TWO


async def test_the_same_content_under_a_new_version_moves_the_version() -> None:
    async with World() as world:
        await world.applier.apply(ONE)
        again = snapshot(7, service("s1", "10.0.0.1"))
        assert isinstance(await world.applier.apply(again), Applied)
        assert await world.versions() == [7, 7]


async def test_one_refusal_keeps_the_running_config_everywhere() -> None:
    async with World((OK, OK, OK), (OK, OK, REFUSE)) as world:
        await world.applier.apply(ONE)
        assert await world.applier.apply(TWO) == Refused(Stage.BUILD, (FAULT,))
        assert await world.versions() == [1, 1]
        assert world.applier.running is ONE
        assert [worker.prepared_version for worker in world.processes] == [0, 1]
        assert isinstance(await world.applier.apply(THREE), Applied)
        assert await world.versions() == [3, 3]


async def test_a_worker_that_ends_comes_back_with_what_the_node_serves() -> None:
    async with World() as world:
        await world.applier.apply(ONE)
        (await world.all_serving())[0].kill()
        assert world.supervisor.ready_count == 1
        await asyncio.sleep(0)
        assert await world.versions() == [1, 1]
        assert len(world.processes) == 3


async def test_a_worker_that_ends_while_preparing_prepares_again_after_its_restart() -> None:
    async with World((OK, OK, DIE), ()) as world:
        await world.applier.apply(ONE)
        assert isinstance(await world.applier.apply(TWO), Applied)
        assert await world.versions() == [2, 2]


async def test_a_config_that_ends_workers_while_they_prepare_is_refused() -> None:
    deadly = (OK, OK, DIE, OK, OK, DIE, OK, OK, DIE)
    async with World(deadly, ()) as world:
        await world.applier.apply(ONE)
        refused = await world.applier.apply(TWO)
        assert isinstance(refused, Refused)
        assert (refused.stage, refused.faults[0].code) == (Stage.BUILD, "WORKER_DIED")
        assert await world.versions() == [1, 1]
        assert world.applier.running is ONE


async def test_a_worker_that_ends_while_activating_comes_back_straight_in_the_new_config() -> None:
    async with World((OK, OK, OK, DIE), ()) as world:
        await world.applier.apply(ONE)
        assert isinstance(await world.applier.apply(TWO), Applied)
        assert await world.versions() == [2, 2]
        assert world.applier.running is TWO


async def test_a_worker_that_ends_after_it_prepared_does_not_stay_behind() -> None:
    """It comes back in the old config while the other still prepares; the decision must reach it all the same."""
    async with World((OK, OK, OK), (OK, OK, HANG)) as world:
        await world.applier.apply(ONE)
        applying = asyncio.create_task(world.applier.apply(TWO))
        first, second = await world.all_serving()
        while first.prepared_version != 2:
            await asyncio.sleep(0)
        first.kill()
        await asyncio.sleep(0)
        assert await world.versions() == [1, 1]
        second.ended.set()  # the hanging worker goes on
        assert isinstance(await applying, Applied)
        assert await world.versions() == [2, 2]


async def test_a_config_that_ends_workers_while_they_activate_is_taken_back_from_all() -> None:
    # The first worker: ONE, then prepares TWO, dies activating it, and dies again at each start with it.
    deadly = (OK, OK, OK, DIE, *(OK, DIE) * 3)
    async with World(deadly, ()) as world:
        await world.applier.apply(ONE)
        refused = await world.applier.apply(TWO)
        assert isinstance(refused, Refused)
        assert (refused.stage, refused.faults[0].code) == (Stage.ACTIVATE, "WORKER_DIED")
        assert await world.versions() == [1, 1]
        assert world.applier.running is ONE


async def test_a_worker_that_hangs_is_replaced_and_the_config_refused() -> None:
    limits = ApplyLimits(prepare_s=0.5)
    async with World((OK, OK, HANG), (), limits=limits) as world:
        await world.applier.apply(ONE)
        refused = await world.applier.apply(TWO)
        assert isinstance(refused, Refused)
        assert refused.faults[0].code == "TIMEOUT"
        assert await world.versions() == [1, 1]
        assert len(world.processes) == 3


async def test_cancelling_before_the_decision_discards_and_after_it_completes() -> None:
    async with World((OK, OK, HANG, OK, OK, HANG), ()) as world:
        await world.applier.apply(ONE)
        applying = asyncio.create_task(world.applier.apply(TWO))
        first, second = await world.all_serving()
        while second.prepared_version != 2:
            await asyncio.sleep(0)
        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying
        assert await world.versions() == [1, 1]
        assert second.prepared_version == 0
        applying = asyncio.create_task(world.applier.apply(TWO))
        while second.version != 2:
            await asyncio.sleep(0)
        applying.cancel()
        await asyncio.sleep(0)
        assert not applying.done()
        first.script.clear()
        first.ended.set()
        with pytest.raises(asyncio.CancelledError):
            await applying
        assert world.applier.running is TWO
        assert await world.versions() == [2, 2]


async def test_applies_run_one_after_the_other() -> None:
    async with World() as world:
        outcomes = await asyncio.gather(*(world.applier.apply(each) for each in (ONE, TWO, THREE)))
        assert all(isinstance(outcome, Applied) for outcome in outcomes)
        assert await world.versions() == [3, 3]


async def test_names_are_there_before_the_config_that_needs_them() -> None:
    named = snapshot(2, service("s1", "blue.test"))
    async with World(limits=ApplyLimits(names_s=30.0)) as world:
        await world.applier.apply(ONE)
        applying = asyncio.create_task(world.applier.apply(named))
        while world.processes[0].prepared_version != 2:
            await asyncio.sleep(0)
        assert world.applier.running is ONE
        world.resolved["blue.test"] = "10.0.0.9"
        assert isinstance(await applying, Applied)
        answer = Answer("blue.test", (Record("10.0.0.9"),))
        assert all(answer in worker.names for worker in await world.all_serving())
        (await world.all_serving())[0].kill()
        await asyncio.sleep(0)
        assert answer in (await world.all_serving())[0].names


async def test_a_name_that_does_not_resolve_holds_a_config_up_only_for_a_while() -> None:
    named = snapshot(2, service("s1", "nowhere.test"))
    async with World(limits=ApplyLimits(names_s=0.01)) as world:
        await world.applier.apply(ONE)
        assert isinstance(await world.applier.apply(named), Applied)
        assert await world.versions() == [2, 2]


def ahead(of: NodeSnapshot, *, changed: bool = False) -> Ahead:
    bodies = list(of.entities.values())
    return Ahead(of.ref, bodies, changes=((bodies, ()),) if changed else ())


async def loaded(what: NodeSnapshot | None) -> NodeSnapshot | None:
    return what


async def test_workers_stage_what_is_still_being_verified_and_serve_it_only_afterwards() -> None:
    async with World() as world:
        verifying: asyncio.Future[NodeSnapshot | None] = asyncio.get_running_loop().create_future()
        restoring = asyncio.create_task(world.applier.restore(ahead(ONE), verifying))
        workers = await world.all_serving()
        while any(worker.prepared_version != 1 for worker in workers):
            await asyncio.sleep(0)
        assert [worker.version for worker in workers] == [0, 0]
        assert world.applier.running is None
        verifying.set_result(ONE)
        assert isinstance(await restoring, Applied)
        assert await world.versions() == [1, 1]
        assert world.applier.running is ONE
        assert isinstance(await world.applier.apply(TWO), Applied)


@pytest.mark.parametrize("found", [None, TWO], ids=["nothing good", "another version"])
async def test_what_is_not_what_was_staged_never_serves(found: NodeSnapshot | None) -> None:
    async with World() as world:
        verifying: asyncio.Future[NodeSnapshot | None] = asyncio.get_running_loop().create_future()
        restoring = asyncio.create_task(world.applier.restore(ahead(ONE), verifying))
        workers = await world.all_serving()
        while any(worker.prepared_version != 1 for worker in workers):
            await asyncio.sleep(0)
        verifying.set_result(found)
        assert await restoring is None
        assert [(worker.version, worker.prepared_version) for worker in workers] == [(0, 0), (0, 0)]
        assert world.applier.running is None
        assert isinstance(await world.applier.apply(TWO), Applied)
        assert await world.versions() == [2, 2]


async def test_a_reader_that_fails_leaves_nothing_staged() -> None:
    async def failing() -> NodeSnapshot | None:
        raise RuntimeError("the disk is gone")

    async with World() as world:
        with pytest.raises(RuntimeError, match="the disk is gone"):
            await world.applier.restore(ahead(ONE), failing())
        assert [worker.prepared_version for worker in await world.all_serving()] == [0, 0]
        assert isinstance(await world.applier.apply(ONE), Applied)


async def test_what_workers_refuse_ahead_is_refused_unless_the_journal_may_have_put_it_right() -> None:
    async with World((REFUSE, REFUSE), ()) as world:
        assert await world.applier.restore(ahead(ONE, changed=True), loaded(ONE)) is None
        assert await world.applier.restore(ahead(ONE), loaded(ONE)) == Refused(Stage.BUILD, (FAULT,))
        assert world.applier.running is None
        assert isinstance(await world.applier.apply(ONE), Applied)


async def test_a_worker_that_ends_while_it_stages_ahead_stages_again() -> None:
    async with World((DIE,), ()) as world:
        assert isinstance(await world.applier.restore(ahead(ONE), loaded(ONE)), Applied)
        assert await world.versions() == [1, 1]
