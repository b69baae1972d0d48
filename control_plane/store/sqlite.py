"""The embedded store: SQLite in WAL mode, one writer thread, readers beside it.

All writes of the process go through one thread. It takes what is queued, runs each unit of work in a savepoint with a
version of its own, and commits them together: one fsync may carry several versions, and none is acknowledged before it.
A unit that fails rolls back to its savepoint and costs the others nothing. A commit that fails fails them all, with
nothing written. synchronous=FULL makes a commit survive the loss of power.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, OperationalError
from sqlalchemy.pool import QueuePool

from control_plane.store import history
from control_plane.store.contract import (
    Change,
    NodeRecord,
    Origin,
    StoreBusy,
    StoreUnavailable,
    Transaction,
    Version,
    Written,
)
from control_plane.store.migrating import migrate
from control_plane.store.transaction import SqlTransaction

log = logging.getLogger(__name__)

T = TypeVar("T")

QUEUED_WRITES_MAX = 1024
UNITS_PER_COMMIT_MAX = 64
READERS = 4
LOCK_PATIENCE_MS = 2000
"""How long to wait for another process that holds the file's lock, a backup for example."""

BeforeCommit = Callable[[Transaction, Sequence[Change]], None]


@dataclass(slots=True)
class _Unit:
    """One queued unit of work and whoever waits for it."""

    run: Callable[[Connection], object]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop

    def resolve(self, result: object, error: BaseException | None) -> None:
        def settle() -> None:
            if self.done.cancelled():
                return
            if error is not None:
                self.done.set_exception(error)
            else:
                self.done.set_result(result)

        try:
            self.loop.call_soon_threadsafe(settle)
        except RuntimeError:
            # The loop is closed: nobody waits any longer, and the outcome is on disk all the same.
            log.debug("a write finished after its loop had ended")


