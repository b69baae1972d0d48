from __future__ import annotations

import hashlib

import pytest
import zstandard

from control_plane.entities.types import EntityBody
from control_plane.snapshot.builder import PIECE_BYTES_MAX, Snapshot, SnapshotBuilder
from control_plane.snapshot.encode import encode
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import fleet_pb2
from tests.unit.control_plane.snapshot.bodies import created, deleted, entity, identity, updated, version_of

EPOCH = bytes(range(16))
BLUE = entity("services", 1, name="blue")
GREEN = {**BLUE, "host": "green"}


def builder_with(*bodies: tuple[str, EntityBody]) -> SnapshotBuilder:
    builder = SnapshotBuilder(EPOCH)
    builder.apply(version_of(1, *(created(collection, body) for collection, body in bodies)))
    return builder


def ids(snapshot: Snapshot) -> set[str]:
    return {entity_id for (_, entity_id), _ in snapshot.entities()}


def test_an_empty_store_has_a_snapshot() -> None:
    snapshot = SnapshotBuilder(EPOCH).current()
    assert (snapshot.epoch, snapshot.version, snapshot.entity_count) == (EPOCH, 0, 0)
    assert snapshot.snapshot_hash == snapshot_hash({})
    packed = snapshot.packed()
    assert (packed.raw_bytes, len(packed.pieces)) == (0, 1)


def test_a_snapshot_holds_the_bytes_of_all_entities() -> None:
    upstream, target = entity("upstreams", 1), entity("targets", 1)
    snapshot = builder_with(("services", BLUE), ("upstreams", upstream), ("targets", target)).current()
    expected = {
        ("services", identity("services", 1)): encode("services", BLUE),
        ("upstreams", identity("upstreams", 1)): encode("upstreams", upstream),
        ("targets", identity("targets", 1)): encode("targets", target),
    }
    assert dict(snapshot.entities()) == expected
    assert snapshot.snapshot_hash == snapshot_hash(expected)
    assert (snapshot.version, snapshot.entity_count) == (1, 3)
    assert snapshot.entity_bytes == sum(map(len, expected.values()))


def test_a_snapshot_stays_as_it_was() -> None:
    builder = builder_with(("services", BLUE))
    first = builder.current()
    before = dict(first.entities())
    builder.apply(version_of(2, updated("services", BLUE, GREEN)))
    second = builder.current()
    builder.apply(version_of(3, deleted("services", GREEN)))
    assert dict(first.entities()) == before
    assert dict(second.entities()) == {("services", str(GREEN["id"])): encode("services", GREEN)}
    assert builder.current().entity_count == 0
    assert len({first.snapshot_hash, second.snapshot_hash, builder.current().snapshot_hash}) == 3


def test_going_back_gives_the_same_hash_under_a_new_version() -> None:
    builder = builder_with(("services", BLUE))
    first = builder.current()
    builder.apply(version_of(2, updated("services", BLUE, GREEN)))
    builder.apply(version_of(3, updated("services", GREEN, BLUE)))
    assert (builder.current().snapshot_hash, builder.current().version) == (first.snapshot_hash, 3)
    assert builder.current().packed() == first.packed()


def test_what_nodes_do_not_see_leaves_the_hash_alone() -> None:
    builder = builder_with(("services", BLUE))
    first = builder.current()
    builder.apply(version_of(2, updated("services", BLUE, {**BLUE, "tags": ["t"], "updated_at": 9})))
    assert builder.current().snapshot_hash == first.snapshot_hash
    assert builder.current().version == 2


