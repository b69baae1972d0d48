"""The shared store: several control planes over one PostgreSQL database.

All writes of a process go through one thread (`writer.py`), as with SQLite: what is queued is one transaction with a
version for each unit of work, so that one flush of the write-ahead log serves many writes. A transaction begins by
locking the head row. Writers of all control planes therefore run one after the other: the order of versions is the
order of commits, nobody overwrites what he has not seen, and there is nothing to deadlock on.

A commit whose answer is lost is looked up. Each transaction writes a name of its own beside its first version; a new
connection takes the head's lock, which the old transaction holds until it ends one way or the other, and looks for the
name. Only then is it answered as done, or run again.

`following.py` tells of the versions of other control planes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import asyncpg
import uvloop
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from typing_extensions import override

from control_plane.store import failpoints, history, seals
from control_plane.store.contract import StoreBusy, StoreError, StoreUnavailable, StoreUnusable
from control_plane.store.following import VERSIONS, Follower
from control_plane.store.keyring import Keyring
from control_plane.store.migrating import migrate
from control_plane.store.postgres_errors import Trouble, judge
from control_plane.store.postgres_link import IN_USE, Link
from control_plane.store.sql_store import BeforeCommit, Opened, SqlStore, StartOver, run_jobs
from control_plane.store.writer import Job, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

_CONNECT_S_MIN = 0.2
"""However late it is: a write that waited long behind others still gets one try."""
_START_PAUSE_S_MAX = 2.0
TRIES_MAX = 5
"""Of a transaction that another one got in the way of."""


@dataclass(frozen=True, slots=True)
class PostgresSettings:
    """Limits and times of the shared store."""

    queued_writes_max: int = 1024
    """Writes that may wait; further ones are refused with StoreBusy."""
    queued_reads_max: int = 1024
    """Reads that may wait or run; further ones are refused with StoreBusy."""
    readers: int = 4
    """Connections that read."""
    patience_s: float = 2.0
    """How long a write or a read waits for a database that is away before it is refused."""
    lock_patience_s: float = 1.5
    """How long a commit waits for another control plane's."""
    connect_timeout_s: float = 1.5
    """How long one attempt to connect may take."""
    answer_timeout_s: float = 1.8
    """How long the server may take for one statement of a write; then the connection is given up and the write tried
    again or refused. Longer than `lock_patience_s`, which the server itself keeps."""
    read_timeout_s: float = 10.0
    """The same for a statement that reads: some read much at once, and nobody waits behind them."""
    write_answer_s: float = 2.5
    """Attempts to connect end by then, counted from when the write was queued, so that it is answered within 3 s."""
    poll_s: float = 1.0
    """How often the head is looked at, since a connection that should tell of it may die in silence."""
    start_patience_s: float = 30.0
    """How long opening it is tried: where all is started at once the server may be the last to be there, and of several
    control planes over an empty database one makes the tables while the others wait."""
    start_connect_timeout_s: float = 5.0
    """How long one attempt to connect may take then; nobody waits for an answer yet."""


