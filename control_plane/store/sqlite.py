"""The embedded store: SQLite in WAL mode, one writer thread, readers beside it.

All writes of the process go through one thread (`writer.py`). It runs the units of work of a batch one after the other,
gives each a version of its own and commits them together: one fsync may carry several versions, and none is
acknowledged before it. A unit that fails leaves nothing behind and costs the others nothing. A commit that fails fails
them all, with nothing written. synchronous=FULL makes a commit survive the loss of power.

One process at a time has the file open, by a lock beside it: a second control plane over the same file would never hear
of the first one's versions. Several control planes share a PostgreSQL database instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DatabaseError, DBAPIError
from sqlalchemy.pool import QueuePool
from typing_extensions import override

from control_plane.store import failpoints, seals
from control_plane.store.contract import StoreUnavailable, StoreUnusable
from control_plane.store.filelock import FileLock
from control_plane.store.keyring import Keyring, add_key, read_file
from control_plane.store.migrating import migrate
from control_plane.store.sql_store import BeforeCommit, Opened, SqlStore, StartOver, run_jobs
from control_plane.store.statements import Prepared, driver
from control_plane.store.writer import Job, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

# The writer takes the lock at once: had it read first, another process could have written meanwhile.
_BEGIN_WRITING = "BEGIN IMMEDIATE"
_BEGIN = Prepared(text(_BEGIN_WRITING))
_COMMIT = Prepared(text("COMMIT"))
# Pages in the log after which a commit also copies them into the database, which takes it some ten milliseconds. A
# write has about twelve: by SQLite's own 1,000 one in eighty was slow, which is more than one in a hundred.
_CHECKPOINT_PAGES = 4_000
_REASONS = {
    sqlite3.SQLITE_FULL: "its disk is full; free some space",
    sqlite3.SQLITE_READONLY: "it or its folder is read-only; make both writable for this user",
    sqlite3.SQLITE_PERM: "this user may not use it; correct its permissions",
    sqlite3.SQLITE_BUSY: "another program holds its lock; end what has it open",
    sqlite3.SQLITE_LOCKED: "another program holds its lock; end what has it open",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened; check that its folder exists and is writable",
    sqlite3.SQLITE_IOERR: "its disk fails; look into the system's log",
    sqlite3.SQLITE_CORRUPT: "it is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database; name another file",
}
_HOPELESS = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ONE_JOBS_FAULT = frozenset(
    {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
)


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """Limits of the embedded store."""

    queued_writes_max: int = 1024
    """Writes that may wait; further ones are refused with StoreBusy."""
    queued_reads_max: int = 1024
    """Reads that may wait or run; further ones are refused with StoreBusy."""
    readers: int = 4
    """Threads that read, each with a connection."""
    lock_patience_s: float = 1.0
    """How long one commit waits for another program that holds the database's lock, a backup for example."""
    wal_bytes_kept: int = 64 * 1024 * 1024
    """Size to which the write-ahead log is cut back after it grew."""


