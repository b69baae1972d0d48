"""A mapping whose copies share what they don't change: the large indexes of one version and of the next.

A copy of a dictionary of 100,000 entries takes milliseconds, and so does the growth of one that is filled step by step;
no request moves meanwhile. So a large mapping is cut into shards by hash: a copy takes the list of them, and a write
copies the one shard it touches. A small one is a single shard, which is a dictionary and nothing more.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Self, TypeVar

from typing_extensions import override

K = TypeVar("K")
V = TypeVar("V")

SHARDS = 256
SINGLE_MAX = 1024
"""Entries up to which one shard is enough."""
_RELEASED_PER_STEP = 16


class Sharded(Mapping[K, V]):
    """See the module. Written while a version is built, by its owner only; never after it has been copied."""

    __slots__ = ("_mask", "_own", "_shards", "_size")

    def __init__(self, entries: Mapping[K, V] | None = None) -> None:
        self._shards: list[dict[K, V]] = [{}]
        self._mask = 0
        self._own: set[int] = {0}  # shards that no other copy has, and so may be written
        self._size = 0
        for key, value in (entries or {}).items():
            self.put(key, value)

    def copy(self) -> Self:
        """Return a copy that shares all shards with this one."""
        twin = type(self)()
        twin._shards = self._shards.copy()
        twin._mask = self._mask
        twin._own = set()
        twin._size = self._size
        return twin

    def put(self, key: K, value: V) -> bool:
        """Set an entry; returns whether there was none."""
        index = hash(key) & self._mask
        shard = self._shards[index] if index in self._own else self._writable(key)
        before = len(shard)
        shard[key] = value
        if len(shard) == before:
            return False
        self._size += 1
        if not self._mask and self._size > SINGLE_MAX:
            self._split()
        return True

    def drop(self, key: K) -> V:
        """Take an entry out, which must be there, and return it."""
        value = self._writable(key).pop(key)
        self._size -= 1
        return value

    def release(self, successor: Self | None) -> Generator[None, None, None]:
        """Take apart what `successor` does not share, a little in each step; nobody may use this one any more."""
        theirs = successor._shards if successor is not None and successor._mask == self._mask else []
        for index, shard in enumerate(self._shards):
            if index < len(theirs) and theirs[index] is shard:
                continue
            number = 0
            while shard:
                shard.popitem()
                number += 1
                if number % _RELEASED_PER_STEP == 0:
                    yield
            yield
        self._size = 0

    @override
    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]  # one kind of default is enough
        return self._shards[hash(key) & self._mask].get(key, default)

    @override
    def __getitem__(self, key: K) -> V:
        return self._shards[hash(key) & self._mask][key]

    @override
    def __contains__(self, key: object) -> bool:
        return key in self._shards[hash(key) & self._mask]

    @override
    def __iter__(self) -> Iterator[K]:
        for shard in self._shards:
            yield from shard

    @override
    def __len__(self) -> int:
        return self._size

    def _writable(self, key: K) -> dict[K, V]:
        index = hash(key) & self._mask
        if index not in self._own:
            self._shards[index] = self._shards[index].copy()
            self._own.add(index)
        return self._shards[index]

    def _split(self) -> None:
        (single,) = self._shards
        self._mask = SHARDS - 1
        self._own = set(range(SHARDS))
        self._shards = [{} for _ in range(SHARDS)]
        for key, value in single.items():
            self._shards[hash(key) & self._mask][key] = value
