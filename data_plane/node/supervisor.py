"""Keeps the workers alive: one slot a worker, each with its sockets, its process of the moment and its restarts.

    starting --up--> ready --ended--> starting ...       (at once; later and later only when it keeps ending)

A slot is ready when its process serves what the node serves (`bring_up` saw to that), or waits for the first config.
The slot's sockets stay open in this process, so that connections queue while a worker is replaced.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence

from data_plane.node.workers import WorkerCounters, WorkerDied, WorkerProcess, WorkerRefused
from pointsman.wire.v1 import fleet_pb2

STARTED_WITHIN_S = 20.0
TRACE_WITHIN_S = 3.0
"""A worker that builds a large config answers a trace after that."""
STEADY_AFTER_S = 10.0
"""A worker that lived this long owes nothing to the ends before it."""
BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0
RESTARTS_AT_ONCE = 1

_log = logging.getLogger(__name__)


class KeepsDying(Exception):
    """A slot's worker ended again and again before it was ready, or the node is ending and it will not come back."""


class Slot:
    """One worker's place. `failures` counts the ends since the slot was last ready."""

    def __init__(self, index: int, sockets: Sequence[socket.socket]) -> None:
        self.index = index
        self.sockets = list(sockets)
        self.process: WorkerProcess | None = None
        self.restarts = 0
        self.failures = 0
        self._ready = False
        self._closed = False
        self._changed = asyncio.Condition()

    @property
    def ready(self) -> bool:
        """Whether the process of the moment serves what the node serves."""
        return self._ready and self.process is not None and self.process.alive

    async def serving(self, *, failures_max: int) -> WorkerProcess:
        """The slot's process once it is ready; raises KeepsDying after `failures_max` more ends."""
        if self.ready and self.process is not None:
            return self.process
        async with self._changed:
            limit = self.failures + failures_max
            while not self.ready:
                if self._closed:
                    raise KeepsDying(f"worker {self.index} is not started again: the node is ending")
                if self.failures >= limit:
                    raise KeepsDying(f"worker {self.index} ended {self.failures} times before it was ready")
                await self._changed.wait()
            assert self.process is not None
            return self.process

    async def changed_from(self, process: WorkerProcess) -> None:
        """Wait until `process` is no longer the one that `serving` would give."""
        async with self._changed:
            while self.process is process and self._ready:
                await self._changed.wait()

    async def become(self, process: WorkerProcess | None, *, ready: bool) -> None:
        """Note the process of the moment."""
        async with self._changed:
            self.process = process
            self._ready = ready
            if ready:
                self.failures = 0
            self._changed.notify_all()

    async def failed(self) -> None:
        """Note an end."""
        async with self._changed:
            self._ready = False
            self.failures += 1
            self._changed.notify_all()

    async def close(self) -> None:
        """There will be no further process."""
        async with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close_sockets(self) -> None:
        """Give up this process's copies; the worker's own go on."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()


class Supervisor:
    """All slots of a node."""

    def __init__(
        self,
        slots: Sequence[Slot],
        *,
        spawn: Callable[[Slot], Awaitable[WorkerProcess]],
        rng: random.Random | None = None,
    ) -> None:
        self.slots = list(slots)
        self._spawn = spawn
        self._rng = rng or random.SystemRandom()
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    @property
    def processes(self) -> list[WorkerProcess]:
        """The processes alive now, ready or not."""
        return [slot.process for slot in self.slots if slot.process is not None and slot.process.alive]

    @property
    def ready_count(self) -> int:
        return sum(slot.ready for slot in self.slots)

    async def counters(self, *, timeout_s: float, traffic: bool = False, sides: bool = False) -> list[WorkerCounters]:
        """What the workers have counted, of those that answer in time; `traffic` and `sides`: their `sums` follow."""
        asked = [process.counters(timeout_s=timeout_s, traffic=traffic, sides=sides) for process in self.processes]
        counted: list[WorkerCounters] = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, WorkerCounters):
                counted.append(answer)
            elif not isinstance(answer, WorkerDied | TimeoutError):
                raise answer
        return counted

    async def trace(self, request: fleet_pb2.TraceRequest) -> fleet_pb2.TraceAnswer:
        """Let a worker that is ready say what would become of a request."""
        for slot in self.slots:
            process = slot.process
            if slot.ready and process is not None and process.alive:
                try:
                    return await process.trace(request, timeout_s=TRACE_WITHIN_S)
                except WorkerDied:
                    continue
                except TimeoutError:
                    return fleet_pb2.TraceAnswer(error=f"the worker did not answer within {TRACE_WITHIN_S:g} s")
        return fleet_pb2.TraceAnswer(error="no worker of this node is ready")

    def start(self, bring_up: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        """Start all workers and keep them; `bring_up` makes a new process serve what the node serves."""
        assert not self._tasks, "already started"
        for slot in self.slots:
            self._tasks.append(asyncio.create_task(self._keep(slot, bring_up), name=f"worker {slot.index}"))

    async def drain(self, *, accept_for_s: float, finish_within_s: float) -> int:
        """End all workers in good order; returns how many requests the deadline cut.

        The parent's copies of the sockets close first: the worker's must be the last, so that what it leaves in no
        queue is left in none. From here on a worker that ends is not replaced.
        """
        self._ending = True
        for slot in self.slots:
            slot.close_sockets()

        async def end(process: WorkerProcess) -> int:
            try:
                async with asyncio.timeout(accept_for_s + finish_within_s + 5.0):
                    cut = await process.drain(accept_for_s=accept_for_s, finish_within_s=finish_within_s)
                    await asyncio.shield(process.exited)
                    return cut
            except WorkerDied:
                return 0
            except TimeoutError:
                _log.error("worker %d (pid %d) did not end in time and is killed", process.index, process.pid)
                process.kill()
                return 0

        return sum(await asyncio.gather(*(end(process) for process in self.processes)))

    async def stop(self) -> None:
        """End all workers at once; what they have in flight is cut."""
        self._ending = True
        processes = [slot.process for slot in self.slots if slot.process is not None]
        for process in processes:
            process.kill()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in processes:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await asyncio.shield(process.exited)
        for slot in self.slots:
            slot.close_sockets()

    async def _keep(self, slot: Slot, bring_up: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        loop = asyncio.get_running_loop()
        ends_in_a_row = 0
        while True:
            began = loop.time()
            await self._run_once(slot, bring_up)
            if self._ending:
                await slot.close()
                return
            slot.restarts += 1
            ends_in_a_row = 1 if loop.time() - began >= STEADY_AFTER_S else ends_in_a_row + 1
            if ends_in_a_row > RESTARTS_AT_ONCE:
                wait_s = min(BACKOFF_FIRST_S * 2 ** (ends_in_a_row - RESTARTS_AT_ONCE - 1), BACKOFF_MAX_S)
                wait_s *= self._rng.uniform(0.8, 1.2)
                _log.error(
                    "worker %d ended %d times in a row; the next start is in %.1f s", slot.index, ends_in_a_row, wait_s
                )
                await asyncio.sleep(wait_s)

    async def _run_once(self, slot: Slot, bring_up: Callable[[WorkerProcess], Awaitable[None]]) -> None:
        """One life of one process."""
        try:
            process = await self._spawn(slot)
        except OSError as error:
            _log.error("worker %d could not be started: %s", slot.index, error)
            await slot.failed()
            return
        await slot.become(process, ready=False)
        try:
            await process.started(timeout_s=STARTED_WITHIN_S)
            await bring_up(process)
            await slot.become(process, ready=True)
        except WorkerDied:
            pass
        except WorkerRefused as error:
            _log.error("worker %d (pid %d) refuses what the node serves: %s", slot.index, process.pid, error)
            process.kill()
        except TimeoutError:
            _log.error("worker %d (pid %d) did not come up in time and is killed", slot.index, process.pid)
            process.kill()
        except BaseException:
            process.kill()
            raise
        try:
            await asyncio.shield(process.gone)
        finally:
            await slot.failed()
        # The exit code follows within moments, unless the worker still finishes requests, which is not waited for.
        await asyncio.wait((process.exited,), timeout=0.1)
        if not self._ending:
            how = _how(process.exited.result()) if process.exited.done() else "its channel closed"
            _log.error("worker %d (pid %d) ended: %s", slot.index, process.pid, how)


def _how(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
