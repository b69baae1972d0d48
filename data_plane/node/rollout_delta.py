"""The snapshot that a rollout proposes, made of what runs and the delta that travels with the prepare.

The delta is outside bytes: its size is checked before it is unpacked, unpacking stops at the size that was declared,
and what comes out must have the snapshot hash that was promised.
"""

from __future__ import annotations

import zstandard
from google.protobuf.message import DecodeError

from data_plane.node.messages import ref_from_wire
from data_plane.node.outcomes import Stage
from data_plane.node.snapshot import RATIO_FREE_BYTES, RATIO_MAX, NodeSnapshot, SnapshotRefused, entity_key
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import fleet_pb2

RAW_BYTES_MAX = 64 * 1024 * 1024


def proposed(running: NodeSnapshot, prepare: fleet_pb2.RolloutPrepare) -> NodeSnapshot:
    """What the node would run. Takes time in proportion to the configuration: call it in a thread.

    Raises:
        SnapshotRefused: the delta can't be used, with the stage that failed.
        BadMessage: the reference makes no sense.
    """
    ref = ref_from_wire(prepare.snapshot)
    delta = _unpacked(prepare)
    entities = dict(running.entities)
    for gone in delta.deletes:
        entities.pop((gone.collection, gone.id), None)
    for body in delta.upserts:
        entities[entity_key(body)] = body
    if snapshot_hash(entities) != ref.snapshot_hash:
        raise SnapshotRefused(Stage.VERIFY, "HASH_MISMATCH", "the rollout's delta does not give the promised hash")
    return NodeSnapshot(ref.epoch, ref.version, ref.snapshot_hash, entities)


def _unpacked(prepare: fleet_pb2.RolloutPrepare) -> fleet_pb2.RolloutDelta:
    raw_bytes = prepare.raw_bytes
    if raw_bytes > RAW_BYTES_MAX:
        raise SnapshotRefused(Stage.PULL, "TOO_LARGE", f"the delta has {raw_bytes} bytes, {RAW_BYTES_MAX} is the most")
    if raw_bytes > RATIO_FREE_BYTES and raw_bytes > RATIO_MAX * len(prepare.packed):
        raise SnapshotRefused(Stage.PULL, "SUSPICIOUS_RATIO", f"{len(prepare.packed)} bytes are said to be {raw_bytes}")
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=8 * 1024 * 1024).stream_reader(prepare.packed)
        raw = reader.read(raw_bytes + 1)
        if len(raw) != raw_bytes:
            raise SnapshotRefused(Stage.PULL, "SIZE_MISMATCH", f"the delta does not unpack to {raw_bytes} bytes")
        return fleet_pb2.RolloutDelta.FromString(raw)
    except zstandard.ZstdError as error:
        raise SnapshotRefused(Stage.PULL, "BAD_COMPRESSION", f"the delta does not unpack: {error}") from error
    except DecodeError as error:
        raise SnapshotRefused(Stage.DECODE, "BAD_FRAMING", "the delta is not a list of entities") from error
