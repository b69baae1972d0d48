"""What lies between two snapshots, and how it is said to a worker.

Entities are compared as bytes, in the buckets whose hashes differ: equal bytes mean the same entity, and nothing in the
node process needs to look inside.
The messages are made once per apply and shared by all workers that stand on the same version.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from data_plane.node.entity_map import EntityMap
from data_plane.node.snapshot import NodeSnapshot
from pointsman.wire.v1 import worker_pb2 as wire

BATCH_BYTES_MAX = 256 * 1024
"""Entity bytes in one message: small enough that taking it apart never holds up a worker's requests."""
_KEY_BYTES = 64

_NOTHING = EntityMap()

EntityKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Diff:
    """The changes that make `after` of `before`; `before` None = nothing."""

    before: NodeSnapshot | None
    after: NodeSnapshot | None
    upserts: dict[EntityKey, bytes]
    deletes: tuple[EntityKey, ...]

    @classmethod
    def between(cls, before: NodeSnapshot | None, after: NodeSnapshot | None) -> Diff:
        old = before.content if before is not None else _NOTHING
        new = after.content if after is not None else _NOTHING
        upserts, deletes = new.changes_since(old)
        return cls(before, after, upserts, deletes)

    def __bool__(self) -> bool:
        return bool(self.upserts or self.deletes)


def stage_messages(diff: Diff) -> Iterator[bytes]:
    """The conversation that stages `diff`, message by message."""
    after = diff.after
    assert after is not None, "a worker is never staged with nothing"
    begin = wire.StageBegin(base_version=diff.before.version if diff.before is not None else 0)
    begin.snapshot.epoch = after.epoch
    begin.snapshot.version = after.version
    begin.snapshot.snapshot_hash = after.snapshot_hash
    yield wire.ToWorker(stage_begin=begin).SerializeToString()
    part = wire.StagePart()
    size = 0
    for collection, entity_id in diff.deletes:
        part.deletes.add(collection=collection, id=entity_id)
        size += _KEY_BYTES
        if size >= BATCH_BYTES_MAX:
            yield wire.ToWorker(stage_part=part).SerializeToString()
            part, size = wire.StagePart(), 0
    for data in diff.upserts.values():
        if size and size + len(data) > BATCH_BYTES_MAX:
            yield wire.ToWorker(stage_part=part).SerializeToString()
            part, size = wire.StagePart(), 0
        part.upserts.append(data)
        size += len(data)
    if size:
        yield wire.ToWorker(stage_part=part).SerializeToString()
    yield wire.ToWorker(stage_end=wire.StageEnd()).SerializeToString()