class SqliteStore(SqlStore):
    """Keeps the contract over one file. `open_sqlite` makes it."""

    shared = False

    def __init__(
        self,
        path: Path,
        *,
        before_commit: BeforeCommit | None,
        settings: SqliteSettings,
        clock: Callable[[], float],
        lock: FileLock,
        engines: tuple[Engine, Engine],
        opened: Opened,
    ) -> None:
        self._path = path
        super().__init__(before_commit=before_commit, clock=clock, opened=opened, reads_max=settings.queued_reads_max)
        self._path = path
        self._lock = lock
        self._writing, self._reading = engines
        self._writes: Connection | None = None  # the writer's thread's, kept from one batch to the next
        self._readers = ThreadPoolExecutor(settings.readers, thread_name_prefix="store-reader")
        self._writer = Writer(self._commit, queue_max=settings.queued_writes_max)

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._writer.close()
        await asyncio.to_thread(self._readers.shutdown)
        self._let_go()
        await asyncio.to_thread(_dispose, self._reading, self._writing)
        self._lock.release()

    @override
    async def _view(self, work: Callable[[Connection], T]) -> T:
        def read() -> T:
            with _translated(self._path), _begun(self._reading, "BEGIN") as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(self._readers, read)

    def _commit(self, jobs: Sequence[Job]) -> None:
        """One transaction for all jobs. Runs on the writer's thread.

        First without savepoints. A job that fails after it has written makes all of them start over with savepoints;
        that is why a unit of work may have no effects but those on its transaction.
        """
        try:
            with _translated(self._path):
                try:
                    with self._transaction() as connection:
                        run_jobs(jobs, connection, one_jobs_fault=_one_jobs_fault)
                except StartOver as over:
                    if len(jobs) == 1:
                        jobs[0].fail(over.error)
                        return
                    with self._transaction() as connection:
                        run_jobs(jobs, connection, savepoints=True, one_jobs_fault=_one_jobs_fault)
        except StoreUnavailable as error:
            log.error("%d writes failed and changed nothing: %s", len(jobs), error)
            self._let_go()
            self._writing.dispose()  # the next batch tries a fresh connection
            raise

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """As `_begun`, over a connection that stays: fetching one for each batch takes longer than a job of it."""
        connection = self._writes = self._writes or self._writing.connect()
        try:
            _BEGIN.change(connection, {})
            yield connection
            failpoints.reached(failpoints.COMMITTING)
            _COMMIT.change(connection, {})
            if connection.in_transaction():
                connection.commit()  # SQLAlchemy's own idea of it; SQLite's is over
        except BaseException:
            connection.rollback()
            with contextlib.suppress(sqlite3.Error):  # the next BEGIN finds out, and is tried over a fresh connection
                driver(connection).rollback()
            raise

    def _let_go(self) -> None:
        if self._writes is not None:
            self._writes.close()
            self._writes = None


async def open_sqlite(
    path: Path,
    *,
    keyring: Keyring | None = None,
    before_commit: BeforeCommit | None = None,
    settings: SqliteSettings | None = None,
    clock: Callable[[], float] = time.time,
) -> SqlStore:
    """Opens or makes the database at `path` and brings it to this program's schema.

    `keyring` has the keys of its secrets; None = in a file beside the database, which is made with it.
    `before_commit` sees each unit's changes last, on the writer's thread, and refuses them by raising. `clock` gives
    the seconds since the epoch that versions are stamped with.

    Raises:
        StoreUnusable: it is of a newer program, damaged, no database of ours, sealed with a key that the keyring does
            not have, or open in another process.
        StoreUnavailable: it cannot be read or written now.
    """
    settings = settings or SqliteSettings()
    lock, engines, opened = await asyncio.to_thread(_open, path, keyring, settings)
    return SqliteStore(
        path, before_commit=before_commit, settings=settings, clock=clock, lock=lock, engines=engines, opened=opened
    )


def _open(
    path: Path, keyring: Keyring | None, settings: SqliteSettings
) -> tuple[FileLock, tuple[Engine, Engine], Opened]:
    _make_private_file(path)
    lock = FileLock(path.with_name(path.name + ".lock"))
    engines = (_engine(path, settings, readers=0), _engine(path, settings, readers=settings.readers))
    try:
        with _translated(path), _begun(engines[0], _BEGIN_WRITING) as connection:
            migrate(connection)
            codec, were_clear = seals.open_codec(connection, keyring or keyring_beside(path, connection), renew=True)
        if were_clear:
            _scrub(path, engines[0])
        with _translated(path), _begun(engines[1], "BEGIN") as connection:
            return lock, engines, Opened.of(connection, codec)
    except StoreUnavailable as error:
        _dispose(*engines)
        lock.release()
        raise (StoreUnusable(str(error)) if _code(error.__cause__) in _HOPELESS else error) from error.__cause__
    except BaseException:
        _dispose(*engines)
        lock.release()
        raise


