"""Which names the configuration needs, what they resolve to now, and when to ask again.

Names are resolved here and pushed to the workers, so that no request ever waits for a nameserver. A name belongs to the
node from the moment a staged snapshot needs it until no active one does; a name is asked for again when its answer
expires, and workers hear of it only when the answer differs.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Generator, Iterable, Mapping, Sequence

from google.protobuf.message import DecodeError

from data_plane.node.diff import Diff, EntityKey
from data_plane.resolve.answers import Answer
from data_plane.resolve.cache import Cache, CacheFull, Outcome
from data_plane.resolve.system import as_address
from pointsman.wire.v1 import config_pb2 as wire

LOOKUPS_AT_ONCE = 64
ENTITIES_PER_STEP = 500

_log = logging.getLogger(__name__)


class NameIndex:
    """The names a configuration needs: hosts of targets, and hosts of services that are no upstream's name."""

    def __init__(self) -> None:
        self._hosts: dict[EntityKey, str] = {}
        self._targets: Counter[str] = Counter()
        self._services: Counter[str] = Counter()
        self._upstreams: Counter[str] = Counter()
        self.needed: set[str] = set()

    def apply(self, upserts: Mapping[EntityKey, bytes], deletes: Iterable[EntityKey]) -> None:
        """Follow one change of the configuration; `needed` is right when this returns.

        An entity that does not decode needs nothing: the workers will refuse it with a reason.
        """
        for _ in self.steps(upserts, deletes):
            pass

    def steps(self, upserts: Mapping[EntityKey, bytes], deletes: Iterable[EntityKey]) -> Generator[None, None, None]:
        """The same, with pauses; what is left half done must be undone."""
        touched: set[str] = set()
        for key in deletes:
            self._forget(key, touched)
        for number, (key, data) in enumerate(upserts.items(), 1):
            if number % ENTITIES_PER_STEP == 0:
                yield
            if key[0] == "routes":
                continue
            self._forget(key, touched)
            try:
                entity = wire.Entity.FromString(data)
            except DecodeError:
                continue
            if key[0] == "targets":
                host = entity.target.target.rpartition(":")[0]
                self._remember(key, host, self._targets, touched)
            elif key[0] == "services":
                self._remember(key, entity.service.host, self._services, touched)
            elif key[0] == "upstreams":
                self._remember(key, entity.upstream.name, self._upstreams, touched)
        for name in touched:
            if self._targets[name] or (self._services[name] and not self._upstreams[name]):
                self.needed.add(name)
            else:
                self.needed.discard(name)

    def _remember(self, key: EntityKey, host: str, counts: Counter[str], touched: set[str]) -> None:
        if host and as_address(host) is None:
            self._hosts[key] = host
            counts[host] += 1
            touched.add(host)

    def _forget(self, key: EntityKey, touched: set[str]) -> None:
        host = self._hosts.pop(key, None)
        if host is None:
            return
        counts = {"targets": self._targets, "services": self._services, "upstreams": self._upstreams}[key[0]]
        counts[host] -= 1
        if not counts[host]:
            del counts[host]
        touched.add(host)

    def undo(self, diff: Diff) -> None:
        """Go back over `diff`, which was applied last, wholly or in part."""
        before = diff.before.entities if diff.before is not None else {}
        restored = {key: before[key] for key in (*diff.upserts, *diff.deletes) if key in before}
        self.apply(restored, [key for key in diff.upserts if key not in before])


class Names:
    """The names in use and their answers. `on_change` gets every answer that is new or differs, at once."""

    def __init__(
        self,
        resolve: Callable[[str], Awaitable[Outcome]],
        cache: Cache,
        *,
        on_change: Callable[[Sequence[Answer]], None],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
        lookups_at_once: int = LOOKUPS_AT_ONCE,
    ) -> None:
        self._resolve = resolve
        self._cache = cache
        self._on_change = on_change
        self._clock = clock
        self._rng = rng or random.SystemRandom()
        self._lookups_at_once = lookups_at_once
        self._kept: set[str] = set()
        self._due: list[tuple[float, str]] = []
        self._lookups: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow expiries."""
        assert self._loop_task is None, "already started"
        self._loop_task = asyncio.create_task(self._follow(), name="names")

    async def stop(self) -> None:
        """End the lookups under way."""
        tasks = list(self._lookups.values())
        if self._loop_task is not None:
            tasks.append(self._loop_task)
            self._loop_task = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def require(self, names: Collection[str], *, within_s: float) -> bool:
        """Take `names` into use; returns whether all of them had an answer in time. Lookups go on either way."""
        self.add(names)
        deadline = self._clock() + within_s
        while True:
            missing = [name for name in names if self._cache.answer(name) is None]
            if not missing:
                return True
            left = deadline - self._clock()
            running = [self._lookups[name] for name in missing if name in self._lookups]
            if left <= 0:
                return False
            if running:
                await asyncio.wait(running, timeout=left)
            else:
                await asyncio.sleep(min(0.01, left))  # more names than lookups at once: they are still in the queue

    def add(self, names: Collection[str]) -> None:
        """Take `names` into use without waiting."""
        for name in names:
            if name not in self._kept:
                self._kept.add(name)
                heapq.heappush(self._due, (float("-inf"), name))
        self._wake.set()

    def keep_only(self, names: Collection[str]) -> None:
        """Drop all names but these from use."""
        self._kept.intersection_update(names)
        self._cache.keep_only(self._kept)

    def answers(self, names: Iterable[str]) -> list[Answer]:
        """What is known about `names`; those without an answer are left out."""
        return [answer for name in names if (answer := self._cache.answer(name)) is not None]

    async def _follow(self) -> None:
        while True:
            self._wake.clear()
            now = self._clock()
            while self._due and self._due[0][0] <= now and len(self._lookups) < self._lookups_at_once:
                _, name = heapq.heappop(self._due)
                if name in self._kept and name not in self._lookups and self._cache.due_at(name) <= now:
                    self._lookups[name] = asyncio.create_task(self._look_up(name), name=f"name {name}")
            full = len(self._lookups) >= self._lookups_at_once
            wait_s = self._due[0][0] - now if self._due and not full else float("inf")
            try:
                async with asyncio.timeout(None if wait_s == float("inf") else max(wait_s, 0.0)):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _look_up(self, name: str) -> None:
        try:
            outcome = await self._resolve(name)
            if name not in self._kept:
                return
            before = self._cache.answer(name)
            changed = self._cache.store(name, outcome, self._clock(), jitter=self._rng.random())
            heapq.heappush(self._due, (self._cache.due_at(name), name))
            answer = self._cache.answer(name)
            if changed and answer is not None:
                self._report(before, answer)
                self._on_change((answer,))
        except CacheFull as error:
            _log.error("%s is not resolved: %s", name, error)
        finally:
            self._lookups.pop(name, None)
            self._wake.set()

    def _report(self, before: Answer | None, answer: Answer) -> None:
        if answer.error:
            _log.warning("%s does not resolve: %s", answer.name, answer.error)
        elif before is not None:
            _log.info("%s now resolves to %s", answer.name, ", ".join(record.ip for record in answer.records[:8]))
