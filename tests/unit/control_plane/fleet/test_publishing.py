"""Goal: what was committed is published, soon, once, and completely. Method: a real store, a list for a fleet."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody
from control_plane.fleet.gather import GatherSettings
from control_plane.fleet.publisher import Publisher
from control_plane.snapshot.builder import Snapshot
from control_plane.store.contract import Origin, Store, StoreUnavailable, Transaction, Version
from tests.support.fresh_store import fresh_sqlite

NEVER_S = 3600.0


def upstream(name: str) -> EntityBody:
    return SCHEMAS["upstreams"].on_insert({"name": name}, now=time.time(), resolve=lambda *_: None)


def create(*names: str) -> Callable[[Transaction], None]:
    bodies = [upstream(name) for name in names]

    def work(tx: Transaction) -> None:
        for body in bodies:
            tx.insert("upstreams", body)

    return work


class Rig:
    def __init__(self, store: Store, gather: GatherSettings) -> None:
        self.snapshots: list[Snapshot] = []
        self.came = asyncio.Event()
        self.publisher = Publisher(store, self._publish, gather=gather, clock=time.monotonic)

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self.came.set()

    async def reach(self, version: int) -> None:
        async with asyncio.timeout(20):
            while not self.snapshots or self.snapshots[-1].version < version:
                self.came.clear()
                await self.came.wait()


@contextlib.asynccontextmanager
async def following(store: Store, gather: GatherSettings | None = None) -> AsyncIterator[Rig]:
    rig = Rig(store, gather or GatherSettings())
    await rig.publisher.start()
    running = asyncio.create_task(rig.publisher.run())
    try:
        yield rig
    finally:
        rig.publisher.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await fresh_sqlite(tmp_path / "store.db")
    yield store
    await store.close()


async def test_an_empty_store_publishes_nothing(store: Store) -> None:
    async with following(store) as rig:
        assert rig.snapshots == []


async def test_what_is_there_at_the_start_is_published(store: Store) -> None:
    await store.write(create("a", "b"), Origin())
    async with following(store) as rig:
        (snapshot,) = rig.snapshots
        assert (snapshot.version, snapshot.entity_count, snapshot.epoch) == (1, 2, await store.epoch())


async def test_a_commit_is_published(store: Store) -> None:
    async with following(store) as rig:
        await store.write(create("a"), Origin())
        await rig.reach(1)
        assert rig.snapshots[-1].entity_count == 1


async def test_a_burst_is_gathered_and_its_end_is_published(store: Store) -> None:
    slow = GatherSettings(quiet_s=NEVER_S, window_s_max=NEVER_S)
    async with following(store, slow) as rig:
        await store.write(create("u0"), Origin())
        await rig.reach(1)  # the first change after silence goes out at once
        for number in range(1, 60):
            await store.write(create(f"u{number}"), Origin())
        rig.publisher.hurry(60)
        await rig.reach(60)
        assert rig.snapshots[-1].entity_count == 60
        assert len(rig.snapshots) == 2


async def test_a_waiting_writer_gets_its_version_out_of_a_burst(store: Store) -> None:
    slow = GatherSettings(quiet_s=NEVER_S, window_s_max=NEVER_S)
    async with following(store, slow) as rig:
        await store.write(create("a"), Origin())
        await rig.reach(1)  # the first change after silence goes out at once
        await store.write(create("b"), Origin())
        rig.publisher.hurry(2)
        await rig.reach(2)


async def test_a_writer_that_waits_before_its_commit_was_heard_of_is_served_too(store: Store) -> None:
    slow = GatherSettings(quiet_s=NEVER_S, window_s_max=NEVER_S)
    async with following(store, slow) as rig:
        await store.write(create("a"), Origin())
        await rig.reach(1)
        rig.publisher.hurry(2)
        await store.write(create("b"), Origin())
        await rig.reach(2)


async def test_a_version_of_equal_content_is_published_as_well(store: Store) -> None:
    body = upstream("a")
    await store.write(lambda tx: tx.insert("upstreams", body), Origin())
    async with following(store) as rig:
        tagged: EntityBody = {**body, "tags": ["t"]}
        await store.write(lambda tx: tx.replace("upstreams", tagged), Origin())
        await rig.reach(2)
        first, second = rig.snapshots
        assert first.snapshot_hash == second.snapshot_hash


class Flaky:
    """A store whose reading of changes fails for a while, as when its disk is gone."""

    def __init__(self, store: Store, error: Exception, times: int) -> None:
        self._store = store
        self._error = error
        self.left = times

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def at_hand(self, _version: int) -> Sequence[Version] | None:
        return None

    async def changes_since(self, version: int) -> Sequence[Version]:
        if self.left:
            self.left -= 1
            raise self._error
        return await self._store.changes_since(version)


@pytest.mark.parametrize("error", [StoreUnavailable("disk gone"), RuntimeError("a mistake of ours")])
async def test_a_store_that_fails_for_a_while_is_caught_up_with(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr("control_plane.fleet.publisher.RETRY_S", 0.01)
    flaky = Flaky(store, error, times=2)
    async with following(cast(Store, flaky)) as rig:
        await store.write(create("a"), Origin())
        await rig.reach(1)
        assert rig.snapshots[-1].entity_count == 1
