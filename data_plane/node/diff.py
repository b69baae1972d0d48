"""What lies between two snapshots, and how it is said to a worker.

Entities are compared as bytes, in the buckets whose hashes differ: equal bytes mean the same entity, and nothing in the
node process needs to look inside.
The messages are made once per apply and shared by all workers that stand on the same version.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from typing_extensions import override

from data_plane.node.entity_map import EntityMap
from data_plane.node.last_good import Ahead
from data_plane.node.snapshot import NodeSnapshot
from pointsman.snapshots import SnapshotRef
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


class Again(Iterable[bytes]):
    """Messages that are made when the first one asks for them, and are there for the others."""

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._made: list[bytes] = []

    @override
    def __iter__(self) -> Iterator[bytes]:
        made = self._made
        for at in itertools.count():
            if at == len(made):
                message = next(self._source, None)
                if message is None:
                    return
                made.append(message)
            yield made[at]


def stage_messages(diff: Diff) -> Iterator[bytes]:
    """The conversation that stages `diff`, message by message."""
    after = diff.after
    assert after is not None, "a worker is never staged with nothing"
    yield _begin(after.ref, base_version=diff.before.version if diff.before is not None else 0)
    yield from _parts(diff.upserts.values(), diff.deletes)
    yield _END


def ahead_messages(ahead: Ahead) -> Iterator[bytes]:
    """The conversation that stages from nothing what is not verified yet; later parts go over earlier ones."""
    yield _begin(ahead.ref, base_version=0)
    yield from _parts(ahead.bodies, ())
    for upserts, deletes in ahead.changes:
        yield from _parts(upserts, deletes)
    yield _END


_END = wire.ToWorker(stage_end=wire.StageEnd()).SerializeToString()


def _begin(ref: SnapshotRef, *, base_version: int) -> bytes:
    begin = wire.StageBegin(base_version=base_version)
    begin.snapshot.epoch = ref.epoch
    begin.snapshot.version = ref.version
    begin.snapshot.snapshot_hash = ref.snapshot_hash
    return wire.ToWorker(stage_begin=begin).SerializeToString()


def _parts(upserts: Iterable[bytes], deletes: Iterable[EntityKey]) -> Iterator[bytes]:
    message = wire.ToWorker()
    size = 0
    for collection, entity_id in deletes:
        message.stage_part.deletes.add(collection=collection, id=entity_id)
        size += _KEY_BYTES
        if size >= BATCH_BYTES_MAX:
            yield message.SerializeToString()
            message, size = wire.ToWorker(), 0
    batch: list[bytes] = []
    for data in upserts:
        if size and size + len(data) > BATCH_BYTES_MAX:
            message.stage_part.upserts.extend(batch)
            yield message.SerializeToString()
            message, size = wire.ToWorker(), 0
            batch.clear()
        batch.append(data)
        size += len(data)
    if size:
        message.stage_part.upserts.extend(batch)
        yield message.SerializeToString()
