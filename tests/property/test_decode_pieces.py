"""Goal: decoding by pieces gives what protobuf gives, for whatever bytes. Method: both, on entities of any shape, on
the same entities damaged, and on fields put together in any order.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.worker.decode import EntityConfig, Undecodable, decode, decode_whole
from data_plane.worker.faults import BuildFault
from pointsman.wire.v1 import config_pb2 as wire
from tests.support.examples import examples

texts = st.one_of(st.sampled_from(["", "http", "/", "a.test", "ä", "\x92\x01", "x" * 130]), st.text(max_size=12))
lists = st.lists(texts, max_size=3)
numbers = st.one_of(st.integers(0, 3), st.integers(0, 2**32 - 1))
durations = st.one_of(st.none(), st.builds(Duration, seconds=st.integers(0, 100), nanos=st.integers(0, 999_999_999)))
peers = st.lists(st.builds(wire.Peer, ip=texts, port=st.one_of(st.none(), numbers)), max_size=2)
ids = st.one_of(st.uuids().map(str), texts)

routes = st.builds(
    wire.Route,
    id=ids,
    name=texts,
    protocols=lists,
    methods=lists,
    hosts=lists,
    paths=lists,
    headers=st.lists(st.builds(wire.HeaderCondition, name=texts, values=lists), max_size=2),
    snis=lists,
    sources=peers,
    destinations=peers,
    https_redirect_status_code=st.sampled_from([0, 301, 426]),
    regex_priority=st.integers(-(2**63), 2**63 - 1),
    strip_path=st.booleans(),
    path_handling=st.sampled_from(["", "v0", "v1"]),
    preserve_host=st.booleans(),
    request_buffering=st.booleans(),
    response_buffering=st.booleans(),
    service=ids,
    created_at=st.one_of(st.sampled_from([0, -1, 1_700_000_000]), st.integers(-(2**63), 2**63 - 1)),
)
services = st.builds(
    wire.Service,
    id=ids,
    name=texts,
    protocol=texts,
    host=texts,
    port=numbers,
    path=texts,
    retries=numbers,
    connect_timeout=durations,
    write_timeout=durations,
    read_timeout=durations,
    tls_verify=st.one_of(st.none(), st.booleans()),
    tls_verify_depth=st.one_of(st.none(), numbers),
    ca_certificates=lists,
    client_certificate=texts,
)
entities = st.one_of(
    st.builds(lambda route: wire.Entity(route=route).SerializeToString(), routes),
    st.builds(lambda service: wire.Entity(service=service).SerializeToString(), services),
)


def either(how: object, data: bytes) -> EntityConfig | BuildFault:
    try:
        return decode(data) if how is decode else decode_whole(data)
    except Undecodable as error:
        return error.fault


def framed(tag: int, body: bytes) -> bytes:
    size = len(body)
    length = bytes((size,)) if size < 128 else bytes((size & 0x7F | 0x80, size >> 7))
    return bytes((tag,)) + length + body


@given(entities)
@settings(max_examples=examples(100))
def test_any_entity_is_the_same_by_pieces(data: bytes) -> None:
    assert either(decode, data) == either(decode_whole, data)


@given(entities, st.data())
@settings(max_examples=examples(100))
def test_damaged_bytes_are_the_same_by_pieces(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(damaged)))
        damaged[at : at + draw.draw(st.integers(0, 2))] = draw.draw(st.binary(max_size=3))
    bad = bytes(damaged)
    assert either(decode, bad) == either(decode_whole, bad)


field_bytes = st.one_of(
    st.builds(lambda route: route.SerializeToString(), st.builds(wire.Route, id=ids, paths=lists, service=ids)),
    st.builds(lambda route: route.SerializeToString(), st.builds(wire.Route, strip_path=st.booleans(), name=texts)),
    st.builds(lambda service: service.SerializeToString(), st.builds(wire.Service, host=texts, port=numbers, id=ids)),
    st.sampled_from(
        [b"\x0a\x00", b"\x12\x00", b"\x92\x01\x00", b"\x98\x01\x00", b"\x98\x01\x80\x00", b"\x68\x00", b"\x28\x80\x01"]
    ),
)


@given(st.sampled_from([0x0A, 0x12]), st.lists(field_bytes, min_size=1, max_size=4), st.binary(max_size=2))
@settings(max_examples=examples(100))
def test_fields_in_any_order_are_the_same_by_pieces(tag: int, parts: list[bytes], tail: bytes) -> None:
    """A field that comes again, or says its default, takes the place of what was said before."""
    data = framed(tag, b"".join(parts) + tail)[:16000]
    assert either(decode, data) == either(decode_whole, data)
