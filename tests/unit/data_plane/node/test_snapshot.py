"""Goal: only bytes that are the offered snapshot become one. Method: each lie an offer or its bytes can tell."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import pytest
import zstandard
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from data_plane.kinds import COLLECTIONS, key_of
from data_plane.node.snapshot import Offer, SnapshotRefused, check_sizes, entity_key, pack, unpack
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.snapshots import SnapshotRef, Stage
from pointsman.wire.v1 import config_pb2, fleet_pb2
from tests.support.fleet import EPOCH, Snap, entities

LIMIT = 10_000_000


def packed(raw: bytes, *, count: int = 1, content_hash: bytes = bytes(32)) -> tuple[Offer, bytes]:
    data = zstandard.ZstdCompressor().compress(raw)
    ref = SnapshotRef(EPOCH, 1, content_hash)
    return Offer(ref, len(raw), len(data), hashlib.sha256(data).digest(), 1, count), data


def body(*bodies: bytes) -> bytes:
    return fleet_pb2.SnapshotBody(entities=bodies).SerializeToString()


def refusal(offer: Offer, data: bytes) -> tuple[Stage, str]:
    with pytest.raises(SnapshotRefused) as error:
        unpack(offer, data, raw_bytes_max=LIMIT)
    return error.value.refused.stage, error.value.refused.faults[0].code


def test_what_was_packed_unpacks_to_the_same() -> None:
    snapshot = Snap(3, entities(5)).as_node_has_it()
    offer, data = pack(snapshot)
    assert unpack(offer, data) == snapshot


def test_a_control_plane_s_snapshot_unpacks() -> None:
    snapshot = Snap(3, entities(5))
    assert unpack(*snapshot.offer()) == snapshot.as_node_has_it()


def test_a_snapshot_without_entities_is_one() -> None:
    assert unpack(*Snap(1, {}).offer()).entities == {}


def test_the_same_content_takes_another_name() -> None:
    snapshot = Snap(3, entities(2)).as_node_has_it()
    renamed = snapshot.adopt(replace(snapshot.ref, version=4))
    assert (renamed.version, renamed.entities) == (4, snapshot.entities)


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (lambda o: replace(o, raw_bytes=LIMIT + 1), (Stage.PULL, "TOO_LARGE")),
        (lambda o: replace(o, raw_bytes=201 * 5000, packed_bytes=5000), (Stage.PULL, "SIZE_MISMATCH")),
        (lambda o: replace(o, raw_bytes=2_000_000, packed_bytes=5000), (Stage.PULL, "SUSPICIOUS_RATIO")),
        (lambda o: replace(o, packed_bytes=1 << 40), (Stage.PULL, "BAD_OFFER")),
        (lambda o: replace(o, pieces=0), (Stage.PULL, "BAD_OFFER")),
        (lambda o: replace(o, pieces=1 << 30), (Stage.PULL, "BAD_OFFER")),
        (lambda o: replace(o, packed_sha256=b""), (Stage.PULL, "BAD_OFFER")),
        (lambda o: replace(o, packed_sha256=bytes(32)), (Stage.PULL, "CHECKSUM_MISMATCH")),
        (lambda o: replace(o, raw_bytes=o.raw_bytes - 1), (Stage.PULL, "SIZE_MISMATCH")),
        (lambda o: replace(o, raw_bytes=o.raw_bytes + 1), (Stage.PULL, "SIZE_MISMATCH")),
        (lambda o: replace(o, entities=o.entities + 1), (Stage.VERIFY, "ENTITY_COUNT_MISMATCH")),
        (lambda o: replace(o, ref=replace(o.ref, snapshot_hash=bytes(32))), (Stage.VERIFY, "HASH_MISMATCH")),
    ],
)
def test_a_lying_offer_is_refused(lie: Callable[[Offer], Offer], expected: tuple[Stage, str]) -> None:
    offer, data = Snap(1, entities(3)).offer()
    assert refusal(lie(offer), data) == expected


def test_a_bomb_is_refused_by_its_declared_ratio_before_it_is_fetched() -> None:
    offer, _ = packed(b"\0" * 9_000_000)
    with pytest.raises(SnapshotRefused, match="said to unpack"):
        check_sizes(offer, raw_bytes_max=LIMIT)


def test_a_bomb_that_hides_its_size_stops_at_the_declared_one() -> None:
    offer, data = packed(b"\0" * 500_000_000)
    hidden = replace(offer, raw_bytes=1000, packed_bytes=len(data))
    assert refusal(replace(hidden, raw_bytes=len(data)), data) == (Stage.PULL, "SIZE_MISMATCH")


def test_a_window_beyond_the_limit_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    raw = body(*entities(10).values())
    data = compressor.compress(raw) + compressor.flush()
    offer = Offer(SnapshotRef(EPOCH, 1, bytes(32)), len(raw), len(data), hashlib.sha256(data).digest(), 1, 10)
    assert refusal(offer, data) == (Stage.PULL, "BAD_COMPRESSION")


def test_bytes_that_are_no_list_of_entities_are_refused() -> None:
    assert refusal(*packed(b"\xff\xff\xff")) == (Stage.DECODE, "BAD_FRAMING")


def test_an_entity_that_does_not_decode_is_refused() -> None:
    assert refusal(*packed(body(b"\xff\xff"))) == (Stage.DECODE, "BAD_ENTITY")


def test_an_entity_of_a_later_schema_level_is_refused_with_a_remedy() -> None:
    later = b"\x4a\x02\x0a\x00"  # field 9 of Entity
    offer, data = packed(body(later))
    with pytest.raises(SnapshotRefused, match="upgrade the node"):
        unpack(offer, data)
    assert refusal(offer, data) == (Stage.DECODE, "UNKNOWN_ENTITY")


def test_an_entity_without_an_id_is_refused() -> None:
    nameless = config_pb2.Entity(route=config_pb2.Route(name="x")).SerializeToString()
    assert refusal(*packed(body(nameless))) == (Stage.DECODE, "BAD_ENTITY")


def framed(body: bytes, *, tag: int) -> bytes:
    """The one field of an Entity, with its length as a varint."""
    length, varint = len(body), b""
    while length >= 128:
        varint, length = varint + bytes((length & 127 | 128,)), length >> 7
    return bytes((tag,)) + varint + bytes((length,)) + body


@pytest.mark.parametrize("kind", list(COLLECTIONS))
@pytest.mark.parametrize("more", [0, 100, 200, 20_000, 2_200_000])
def test_an_entity_of_any_kind_and_size_is_known_by_its_id(kind: str, more: int) -> None:
    field = config_pb2.Entity.DESCRIPTOR.fields_by_name[kind]
    rest = b"\xfa\x3f" + framed(bytes(more), tag=0)[1:] if more else b""  # a field of a later version
    written = framed(framed(b"the-id", tag=10) + rest, tag=field.number << 3 | 2)
    assert entity_key(written) == key_of(config_pb2.Entity.FromString(written)) == (COLLECTIONS[kind], "the-id")


def test_an_id_is_found_where_it_does_not_stand_in_front() -> None:
    behind = framed(framed(b"a name", tag=18) + framed(b"the-id", tag=10), tag=18)
    two_kinds = framed(framed(b"a service", tag=10), tag=10) + framed(framed(b"a route", tag=10), tag=18)
    assert entity_key(behind) == ("routes", "the-id")
    assert entity_key(two_kinds) == ("routes", "a route")


@pytest.mark.parametrize("route", [b"\x0a\x09cut", b"\x0a\x02\xff\xff", b"\x0a\x80\x01", b"\x0a\x00", b"\x0a"])
def test_an_id_that_is_none_is_refused(route: bytes) -> None:
    with pytest.raises(SnapshotRefused):
        entity_key(framed(route, tag=18))


@given(st.binary(max_size=60))
def test_any_bytes_are_of_the_kind_that_a_decoder_finds_or_of_none(data: bytes) -> None:
    try:
        expected = key_of(config_pb2.Entity.FromString(data))
    except DecodeError:
        expected = None
    try:
        found = entity_key(data)
    except SnapshotRefused:
        assert expected is None or not expected[1]
    else:
        assert expected is None or expected[0] == found[0]  # an id may stand in front of what does not decode


def test_an_entity_that_comes_twice_is_refused_by_name() -> None:
    one = next(iter(entities(1).values()))
    offer, data = packed(body(one, one), count=2)
    with pytest.raises(SnapshotRefused) as error:
        unpack(offer, data)
    fault = error.value.refused.faults[0]
    assert (fault.code, fault.collection, fault.entity_id[-2:]) == ("DUPLICATE_ENTITY", "targets", "01")


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_in_order(data: bytes) -> None:
    offer = Offer(SnapshotRef(EPOCH, 1, bytes(32)), 100, len(data), hashlib.sha256(data).digest(), 1, 1)
    with pytest.raises(SnapshotRefused):
        unpack(offer, data)


@given(st.data())
def test_a_changed_byte_never_passes(data: st.DataObject) -> None:
    offer, whole = Snap(1, entities(3)).offer()
    at = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(SnapshotRefused):
        unpack(offer, bytes(changed))


def test_the_hash_does_not_depend_on_the_order_of_entities() -> None:
    content = entities(10)
    assert snapshot_hash(content) == snapshot_hash(dict(reversed(content.items())))
