"""Goal: nothing a node says can hurt. Method: hostile messages through the one door."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.fleet import messages
from control_plane.fleet.messages import Applied, BadMessage, Beat, Hello, Leaving, Rejected
from pointsman.snapshots import SnapshotRef, Stage
from pointsman.wire.v1 import fleet_pb2

REF = fleet_pb2.SnapshotRef(epoch=b"e" * 16, version=3, snapshot_hash=b"h" * 32)
ID = "6f1c2b1e-8d1c-4a3e-9a53-0c6f6b9a1f00"


def frame(**kind: object) -> bytes:
    return fleet_pb2.NodeMessage(**kind).SerializeToString()  # type: ignore[arg-type]  # one of the oneof's arms


def test_each_kind_is_understood() -> None:
    hello = messages.decode(frame(hello=fleet_pb2.Hello(node_id=ID.upper(), hostname="h", running=REF)))
    assert isinstance(hello, Hello)
    assert (hello.node_id, hello.running) == (ID, SnapshotRef(b"e" * 16, 3, b"h" * 32))
    beat = messages.decode(frame(beat=fleet_pb2.Beat(sequence=1, running=REF, in_flight=4)))
    assert isinstance(beat, Beat)
    assert beat.in_flight == 4
    applied = fleet_pb2.Applied(snapshot=REF)
    applied.took.FromMilliseconds(1500)
    decoded = messages.decode(frame(applied=applied))
    assert isinstance(decoded, Applied)
    assert decoded.took_s == 1.5
    assert messages.decode(frame(leaving=fleet_pb2.Leaving(reason="r"))) == Leaving("r")


def test_an_unknown_kind_is_skipped() -> None:
    assert messages.decode(b"\xa2\x06\x00") is None  # field 100 of a later protocol


def test_what_does_not_decode_is_refused() -> None:
    with pytest.raises(BadMessage):
        messages.decode(b"\xff")
    with pytest.raises(BadMessage):
        messages.decode_pull(b"\xff")


@pytest.mark.parametrize("node_id", ["", "x", "6f1c2b1e", "'; DROP TABLE node; --"])
def test_a_node_id_is_a_uuid_or_nothing(node_id: str) -> None:
    with pytest.raises(BadMessage, match="UUID"):
        messages.decode(frame(hello=fleet_pb2.Hello(node_id=node_id)))


def test_an_epoch_or_hash_of_another_length_is_refused() -> None:
    with pytest.raises(BadMessage, match="length"):
        messages.decode(frame(beat=fleet_pb2.Beat(running=fleet_pb2.SnapshotRef(epoch=b"x"))))


def test_faults_are_clipped_and_made_printable() -> None:
    fault = fleet_pb2.Fault(code="C" * 1000, message="line\nforged entry\x1b[31m" + "m" * 5000)
    decoded = messages.decode(
        frame(rejected=fleet_pb2.Rejected(snapshot=REF, stage=fleet_pb2.STAGE_BUILD, faults=[fault] * 100))
    )
    assert isinstance(decoded, Rejected)
    assert decoded.rejection.stage is Stage.BUILD
    assert len(decoded.rejection.faults) == messages.FAULTS_MAX
    first = decoded.rejection.faults[0]
    assert (len(first.code), len(first.message)) == (255, 1024)
    assert first.message.isprintable()


def test_a_stage_of_a_later_protocol_is_unknown_not_an_error() -> None:
    rejected = fleet_pb2.Rejected(snapshot=REF, stage=77)  # type: ignore[arg-type]  # no member of the enum, on purpose
    decoded = messages.decode(frame(rejected=rejected))
    assert isinstance(decoded, Rejected)
    assert decoded.rejection.stage is Stage.UNKNOWN


@given(st.binary(max_size=200))
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    with contextlib.suppress(BadMessage):
        messages.decode(data)


@pytest.mark.parametrize("seconds", [0.0, 0.25, 5.0, 31.000000001])
def test_durations_survive_the_wire(seconds: float) -> None:
    frame_ = messages.goodbye("bye", reconnect_min_s=seconds, reconnect_max_s=2 * seconds)
    decoded = fleet_pb2.PlaneMessage.FromString(frame_).goodbye
    assert decoded.reconnect_min.seconds + decoded.reconnect_min.nanos / 1e9 == pytest.approx(seconds)
