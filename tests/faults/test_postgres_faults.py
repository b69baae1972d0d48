"""Bad days of PostgreSQL under write load: restarted, crashed, its connections ended, locked by another.

Goal: each write is answered in time with its version or a StoreError, what was acknowledged is there once, what was
refused is there whole or not at all, and versions stay dense. Method: writers create services of unique names over one
store each (two stores stand for two control planes); the history is compared with what they were told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path

import pytest

from control_plane.store import editor
from control_plane.store.contract import Origin, Store, StoreBusy, StoreError, StoreUnusable, Transaction
from control_plane.store.migrating import ONE_AT_A_TIME
from control_plane.store.postgres import PostgresSettings, open_postgres
from tests.contract.writing import create
from tests.support.patience import until
from tests.support.postgres import KEYRING, PostgresServer
from tests.support.told import Told

WRITERS = 4


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of this module's own; each test leaves it running."""
    own = PostgresServer()
    yield own
    own.destroy()


async def write_until(stop: asyncio.Event, store: Store, prefix: str, told: Told) -> None:
    """Creates services of unique names, one after the other; a refused name is not tried again."""
    turn = 0
    while not stop.is_set():
        turn += 1
        name = f"{prefix}-{turn}"

        def work(tx: Transaction, name: str = name) -> None:
            upstream = editor.create(tx, "upstreams", {"name": name}, now=1.0)
            editor.create(tx, "targets", {"target": "t:1", "upstream": {"id": upstream["id"]}}, now=1.0)

        began = time.monotonic()
        try:
            written = await store.write(work, Origin())
        except StoreError:
            told.refused.append(name)
        else:
            told.acknowledged[written.version] = name
        told.seconds.append(time.monotonic() - began)


async def under_load(stores: list[Store], bad_day: Callable[[], Coroutine[None, None, None]]) -> Told:
    """Lets writers write before, during and after the bad day."""
    told, stop = Told(), asyncio.Event()
    writers = [
        asyncio.create_task(write_until(stop, store, f"{number}-{writer}", told))
        for number, store in enumerate(stores)
        for writer in range(WRITERS)
    ]
    await until(lambda: len(told.acknowledged) > 20)
    await bad_day()
    before = len(told.acknowledged)
    await until(lambda: len(told.acknowledged) > before + 20)
    stop.set()
    await asyncio.gather(*writers)
    return told


async def check(store: Store, told: Told) -> None:
    history = await store.changes_since(0)
    names = told.check(history)
    assert all(len(version.changes) == 2 for version in history if not names[version.number].startswith("late-")), (
        "a unit is there whole"
    )


@pytest.fixture
async def stores(server: PostgresServer, tmp_path: Path) -> AsyncIterator[list[Store]]:
    url = server.create(tmp_path.name)
    opened: list[Store] = [await open_postgres(url, keyring=KEYRING) for _ in range(2)]
    yield opened
    for store in opened:
        await store.close()


async def test_a_restart_under_load_loses_nothing_and_doubles_nothing(
    server: PostgresServer, stores: list[Store]
) -> None:
    async def restart() -> None:
        for mode in ("immediate", "fast"):
            await asyncio.to_thread(server.restart, mode)

    told = await under_load(stores, restart)
    await check(stores[0], told)


async def test_ended_connections_are_hardly_noticed(server: PostgresServer, stores: list[Store]) -> None:
    async def end() -> None:
        for _ in range(3):
            await asyncio.to_thread(server.end_connections)
            await asyncio.sleep(0.3)

    told = await under_load(stores, end)
    assert told.refused == []
    await check(stores[1], told)
    for writing, hearing in (stores, stores[::-1]):  # each hears of the other's versions again
        heard: list[int] = []
        hearing.subscribe(heard.append)
        await create(writing, "services", name=f"heard-by-{stores.index(hearing)}", host="x")
        head = await writing.head()
        await until(lambda heard=heard, head=head: head in heard)  # type: ignore[misc]  # lambda defaults