def test_a_disabled_service_and_its_routes_are_left_out_and_come_back() -> None:
    route = entity("routes", 1, service={"id": BLUE["id"]})
    free = entity("routes", 2)
    builder = builder_with(("services", BLUE), ("routes", route), ("routes", free))
    whole = builder.current()
    off = {**BLUE, "enabled": False}
    builder.apply(version_of(2, updated("services", BLUE, off)))
    assert ids(builder.current()) == {str(free["id"])}
    # Changes of what is hidden count when it comes back.
    moved: EntityBody = {**route, "paths": ["/moved"]}
    builder.apply(version_of(3, updated("routes", route, moved), updated("services", off, {**off, "host": "y"})))
    assert ids(builder.current()) == {str(free["id"])}
    builder.apply(version_of(4, updated("services", {**off, "host": "y"}, BLUE)))
    assert dict(builder.current().entities())["routes", str(route["id"])] == encode("routes", moved)
    builder.apply(version_of(5, updated("routes", moved, route)))
    assert builder.current().snapshot_hash == whole.snapshot_hash
    assert builder.current().entity_bytes == whole.entity_bytes


def test_a_route_moves_out_of_a_disabled_service() -> None:
    off = entity("services", 2, enabled=False)
    route = entity("routes", 1, service={"id": off["id"]})
    builder = builder_with(("routes", route), ("services", BLUE), ("services", off))
    assert ids(builder.current()) == {str(BLUE["id"])}
    moved = {**route, "service": {"id": BLUE["id"]}}
    builder.apply(version_of(2, updated("routes", route, moved)))
    assert ids(builder.current()) == {str(BLUE["id"]), str(route["id"])}
    builder.apply(version_of(3, updated("routes", moved, route)))
    assert ids(builder.current()) == {str(BLUE["id"])}


def test_a_disabled_service_goes_with_its_routes() -> None:
    off = entity("services", 2, enabled=False)
    route = entity("routes", 1, service={"id": off["id"]})
    builder = builder_with(("services", off), ("routes", route))
    builder.apply(version_of(2, deleted("services", off), deleted("routes", route)))
    assert builder.current().snapshot_hash == snapshot_hash({})
    # The id is no longer held against a new service.
    builder.apply(version_of(3, created("routes", route), created("services", {**off, "enabled": True})))
    assert builder.current().entity_count == 2


def test_versions_come_one_after_the_other() -> None:
    builder = builder_with(("services", BLUE))
    for number in (1, 3):
        with pytest.raises(AssertionError, match="does not follow"):
            builder.apply(version_of(number))


def test_a_packed_snapshot_unpacks_to_its_entities() -> None:
    snapshot = builder_with(*(("services", entity("services", number)) for number in range(50))).current()
    packed = snapshot.packed()
    frame = b"".join(packed.pieces)
    assert hashlib.sha256(frame).digest() == packed.sha256
    assert len(frame) == packed.packed_bytes
    raw = zstandard.ZstdDecompressor().decompress(frame)
    assert len(raw) == packed.raw_bytes
    assert list(fleet_pb2.SnapshotBody.FromString(raw).entities) == [body for _, body in snapshot.entities()]


def test_packing_happens_once() -> None:
    snapshot = builder_with(("services", BLUE)).current()
    assert snapshot.packed() is snapshot.packed()


def test_a_large_snapshot_travels_in_pieces() -> None:
    paths: list[list[str]] = [
        ["/" + hashlib.sha512(f"{number}-{part}".encode()).hexdigest() for part in range(300)] for number in range(100)
    ]
    routes = [entity("routes", number, paths=list(part)) for number, part in enumerate(paths)]
    packed = builder_with(*(("routes", route) for route in routes)).current().packed()
    assert len(packed.pieces) > 1
    assert all(len(piece) == PIECE_BYTES_MAX for piece in packed.pieces[:-1])
    assert 0 < len(packed.pieces[-1]) <= PIECE_BYTES_MAX
    assert sum(map(len, packed.pieces)) == packed.packed_bytes


def test_equal_content_packs_to_equal_bytes_whatever_its_history() -> None:
    services = [("services", entity("services", number)) for number in range(30)]
    straight = builder_with(*services)
    crooked = builder_with(*reversed(services), ("upstreams", entity("upstreams", 1)))
    crooked.apply(version_of(2, deleted("upstreams", entity("upstreams", 1))))
    assert crooked.current().packed() == straight.current().packed()
