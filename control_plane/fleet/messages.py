"""The wire's messages <-> this package's plain values.

The one place of the fleet that knows protobuf. Whatever a node says is clipped and made printable here, so that none
of it can flood memory or forge a line in a log further on. Frames that go to every node are encoded once by the
caller and shared.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import zstandard
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from control_plane.fleet.health import AddressReport, AddressState, Key, TargetReport
from control_plane.fleet.session import Rejection
from control_plane.fleet.side_figures import NO_COUNTS, MirrorFigures, SideFigures, SideRow
from pointsman.rules.health_digest import ADDRESSES_MAX as TARGET_ADDRESSES_MAX
from pointsman.rules.health_digest import clipped
from pointsman.rules.latency_buckets import BUCKETS as LATENCY_BUCKETS
from pointsman.rules.snapshot_hash import BUCKETS, EMPTY_BUCKET
from pointsman.snapshots import Fault, SnapshotRef, Stage
from pointsman.wire.v1 import fleet_pb2

PIECE_BYTES_MAX = 1024 * 1024
INLINE_BYTES_MAX = 256 * 1024
"""Of a delta in a frame of the control stream; what is larger is pulled."""
NODE_MESSAGE_BYTES_MAX = 128 * 1024
"""What a node may send in one message: a refusal with all its faults fits well."""
FAULTS_MAX = 32
LABELS_MAX = 64
ADDRESSES_MAX = 32
SIDES_MAX = 256
"""Of services, in one report of a node."""
_TEXT_MAX = 255
TRUSTED_MAX = 8
"""CAs that a node may say it trusts; there are two at most."""
_LEVEL = 3
_MESSAGE_MAX = 1024

_STAGES = {
    fleet_pb2.STAGE_UNSPECIFIED: Stage.UNKNOWN,
    fleet_pb2.STAGE_PULL: Stage.PULL,
    fleet_pb2.STAGE_VERIFY: Stage.VERIFY,
    fleet_pb2.STAGE_DECODE: Stage.DECODE,
    fleet_pb2.STAGE_BUILD: Stage.BUILD,
    fleet_pb2.STAGE_ACTIVATE: Stage.ACTIVATE,
}

_STATES = {
    fleet_pb2.HEALTH_STATE_HEALTHY: AddressState.HEALTHY,
    fleet_pb2.HEALTH_STATE_UNHEALTHY: AddressState.UNHEALTHY,
    fleet_pb2.HEALTH_STATE_OFF: AddressState.OFF,
}
_WIRE_STATES = {ours: wire for wire, ours in _STATES.items()}


class BadMessage(ValueError):
    """A node sent something that breaks the protocol; the text says what."""


@dataclass(frozen=True, slots=True)
class Hello:
    """A node's first message."""

    node_id: str  # canonical text of a UUID
    hostname: str
    software: str
    protocol_min: int
    protocol_max: int
    schema_level: int
    labels: Mapping[str, str]
    running: SnapshotRef
    boot_id: int
    snapshot_bytes_max: int  # 0 = not said
    workers: int
    proxy_addresses: tuple[str, ...]
    status_address: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, with what the node runs."""

    sequence: int
    running: SnapshotRef
    in_flight: int
    health_digest: int = 0  # of the node's health table; 0 = empty, or not kept
    loads: Mapping[Key, int] = field(default_factory=dict)  # requests open, by upstream and target
    clock_error_us: int = 0  # of the node's estimate of our clock; 0 = it has none yet


@dataclass(frozen=True, slots=True)
class HealthReport:
    """What the node knows of its targets: everything, or what changed."""

    full: bool
    targets: tuple[TargetReport, ...]


@dataclass(frozen=True, slots=True)
class SideReport:
    """What the node counted of the sides of services: all of them, or those that changed."""

    full: bool
    rows: tuple[SideRow, ...]
    omitted: int


@dataclass(frozen=True, slots=True)
class Applied:
    """`ref` is active in all workers of the node."""

    ref: SnapshotRef
    took_s: float


@dataclass(frozen=True, slots=True)
class Rejected:
    """The node refused a snapshot and goes on with `running`."""

    rejection: Rejection
    running: SnapshotRef


@dataclass(frozen=True, slots=True)
class Leaving:
    """The node stops in good order."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeltaUnusable:
    """The node can't make `ref` of a delta and wants the whole offered."""

    ref: SnapshotRef
    running: SnapshotRef
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Which CAs the node trusts, and which of them signed its certificate; fingerprints."""

    trusts: frozenset[str]
    issuer: str


@dataclass(frozen=True, slots=True)
class PullRequest:
    """Which snapshot a node wants, and from which piece on or what it has of it already."""

    ref: SnapshotRef
    from_piece: int
    bucket_hashes: tuple[bytes, ...]  # empty = a pull of the whole


RolloutWord = fleet_pb2.RolloutVote | fleet_pb2.RolloutActivated
NodeMessage = (
    Hello
    | Beat
    | Applied
    | Rejected
    | Leaving
    | HealthReport
    | SideReport
    | DeltaUnusable
    | Standing
    | fleet_pb2.TraceAnswer
    | RolloutWord
)


class Changes(Protocol):
    """What makes one snapshot of another; see `control_plane/snapshot`."""

    @property
    def upserts(self) -> tuple[bytes, ...]: ...
    @property
    def deletes(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def entity_bytes(self) -> int: ...


class Packed(Protocol):
    """A snapshot as it travels; see `control_plane/snapshot`."""

    @property
    def pieces(self) -> tuple[bytes, ...]: ...
    @property
    def sha256(self) -> bytes: ...
    @property
    def raw_bytes(self) -> int: ...
    @property
    def packed_bytes(self) -> int: ...


def decode(frame: bytes) -> NodeMessage | None:
    """What a node sent; None for a kind of message that a later protocol brought.

    Raises:
        BadMessage: it does not decode or names no UUID.
    """
    try:
        message = fleet_pb2.NodeMessage.FromString(frame)
    except DecodeError as error:
        raise BadMessage("the message does not decode") from error
    match message.WhichOneof("kind"):
        case "hello":
            return _hello(message.hello)
        case "beat":
            beat = message.beat
            loads = {(load.upstream, load.target): load.in_flight for load in beat.loads if load.in_flight}
            return Beat(
                beat.sequence, ref(beat.running), beat.in_flight, beat.health_digest, loads, beat.clock_error_us
            )
        case "health":
            return HealthReport(message.health.full, tuple(_target_health(each) for each in message.health.targets))
        case "sides":
            return _side_report(message.sides)
        case "applied":
            took = message.applied.took
            return Applied(ref(message.applied.snapshot), max(0.0, took.seconds + took.nanos / 1e9))
        case "rejected":
            return _rejected(message.rejected)
        case "leaving":
            return Leaving(_text(message.leaving.reason))
        case "trace":
            return message.trace
        case "vote":
            return message.vote
        case "rollout_activated":
            return message.rollout_activated
        case "standing":
            standing = message.standing
            return Standing(frozenset(map(_text, standing.trusts[:TRUSTED_MAX])), _text(standing.issuer))
        case "delta_unusable":
            unusable = message.delta_unusable
            return DeltaUnusable(
                ref(unusable.snapshot), ref(unusable.running), _text(unusable.code), _text(unusable.message)
            )
        case _:
            return None


def decode_pull(frame: bytes) -> PullRequest:
    """What a node wants to pull.

    Raises:
        BadMessage: it does not decode.
    """
    try:
        request = fleet_pb2.PullRequest.FromString(frame)
    except DecodeError as error:
        raise BadMessage("the request does not decode") from error
    joined = request.bucket_hashes
    width = len(EMPTY_BUCKET)
    if len(joined) not in (0, BUCKETS * width):
        raise BadMessage(f"bucket hashes of {len(joined)} bytes")
    hashes = tuple(joined[at : at + width] for at in range(0, len(joined), width))
    return PullRequest(ref(request.snapshot), request.from_piece, hashes)


def node_id(text: str) -> str:
    """The canonical form of a node's id.

    Raises:
        BadMessage: it is no UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise BadMessage("node_id is not a UUID") from error