async def test_a_database_that_is_away_refuses_in_time_and_comes_back(
    server: PostgresServer, stores: list[Store]
) -> None:
    await create(stores[0], "services", name="before", host="x")
    await asyncio.to_thread(server.stop, "immediate")
    with pytest.raises(StoreError, match="cannot be used"):
        await create(stores[0], "services", name="meanwhile", host="x")
    with pytest.raises(StoreError, match="cannot be used"):
        await stores[0].read(lambda tx: tx.head())
    await asyncio.to_thread(server.start)
    await create(stores[0], "services", name="after", host="x")
    assert await stores[0].head() == 2
    heard: list[int] = []
    stores[1].subscribe(heard.append)
    await create(stores[0], "services", name="heard", host="x")
    await until(lambda: 3 in heard)


async def test_a_server_that_hangs_refuses_in_time_and_nothing_is_lost_when_it_goes_on(
    server: PostgresServer, stores: list[Store]
) -> None:
    """It holds its connections and takes new ones, but says nothing: only the client's own clock can tell."""
    refused: list[float] = []

    async def hang() -> None:
        await asyncio.to_thread(server.freeze)
        try:
            began = time.monotonic()
            late = [asyncio.ensure_future(create(stores[0], "services", name=f"late-{n}", host="x")) for n in range(4)]
            for outcome in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(outcome, StoreError), outcome
                refused.append(time.monotonic() - began)
        finally:
            await asyncio.to_thread(server.thaw)

    told = await under_load(stores, hang)
    assert len(refused) == 4
    told.refused += [f"late-{n}" for n in range(4)]
    await check(stores[1], told)


async def test_a_head_locked_by_another_is_said_so(server: PostgresServer) -> None:
    url = server.create("locked")
    store = await open_postgres(url, keyring=KEYRING, settings=PostgresSettings(lock_patience_s=0.1))
    locking = asyncio.create_task(
        asyncio.to_thread(server.psql, "BEGIN; SELECT 1 FROM head FOR UPDATE; SELECT pg_sleep(1.5); COMMIT", "locked")
    )
    await until(lambda: "pg_sleep(1.5)" in server.psql("SELECT query FROM pg_stat_activity WHERE datname = 'locked'"))
    with pytest.raises(StoreBusy, match="another control plane has been writing"):
        await create(store, "services", name="s", host="x")
    await locking
    await create(store, "services", name="s", host="x")
    await store.close()


async def test_control_planes_that_start_with_their_server_wait_for_it_and_for_each_other(
    server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """All at once over an empty database: it is not up yet, and then another one is long about making the tables."""
    url = server.create("together")
    hasty = PostgresSettings(lock_patience_s=0.1)
    await asyncio.to_thread(server.stop)
    opening = [asyncio.create_task(open_postgres(url, keyring=KEYRING, settings=hasty)) for _ in range(3)]
    await until(lambda: sum("trying again for" in record.message for record in caplog.records) >= 3)
    maker = f"BEGIN; SELECT pg_advisory_xact_lock({ONE_AT_A_TIME}); SELECT pg_sleep(1.0); COMMIT"
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(server.psql, maker, "together")
    stores = await asyncio.gather(*opening)
    assert len({await store.epoch() for store in stores}) == 1, "one of them made the tables"
    for number, store in enumerate(stores):
        await create(store, "services", name=f"s{number}", host="x")
    assert await stores[-1].head() == 3
    for store in stores:
        await store.close()


async def test_a_start_gives_up_in_the_end_and_at_once_where_waiting_does_not_help(server: PostgresServer) -> None:
    with pytest.raises(StoreError, match="no such database"):
        await open_postgres(server.url("nowhere"), keyring=KEYRING)
    away = "postgresql://pointsman@127.0.0.1:1/x"
    with pytest.raises(StoreError, match="cannot be reached"):
        await open_postgres(away, keyring=KEYRING, settings=PostgresSettings(start_patience_s=0.1))


async def test_a_server_that_would_lose_acknowledged_writes_is_refused(server: PostgresServer) -> None:
    url = server.create("unsafe")
    for name in ("fsync", "full_page_writes"):
        server.stop()
        server.start(f"-c {name}=off")
        with pytest.raises(StoreUnusable, match=f"{name} off"):
            await open_postgres(url, keyring=KEYRING)
    server.stop()
    server.start("-c synchronous_commit=off")
    store = await open_postgres(url, keyring=KEYRING)
    assert await store.head() == 0
    await store.close()
    server.restart()
