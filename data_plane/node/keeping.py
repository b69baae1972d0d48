"""Keeps the last good snapshot up to date on disk, on the way from "active" to "applied".

    made of a delta      its record is in the journal before the report: microseconds
    pulled whole         the very bytes that travelled are written before the report
    journal too long     the whole is written in the background, and the journal begins anew

So a node process that is killed right after its report starts with what it reported. The disk has it for a power cut,
too, a moment later: records are flushed in the background, because a report must not wait for a slow disk. For the same
reason the report waits `KEEP_S` at most; a disk that takes nothing is reported and does not stop the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from data_plane.node.last_good import LastGood
from data_plane.node.snapshot import Delta, NodeSnapshot, Offer, make_delta
from pointsman.snapshots import SnapshotRef

log = logging.getLogger(__name__)

KEEP_S = 0.25
SYNC_AFTER_S = 0.5
"""Records are flushed so long after the first that is not. By then the whole fleet has the change, and several changes
cost one flush. What a power cut takes back, the control plane brings again."""
SAVE_INTERVAL_S = 1.0
"""The whole is written at most this often; after a failure ten times less often."""
JOURNAL_BYTES_MAX = 4 * 1024 * 1024
JOURNAL_RECORDS_MAX = 512


@dataclass(frozen=True, slots=True)
class Ready:
    """A verified snapshot, and how it got here: by a delta, or whole as `packed` says."""

    snapshot: NodeSnapshot
    delta: Delta | None = None
    packed: tuple[Offer, bytes] | None = None


class Keeper:
    """Owns the last-good files while the node runs; `stop` in the end."""

    def __init__(self, last_good: LastGood) -> None:
        self._last_good = last_good
        self._on_disk: NodeSnapshot | None = None  # what the files lead to
        self._latest: NodeSnapshot | None = None
        self._wholes = 0
        self._disk = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._saving: asyncio.Task[None] | None = None
        self._syncing: asyncio.Task[None] | None = None
        self._unsynced = False
        self._keeping: set[asyncio.Task[None]] = set()
        self.problem = ""
        """Why the files are not up to date or were not usable; empty when all is well."""

    def restored(self, snapshot: NodeSnapshot) -> None:
        """The files led to `snapshot`, which is active."""
        self._latest = snapshot
        if self.problem:
            self._save_soon()  # the files are not what they should be
        else:
            self._on_disk = snapshot

    async def keep(self, ready: Ready) -> bool:
        """`ready` became active. Returns when a kill can't undo that any more, or after `KEEP_S`: whether it can't."""
        self._latest = ready.snapshot
        if ready.packed is None and not self._keeping and not self._disk.locked():
            self._record(ready)  # microseconds: not worth a task, and nobody waits who came before
            return self._on_disk is ready.snapshot
        task = asyncio.create_task(self._keep(ready), name="last good")
        self._keeping.add(task)
        task.add_done_callback(self._keeping.discard)
        await asyncio.wait((task,), timeout=KEEP_S)
        return task.done() and self._on_disk is ready.snapshot

    async def stop(self, running: NodeSnapshot | None) -> None:
        """Waits for what is being written; `running` is kept, too, where the way from "active" to here was cut off."""
        if running is not None and self._latest is not None and running.ref != self._latest.ref:
            await self.keep(Ready(running, delta=make_delta(self._latest, running)))
        elif running is not None and self._latest is None:
            await self.keep(Ready(running))
        self._stopping.set()
        while pending := [task for task in (*self._keeping, self._saving, self._syncing) if task and not task.done()]:
            await asyncio.wait(pending)

    async def _keep(self, ready: Ready) -> None:
        async with self._disk:
            if ready.packed is None:
                self._record(ready)
                return
            try:
                await asyncio.to_thread(self._last_good.save, ready.snapshot, packed=ready.packed)
            except OSError as error:
                self._not_kept(ready.snapshot.ref, error)
                return
            self._wholes += 1
            self._on_disk = ready.snapshot
            self.problem = ""

    def _record(self, ready: Ready) -> None:
        """Adds a change to the journal, if the files lead to what it starts from. Nobody else may be at the files."""
        delta = ready.delta
        if delta is None or self._on_disk is None:
            self._save_soon()
            return
        journal = self._last_good.journal
        try:
            if delta.base != self._on_disk.ref:  # the control plane may be a few reports behind
                delta = make_delta(self._on_disk, ready.snapshot)
            journal.append(delta)
        except OSError as error:
            self._not_kept(ready.snapshot.ref, error)
            return
        self._on_disk = ready.snapshot
        self.problem = ""
        self._unsynced = True
        if journal.bytes > JOURNAL_BYTES_MAX or journal.records > JOURNAL_RECORDS_MAX:
            self._save_soon()
        if self._syncing is None or self._syncing.done():
            self._syncing = asyncio.create_task(self._sync(), name="last good journal")

    async def _sync(self) -> None:
        while self._unsynced:
            await self._stopped_within(SYNC_AFTER_S)
            self._unsynced = False
            try:
                await asyncio.to_thread(self._last_good.journal.sync)
            except OSError as error:
                log.error("last good journal: %s", error)

    async def _stopped_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _save_soon(self) -> None:
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save(), name="last good file")

    async def _save(self) -> None:
        """Writes the whole until the files lead to what is active."""
        while True:
            async with self._disk:
                snapshot, wholes = self._latest, self._wholes
                assert snapshot is not None, "asked to save something"
                upto = self._last_good.journal.rotate()
                self._on_disk = snapshot
            pause_s = SAVE_INTERVAL_S
            try:
                staged = await asyncio.to_thread(self._last_good.stage, snapshot)
                async with self._disk:
                    if self._wholes == wholes:  # else a later one came whole meanwhile
                        await asyncio.to_thread(self._last_good.commit, staged, snapshot.snapshot_hash, upto=upto)
                self.problem = ""
            except OSError as error:
                self._on_disk = None
                self._failed(snapshot.ref, error)
                if self._stopping.is_set():
                    return
                pause_s *= 10
            if self._on_disk is not None and self._on_disk is self._latest:
                return
            await self._stopped_within(pause_s)

    def _not_kept(self, ref: SnapshotRef, error: OSError) -> None:
        self._on_disk = None
        self._failed(ref, error)
        self._save_soon()

    def _failed(self, ref: SnapshotRef, error: OSError) -> None:
        self.problem = f"{ref} could not be written: {error}"
        log.error("last good snapshot: %s", self.problem)