def welcome(
    *,
    plane_id: str,
    beat_interval_s: float,
    head: SnapshotRef,
    protocol: int,
    schema_level: int,
    min_ready_version: int = 0,
) -> bytes:
    """The answer to a hello."""
    message = fleet_pb2.Welcome(
        protocol=protocol,
        schema_level=schema_level,
        plane_id=plane_id,
        beat_interval=_duration(beat_interval_s),
        head=wire_ref(head),
        min_ready_version=min_ready_version,
    )
    return fleet_pb2.PlaneMessage(welcome=message).SerializeToString()


def offer(ref: SnapshotRef, packed: Packed, *, entities: int) -> bytes:
    """The word that a snapshot is there; the same bytes for every node."""
    message = fleet_pb2.Offer(
        snapshot=wire_ref(ref),
        raw_bytes=packed.raw_bytes,
        packed_bytes=packed.packed_bytes,
        packed_sha256=packed.sha256,
        pieces=len(packed.pieces),
        entities=entities,
    )
    return fleet_pb2.PlaneMessage(offer=message).SerializeToString()


def delta(base: SnapshotRef, ref: SnapshotRef, changes: Changes, *, entities: int) -> bytes | None:
    """A small change whole, the same bytes for every node that runs `base`; None when it is too large for a frame."""
    message = wire_delta(base, ref, changes, entities=entities)
    if len(message.packed) > INLINE_BYTES_MAX:
        return None
    return fleet_pb2.PlaneMessage(delta=message).SerializeToString()


