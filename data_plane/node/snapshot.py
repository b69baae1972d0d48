"""A complete configuration as the node holds it: entity bytes by key, verified against the snapshot's hash.

Entities stay the bytes that travelled; only workers decode them. Everything here is synchronous and may take a second
for a large configuration, so callers run it in a thread. Outside bytes are distrusted in this order: declared sizes,
checksum, decompression with a hard ceiling, framing, hash. Nothing is allocated on the sender's word alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import zstandard
from google.protobuf.message import DecodeError

from data_plane.kinds import COLLECTIONS, key_of
from data_plane.node.entity_map import EntityMap
from data_plane.node.outcomes import Refused
from pointsman.rules.snapshot_hash import Key
from pointsman.snapshots import NOTHING, RAW_BYTES_MAX, Fault, SnapshotRef, Stage
from pointsman.wire.v1 import config_pb2, fleet_pb2

RATIO_MAX = 200
"""Raw bytes per packed byte beyond which a snapshot is taken for a decompression bomb ..."""
RATIO_FREE_BYTES = 1024 * 1024
"""... unless it is smaller than this, because tiny repetitive configurations compress without end."""
WINDOW_BYTES_MAX = 8 * 1024 * 1024
PIECE_BYTES_MAX = 1024 * 1024
EPOCH_BYTES = 16
HASH_BYTES = 32
_PACK_LEVEL = 3
# The wire format of protobuf: a tag is a field's number and a kind, and seven bits of a length are in each byte.
_BYTES_KIND = 2
_CONTINUED = 128
_COLLECTION_BY_TAG = {
    config_pb2.Entity.DESCRIPTOR.fields_by_name[kind].number << 3 | _BYTES_KIND: collection
    for kind, collection in COLLECTIONS.items()
}
_ID_TAG = 1 << 3 | _BYTES_KIND
_FRONT_BYTES_MIN = 5
_STEP_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Offer:
    """A snapshot and how it travels: all that is known of it before the first piece."""

    ref: SnapshotRef
    raw_bytes: int
    packed_bytes: int
    packed_sha256: bytes
    pieces: int
    entities: int


@dataclass(frozen=True, slots=True)
class Delta:
    """A change that travels whole: what to do to the content of `base` to get that of `ref`."""

    base: SnapshotRef
    ref: SnapshotRef
    raw_bytes: int
    packed: bytes
    entities: int


@dataclass(frozen=True, slots=True)
class RepairHeader:
    """What is said of a repair before its bytes: how much it is, and which buckets it holds all of."""

    raw_bytes: int
    packed_bytes: int
    packed_sha256: bytes
    entities: int
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """A verified configuration: `entities` maps (collection, id) to `Entity` bytes that hash to `snapshot_hash`."""

    epoch: bytes
    version: int
    snapshot_hash: bytes
    entities: Mapping[tuple[str, str], bytes]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entities", EntityMap.of(self.entities))

    @property
    def content(self) -> EntityMap:
        """The entities in their buckets."""
        assert isinstance(self.entities, EntityMap), "made so at birth"
        return self.entities

    @property
    def ref(self) -> SnapshotRef:
        return SnapshotRef(self.epoch, self.version, self.snapshot_hash)

    def adopt(self, ref: SnapshotRef) -> NodeSnapshot:
        """The same content under another version's name."""
        assert ref.snapshot_hash == self.snapshot_hash, "only equal content can take another name"
        return replace(self, epoch=ref.epoch, version=ref.version)


EMPTY = NodeSnapshot(NOTHING.epoch, NOTHING.version, NOTHING.snapshot_hash, {})
"""What a node that has no configuration yet makes its first one of, where that comes as a delta."""


class SnapshotRefused(ValueError):
    """Bytes that are not the snapshot they were said to be; `refused` says why."""

    def __init__(self, stage: Stage, code: str, message: str, *, collection: str = "", entity_id: str = "") -> None:
        super().__init__(message)
        self.refused = Refused(stage, (Fault(code, collection=collection, entity_id=entity_id, message=message),))


def check_sizes(offer: Offer, *, raw_bytes_max: int) -> None:
    """Refuses an offer by its declared sizes, before anything is downloaded.

    Raises:
        SnapshotRefused: TOO_LARGE, SUSPICIOUS_RATIO or BAD_OFFER.
    """
    check_packed_sizes(offer.raw_bytes, offer.packed_bytes, raw_bytes_max=raw_bytes_max)
    pieces_max = max(1, offer.packed_bytes)
    if len(offer.packed_sha256) != HASH_BYTES or not 1 <= offer.pieces <= pieces_max:
        raise SnapshotRefused(Stage.PULL, "BAD_OFFER", "the offer's checksum or number of pieces makes no sense")


