"""The one thread that writes, and how jobs get to it and their outcomes back to the event loop.

Whatever is queued when the thread becomes free is one batch, and the batch is one commit. So a lone write is
committed at once, and under load one fsync serves as many writes as came in during the one before. Outcomes return to
the loop together and in order: first those who subscribed hear of a version, then the one who wrote it gets its answer,
and no version is heard of before an earlier one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from sqlalchemy import Connection
from typing_extensions import override

from control_plane.store import failpoints
from control_plane.store.contract import StoreBusy, StoreError, StoreUnavailable
from control_plane.store.history import Pending

log = logging.getLogger(__name__)

T = TypeVar("T")


class Job(ABC):
    """Something to be done on the writer's thread, and somebody on the loop who waits for it."""

    wrote = False
    """Whether its last run wrote anything, even if it failed."""
    queued_at = 0.0
    """When it was queued, by `time.monotonic`."""

    @abstractmethod
    def run(self, connection: Connection) -> Pending | None:
        """Does it, keeps the result, and returns what needs a version. What it raises undoes this job alone.

        May be run again from its start, after all it did was rolled back.
        """

    @abstractmethod
    def succeed(self, version: int) -> None:
        """Tells at which version it is done. It is not yet on disk."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """Puts an error in the place of any result."""

    @abstractmethod
    def deliver(self) -> None:
        """Hands over the outcome, which is on disk now. Runs on the loop."""


class Awaited(Job, Generic[T]):
    """A job whose outcome a coroutine awaits. Subclasses do the work and say what the outcome is."""

    def __init__(self, future: asyncio.Future[T]) -> None:
        self._future = future
        self._outcome: T | None = None
        self._error: Exception | None = None

    @abstractmethod
    def outcome(self, version: int) -> T:
        """What the coroutine gets."""

    def announce(self, outcome: T) -> None:
        """Tells others, before the coroutine goes on, and also when it was cancelled: what is done is done."""

    @override
    def succeed(self, version: int) -> None:
        self._outcome = self.outcome(version)
        self._error = None

    @override
    def fail(self, error: Exception) -> None:
        if isinstance(error, StopIteration):  # the one exception that a future refuses to carry
            wrapped = RuntimeError("a unit of work raised StopIteration")
            wrapped.__cause__ = error
            error = wrapped
        self._error = error

    @override
    def deliver(self) -> None:
        if self._error is not None:
            if not self._future.done():
                self._future.set_exception(self._error)
            return
        assert self._outcome is not None, "a job succeeds or fails before it is delivered"
        self.announce(self._outcome)
        if not self._future.done():
            self._future.set_result(self._outcome)


class Writer:
    """A bounded queue in front of one thread.

    `commit` runs a batch on that thread and returns when it is on disk, or raises StoreError when nothing of it is.
    The thread does not keep the process alive: ending without `close` is like a crash, which loses nothing either.
    """

    def __init__(self, commit: Callable[[Sequence[Job]], None], *, queue_max: int) -> None:
        self._commit = commit
        self._queue_max = queue_max
        self._queue: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queues a job; raises StoreBusy or StoreUnavailable when it is not taken."""
        with self._wake:
            if self._closing:
                raise StoreUnavailable("the store is closing; ask again when the control plane is back")
            if len(self._queue) >= self._queue_max:
                raise StoreBusy(f"{self._queue_max} writes are waiting already; ask again shortly")
            job.queued_at = time.monotonic()
            self._queue.append(job)
            self._wake.notify()
        failpoints.reached(failpoints.QUEUED)

    async def close(self) -> None:
        """Takes no more jobs, finishes those queued and ends the thread."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._commit(batch)
                failpoints.reached(failpoints.COMMITTED)
            except Exception as error:
                if not isinstance(error, StoreError):
                    log.exception("a commit of %d writes failed", len(batch))
                for job in batch:
                    job.fail(error)
            try:
                self._loop.call_soon_threadsafe(_deliver, batch)
            except RuntimeError:
                # The loop is closed: nobody waits any longer, and the outcome is on disk all the same.
                log.debug("%d writes finished after their loop had ended", len(batch))

    def _next_batch(self) -> Sequence[Job]:
        """All that is queued, at least one job; empty when closing."""
        with self._wake:
            while not self._queue and not self._closing:
                self._wake.wait()
            batch = tuple(self._queue)
            self._queue.clear()
            return batch


def _deliver(batch: Sequence[Job]) -> None:
    failpoints.reached(failpoints.DELIVERING)
    for job in batch:
        job.deliver()