class PostgresStore(SqlStore):
    """Keeps the contract over one database. `open_postgres` makes it."""

    shared = True

    def __init__(
        self,
        link: Link,
        *,
        before_commit: BeforeCommit | None,
        settings: PostgresSettings,
        clock: Callable[[], float],
        opened: Opened,
    ) -> None:
        super().__init__(before_commit=before_commit, clock=clock, opened=opened, reads_max=settings.queued_reads_max)
        self._link = link
        self._settings = settings
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)  # of the writer's thread
        self._connect_by = 0.0
        """When, by `time.monotonic`, the present batch's attempts to connect must have ended."""
        self._writing = _engine(self._connect_to_write, size=1)
        reading = partial(link.connect, answer_timeout_s=settings.read_timeout_s)
        self._reading = _engine(reading, size=settings.readers, reads=True)
        self._reads_loop = _LoopThread("store-reader")
        self._writer = Writer(self._commit, queue_max=settings.queued_writes_max)
        self._follower = Follower(
            link,
            epoch=opened.epoch,
            moved=self.committed,
            put_back=self.found_put_back,
            told=self.told,
            poll_s=settings.poll_s,
            retry_s_max=settings.patience_s,
        )
        self._following = asyncio.create_task(self._follower.run(), name="store follower")

    @override
    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)
        await self._writer.close()
        await self._reads_loop.run(self._reading.dispose())
        await asyncio.to_thread(self._reads_loop.close)
        await asyncio.to_thread(self._close_writing)

    def _close_writing(self) -> None:
        with self._runner:
            self._runner.run(self._writing.dispose())

    @override
    async def _view(self, work: Callable[[Connection], T]) -> T:
        self._refuse_if_foreign()
        return await self._reads_loop.run(self._read_patiently(work))

    def _refuse_if_foreign(self) -> None:
        if self._follower.foreign:
            raise StoreUnavailable(
                "the database was put back to another history while this control plane ran, so it ends; it is "
                "started anew by whatever started it"
            )

    @override
    def tell_planes(self, text: str) -> None:
        self._follower.tell(text)

    async def _read_patiently(self, work: Callable[[Connection], T]) -> T:
        patience = _Patience(time.monotonic() + self._settings.patience_s)
        while True:
            try:
                async with self._reading.connect() as connection, _given_up_when_silent(connection):
                    return await connection.run_sync(work)
            except Exception as error:
                trouble = self._trouble(error)
                if trouble is None:
                    raise
                await self._reading.dispose()
                if not trouble.passing or not await patience.again():
                    raise trouble.error from error

    def _commit(self, jobs: Sequence[Job]) -> None:
        """One transaction for all jobs. Runs on the writer's thread."""
        try:
            self._refuse_if_foreign()
            self._runner.run(self._commit_patiently(jobs))
        except StoreError as error:
            log.error("%d writes failed: %s", len(jobs), error)
            raise

    async def _commit_patiently(self, jobs: Sequence[Job]) -> None:
        queued_at = min(job.queued_at for job in jobs)
        patience = _Patience(queued_at + self._settings.patience_s)
        self._connect_by = queued_at + self._settings.write_answer_s
        attempt = _Attempt(self._writing, jobs, self._epoch)
        crossed = 0
        while True:
            try:
                await attempt.run()
                return
            except Exception as error:
                trouble = self._trouble(error)
                if trouble is None:
                    raise
                await self._writing.dispose()
                if trouble.crossed:
                    crossed += 1
                again = trouble.passing and crossed < TRIES_MAX and await patience.again()
                if again:
                    continue
                if attempt.unknown_since is not None:
                    raise _unknown(self._link, attempt.unknown_since) from error
                raise trouble.error from error

    async def _connect_to_write(self) -> asyncpg.Connection:
        left_s = self._connect_by - time.monotonic()
        timeout_s = max(_CONNECT_S_MIN, min(left_s, self._settings.connect_timeout_s))
        return await self._link.connect(timeout_s=timeout_s, answer_timeout_s=self._settings.answer_timeout_s)

    def _trouble(self, error: Exception) -> Trouble | None:
        return judge(error, name=self._link.name, lock_patience_s=self._settings.lock_patience_s)


