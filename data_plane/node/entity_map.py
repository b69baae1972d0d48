"""The entities of one snapshot by key, in the buckets of the snapshot hash; immutable.

A changed copy shares every bucket that nothing touched, so a delta over 100,000 entities costs what the change costs,
and comparing two versions looks only into the buckets that differ. The bucket hashes are kept, so that the hash of a
changed copy is that of the changed buckets and one pass over 32 KiB.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from itertools import chain, compress
from operator import is_, is_not

from typing_extensions import override

from pointsman.rules.snapshot_hash import BUCKETS, EMPTY_BUCKET, Key, bucket_hash, bucket_of, entity_hash, root_hash

Bucket = dict[Key, bytes]
_EMPTY: Bucket = {}


class EntityMap(Mapping[Key, bytes]):
    """`Entity` bytes by (collection, id). Nobody writes into a bucket once it is here."""

    __slots__ = ("_count", "_hashes", "buckets")

    def __init__(self, entities: Mapping[Key, bytes] | None = None) -> None:
        buckets: list[Bucket] = [_EMPTY] * BUCKETS
        for key, body in (entities or {}).items():
            number = bucket_of(key)
            if not buckets[number]:
                buckets[number] = {}
            buckets[number][key] = body
        self.buckets = tuple(buckets)
        self._hashes = tuple(_hash(bucket) for bucket in buckets)
        self._count = sum(map(len, buckets))

    @classmethod
    def of(cls, entities: Mapping[Key, bytes]) -> EntityMap:
        """These entities; the very object when it is one of ours."""
        return entities if isinstance(entities, EntityMap) else cls(entities)

    @property
    def bucket_hashes(self) -> tuple[bytes, ...]:
        return self._hashes

    def root(self) -> bytes:
        """The snapshot hash."""
        return root_hash(self._hashes)

    def changed(self, upserts: Mapping[Key, bytes], deletes: Iterable[Key]) -> EntityMap:
        """A copy with `deletes` taken out and `upserts` put in."""
        own: dict[int, Bucket] = {}
        for key in deletes:
            self._own(own, bucket_of(key)).pop(key, None)
        for key, body in upserts.items():
            self._own(own, bucket_of(key))[key] = body
        return self._with(own)

    def with_buckets(self, numbers: Iterable[int], entities: Mapping[Key, bytes]) -> EntityMap:
        """A copy in which the buckets `numbers` hold `entities` and nothing else.

        Raises:
            ValueError: an entity belongs into another bucket, or a number is none.
        """
        own: dict[int, Bucket] = {number: {} for number in numbers}
        if any(not 0 <= number < BUCKETS for number in own):
            raise ValueError(f"there are {BUCKETS} buckets")
        for key, body in entities.items():
            bucket = own.get(bucket_of(key))
            if bucket is None:
                raise ValueError("an entity belongs into another bucket")
            bucket[key] = body
        return self._with(own)

    def changes_since(self, base: EntityMap) -> tuple[dict[Key, bytes], tuple[Key, ...]]:
        """What must be put in and taken out to make this of `base`."""
        upserts: dict[Key, bytes] = {}
        deletes: list[Key] = []
        for number in compress(range(BUCKETS), map(is_not, base.buckets, self.buckets)):
            if base._hashes[number] == self._hashes[number]:
                continue
            before, after = base.buckets[number], self.buckets[number]
            if before:
                upserts.update((key, body) for key, body in after.items() if before.get(key) != body)
                deletes += (key for key in before if key not in after)
            else:
                upserts.update(after)
        return upserts, tuple(deletes)

    def shares_with(self, other: EntityMap) -> bool:
        """Whether most buckets are the very same in memory."""
        return 2 * sum(map(is_, self.buckets, other.buckets)) >= BUCKETS

    def _own(self, own: dict[int, Bucket], number: int) -> Bucket:
        bucket = own.get(number)
        if bucket is None:
            bucket = own[number] = dict(self.buckets[number])
        return bucket

    def _with(self, own: Mapping[int, Bucket]) -> EntityMap:
        buckets, hashes = list(self.buckets), list(self._hashes)
        count = self._count
        for number, bucket in own.items():
            count += len(bucket) - len(buckets[number])
            buckets[number] = bucket
            hashes[number] = _hash(bucket)
        copy = EntityMap.__new__(EntityMap)
        copy.buckets, copy._hashes, copy._count = tuple(buckets), tuple(hashes), count
        return copy

    @override
    def __getitem__(self, key: Key) -> bytes:
        return self.buckets[bucket_of(key)][key]

    @override
    def __iter__(self) -> Iterator[Key]:
        return chain.from_iterable(self.buckets)

    @override
    def __len__(self) -> int:
        return self._count

    @override
    def items(self) -> ItemsView[Key, bytes]:
        return _Items(self)

    @override
    def values(self) -> ValuesView[bytes]:
        return _Values(self)


class _Items(ItemsView[Key, bytes]):
    """Bucket by bucket, without looking each key up."""

    _mapping: EntityMap

    @override
    def __iter__(self) -> Iterator[tuple[Key, bytes]]:
        return chain.from_iterable(bucket.items() for bucket in self._mapping.buckets)


class _Values(ValuesView[bytes]):
    """Bucket by bucket, without looking each key up."""

    _mapping: EntityMap

    @override
    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(bucket.values() for bucket in self._mapping.buckets)


def _hash(bucket: Bucket) -> bytes:
    return bucket_hash(map(entity_hash, bucket.values())) if bucket else EMPTY_BUCKET
