"""The hash that names a snapshot's content, kept up to date in microseconds.

Both planes compute it: the control plane over the bytes it sends, a node over the bytes it received. Nobody encodes an
entity again to check it, because two protobuf libraries may legally write different bytes.

    entity hash     SHA-256 of the entity's bytes (its kind and id are in them)
    bucket          the first 10 bits of SHA-256(collection, NUL, id)
    bucket hash     SHA-256 of the bucket's entity hashes in ascending order; an empty bucket is 32 zero bytes
    snapshot hash   SHA-256 of the 1024 bucket hashes in order

Two levels, so that one change in 100,000 entities hashes about a hundred hashes and the 1024 buckets anew, not all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

BUCKETS = 1024
EMPTY_BUCKET = bytes(32)

Key = tuple[str, str]
"""(collection, id)."""


def bucket_of(key: Key) -> int:
    """Return the number of the bucket that an entity belongs to."""
    collection, entity_id = key
    first, second = hashlib.sha256(f"{collection}\0{entity_id}".encode()).digest()[:2]
    return first << 2 | second >> 6


def entity_hash(body: bytes) -> bytes:
    """Return the hash of an entity's bytes."""
    return hashlib.sha256(body).digest()


class SnapshotHash:
    """The hash of a changing set of entities that somebody else keeps by bucket."""

    def __init__(self) -> None:
        self._buckets = [EMPTY_BUCKET] * BUCKETS
        self._root: bytes | None = None

    def put(self, bucket: int, entity_hashes: Iterable[bytes]) -> None:
        """Say which entities are in a bucket now."""
        self._buckets[bucket] = bucket_hash(entity_hashes)
        self._root = None

    def root(self) -> bytes:
        """Return the snapshot hash of what is in now."""
        if self._root is None:
            self._root = root_hash(self._buckets)
        return self._root

    def bucket_hashes(self) -> tuple[bytes, ...]:
        """Return the hashes of all buckets as they are now, in order."""
        return tuple(self._buckets)


def bucket_hash(entity_hashes: Iterable[bytes]) -> bytes:
    """Return the hash of one bucket."""
    ordered = sorted(entity_hashes)
    return hashlib.sha256(b"".join(ordered)).digest() if ordered else EMPTY_BUCKET


def root_hash(bucket_hashes: Iterable[bytes]) -> bytes:
    """Return the snapshot hash of 1024 bucket hashes in order."""
    return hashlib.sha256(b"".join(bucket_hashes)).digest()


def snapshot_hash(entities: Mapping[Key, bytes]) -> bytes:
    """Return the snapshot hash of entity bytes by key."""
    by_bucket: dict[int, list[bytes]] = {}
    for key, body in entities.items():
        by_bucket.setdefault(bucket_of(key), []).append(entity_hash(body))
    hashes = SnapshotHash()
    for bucket, members in by_bucket.items():
        hashes.put(bucket, members)
    return hashes.root()
