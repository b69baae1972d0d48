"""What both SQL stores have in common: units of work as jobs, reads, and telling of versions.

A dialect says how a batch of jobs is committed and how a read gets its view; the rest of the contract is here.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from typing_extensions import override

from control_plane.store import failpoints, history, node_records
from control_plane.store.contract import (
    Change,
    NodeRecord,
    Origin,
    PlaneRecord,
    Store,
    StoreBusy,
    StoreUnavailable,
    Transaction,
    Version,
    Written,
)
from control_plane.store.history import Pending
from control_plane.store.recent import Recent
from control_plane.store.records import CATCH_UP
from control_plane.store.sealing import Codec
from control_plane.store.transaction import SqlTransaction
from control_plane.store.writer import Awaited, Job, Writer

log = logging.getLogger(__name__)

T = TypeVar("T")

BeforeCommit = Callable[[Transaction, Sequence[Change]], None]
Listener = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Opened:
    """What a store learns when it opens its database."""

    epoch: bytes
    head: int
    codec: Codec

    @classmethod
    def of(cls, connection: Connection, codec: Codec) -> Opened:
        """Looks."""
        return cls(history.epoch(connection), history.head(connection), codec)


class SqlStore(Store):
    """Keeps the contract over one writer thread. Subclasses set `_writer` and know their database."""

    _writer: Writer

    def __init__(
        self,
        *,
        before_commit: BeforeCommit | None,
        clock: Callable[[], float],
        opened: Opened,
        reads_max: int,
    ) -> None:
        self._before_commit = before_commit
        self._clock = clock
        self._epoch, self._head, self.codec = opened.epoch, opened.head, opened.codec
        self._recent = Recent()
        self._listeners: list[Listener] = []
        self._reads = 0
        self._reads_max = reads_max
        self._closed = False
        self._hearers: list[Callable[[str], None]] = []
        self._put_back = asyncio.Event()

    @abstractmethod
    async def _view(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` off the loop over one consistent, read-only view."""

    @override
    async def write(self, work: Callable[[Transaction], T], origin: Origin) -> Written[T]:
        future: asyncio.Future[Written[T]] = asyncio.get_running_loop().create_future()
        self._writer.submit(_Unit(self, work, origin, future))
        return await future

    @override
    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._read(lambda connection: work(SqlTransaction(connection, self.codec)))

    @override
    async def epoch(self) -> bytes:
        return self._epoch

    @override
    async def lineage(self) -> Mapping[bytes, int]:
        return await self._read(history.lineage)

    @override
    async def head(self) -> int:
        return self._head

    @override
    async def version(self, number: int) -> Version | None:
        found = await self._read(lambda c: history.versions_with_changes(c, self.codec, above=number - 1, up_to=number))
        return found[0] if found else None

    @override
    async def versions(self, *, size: int, before: int | None = None) -> Sequence[Version]:
        return await self._read(lambda connection: history.versions(connection, size=size, before=before))

    @override
    async def changes_since(self, version: int) -> Sequence[Version]:
        return await self._read(lambda connection: history.versions_with_changes(connection, self.codec, above=version))

    @override
    def at_hand(self, version: int) -> Sequence[Version] | None:
        return self._recent.above(version, head=self._head)

    @override
    async def save_nodes(self, records: Sequence[NodeRecord]) -> None:
        if records:
            await self._note(lambda connection: node_records.save(connection, records))

    @override
    async def nodes(self) -> Sequence[NodeRecord]:
        return await self._read(node_records.load)

    @override
    async def forget_nodes(self, *, last_seen_before: float) -> None:
        await self._note(lambda connection: node_records.forget(connection, last_seen_before=last_seen_before))

    @override
    async def save_plane(self, record: PlaneRecord, *, others_seen_before: float) -> Sequence[PlaneRecord]:
        planes: list[PlaneRecord] = []

        def save(connection: Connection) -> None:
            planes[:] = node_records.save_plane(connection, record, others_seen_before=others_seen_before)

        await self._note(save)
        return planes

    @override
    def subscribe(self, listener: Listener) -> Callable[[], None]:
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    @override
    def tell_planes(self, text: str) -> None:
        """Nobody else is there; a store that is shared overrides this."""

    @override
    def hear_planes(self, hearer: Callable[[str], None]) -> Callable[[], None]:
        self._hearers.append(hearer)
        return lambda: self._hearers.remove(hearer)

    @override
    async def until_put_back(self) -> None:
        await self._put_back.wait()

    def told(self, text: str) -> None:
        """Passes on what a control plane told all. Runs on the loop."""
        for hearer in tuple(self._hearers):
            try:
                hearer(text)
            except Exception:
                log.exception("what another control plane told could not be used")

    def found_put_back(self) -> None:
        """The database has another history than the one that was opened. Runs on the loop."""
        self._put_back.set()

    async def in_transaction(self, work: Callable[[Connection], T]) -> T:
        """Runs `work` over the tables themselves, as a transaction that takes no version; it may be run again."""
        results: list[T] = []

        def keep(connection: Connection) -> None:
            results[:] = [work(connection)]

        await self._note(keep)
        return results[0]

    async def _note(self, work: Callable[[Connection], None]) -> None:
        """Writes something that takes no version."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._writer.submit(_Note(work, future))
        await future

    async def _read(self, work: Callable[[Connection], T]) -> T:
        if self._closed:
            raise StoreUnavailable("the store is closed; ask again when the control plane is back")
        if self._reads >= self._reads_max:
            raise StoreBusy(f"{self._reads} reads are waiting already; ask again shortly")
        self._reads += 1
        try:
            return await self._view(work)
        finally:
            self._reads -= 1

    def settle(self, tx: SqlTransaction, origin: Origin) -> Pending | None:
        """Ends a unit of work: has its changes checked and says what needs a version."""
        changes = tx.changes()
        if not changes:
            return None
        if self._before_commit is not None:
            self._before_commit(tx, [change for change, _ in changes])
        return Pending(origin, self._clock(), changes)

    def wrote(self, number: int, pending: Pending) -> None:
        """Keeps at hand what this process committed, before anybody is told of it. Runs on the loop."""
        whole = pending.origin
        origin = Origin(whole.author, whole.source, whole.address, whole.reason)  # what the history keeps of it
        changes = tuple(change for change, _ in pending.changes)
        self._recent.add(
            Version(number, pending.committed_at, origin, len(changes), changes),
            sum(touched.characters for _, touched in pending.changes),
        )

    def committed(self, version: int) -> None:
        """Tells of all versions up to this one that were not told of yet. Runs on the loop.

        Versions are dense and committed in order, so whoever knows of one knows that all before it are there.
        """
        while self._head < version:
            self._head += 1
            for listener in tuple(self._listeners):
                try:
                    listener(self._head)
                except Exception:
                    log.exception("a listener failed at version %d; the version stands", self._head)


class _Unit(Awaited[Written[T]]):
    """A unit of work."""

    def __init__(
        self,
        store: SqlStore,
        work: Callable[[Transaction], T],
        origin: Origin,
        future: asyncio.Future[Written[T]],
    ) -> None:
        super().__init__(future)
        self._store = store
        self._work = work
        self._origin = origin
        self._done: Callable[[int], Written[T]] | None = None
        self._pending: Pending | None = None

    @override
    def run(self, connection: Connection) -> Pending | None:
        tx = SqlTransaction(connection, self._store.codec)
        try:
            result = self._work(tx)
            pending = self._store.settle(tx, self._origin)
        finally:
            self.wrote = tx.wrote
        self._pending = pending
        changes = () if pending is None else tuple(change for change, _ in pending.changes)
        self._done = lambda version: Written(result, version, changes)
        return pending

    @override
    def outcome(self, version: int) -> Written[T]:
        assert self._done is not None, "it has run"
        return self._done(version)

    @override
    def announce(self, outcome: Written[T]) -> None:
        if self._pending is not None:
            self._store.wrote(outcome.version, self._pending)
            self._store.committed(outcome.version)
        failpoints.reached(failpoints.TOLD)


class _Note(Awaited[bool]):
    """A write that is no configuration."""

    def __init__(self, work: Callable[[Connection], None], future: asyncio.Future[bool]) -> None:
        super().__init__(future)
        self._work = work

    @override
    def run(self, connection: Connection) -> None:
        self.wrote = True
        self._work(connection)

    @override
    def outcome(self, version: int) -> bool:
        return True


class StartOver(Exception):
    """A job failed after it had written something, and there was no savepoint to go back to."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def run_jobs(
    jobs: Sequence[Job],
    connection: Connection,
    *,
    unit: str = "",
    savepoints: bool = False,
    one_jobs_fault: Callable[[DBAPIError], bool],
    errors_abort: bool = False,
) -> int | None:
    """Runs the jobs in an open transaction; one that fails leaves nothing behind and costs the others nothing.

    Without savepoints, which cost as much as the writes themselves, a job that fails before it has written anything,
    as most do, leaves nothing to undo; one that fails later raises StartOver. `errors_abort`: after any error of the
    database the transaction is lost (PostgreSQL). Errors of the database that are not one job's fault are raised.
    Returns the first version taken, None when none was.
    """
    versions = _Versions(connection, unit)
    connection.info[CATCH_UP] = versions.take
    done: list[tuple[Job, int]] = []  # with the number of versions up to it
    for job in jobs:
        before_job = versions.mark()
        if savepoints:
            connection.exec_driver_sql("SAVEPOINT job")
        try:
            new = job.run(connection)
            failpoints.reached(failpoints.UNIT_RAN)
        except Exception as error:  # the caller's, delivered to it, unless the database itself failed
            of_database = isinstance(error, DBAPIError)
            if isinstance(error, TimeoutError):  # the server does not answer; no unit of work waits for anything else
                raise
            if isinstance(error, DBAPIError) and not one_jobs_fault(error):
                raise
            if savepoints:
                connection.exec_driver_sql("ROLLBACK TO job")
                versions.back_to(before_job)
            elif job.wrote or (of_database and errors_abort):
                raise StartOver(error) from error
            job.fail(error)
        else:
            if new is not None:
                versions.pending.append(new)
            done.append((job, versions.count))
        if savepoints:
            connection.exec_driver_sql("RELEASE job")
    versions.take()
    failpoints.reached(failpoints.VERSION_TAKEN)
    before = history.head(connection) if versions.first is None else versions.first - 1
    for job, count in done:
        job.succeed(before + count)
    return versions.first


class _Versions:
    """The versions of one transaction: those taken and those pending.

    All are taken at the end, in one go, unless a unit of work looks into the history: then those before it are taken
    at once, so that it sees them there.
    """

    def __init__(self, connection: Connection, unit: str) -> None:
        self._connection = connection
        self._unit = unit
        self._taken = 0
        self.first: int | None = None
        self.pending: list[Pending] = []

    @property
    def count(self) -> int:
        return self._taken + len(self.pending)

    def take(self) -> None:
        """Gives what is pending its versions."""
        if not self.pending:
            return
        first = history.take_versions(self._connection, self.pending, unit=self._unit)
        self.first = first if self.first is None else self.first
        self._taken += len(self.pending)
        self.pending.clear()

    def mark(self) -> tuple[int, int | None, tuple[Pending, ...]]:
        """What `back_to` goes back to, after the database was rolled back to the same point."""
        return self._taken, self.first, tuple(self.pending)

    def back_to(self, mark: tuple[int, int | None, tuple[Pending, ...]]) -> None:
        self._taken, self.first, pending = mark
        self.pending[:] = pending
