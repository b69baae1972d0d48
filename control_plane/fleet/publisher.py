"""From commits to snapshots: follows the store, gathers what changed, builds one consistent whole, publishes it.

Building and hashing run in a thread, one at a time, so that the loop which serves the Admin API and the nodes never
stalls on a large configuration; a change or two are brought in at once, which takes less than the way to a thread.
Every version is published, also one whose content is that of the version before: operators wait for versions, and a
node takes on equal content without a pull.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from control_plane.fleet.gather import Gather, GatherSettings
from control_plane.fleet.timing import Times
from control_plane.snapshot.builder import Snapshot, SnapshotBuilder
from control_plane.store.contract import Change, Store, StoreError, Version

log = logging.getLogger(__name__)

RETRY_S = 0.5
RETRY_S_MAX = 5.0
QUICK_MAX = 4
"""Changes that are brought in without a thread; an entity of the largest size takes some milliseconds."""


class Publisher:
    """Publishes the store's head whenever it moved. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        store: Store,
        publish: Callable[[Snapshot], None],
        *,
        gather: GatherSettings,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._publish = publish
        self._gather = Gather(gather)
        self._clock = clock
        self._builder: SnapshotBuilder | None = None
        self._published = 0
        self._snapshot: Snapshot | None = None
        self._one_at_a_time = asyncio.Lock()
        self._wanted = 0
        self._pending_since: float | None = None
        self.times = Times()
        """From the first commit that a snapshot brings to its publication."""
        self._wake = asyncio.Event()
        self._unsubscribe: Callable[[], None] | None = None

    @property
    def published(self) -> int:
        """The version that was published last; 0 = none."""
        return self._published

    async def start(self) -> None:
        """Loads the store's state and publishes its head. Raises StoreError."""
        self._unsubscribe = self._store.subscribe(self._committed)
        await self._reload()

    def stop(self) -> None:
        """Stops following the store; `run` is its caller's to cancel."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def hurry(self, version: int) -> None:
        """Somebody waits for `version`: it must not be gathered any longer, nor be when its commit is heard of."""
        self._wanted = max(self._wanted, version)
        self._gather.hurry(self._clock())
        self._wake.set()

    async def reach(self, version: int) -> None:
        """Publishes what there is unless `version` is published already. Raises StoreError."""
        if self._published < version:
            await self._catch_up()

    async def run(self) -> None:
        """Publishes what is due, for ever."""
        retry_s = RETRY_S
        while True:
            await self._until_due()
            self._gather.taken()
            try:
                await self._catch_up()
                retry_s = RETRY_S
            except StoreError as error:
                log.warning("the fleet is not told of new versions yet, the store can't be read: %s", error)
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                self._gather.changed(self._clock())
            except Exception:  # a mistake of ours: the state may be half moved on, so it is made anew
                log.exception("building a snapshot failed; loading the store's state again")
                self._builder = None
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                self._gather.changed(self._clock())

    def _committed(self, version: int) -> None:
        now = self._clock()
        self._gather.changed(now)
        if self._pending_since is None:
            self._pending_since = now
        if version <= self._wanted:
            self._gather.hurry(now)
        self._wake.set()

    async def _until_due(self) -> None:
        while True:
            due = self._gather.due
            remaining_s = None if due is None else due - self._clock()
            if remaining_s is not None and remaining_s <= 0:
                return
            try:
                async with asyncio.timeout(remaining_s):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()

    async def proposal(self, changes: Sequence[Change]) -> tuple[Snapshot, Snapshot]:
        """The store's head, published, and what the next version would be with these changes. Raises StoreError."""
        self._gather.hurry(self._clock())
        while True:
            await self._catch_up()
            async with self._one_at_a_time:
                builder, head = self._builder, self._snapshot
                if builder is not None and head is not None:
                    return head, await asyncio.to_thread(builder.proposal, changes)

    async def _catch_up(self) -> None:
        async with self._one_at_a_time:
            await self._follow()

    async def _follow(self) -> None:
        builder = self._builder
        if builder is None:
            await self._reload()
            return
        versions = self._store.at_hand(self._published)
        if versions is None:
            versions = await self._store.changes_since(self._published)
        if not versions:
            return
        if _is_quick(versions):
            snapshot = _advance(builder, versions)
        else:
            snapshot = await asyncio.to_thread(_advance, builder, versions)
        self._show(snapshot)

    async def _reload(self) -> None:
        builder = SnapshotBuilder(await self._store.epoch())
        await self._store.read(builder.load)
        self._builder = builder
        self._show(builder.current())

    def _show(self, snapshot: Snapshot) -> None:
        self._published = snapshot.version
        self._snapshot = snapshot
        if self._pending_since is not None:
            now = self._clock()
            self.times.add(now - self._pending_since)
            # What was committed while this was built goes out with the next one.
            self._pending_since = now if self._gather.due is not None else None
        if snapshot.version > 0:  # an empty store has nothing to say: nodes go on with what they have
            self._publish(snapshot)


def _is_quick(versions: Sequence[Version]) -> bool:
    """Whether these are few changes, none of which hides or shows the routes of a service."""
    changes = [change for version in versions[:QUICK_MAX] for change in version.changes[:QUICK_MAX]]
    return sum(version.change_count for version in versions) <= QUICK_MAX and not any(
        change.collection == "services"
        and change.before is not None
        and change.after is not None
        and change.before.get("enabled") != change.after.get("enabled")
        for change in changes
    )


def _advance(builder: SnapshotBuilder, versions: Sequence[Version]) -> Snapshot:
    for version in versions:
        builder.apply(version)
    return builder.current()