def wire_delta(base: SnapshotRef, ref: SnapshotRef, changes: Changes, *, entities: int) -> fleet_pb2.Delta:
    """What makes the one of the other, packed, however large."""
    raw = _delta_body(changes)
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(raw)
    return fleet_pb2.Delta(
        base=wire_ref(base), snapshot=wire_ref(ref), raw_bytes=len(raw), packed=packed, entities=entities
    )


def repair(buckets: Sequence[int], changes: Changes, *, entities: int) -> tuple[bytes, ...]:
    """All frames of a pull that brings only some buckets."""
    raw = _delta_body(changes)
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_content_size=True).compress(raw)
    header = fleet_pb2.Repair(
        raw_bytes=len(raw),
        packed_bytes=len(packed),
        packed_sha256=hashlib.sha256(packed).digest(),
        entities=entities,
        buckets=buckets,
    )
    data = [packed[at : at + PIECE_BYTES_MAX] for at in range(0, len(packed), PIECE_BYTES_MAX)]
    return tuple(
        fleet_pb2.Piece(
            index=index, total=len(data), data=part, repair=header if index == 0 else None
        ).SerializeToString()
        for index, part in enumerate(data)
    )


def _delta_body(changes: Changes) -> bytes:
    deletes = (fleet_pb2.EntityKey(collection=collection, id=entity_id) for collection, entity_id in changes.deletes)
    return fleet_pb2.DeltaBody(upserts=changes.upserts, deletes=deletes).SerializeToString()


def piece(index: int, packed: Packed) -> bytes:
    """One frame of a pull."""
    data = packed.pieces[index]
    assert len(data) <= PIECE_BYTES_MAX
    return fleet_pb2.Piece(index=index, total=len(packed.pieces), data=data).SerializeToString()


def beat_ack(sequence: int, head: SnapshotRef, *, received_ns: int = 0, sent_ns: int = 0) -> bytes:
    """The answer to a beat, with the plane's times of both: what nodes set their estimate of our clock by."""
    message = fleet_pb2.BeatAck(
        sequence=sequence, head=wire_ref(head), plane_received_ns=received_ns, plane_sent_ns=sent_ns
    )
    return fleet_pb2.PlaneMessage(beat_ack=message).SerializeToString()


def trust(trusted_pem: bytes, *, renew: bool, within_s: float) -> bytes:
    """Whom nodes shall trust from now on, and whether they shall renew their certificates."""
    message = fleet_pb2.Trust(trusted_pem=trusted_pem, renew=renew, within=_duration(within_s))
    return fleet_pb2.PlaneMessage(trust=message).SerializeToString()


def goodbye(
    reason: str, *, reconnect_min_s: float = 0.0, reconnect_max_s: float = 0.0, permanent: bool = False
) -> bytes:
    """The control plane's last word on a stream."""
    message = fleet_pb2.Goodbye(
        reason=reason,
        reconnect_min=_duration(reconnect_min_s),
        reconnect_max=_duration(reconnect_max_s),
        permanent=permanent,
    )
    return fleet_pb2.PlaneMessage(goodbye=message).SerializeToString()


def health_request() -> bytes:
    """Asks for a full health report; the same bytes for every node."""
    return fleet_pb2.PlaneMessage(health_request=fleet_pb2.HealthRequest()).SerializeToString()


def fleet_health(targets: Iterable[TargetReport], probers: Sequence[str]) -> bytes:
    """What the probing nodes see, for those that do not probe."""
    wire = (
        fleet_pb2.TargetHealth(
            upstream=target.upstream,
            target=target.target,
            removed=target.removed,
            error=target.error,
            record_type=target.record_type,
            addresses=[
                fleet_pb2.AddressHealth(
                    ip=each.ip,
                    port=each.port,
                    weight=each.weight,
                    state=_WIRE_STATES[each.state],
                    since=each.since,
                    reason=each.reason,
                )
                for each in target.addresses
            ],
        )
        for target in targets
    )
    message = fleet_pb2.FleetHealth(targets=wire, probers=probers)
    return fleet_pb2.PlaneMessage(fleet_health=message).SerializeToString()


