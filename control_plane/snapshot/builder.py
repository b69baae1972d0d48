"""The configuration that nodes should run, kept up to date change by change.

The builder holds every entity's bytes in the 1024 buckets of the snapshot hash. A change touches the entity's own
bucket and nothing else; `current` hands out the buckets as they are, and a bucket that a snapshot may hold is never
changed but replaced. So a snapshot costs microseconds however large the configuration is, stays as it was for as long
as anyone keeps it, and shares all it can with its neighbours.

What nodes need not see is left out: disabled services with their routes, and collections that have no encoding.

    builder = SnapshotBuilder(await store.epoch())
    await store.read(builder.load)
    for version in await store.changes_since(builder.version):
        builder.apply(version)
    snapshot = builder.current()

Nothing here locks: one task or thread at a time owns a builder. Snapshots may go anywhere.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import is_not

import zstandard

from control_plane.entities.schema import foreign_id
from control_plane.entities.types import EntityBody
from control_plane.snapshot.encode import ENCODERS, encode
from control_plane.store.contract import Change, Transaction, Version
from pointsman.rules.snapshot_hash import BUCKETS, Key, SnapshotHash, bucket_of, entity_hash
from pointsman.wire.v1 import fleet_pb2

PIECE_BYTES_MAX = 1024 * 1024
"""Of the packed bytes; well below the 4 MiB that gRPC takes by default."""
_LEVEL = 3

Bucket = dict[Key, tuple[bytes, bytes]]
"""Entity hash and entity bytes by key. Never changed once a snapshot may hold it."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A snapshot as it travels: one zstd frame of a `SnapshotBody`, cut into pieces."""

    pieces: tuple[bytes, ...]
    sha256: bytes  # of the whole frame
    raw_bytes: int
    packed_bytes: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes one snapshot of another: entities to put in, and keys to take out."""

    upserts: tuple[bytes, ...]
    deletes: tuple[Key, ...]

    @property
    def entity_bytes(self) -> int:
        return sum(map(len, self.upserts))


class Snapshot:
    """A complete configuration at one version, immutable."""

    def __init__(
        self,
        *,
        epoch: bytes,
        version: int,
        snapshot_hash: bytes,
        entity_count: int,
        entity_bytes: int,
        buckets: tuple[Bucket, ...],
        bucket_hashes: tuple[bytes, ...],
    ) -> None:
        self.epoch = epoch
        self.version = version
        self.snapshot_hash = snapshot_hash
        self.entity_count = entity_count
        self.entity_bytes = entity_bytes
        """The sum of all entities' bytes, before packing."""
        self._buckets = buckets
        self._bucket_hashes = bucket_hashes
        self._packing = threading.Lock()
        self._packed: Packed | None = None

    def entities(self) -> Iterator[tuple[Key, bytes]]:
        """All entities' bytes in the order in which they travel: by bucket, then by hash.

        The order depends on nothing but the content, so equal snapshots have equal bytes, whatever their history.
        """
        for bucket in self._buckets:
            for key, (_, body) in sorted(bucket.items(), key=_by_hash):
                yield key, body

    def changed_buckets(self, base: Snapshot) -> list[int]:
        """Which buckets may differ from `base`'s: microseconds, however large the configuration is."""
        return list(compress(range(BUCKETS), map(is_not, self._buckets, base._buckets)))

    def changes_since(self, base: Snapshot) -> Changes:
        """What makes this snapshot of `base`. Takes time in proportion to the buckets that changed."""
        upserts: list[bytes] = []
        deletes: list[Key] = []
        for number in self.changed_buckets(base):
            before, after = base._buckets[number], self._buckets[number]
            upserts += (body for key, (hashed, body) in after.items() if before.get(key, _NONE)[0] != hashed)
            deletes += (key for key in before if key not in after)
        return Changes(tuple(upserts), tuple(deletes))

    def differing(self, bucket_hashes: Sequence[bytes]) -> tuple[tuple[int, ...], Changes]:
        """The buckets whose hashes are others than these, and all entities that belong into them."""
        numbers = tuple(number for number, ours in enumerate(self._bucket_hashes) if ours != bucket_hashes[number])
        bodies = tuple(body for number in numbers for _, body in self._buckets[number].values())
        return numbers, Changes(bodies, ())

    def held_bytes(self, base: Snapshot | None) -> int:
        """An upper bound of the memory that keeping this beside `base` costs."""
        entities = self.entity_count or 1
        entity_bytes = self.entity_bytes / entities + _ENTRY_BYTES
        if base is None:
            return _SNAPSHOT_BYTES + round(self.entity_count * entity_bytes)
        changed = self.changed_buckets(base)
        return _SNAPSHOT_BYTES + round(sum(len(self._buckets[number]) for number in changed) * entity_bytes)

    def packed(self) -> Packed:
        """The snapshot as it travels, made by the first caller; the others wait for it.

        Takes about a second for 100,000 entities: call it in a thread.
        """
        with self._packing:
            if self._packed is None:
                self._packed = _pack(self)
            return self._packed


_NONE = (b"", b"")
_ENTRY_BYTES = 100
_SNAPSHOT_BYTES = 20 * 1024


def _by_hash(item: tuple[Key, tuple[bytes, bytes]]) -> bytes:
    return item[1][0]


def _pack(snapshot: Snapshot) -> Packed:
    body = fleet_pb2.SnapshotBody(entities=(entity for _, entity in snapshot.entities()))
    raw = body.SerializeToString()
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(raw)
    pieces = tuple(packed[start : start + PIECE_BYTES_MAX] for start in range(0, len(packed), PIECE_BYTES_MAX))
    return Packed(pieces, hashlib.sha256(packed).digest(), len(raw), len(packed))


