"""A slot's lives: restarts, waiting for a ready worker, giving up."""

from __future__ import annotations

import asyncio
import random
from typing import cast

import pytest

from data_plane.node.supervisor import KeepsDying, Slot, Supervisor
from data_plane.node.workers import WorkerDied, WorkerProcess


class Life:
    """A process that ends when told."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.index = 0
        self.pid = 1
        self.gone: asyncio.Future[None] = loop.create_future()
        self.exited: asyncio.Future[int] = loop.create_future()
        self.drained: list[tuple[float, float]] = []

    @property
    def alive(self) -> bool:
        return not self.gone.done()

    async def started(self, *, timeout_s: float) -> None:
        await asyncio.sleep(0)
        if not self.alive:
            raise WorkerDied("gone")

    async def drain(self, *, accept_for_s: float, finish_within_s: float) -> int:
        self.drained.append((accept_for_s, finish_within_s))
        self.kill()
        return 1

    def kill(self) -> None:
        if self.alive:
            self.gone.set_result(None)
            self.exited.set_result(0)


class World:
    def __init__(self, *, stillborn: int = 0) -> None:
        self.lives: list[Life] = []
        self.stillborn = stillborn
        self.slot = Slot(0, [])
        self.supervisor = Supervisor([self.slot], spawn=self.spawn, rng=random.Random(1))
        self.brought_up = 0

    async def spawn(self, slot: Slot) -> WorkerProcess:
        life = Life()
        self.lives.append(life)
        if len(self.lives) <= self.stillborn:
            life.kill()
        return cast("WorkerProcess", life)

    async def bring_up(self, process: WorkerProcess) -> None:
        self.brought_up += 1


async def test_a_worker_is_ready_after_it_was_brought_up_and_replaced_when_it_ends() -> None:
    world = World()
    world.supervisor.start(world.bring_up)
    first = await world.slot.serving(failures_max=1)
    assert world.supervisor.ready_count == 1
    world.lives[0].kill()
    assert world.supervisor.ready_count == 0
    await world.slot.changed_from(first)
    assert await world.slot.serving(failures_max=1) is not first
    assert (world.brought_up, world.slot.restarts) == (2, 1)
    await world.supervisor.stop()


async def test_waiting_for_a_worker_that_never_comes_up_ends() -> None:
    world = World(stillborn=3)
    world.supervisor.start(world.bring_up)
    with pytest.raises(KeepsDying, match="worker 0 ended 2 times"):
        await world.slot.serving(failures_max=2)
    await world.slot.serving(failures_max=5)
    assert world.slot.failures == 0
    await world.supervisor.stop()


async def test_a_drained_worker_is_not_replaced_and_nobody_waits_for_it() -> None:
    world = World()
    world.supervisor.start(world.bring_up)
    await world.slot.serving(failures_max=1)
    cut = await world.supervisor.drain(accept_for_s=1.0, finish_within_s=2.0)
    assert cut == 1
    assert world.lives[0].drained == [(1.0, 2.0)]
    with pytest.raises(KeepsDying, match="ending"):
        await world.slot.serving(failures_max=1)
    assert len(world.lives) == 1
    await world.supervisor.stop()


async def test_stopping_ends_all_and_restarts_none() -> None:
    world = World()
    world.supervisor.start(world.bring_up)
    await world.slot.serving(failures_max=1)
    await world.supervisor.stop()
    assert not world.lives[0].alive
    assert len(world.lives) == 1