def check_packed_sizes(raw_bytes: int, packed_bytes: int, *, raw_bytes_max: int) -> None:
    """Refuses what is too large or too good to be true. Raises SnapshotRefused."""
    if raw_bytes > raw_bytes_max:
        raise SnapshotRefused(
            Stage.PULL,
            "TOO_LARGE",
            f"the snapshot has {raw_bytes} bytes, this node takes {raw_bytes_max}; raise its snapshot limit",
        )
    if packed_bytes > raw_bytes + raw_bytes // 128 + 1024:
        raise SnapshotRefused(Stage.PULL, "BAD_OFFER", "the packed size is larger than packing can make it")
    if raw_bytes > RATIO_FREE_BYTES and raw_bytes > RATIO_MAX * packed_bytes:
        raise SnapshotRefused(Stage.PULL, "SUSPICIOUS_RATIO", f"{packed_bytes} bytes are said to unpack to {raw_bytes}")


def unpack(offer: Offer, packed: bytes, *, raw_bytes_max: int = RAW_BYTES_MAX) -> NodeSnapshot:
    """The verified snapshot in `packed`, which must be exactly what `offer` describes.

    Raises:
        SnapshotRefused: with the stage that failed.
    """
    return verified(offer, unfolded(offer, packed, raw_bytes_max=raw_bytes_max))


def unfolded(offer: Offer, packed: bytes, *, raw_bytes_max: int = RAW_BYTES_MAX) -> Sequence[bytes]:
    """The entities in `packed`, of which nothing is known yet but that they have the promised size and checksum.

    Raises:
        SnapshotRefused: with the stage that failed.
    """
    check_sizes(offer, raw_bytes_max=raw_bytes_max)
    if len(packed) != offer.packed_bytes:
        message = f"{len(packed)} bytes arrived instead of {offer.packed_bytes}"
        raise SnapshotRefused(Stage.PULL, "SIZE_MISMATCH", message)
    if hashlib.sha256(packed).digest() != offer.packed_sha256:
        raise SnapshotRefused(Stage.PULL, "CHECKSUM_MISMATCH", "the packed bytes do not have the offered SHA-256")
    raw = _decompress(packed, raw_bytes=offer.raw_bytes)
    try:
        return fleet_pb2.SnapshotBody.FromString(raw).entities
    except DecodeError as error:
        raise SnapshotRefused(Stage.DECODE, "BAD_FRAMING", "the snapshot is not a list of entities") from error


def verified(offer: Offer, bodies: Sequence[bytes]) -> NodeSnapshot:
    """The snapshot of these entities, which must have the hash that `offer` says.

    Raises:
        SnapshotRefused: with the stage that failed.
    """
    return _verified(offer.ref, EntityMap(_by_key(bodies)), offer.entities)


def apply_delta(delta: Delta, base: NodeSnapshot, *, raw_bytes_max: int = RAW_BYTES_MAX) -> NodeSnapshot:
    """The verified snapshot that `delta` makes of `base`, which must be what it starts from.

    Raises:
        SnapshotRefused: with the stage that failed.
    """
    assert base.ref == delta.base, "the caller finds the base"
    upserts, deletes = delta_changes(delta, raw_bytes_max=raw_bytes_max)
    return _verified(delta.ref, base.content.changed(_by_key(upserts), deletes), delta.entities)


def delta_changes(delta: Delta, *, raw_bytes_max: int = RAW_BYTES_MAX) -> tuple[Sequence[bytes], Sequence[Key]]:
    """What a delta puts in, as it travelled, and takes out. Raises SnapshotRefused."""
    check_packed_sizes(delta.raw_bytes, len(delta.packed), raw_bytes_max=raw_bytes_max)
    body = _delta_body(_decompress(delta.packed, raw_bytes=delta.raw_bytes))
    return body.upserts, [(key.collection, key.id) for key in body.deletes]


def make_delta(base: NodeSnapshot, after: NodeSnapshot) -> Delta:
    """What makes `after` of `base`, for the node's own disk."""
    upserts, deletes = after.content.changes_since(base.content)
    keys = (fleet_pb2.EntityKey(collection=collection, id=entity_id) for collection, entity_id in deletes)
    raw = fleet_pb2.DeltaBody(upserts=upserts.values(), deletes=keys).SerializeToString()
    packed = zstandard.ZstdCompressor(level=_PACK_LEVEL).compress(raw)
    return Delta(base.ref, after.ref, len(raw), packed, len(after.content))


def apply_repair(
    ref: SnapshotRef, header: RepairHeader, packed: bytes, base: NodeSnapshot, *, raw_bytes_max: int = RAW_BYTES_MAX
) -> NodeSnapshot:
    """The verified snapshot `ref` made of `base` and the buckets in which the two differ.

    Raises:
        SnapshotRefused: with the stage that failed.
    """
    check_packed_sizes(header.raw_bytes, header.packed_bytes, raw_bytes_max=raw_bytes_max)
    if len(packed) != header.packed_bytes or hashlib.sha256(packed).digest() != header.packed_sha256:
        raise SnapshotRefused(Stage.PULL, "CHECKSUM_MISMATCH", "the packed bytes do not have the promised SHA-256")
    body = _delta_body(_decompress(packed, raw_bytes=header.raw_bytes))
    try:
        content = base.content.with_buckets(header.buckets, _by_key(body.upserts))
    except ValueError as error:
        raise SnapshotRefused(Stage.VERIFY, "BAD_REPAIR", f"the repair makes no sense: {error}") from error
    return _verified(ref, content, header.entities)