def _side_report(report: fleet_pb2.SideReport) -> SideReport:
    rows = tuple(_side_row(sums, report.since) for sums in report.sides[:SIDES_MAX] if sums.service)
    return SideReport(report.full, rows, report.omitted)


def _side_row(sums: fleet_pb2.SideSums, since: int) -> SideRow:
    """A side; latencies in buckets of another software's are left out, since they mean something else."""
    mirror = sums.mirror
    return SideRow(
        _text(sums.service),
        _text(sums.upstream),
        SideFigures(
            sums.requests,
            sums.errors_5xx,
            sums.connect_errors,
            tuple(sums.latency) if len(sums.latency) == LATENCY_BUCKETS else NO_COUNTS,
            sums.open,
            since,
        ),
        MirrorFigures(mirror.sent, mirror.errors_5xx, mirror.failed, mirror.skipped)
        if sums.HasField("mirror")
        else None,
        sums.closed_late,
        sums.first_answer_ns,
        sums.last_answer_ns,
    )


def _target_health(target: fleet_pb2.TargetHealth) -> TargetReport:
    return TargetReport(
        upstream=clipped(target.upstream),
        target=clipped(target.target),
        error=clipped(target.error),
        record_type=clipped(target.record_type),
        addresses=tuple(
            AddressReport(
                ip=clipped(each.ip),
                port=each.port,
                weight=each.weight,
                # A state that a later protocol brought is none that balancing may rely on.
                state=_STATES.get(each.state, AddressState.OFF),
                since=each.since,
                reason=clipped(each.reason),
            )
            for each in target.addresses[:TARGET_ADDRESSES_MAX]
        ),
        removed=target.removed,
    )


def _hello(hello: fleet_pb2.Hello) -> Hello:
    if len(hello.labels) > LABELS_MAX:
        raise BadMessage(f"more than {LABELS_MAX} labels")
    if len(hello.proxy_addresses) > ADDRESSES_MAX:
        raise BadMessage(f"more than {ADDRESSES_MAX} proxy addresses")
    return Hello(
        node_id=node_id(hello.node_id),
        hostname=_text(hello.hostname),
        software=_text(hello.software),
        protocol_min=hello.protocol_min,
        protocol_max=hello.protocol_max,
        schema_level=hello.schema_level,
        labels={_text(key): _text(value) for key, value in sorted(hello.labels.items())},
        running=ref(hello.running),
        boot_id=hello.boot_id,
        snapshot_bytes_max=hello.snapshot_bytes_max,
        workers=hello.workers,
        proxy_addresses=tuple(_text(address) for address in hello.proxy_addresses),
        status_address=_text(hello.status_address),
    )


def _rejected(rejected: fleet_pb2.Rejected) -> Rejected:
    faults = tuple(
        Fault(
            code=_text(fault.code),
            collection=_text(fault.collection),
            entity_id=_text(fault.entity_id),
            entity_name=_text(fault.entity_name),
            field=_text(fault.field),
            message=_text(fault.message, _MESSAGE_MAX),
        )
        for fault in rejected.faults[:FAULTS_MAX]
    )
    stage = _STAGES.get(rejected.stage, Stage.UNKNOWN)
    return Rejected(Rejection(ref(rejected.snapshot), stage, faults), ref(rejected.running))


def ref(told: fleet_pb2.SnapshotRef) -> SnapshotRef:
    """Which snapshot is meant. Raises BadMessage."""
    if len(told.epoch) not in (0, 16) or len(told.snapshot_hash) not in (0, 32):
        raise BadMessage("a snapshot's epoch or hash has a wrong length")
    return SnapshotRef(told.epoch, told.version, told.snapshot_hash)


def wire_ref(ref: SnapshotRef) -> fleet_pb2.SnapshotRef:
    """A reference as it travels."""
    return fleet_pb2.SnapshotRef(epoch=ref.epoch, version=ref.version, snapshot_hash=ref.snapshot_hash)


def printable(value: str) -> str:
    """A node's text as it may be kept and shown."""
    return _text(value, _MESSAGE_MAX)


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _text(value: str, limit: int = _TEXT_MAX) -> str:
    clipped = value[:limit]
    return clipped if clipped.isprintable() else "".join(c if c.isprintable() else "?" for c in clipped)
