"""The materialised configuration: all entities as the bytes that travel, kept up to date change by change.

`SnapshotBuilder` is mutable and belongs to the event loop; `current()` gives an immutable `Snapshot` of a version,
whose packing may happen in another thread. A disabled service and its routes are left out of what nodes run, and come back
when it is enabled. One change costs what it touches, whatever the number of entities.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import zstandard

from control_plane.entities.schema import foreign_id
from control_plane.entities.types import EntityBody
from control_plane.snapshot.encode import encode
from control_plane.store.contract import Version
from pointsman.rules.snapshot_hash import Key, SnapshotHash, entity_hash
from pointsman.wire.v1 import fleet_pb2

PIECE_BYTES_MAX = 1 << 20
_COMPRESSION_LEVEL = 3


@dataclass(frozen=True, slots=True)
class Packed:
    """A snapshot as it travels: one zstd frame over a SnapshotBody, cut into pieces."""

    pieces: tuple[bytes, ...]
    sha256: bytes
    raw_bytes: int
    packed_bytes: int


class Snapshot:
    """The complete, consistent, immutable configuration at a version."""

    def __init__(self, epoch: bytes, version: int, snapshot_hash: bytes, entities: Mapping[Key, bytes]) -> None:
        self.epoch = epoch
        self.version = version
        self.snapshot_hash = snapshot_hash
        self.entities = entities
        self._packed: Packed | None = None
        self._packing = threading.Lock()

    @property
    def entity_count(self) -> int:
        """How many entities it holds."""
        return len(self.entities)

    def packed(self) -> Packed:
        """Return the bytes that travel, made by the first who asks. Blocks for as long as that takes."""
        with self._packing:
            if self._packed is None:
                self._packed = self._pack()
        return self._packed

    def _pack(self) -> Packed:
        raw = fleet_pb2.SnapshotBody(entities=[body for _, body in sorted(self.entities.items())]).SerializeToString()
        packed = zstandard.ZstdCompressor(level=_COMPRESSION_LEVEL).compress(raw)
        pieces = tuple(packed[start : start + PIECE_BYTES_MAX] for start in range(0, len(packed), PIECE_BYTES_MAX))
        return Packed(pieces, hashlib.sha256(packed).digest(), len(raw), len(packed))


class SnapshotBuilder:
    """All entities as bytes, with their hashes."""

    def __init__(self, epoch: bytes) -> None:
        self._epoch = epoch
        self._reset(0)

    def _reset(self, version: int) -> None:
        self._version = version
        self._visible: dict[Key, bytes] = {}
        self._hashes = SnapshotHash()
        self._disabled: set[str] = set()
        # Routes by service, with their bytes, so that they can go and come back with it.
        self._routes: dict[str, dict[str, bytes]] = {}
        self._service_of: dict[str, str] = {}

    @property
    def version(self) -> int:
        """The version it is at."""
        return self._version

    def load(self, version: int, entities: Iterable[tuple[str, EntityBody]]) -> None:
        """Start from the whole content of a store at `version`."""
        self._reset(version)
        for collection, body in entities:
            self._put(collection, body)

    def apply(self, version: Version) -> None:
        """Take over the changes of the next version; versions must come without gaps."""
        assert version.number == self._version + 1, f"version {version.number} does not follow {self._version}"
        for change in version.changes:
            if change.after is None:
                self._remove(change.collection, change.id)
            else:
                self._put(change.collection, change.after)
        self._version = version.number

    def current(self) -> Snapshot:
        """Return the snapshot of the version it is at."""
        return Snapshot(self._epoch, self._version, self._hashes.root(), dict(self._visible))

    def _put(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        encoded = encode(collection, body)
        if collection == "services":
            self._put_service(entity_id, encoded, enabled=body["enabled"] is True)
        elif collection == "routes":
            self._forget_route(entity_id)
            service = foreign_id(body["service"]) or ""
            self._routes.setdefault(service, {})[entity_id] = encoded
            self._service_of[entity_id] = service
            self._show((collection, entity_id), encoded, visible=service not in self._disabled)
        else:
            self._show((collection, entity_id), encoded, visible=True)

    def _put_service(self, entity_id: str, encoded: bytes, *, enabled: bool) -> None:
        was_disabled = entity_id in self._disabled
        self._show(("services", entity_id), encoded, visible=enabled)
        if enabled is not was_disabled:
            return
        if enabled:
            self._disabled.discard(entity_id)
        else:
            self._disabled.add(entity_id)
        for route_id, route in self._routes.get(entity_id, {}).items():
            self._show(("routes", route_id), route, visible=enabled)

    def _remove(self, collection: str, entity_id: str) -> None:
        if collection == "routes":
            self._forget_route(entity_id)
        elif collection == "services":
            self._disabled.discard(entity_id)
        self._show((collection, entity_id), b"", visible=False)

    def _forget_route(self, route_id: str) -> None:
        service = self._service_of.pop(route_id, None)
        if service is not None:
            routes = self._routes[service]
            del routes[route_id]
            if not routes:
                del self._routes[service]

    def _show(self, key: Key, encoded: bytes, *, visible: bool) -> None:
        if not visible:
            if self._visible.pop(key, None) is not None:
                self._hashes.remove(key)
        elif self._visible.get(key) != encoded:
            self._visible[key] = encoded
            self._hashes.put(key, entity_hash(encoded))
