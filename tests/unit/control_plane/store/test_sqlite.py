"""What is SQLite's own: opening, refusing to open, locks, full queues, broken disks."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.store import editor
from control_plane.store.contract import Origin, Store, StoreBusy, StoreUnavailable, StoreUnusable, Transaction
from control_plane.store.sqlite import SqliteSettings, open_sqlite

NOW = 1_700_000_000.0
IMPATIENT = SqliteSettings(lock_patience_s=0.01)


async def create(store: Store, name: str = "s") -> int:
    def work(tx: Transaction) -> None:
        editor.create(tx, "services", {"name": name, "host": "x"}, now=NOW)

    return (await store.write(work, Origin())).version


async def test_versions_are_stamped_with_the_clock(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db", clock=lambda: NOW + 0.25)
    await create(store)
    version = await store.version(1)
    assert version is not None
    assert version.committed_at == NOW + 0.25
    await store.close()


async def test_the_file_is_private_and_its_folder_is_made(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deeper" / "s.db"
    store = await open_sqlite(path)
    await create(store)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    await store.close()


async def test_commits_are_synced_to_disk(tmp_path: Path) -> None:
    """Promised by two settings that nothing else would miss."""
    path = tmp_path / "s.db"
    store = await open_sqlite(path)
    await create(store)
    await store.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    text = (Path(editor.__file__).parent / "sqlite.py").read_text()
    assert '"synchronous=FULL"' in text


async def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await open_sqlite(path)
    with pytest.raises(StoreUnusable, match="another control plane has the database open"):
        await open_sqlite(path)
    await store.close()
    await (await open_sqlite(path)).close()


async def test_a_database_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    await (await open_sqlite(path)).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreUnusable, match=r"schema 9999.*newer"):
        await open_sqlite(path)
    assert path.read_bytes() == before


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.commit()
    with pytest.raises(StoreUnusable, match="not a database of this program"):
        await open_sqlite(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"services:\n  - name: not a database\n" * 200)
    with pytest.raises(StoreUnusable, match="no SQLite database"):
        await open_sqlite(path)


async def test_a_path_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match=r"file/s\.db cannot be used"):
        await open_sqlite(tmp_path / "file" / "s.db")
    with pytest.raises(StoreUnusable, match="Is a directory"):
        await open_sqlite(tmp_path)


async def test_a_locked_database_refuses_writes_in_words_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await open_sqlite(path, settings=IMPATIENT)
    await create(store, "before")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        results = await asyncio.gather(*(create(store, f"s{n}") for n in range(5)), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results)
        assert "another program holds its lock" in str(results[0])
        # Readers see what was committed meanwhile.
        assert await store.read(lambda tx: len(list(tx.each("services")))) == 1
        other.execute("ROLLBACK")
    assert await create(store, "after") == 2
    await store.close()


@contextlib.contextmanager
def no_room(path: Path) -> Iterator[None]:
    """Files may not grow: what a full disk looks like, one errno aside."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = path.with_name(path.name + "-wal").stat().st_size + 4096
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_takes_no_more_loses_nothing_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    store = await open_sqlite(path)
    await create(store, "before")

    def large(tx: Transaction) -> None:
        for number in range(50):
            editor.create(tx, "services", {"name": f"l{number}", "host": "x", "tags": ["t" * 1000]}, now=NOW)

    with no_room(path):
        results = await asyncio.gather(store.write(large, Origin()), create(store, "beside"), return_exceptions=True)
        assert all(isinstance(result, StoreUnavailable) for result in results), results
        assert await store.read(lambda tx: [body["name"] for body in tx.each("services")]) == ["before"]
        assert await store.head() == 1
    assert (await store.write(large, Origin())).version == 2
    assert await store.read(lambda tx: len(list(tx.each("services")))) == 51
    await store.close()
    store = await open_sqlite(path)
    assert await store.head() == 2
    await store.close()


async def test_more_writes_than_may_wait_are_refused(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db", settings=SqliteSettings(queued_writes_max=3))
    entered, go_on = threading.Event(), threading.Event()

    def slow(_tx: Transaction) -> None:
        entered.set()
        assert go_on.wait(30)

    first = asyncio.ensure_future(store.write(slow, Origin()))
    await asyncio.to_thread(entered.wait, 30)
    waiting = [asyncio.ensure_future(create(store, f"s{number}")) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreBusy, match="3 writes are waiting") as caught:
        await create(store, "too many")
    assert caught.value.retry_after_s == 1
    go_on.set()
    await first
    assert await asyncio.gather(*waiting) == [1, 2, 3]
    assert await create(store, "later") == 4
    await store.close()


async def test_more_reads_than_may_wait_are_refused(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db", settings=SqliteSettings(queued_reads_max=2, readers=1))
    go_on = threading.Event()
    slow = [asyncio.ensure_future(store.read(lambda _tx: go_on.wait(30))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(StoreBusy, match="2 reads are waiting"):
        await store.read(lambda tx: tx.head())
    assert await create(store) == 1, "writes do not wait for reads"
    go_on.set()
    assert await asyncio.gather(*slow) == [True, True]
    assert await store.read(lambda tx: tx.head()) == 1
    await store.close()


async def test_a_cancelled_write_that_is_queued_harms_nobody(tmp_path: Path) -> None:
    store = await open_sqlite(tmp_path / "s.db")
    tasks = [asyncio.ensure_future(create(store, f"s{number}")) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [result for result in results[1::2] if isinstance(result, BaseException)] == []
    assert await store.read(lambda tx: tx.head()) == await store.head() == 20
    await store.close()


async def test_a_statement_gone_wrong_fails_its_own_unit_only(tmp_path: Path) -> None:
    """A mistake in a unit's values is that unit's; the database is fine and the others' commits stand."""
    store = await open_sqlite(tmp_path / "s.db")

    def wrong(tx: Transaction) -> None:
        tx.get("services", {"not": "text"})  # type: ignore[arg-type]  # the mistake

    results = await asyncio.gather(
        create(store, "a"), store.write(wrong, Origin()), create(store, "b"), return_exceptions=True
    )
    assert (results[0], results[2]) == (1, 2)
    assert isinstance(results[1], Exception)
    assert not isinstance(results[1], StoreUnavailable)
    await store.close()