def _verified(ref: SnapshotRef, content: EntityMap, entities: int) -> NodeSnapshot:
    if len(content) != entities:
        message = f"{len(content)} entities arrived instead of {entities}"
        raise SnapshotRefused(Stage.VERIFY, "ENTITY_COUNT_MISMATCH", message)
    if content.root() != ref.snapshot_hash:
        raise SnapshotRefused(Stage.VERIFY, "HASH_MISMATCH", "the entities do not have the offered snapshot hash")
    return NodeSnapshot(ref.epoch, ref.version, ref.snapshot_hash, content)


def pack(snapshot: NodeSnapshot) -> tuple[Offer, bytes]:
    """The snapshot as `unpack` takes it, for the node's own disk.

    The bytes may differ from those that the control plane sent (another zstd, another order); the hash does not.
    """
    raw = fleet_pb2.SnapshotBody(entities=snapshot.entities.values()).SerializeToString()
    packed = zstandard.ZstdCompressor(level=_PACK_LEVEL).compress(raw)
    offer = Offer(
        ref=snapshot.ref,
        raw_bytes=len(raw),
        packed_bytes=len(packed),
        packed_sha256=hashlib.sha256(packed).digest(),
        pieces=1,
        entities=len(snapshot.entities),
    )
    return offer, packed


def _decompress(packed: bytes, *, raw_bytes: int) -> bytes:
    """One zstd frame of exactly `raw_bytes`; stops soon after the first byte too many, whatever its header says."""
    reader = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).stream_reader(packed)
    parts: list[bytes] = []
    size = 0
    try:
        while size <= raw_bytes and (part := reader.read(_STEP_BYTES)):
            parts.append(part)
            size += len(part)
    except zstandard.ZstdError as error:
        raise SnapshotRefused(Stage.PULL, "BAD_COMPRESSION", f"the packed bytes do not unpack: {error}") from error
    if size != raw_bytes:
        raise SnapshotRefused(Stage.PULL, "SIZE_MISMATCH", f"the packed bytes do not unpack to {raw_bytes} bytes")
    return b"".join(parts)


def _delta_body(raw: bytes) -> fleet_pb2.DeltaBody:
    try:
        return fleet_pb2.DeltaBody.FromString(raw)
    except DecodeError as error:
        raise SnapshotRefused(Stage.DECODE, "BAD_FRAMING", "the delta is not a list of changes") from error


def _by_key(bodies: Sequence[bytes]) -> dict[tuple[str, str], bytes]:
    """Entity bytes by key. Looks into an entity only as far as its kind and id."""
    entities: dict[tuple[str, str], bytes] = {}
    for body in bodies:
        key = entity_key(body)
        if key in entities:
            collection, entity_id = key
            message = "the snapshot holds this entity twice"
            raise SnapshotRefused(Stage.DECODE, "DUPLICATE_ENTITY", message, collection=collection, entity_id=entity_id)
        entities[key] = body
    return entities


def entity_key(body: bytes) -> tuple[str, str]:
    """Which entity the bytes are. Raises SnapshotRefused."""
    return _key_in_front(body) or _decoded_key(body)


def _key_in_front(body: bytes) -> tuple[str, str] | None:
    """The key of an entity whose one field begins with its id, which is how everybody writes them; None = look closer.

    What follows the id is not looked at: the workers decode all of it, and refuse what they can't.
    """
    if len(body) < _FRONT_BYTES_MIN:
        return None
    collection = _COLLECTION_BY_TAG.get(body[0])
    length, at = body[1], 2
    if length >= _CONTINUED:
        length, at = length - _CONTINUED + (body[2] << 7), 3
        if body[2] >= _CONTINUED:
            return None
    id_bytes = body[at + 1]
    if collection is None or at + length != len(body) or body[at] != _ID_TAG or not 0 < id_bytes < _CONTINUED:
        return None
    if 2 + id_bytes > length:
        return None
    try:
        return collection, body[at + 2 : at + 2 + id_bytes].decode()
    except UnicodeDecodeError:
        return None


def _decoded_key(body: bytes) -> tuple[str, str]:
    try:
        entity = config_pb2.Entity.FromString(body)
    except DecodeError as error:
        raise SnapshotRefused(Stage.DECODE, "BAD_ENTITY", "an entity's bytes do not decode") from error
    key = key_of(entity)
    if key is None:
        message = "an entity is of a kind that this node does not know; upgrade the node"
        raise SnapshotRefused(Stage.DECODE, "UNKNOWN_ENTITY", message)
    if not key[1]:
        raise SnapshotRefused(Stage.DECODE, "BAD_ENTITY", "an entity has no id", collection=key[0])
    return key