class SnapshotBuilder:
    """All entities at `version`, encoded, and which of them nodes see."""

    def __init__(self, epoch: bytes) -> None:
        self._epoch = epoch
        self._start_empty()

    def _start_empty(self) -> None:
        self._version = 0
        self._hashes = SnapshotHash()
        self._buckets: list[Bucket] = [{} for _ in range(BUCKETS)]
        self._own = set(range(BUCKETS))  # the buckets no snapshot holds; their hashes are still to be made
        self._count = 0
        self._bytes = 0
        self._disabled: set[str] = set()  # ids of services
        self._hidden: dict[Key, bytes] = {}  # encoded, but not for the nodes
        self._service_of: dict[str, str] = {}  # route id -> service id
        self._routes_of: dict[str, set[str]] = {}  # service id -> route ids

    @property
    def version(self) -> int:
        """The version that all changes up to are in."""
        return self._version

    def load(self, tx: Transaction) -> None:
        """Starts anew from everything in the store; runs where the transaction does, about a second per 50,000."""
        self._start_empty()
        for collection in ENCODERS:
            for body in tx.each(collection):
                self._put(collection, str(body["id"]), body)
        self._version = tx.head()

    def apply(self, version: Version) -> None:
        """Brings in the version after the present one.

        All of its changes are in afterwards, in whatever order they are listed: a route may stand before its service.
        """
        assert version.number == self._version + 1, f"version {version.number} does not follow {self._version}"
        for change in version.changes:
            self._step(change.collection, change.id, change.after)
        self._version = version.number

    def proposal(self, changes: Sequence[Change]) -> Snapshot:
        """The snapshot that the next version would be with these changes; the builder is as before afterwards."""
        for change in changes:
            self._step(change.collection, change.id, change.after)
        proposed = self.current()
        proposed.version += 1
        for change in reversed(changes):
            self._step(change.collection, change.id, change.before)
        return proposed

    def _step(self, collection: str, entity_id: str, body: EntityBody | None) -> None:
        if collection not in ENCODERS:
            return
        if body is None:
            self._remove(collection, entity_id)
        else:
            self._put(collection, entity_id, body)

    def current(self) -> Snapshot:
        """The snapshot of the present version."""
        for number in self._own:
            self._hashes.put(number, (hashed for hashed, _ in self._buckets[number].values()))
        self._own.clear()
        return Snapshot(
            epoch=self._epoch,
            version=self._version,
            snapshot_hash=self._hashes.root(),
            entity_count=self._count,
            entity_bytes=self._bytes,
            buckets=tuple(self._buckets),
            bucket_hashes=self._hashes.bucket_hashes(),
        )

    def _put(self, collection: str, entity_id: str, body: EntityBody) -> None:
        key = (collection, entity_id)
        encoded = encode(collection, body)
        hidden = False
        if collection == "services":
            hidden = body.get("enabled") is False
            self._toggle(entity_id, disabled=hidden)
        elif collection == "routes":
            service = foreign_id(body.get("service"))
            self._link(entity_id, service)
            hidden = service in self._disabled
        self._place(key, encoded, hidden=hidden)

    def _remove(self, collection: str, entity_id: str) -> None:
        if collection == "services":
            self._toggle(entity_id, disabled=False)
        elif collection == "routes":
            self._link(entity_id, None)
        self._hidden.pop((collection, entity_id), None)
        self._hide((collection, entity_id))

    def _toggle(self, service: str, *, disabled: bool) -> None:
        """A service's routes come and go with it."""
        if disabled == (service in self._disabled):
            return
        if disabled:
            self._disabled.add(service)
        else:
            self._disabled.discard(service)
        for route in self._routes_of.get(service, ()):
            key = ("routes", route)
            encoded = self._hide(key) if disabled else self._hidden.get(key)
            if encoded is not None:
                self._place(key, encoded, hidden=disabled)

    def _link(self, route: str, service: str | None) -> None:
        before = self._service_of.pop(route, None)
        if before is not None:
            siblings = self._routes_of[before]
            siblings.discard(route)
            if not siblings:
                del self._routes_of[before]
        if service is not None:
            self._service_of[route] = service
            self._routes_of.setdefault(service, set()).add(route)

    def _place(self, key: Key, encoded: bytes, *, hidden: bool) -> None:
        if hidden:
            self._hide(key)
            self._hidden[key] = encoded
        else:
            self._hidden.pop(key, None)
            self._show(key, encoded)

    def _show(self, key: Key, encoded: bytes) -> None:
        hashed = entity_hash(encoded)
        bucket = self._own_bucket(key)
        before = bucket.get(key)
        if before is None:
            self._count += 1
            self._bytes += len(encoded)
        else:
            if before[0] == hashed:
                return
            self._bytes += len(encoded) - len(before[1])
        bucket[key] = (hashed, encoded)

    def _hide(self, key: Key) -> bytes | None:
        bucket = self._own_bucket(key)
        before = bucket.pop(key, None)
        if before is None:
            return None
        self._count -= 1
        self._bytes -= len(before[1])
        return before[1]

    def _own_bucket(self, key: Key) -> Bucket:
        """The key's bucket, copied first if a snapshot holds it."""
        number = bucket_of(key)
        if number not in self._own:
            self._buckets[number] = dict(self._buckets[number])
            self._own.add(number)
        return self._buckets[number]