class _Attempt:
    """Gets one batch committed, over as many runs as it takes, and at most once."""

    def __init__(self, engine: AsyncEngine, jobs: Sequence[Job], epoch: bytes) -> None:
        self._engine = engine
        self._jobs = jobs
        self._epoch = epoch
        self._savepoints = False
        self._unit = ""
        self.unknown_since: int | None = None
        """The first version of a commit whose answer was lost."""

    async def run(self) -> None:
        """Commits, or finds out that an earlier run did."""
        async with self._engine.connect() as connection, _given_up_when_silent(connection):
            if self.unknown_since is not None:
                if await connection.run_sync(self._is_there, self.unknown_since):
                    return
                self.unknown_since = None
            try:
                first = await connection.run_sync(self._work)
            except StartOver as over:
                if len(self._jobs) == 1:
                    self._jobs[0].fail(over.error)
                    return
                await connection.rollback()
                self._savepoints = True
                first = await connection.run_sync(self._work)
            self.unknown_since = first  # from here on only the database knows
            failpoints.reached(failpoints.COMMITTING)
            await connection.commit()
            self.unknown_since = None

    def _work(self, connection: Connection) -> int | None:
        epoch, _ = history.lock_head(connection)
        if epoch != self._epoch:
            raise StoreUnavailable("the database was put back to another history; restart the control plane")
        self._unit = uuid.uuid4().hex
        first = run_jobs(
            self._jobs,
            connection,
            unit=self._unit,
            savepoints=self._savepoints,
            one_jobs_fault=_one_jobs_fault,
            errors_abort=True,
        )
        if first is not None:
            connection.execute(_NOTIFY, {"channel": VERSIONS})
        return first

    def _is_there(self, connection: Connection, first: int) -> bool:
        history.lock_head(connection)
        found = history.unit_of(connection, first) == self._unit
        connection.rollback()
        return found


NO_KEYRING = (
    "a PostgreSQL database needs keys for the secrets in it; make them once with `pointsman db new-key FILE`, and give "
    "that file to every control plane over the database: --keyring-file FILE, or its lines in POINTSMAN_KEYRING"
)

_NOTIFY = text("SELECT pg_notify(:channel, '')")


def _one_jobs_fault(error: DBAPIError) -> bool:
    """Data that the database refuses, a statement that is wrong, a limit of one value."""
    state = getattr(error.orig, "sqlstate", None) or ""
    return state[:2] in ("22", "23", "42", "54") and state != "42501"


def _unknown(link: Link, first: int) -> StoreUnavailable:
    return StoreUnavailable(
        f"the database {link.name} went away during a commit and is not back yet, so it is not known whether this "
        f"change was made; look at version {first} and after before asking again"
    )


class _Patience:
    """Waits between tries until a deadline, longer each time, and never in step with others."""

    def __init__(self, deadline: float, *, pause_s_max: float = 0.3) -> None:
        self._deadline = deadline
        self._pause_s = 0.02
        self._pause_s_max = pause_s_max

    async def again(self) -> bool:
        """Waits for the next try; False when time is up."""
        left_s = self._deadline - time.monotonic()
        if left_s <= 0:
            return False
        await asyncio.sleep(min(left_s, self._pause_s * random.uniform(0.5, 1.0)))  # noqa: S311 - spreads load
        self._pause_s = min(2 * self._pause_s, self._pause_s_max)
        return True


class _LoopThread:
    """An event loop in a thread of its own, for work that must not stall the main one."""

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs `work` there and returns what it returns."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextlib.asynccontextmanager
async def _given_up_when_silent(connection: AsyncConnection) -> AsyncIterator[None]:
    """Cuts the connection when the server did not answer in time: a rollback over it would wait as long again."""
    driver = (await connection.get_raw_connection()).driver_connection
    assert driver is not None, "it was made a moment ago"
    try:
        yield
    except TimeoutError:
        driver.terminate()
        raise


def _engine(
    connect: Callable[[], Coroutine[Any, Any, asyncpg.Connection]], *, size: int, reads: bool = False
) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        hide_parameters=True,  # errors are logged, and bodies may hold private keys
        pool_size=size,
        max_overflow=0,
        isolation_level="REPEATABLE READ" if reads else "READ COMMITTED",
        execution_options={"postgresql_readonly": True} if reads else {},
    )


