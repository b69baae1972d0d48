"""The control plane removes operators' words that are over, and knows which upstreams sample their probes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.own_settings import OwnSettings
from control_plane.fleet.sampling import Sampling
from control_plane.store import editor
from control_plane.store.contract import Origin, Store, Transaction
from tests.support.fresh_store import fresh_sqlite

NOW = 1_700_000_000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await fresh_sqlite(tmp_path / "store.db")
    yield opened
    await opened.close()


async def write(store: Store, work: Callable[[Transaction], EntityBody]) -> EntityBody:
    return (await store.write(work, Origin())).result


async def upstream(store: Store) -> tuple[str, str]:
    made = await write(store, lambda tx: editor.create(tx, "upstreams", {"name": "u"}, now=NOW))
    body: EntityBody = {"target": "10.0.0.1:80", "upstream": {"id": made["id"]}}
    target = await write(store, lambda tx: editor.create(tx, "targets", body, now=NOW))
    return str(made["id"]), str(target["id"])


async def put(store: Store, upstream_id: str, **settings: JsonValue) -> None:
    body: EntityBody = {"upstream": {"id": upstream_id}, **settings}
    await write(store, lambda tx: editor.upsert(tx, "upstream_settings", upstream_id, body, now=NOW))


async def words(store: Store, upstream_id: str) -> JsonValue:
    found = await store.read(lambda tx: tx.get("upstream_settings", upstream_id))
    assert found is not None
    return found["manual_health"]


async def test_a_word_is_removed_when_its_time_is_over(store: Store) -> None:
    upstream_id, target = await upstream(store)
    lasting: EntityBody = {"target": target, "address": "10.0.0.1:80", "healthy": False, "until": 0}
    short: EntityBody = {"target": target, "address": None, "healthy": True, "until": int(NOW) + 10}
    await put(store, upstream_id, manual_health=[lasting, short])
    clock = [NOW]
    following = OwnSettings(store, wall=lambda: clock[0])
    await following.follow(await store.head())
    assert await words(store, upstream_id) == [lasting, short]
    head = await store.head()
    clock[0] = NOW + 9
    await following.follow(head)
    assert await store.head() == head
    clock[0] = NOW + 10
    await following.follow(head)
    assert await words(store, upstream_id) == [lasting]
    (newest,) = await store.versions(size=1)
    assert (newest.number, newest.origin.source) == (head + 1, "expiry")
    clock[0] = NOW + 100
    await following.follow(await store.head())
    assert await store.head() == head + 1


async def test_rows_of_a_target_that_is_gone_are_removed(store: Store) -> None:
    upstream_id, target = await upstream(store)
    await put(store, upstream_id, slow_start=5, manual_health=[{"target": target, "healthy": False}])
    following = OwnSettings(store, wall=lambda: NOW)
    await following.follow(await store.head())
    await store.write(lambda tx: tx.delete("targets", target), Origin())
    await following.follow(await store.head())
    assert await words(store, upstream_id) == []


async def test_the_modes_of_sampling_are_followed(store: Store) -> None:
    upstream_id, _ = await upstream(store)
    following = OwnSettings(store, wall=lambda: NOW)
    await following.follow(await store.head())
    assert following.modes == {}
    await put(store, upstream_id, probe_sampling="off")
    await following.follow(await store.head())
    assert following.modes == {upstream_id: Sampling.OFF}


async def test_a_store_that_cannot_be_read_is_asked_again(store: Store) -> None:
    upstream_id, _ = await upstream(store)
    following = OwnSettings(store, wall=lambda: NOW)
    await put(store, upstream_id, probe_sampling="on")
    await store.close()
    await following.follow(1)
    assert following.modes == {}