def keyring_file_of(path: Path) -> Path:
    """Where a database's keyring is when nobody names another."""
    return path.with_name(path.name + ".keyring")


def keyring_beside(path: Path, connection: Connection) -> Keyring:
    """The keys in the file beside the database, which is made unless something is sealed already. Raises StoreUnusable.

    `connection` is to the database, with this program's schema.
    """
    file = keyring_file_of(path)
    if not file.exists():
        if seals.any_sealed(connection):
            raise StoreUnusable(
                f"secrets in the database are sealed, and the keyring {file} is gone; put it back, or name another "
                "with keyring_file (docs/runbook.md, the key is lost)"
            )
        add_key(file, active=True)
        log.warning("a key for secrets was made in %s; keep a copy of it apart from the database's backups", file)
    return read_file(file)


def _scrub(path: Path, engine: Engine) -> None:
    """Leaves nothing in free pages or in the log of what lay in the clear."""
    with _translated(path):
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").close()
        with _begun(engine, _BEGIN_WRITING) as connection:
            seals.forget_clear(connection)
    log.warning("secrets that lay in the clear in %s are sealed now", path)


def sqlite_offline(path: Path, work: Callable[[Connection], T], *, writes: bool) -> T:
    """Runs `work` over the database as one transaction, without opening a store.

    `writes` makes the file if need be and keeps every other process out; without it a running control plane goes on.
    Raises as `open_sqlite`.
    """
    if writes:
        _make_private_file(path)
    elif not path.exists():
        raise StoreUnusable(f"there is no database {path}; correct --database")
    lock = FileLock(path.with_name(path.name + ".lock")) if writes else None
    engine = _engine(path, SqliteSettings(), readers=0 if writes else 1)
    try:
        with _translated(path), _begun(engine, _BEGIN_WRITING if writes else "BEGIN") as connection:
            return work(connection)
    finally:
        _dispose(engine)
        if lock is not None:
            lock.release()


def _make_private_file(path: Path) -> None:
    """The configuration is nobody else's business; SQLite gives its other files the mode of this one."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise StoreUnusable(
            f"the database {path} cannot be used: {error.strerror}; correct its path or mode"
        ) from error


def _code(error: BaseException | None) -> int:
    """SQLite's primary code; what the driver itself refuses has none and counts as an error in the statement."""
    original = error.orig if isinstance(error, DatabaseError) else None
    code: int = getattr(original, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    return code & 0xFF


def _one_jobs_fault(error: DBAPIError) -> bool:
    return _code(error) in _ONE_JOBS_FAULT


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Tells an error of the database in words that say what to do."""
    try:
        yield
    except DatabaseError as error:
        reason = _REASONS.get(_code(error), str(error.orig))
        raise StoreUnavailable(f"the database {path} cannot be used: {reason}") from error


@contextlib.contextmanager
def _begun(engine: Engine, begin: str) -> Iterator[Connection]:
    """A connection inside a transaction, which is committed at the end and rolled back on an error.

    Not by SQLAlchemy's event for it: an engine with an event of its own pays for events with every statement.
    """
    with engine.connect() as connection:
        connection.exec_driver_sql(begin)
        yield connection
        failpoints.reached(failpoints.COMMITTING)
        connection.commit()


def _engine(path: Path, settings: SqliteSettings, *, readers: int) -> Engine:
    """A pool of connections: one that writes, or as many as there are readers."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=QueuePool,
        hide_parameters=True,  # errors are logged, and bodies may hold private keys
        pool_size=max(1, readers),
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": settings.lock_patience_s},
    )

    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # `_begun` begins transactions; the driver would begin them late and break savepoints.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "cache_size=-16384",  # KiB
            f"wal_autocheckpoint={_CHECKPOINT_PAGES}",
            f"journal_size_limit={settings.wal_bytes_kept}",
            f"query_only={'ON' if readers else 'OFF'}",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", configure)
    return engine


def _dispose(*engines: Engine) -> None:
    for engine in engines:
        engine.dispose()