async def open_postgres(
    url: str,
    *,
    keyring: Keyring | None,
    before_commit: BeforeCommit | None = None,
    settings: PostgresSettings | None = None,
    clock: Callable[[], float] = time.time,
) -> SqlStore:
    """Opens the database at `url` (`postgresql://...`); an empty one gets the schema.

    `keyring` has the keys of its secrets; there is no default, since all control planes over it need the same one.
    `before_commit` and `clock` are as in `open_sqlite`.

    Raises:
        StoreUnusable: it has another schema, another program's tables, or settings that lose acknowledged writes; or
            the keyring is missing or not the one that its secrets are sealed with.
        StoreUnavailable, StoreBusy: it could not be used for all of `start_patience_s`.
    """
    if keyring is None:
        raise StoreUnusable(NO_KEYRING)
    settings = settings or PostgresSettings()
    link = Link(url, connect_timeout_s=settings.connect_timeout_s, lock_patience_s=settings.lock_patience_s)
    opened = await _open_patiently(link, keyring, settings)
    return PostgresStore(link, before_commit=before_commit, settings=settings, clock=clock, opened=opened)


async def _open_patiently(link: Link, keyring: Keyring, settings: PostgresSettings) -> Opened:
    """Tries until `start_patience_s` are over; what does not pass by itself, as a wrong password, ends it at once."""
    deadline = time.monotonic() + settings.start_patience_s
    patience = _Patience(deadline, pause_s_max=_START_PAUSE_S_MAX)
    connect = partial(
        link.connect, timeout_s=settings.start_connect_timeout_s, answer_timeout_s=settings.start_patience_s
    )
    said = ""
    while True:
        try:
            async with _transaction(connect) as connection, _given_up_when_silent(connection):
                await _check_durable(connection)
                return await connection.run_sync(_prepare, keyring)
        except Exception as error:
            trouble = judge(error, name=link.name, lock_patience_s=link.lock_patience_s)
            if trouble is None:
                raise
            if not (trouble.passing or isinstance(trouble.error, StoreBusy)) or not await patience.again():
                raise trouble.error from error
            if str(trouble.error) != said:
                said = str(trouble.error)
                log.warning("%s; trying again for %.0f s at most", said, max(0.0, deadline - time.monotonic()))


async def postgres_offline(
    url: str, work: Callable[[Connection], T], *, writes: bool, beside_planes: bool = False
) -> T:
    """Runs `work` over the database as one transaction, without opening a store.

    With `writes` no control plane may have it open, unless `beside_planes`: then their writes wait. Raises
    StoreUnusable and StoreUnavailable.
    """
    async with _connected(Link(url), reads=not writes) as connection:
        if beside_planes:
            await connection.run_sync(history.lock_head)
        elif writes and not await connection.scalar(text(f"SELECT pg_try_advisory_xact_lock({IN_USE})")):
            raise StoreUnusable("control planes are running over this database; stop all of them first")
        return await connection.run_sync(work)


@contextlib.asynccontextmanager
async def _connected(link: Link, *, reads: bool = False) -> AsyncIterator[AsyncConnection]:
    """As `_transaction`, with errors in words."""
    try:
        async with _transaction(link.connect, reads=reads) as connection:
            yield connection
    except Exception as error:
        trouble = judge(error, name=link.name, lock_patience_s=link.lock_patience_s)
        if trouble is None:
            raise
        raise trouble.error from error


@contextlib.asynccontextmanager
async def _transaction(
    connect: Callable[[], Coroutine[Any, Any, asyncpg.Connection]], *, reads: bool = False
) -> AsyncIterator[AsyncConnection]:
    """One connection inside a transaction, committed at the end."""
    engine = _engine(connect, size=1, reads=reads)
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


async def _check_durable(connection: AsyncConnection) -> None:
    for name in ("fsync", "full_page_writes"):
        if await connection.scalar(text(f"SHOW {name}")) != "on":
            raise StoreUnusable(
                f"the PostgreSQL server runs with {name} off and would lose acknowledged changes in a crash; "
                f"set {name} = on in postgresql.conf and restart it"
            )


def _prepare(connection: Connection, keyring: Keyring) -> Opened:
    migrate(connection, from_earlier=False)
    codec, were_clear = seals.open_codec(connection, keyring, renew=False)
    if were_clear:
        seals.forget_clear(connection)
    return Opened.of(connection, codec)