class SqliteStore:
    """Keeps `contract.Store` in one file. Make it with `open_sqlite`."""

    def __init__(self, path: Path, before_commit: BeforeCommit | None) -> None:
        self._path = path
        self._before_commit = before_commit
        self._writer_engine = _engine(path, readers=0)
        self._reader_engine = _engine(path, readers=READERS)
        self._queue: queue.Queue[_Unit | None] = queue.Queue(QUEUED_WRITES_MAX)
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._thread = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
        self._listeners: list[Callable[[int], None]] = []
        self._closing = False

    def start(self) -> None:
        """Migrate and begin to write. Blocks; raises StoreUnavailable or StoreUnusable."""
        try:
            with self._writer_engine.connect() as connection:
                migrate(connection)
                connection.commit()
        except DatabaseError as error:
            raise self._unavailable(error) from error
        self._thread.start()

    async def write(self, work: Callable[[Transaction], T], origin: Origin) -> Written[T]:
        def run(connection: Connection) -> Written[T]:
            transaction = SqlTransaction(connection)
            result = work(transaction)
            changes = transaction.changes()
            if not changes:
                return Written(result, history.head(connection), ())
            if self._before_commit is not None:
                self._before_commit(transaction, changes)
            return Written(result, history.take_version(connection, origin, changes), changes)

        written: Written[T] = await self._enqueue(run)
        if written.changes:
            for listener in tuple(self._listeners):
                listener(written.version)
        return written

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._reading(lambda connection: work(SqlTransaction(connection)))

    async def head(self) -> int:
        return await self._reading(history.head)

    async def epoch(self) -> bytes:
        return await self._reading(history.epoch)

    async def version(self, number: int) -> Version | None:
        found = await self._reading(
            lambda connection: history.versions_with_changes(connection, above=number - 1, up_to=number)
        )
        return found[0] if found else None

    async def versions(self, *, size: int, before: int | None = None) -> Sequence[Version]:
        return await self._reading(lambda connection: history.versions(connection, size=size, before=before))

    async def changes_since(self, version: int) -> Sequence[Version]:
        return await self._reading(lambda connection: history.versions_with_changes(connection, above=version))

    async def save_nodes(self, records: Sequence[NodeRecord]) -> None:
        if records:
            await self._enqueue(lambda connection: history.save_nodes(connection, records))

    async def nodes(self) -> Sequence[NodeRecord]:
        return await self._reading(history.nodes)

    async def forget_nodes(self, *, last_seen_before: float) -> None:
        await self._enqueue(lambda connection: history.forget_nodes(connection, last_seen_before=last_seen_before))

    def subscribe(self, listener: Callable[[int], None]) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        await asyncio.to_thread(self._queue.put, None)
        await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._reader_engine.dispose()
        self._writer_engine.dispose()

    async def _enqueue(self, run: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        if self._closing:
            raise StoreUnavailable("the store is closing; ask again when the control plane is back")
        try:
            self._queue.put_nowait(_Unit(run, done, loop))
        except queue.Full:
            raise StoreBusy(f"{QUEUED_WRITES_MAX} writes are waiting already; try again shortly") from None
        # What is queued will be written whether or not the one who asked goes away, so it is never cancelled half-way.
        return await asyncio.shield(done)

    async def _reading(self, run: Callable[[Connection], T]) -> T:
        def read() -> T:
            try:
                with self._reader_engine.connect() as connection:
                    return run(connection)
            except DatabaseError as error:
                raise self._unavailable(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def _write_forever(self) -> None:
        while (first := self._queue.get()) is not None:
            units = [first]
            last = False
            while len(units) < UNITS_PER_COMMIT_MAX:
                try:
                    unit = self._queue.get_nowait()
                except queue.Empty:
                    break
                if unit is None:
                    last = True
                    break
                units.append(unit)
            self._commit(units)
            if last:
                break

    def _commit(self, units: Sequence[_Unit]) -> None:
        outcomes: list[tuple[_Unit, object, BaseException | None]] = []
        try:
            with self._writer_engine.begin() as connection:
                outcomes.extend(self._run(unit, connection) for unit in units)
        except DatabaseError as error:
            failure = self._unavailable(error)
            log.error("a commit of %d writes failed: %s", len(units), failure)
            outcomes = [(unit, None, failure) for unit in units]
        for unit, result, problem in outcomes:
            unit.resolve(result, problem)

    def _run(self, unit: _Unit, connection: Connection) -> tuple[_Unit, object, BaseException | None]:
        """Run one unit in a savepoint; a fault of the database itself goes up, since it takes the others along."""
        savepoint = connection.begin_nested()
        try:
            result = unit.run(connection)
            savepoint.commit()
        except OperationalError:
            raise
        except Exception as error:  # whatever the work raised belongs to whoever asked for it
            savepoint.rollback()
            return unit, None, error
        return unit, result, None

    def _unavailable(self, error: DatabaseError) -> StoreUnavailable:
        reason = str(error.orig) if error.orig is not None else str(error)
        return StoreUnavailable(
            f"the database {self._path} cannot be used: {reason}; check its disk space, permissions and locks"
        )


async def open_sqlite(path: Path, *, before_commit: BeforeCommit | None = None) -> SqliteStore:
    """Open or make the database and bring it to this program's schema.

    `before_commit` sees each unit's changes last and refuses by raising. Raises StoreUnavailable, or StoreUnusable for
    a database of a newer program.
    """
    store = SqliteStore(path, before_commit)
    await asyncio.to_thread(store.start)
    return store


def _engine(path: Path, *, readers: int) -> Engine:
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        pool_size=max(1, readers),
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": LOCK_PATIENCE_MS / 1000},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # We begin transactions ourselves; the driver would begin them late and break savepoints.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA cache_size=-16384")
        if readers:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: one that read first could find that another process wrote meanwhile.
        connection.exec_driver_sql("BEGIN" if readers else "BEGIN IMMEDIATE")

    return engine
