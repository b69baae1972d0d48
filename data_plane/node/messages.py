"""The fleet link's messages <-> this package's plain values.

The link and the last-good file speak of snapshots in the same words on the wire and on disk; here is how they are
written and read. What the control plane sends is checked for shape only: what it means is the session's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from data_plane.node.outcomes import FAULTS_MAX, Refused
from data_plane.node.snapshot import Delta, Offer, RepairHeader
from pointsman.snapshots import NOTHING, SnapshotRef, Stage
from pointsman.wire.v1 import fleet_pb2

PROTOCOL = 1
"""The conversation of `proto/pointsman/wire/v1/fleet.proto`."""
SCHEMA_LEVEL = 1
"""The newest entities that this node understands."""
_TEXT_MAX = 255
_MESSAGE_MAX = 1024

_STAGES = {
    Stage.PULL: fleet_pb2.STAGE_PULL,
    Stage.VERIFY: fleet_pb2.STAGE_VERIFY,
    Stage.DECODE: fleet_pb2.STAGE_DECODE,
    Stage.BUILD: fleet_pb2.STAGE_BUILD,
    Stage.ACTIVATE: fleet_pb2.STAGE_ACTIVATE,
}


class BadMessage(ValueError):
    """The control plane sent something that breaks the protocol; the text says what."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a hello says about this node and does not change while the process lives."""

    node_id: str  # UUID
    hostname: str
    software: str
    boot_id: int  # larger at each start: nanoseconds since 1970 will do
    labels: Mapping[str, str]
    workers: int = 0
    proxy_addresses: tuple[str, ...] = ()
    status_address: str = ""


@dataclass(frozen=True, slots=True)
class Welcome:
    """The hello is accepted."""

    plane_id: str
    beat_interval_s: float
    head: SnapshotRef
    min_ready_version: int = 0
    """Of the head's epoch: a node that runs less is not ready before it has caught up."""


@dataclass(frozen=True, slots=True)
class BeatAck:
    """The answer to a beat."""

    sequence: int
    head: SnapshotRef
    plane_received_ns: int = 0  # 0 = a control plane that does not tell its clock
    plane_sent_ns: int = 0


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The control plane's last word on a stream; `permanent` = do not come back with these versions."""

    reason: str
    reconnect_min_s: float
    reconnect_max_s: float
    permanent: bool


@dataclass(frozen=True, slots=True)
class HealthRequest:
    """The control plane wants the whole health table."""


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """What the probing nodes see."""

    said: fleet_pb2.FleetHealth


@dataclass(frozen=True, slots=True)
class Trust:
    """Which CAs, PEM, this node shall trust from now on, and whether to renew its certificate."""

    trusted: bytes
    renew: bool
    within_s: float


RolloutWord = fleet_pb2.RolloutPrepare | fleet_pb2.RolloutActivate | fleet_pb2.RolloutAbort
PlaneMessage = (
    Welcome
    | Offer
    | Delta
    | BeatAck
    | Goodbye
    | HealthRequest
    | FleetHealth
    | Trust
    | fleet_pb2.TraceRequest
    | RolloutWord
)


def decode(message: fleet_pb2.PlaneMessage) -> PlaneMessage | None:
    """A control plane's message; None for a kind that a later protocol brought.

    Raises:
        BadMessage: it makes no sense.
    """
    match message.WhichOneof("kind"):
        case "welcome":
            welcome = message.welcome
            interval_s = _seconds(welcome.beat_interval)
            if not 0 < interval_s <= 600:
                raise BadMessage(f"a beat interval of {interval_s:g} s")
            head = ref_from_wire(welcome.head)
            return Welcome(_text(welcome.plane_id), interval_s, head, welcome.min_ready_version)
        case "offer":
            return offer_from_wire(message.offer)
        case "delta":
            return delta_from_wire(message.delta)
        case "beat_ack":
            ack = message.beat_ack
            return BeatAck(ack.sequence, ref_from_wire(ack.head), ack.plane_received_ns, ack.plane_sent_ns)
        case "goodbye":
            bye = message.goodbye
            window = (_seconds(bye.reconnect_min), _seconds(bye.reconnect_max))
            return Goodbye(_text(bye.reason, _MESSAGE_MAX), *window, permanent=bye.permanent)
        case "health_request":
            return HealthRequest()
        case "fleet_health":
            return FleetHealth(message.fleet_health)
        case "trust":
            trust = message.trust
            return Trust(trust.trusted_pem, trust.renew, max(0.0, _seconds(trust.within)))
        case "trace_request":
            return message.trace_request
        case "rollout_prepare":
            return message.rollout_prepare
        case "rollout_activate":
            return message.rollout_activate
        case "rollout_abort":
            return message.rollout_abort
        case _:
            return None


def hello(introduction: Introduction, *, running: SnapshotRef, snapshot_bytes_max: int) -> fleet_pb2.NodeMessage:
    """The first message of a conversation."""
    return fleet_pb2.NodeMessage(
        hello=fleet_pb2.Hello(
            node_id=introduction.node_id,
            hostname=introduction.hostname,
            software=introduction.software,
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            schema_level=SCHEMA_LEVEL,
            labels=introduction.labels,
            running=ref_to_wire(running),
            boot_id=introduction.boot_id,
            snapshot_bytes_max=snapshot_bytes_max,
            workers=introduction.workers,
            proxy_addresses=introduction.proxy_addresses,
            status_address=introduction.status_address,
        )
    )


def beat(
    sequence: int,
    *,
    running: SnapshotRef,
    in_flight: int,
    health_digest: int = 0,
    loads: Iterable[fleet_pb2.UpstreamLoad] = (),
    clock_error_us: int = 0,
) -> fleet_pb2.NodeMessage:
    """A sign of life."""
    return fleet_pb2.NodeMessage(
        beat=fleet_pb2.Beat(
            sequence=sequence,
            running=ref_to_wire(running),
            in_flight=in_flight,
            health_digest=health_digest,
            loads=loads,
            clock_error_us=clock_error_us,
        )
    )


def side_report(report: fleet_pb2.SideReport) -> fleet_pb2.NodeMessage:
    """What the sides of services have counted."""
    return fleet_pb2.NodeMessage(sides=report)


def health_report(report: fleet_pb2.HealthReport) -> fleet_pb2.NodeMessage:
    """What changed in the health table, or all of it."""
    return fleet_pb2.NodeMessage(health=report)


def applied(ref: SnapshotRef, *, took_s: float) -> fleet_pb2.NodeMessage:
    """`ref` is active in all workers."""
    nanos = round(took_s * 1e9)
    took = Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
    return fleet_pb2.NodeMessage(
        applied=fleet_pb2.Applied(snapshot=ref_to_wire(ref), took=took, origin=fleet_pb2.ORIGIN_STREAM)
    )


def rejected(ref: SnapshotRef, refused: Refused, *, running: SnapshotRef) -> fleet_pb2.NodeMessage:
    """`ref` is refused, with as many faults as the wire takes."""
    faults = [
        fleet_pb2.Fault(
            code=_text(fault.code),
            collection=_text(fault.collection),
            entity_id=_text(fault.entity_id),
            entity_name=_text(fault.entity_name),
            field=_text(fault.field),
            message=_text(fault.message, _MESSAGE_MAX),
        )
        for fault in refused.faults[:FAULTS_MAX]
    ]
    return fleet_pb2.NodeMessage(
        rejected=fleet_pb2.Rejected(
            snapshot=ref_to_wire(ref), stage=_STAGES[refused.stage], faults=faults, running=ref_to_wire(running)
        )
    )


def standing(*, trusts: Iterable[str], issuer: str) -> fleet_pb2.NodeMessage:
    """Which CAs this node trusts, and which of them signed its certificate."""
    return fleet_pb2.NodeMessage(standing=fleet_pb2.Standing(trusts=sorted(trusts), issuer=issuer))


def leaving(reason: str) -> fleet_pb2.NodeMessage:
    """The node stops in good order."""
    return fleet_pb2.NodeMessage(leaving=fleet_pb2.Leaving(reason=_text(reason)))


def trace_answer(answer: fleet_pb2.TraceAnswer, request_id: int) -> fleet_pb2.NodeMessage:
    """A worker's answer to a trace, under the control plane's number."""
    message = fleet_pb2.NodeMessage(trace=answer)
    message.trace.id = request_id
    return message


def delta_unusable(ref: SnapshotRef, *, running: SnapshotRef, code: str, message: str) -> fleet_pb2.NodeMessage:
    """`ref` can't be made of the delta that came; the whole is wanted."""
    return fleet_pb2.NodeMessage(
        delta_unusable=fleet_pb2.DeltaUnusable(
            snapshot=ref_to_wire(ref), running=ref_to_wire(running), code=_text(code), message=_text(message)
        )
    )


def pull_request(ref: SnapshotRef, *, from_piece: int) -> fleet_pb2.PullRequest:
    """Asks for a snapshot, from a piece on."""
    return fleet_pb2.PullRequest(snapshot=ref_to_wire(ref), from_piece=from_piece)


def repair_request(ref: SnapshotRef, bucket_hashes: Iterable[bytes]) -> fleet_pb2.PullRequest:
    """Asks for the buckets of a snapshot that have other hashes than these."""
    return fleet_pb2.PullRequest(snapshot=ref_to_wire(ref), bucket_hashes=b"".join(bucket_hashes))


def repair_from_wire(header: fleet_pb2.Repair) -> RepairHeader:
    """What is said of a repair before its bytes."""
    return RepairHeader(
        header.raw_bytes, header.packed_bytes, header.packed_sha256, header.entities, tuple(header.buckets)
    )


def delta_to_wire(delta: Delta) -> fleet_pb2.Delta:
    """Also the record of the last-good journal."""
    return fleet_pb2.Delta(
        base=ref_to_wire(delta.base),
        snapshot=ref_to_wire(delta.ref),
        raw_bytes=delta.raw_bytes,
        packed=delta.packed,
        entities=delta.entities,
    )


def delta_from_wire(delta: fleet_pb2.Delta) -> Delta:
    """Raises BadMessage when it names no snapshot."""
    base, ref = ref_from_wire(delta.base), ref_from_wire(delta.snapshot)
    if not (ref.epoch and ref.snapshot_hash and (base == NOTHING or (base.epoch and base.snapshot_hash))):
        raise BadMessage("a delta without epoch or hash")
    return Delta(base, ref, delta.raw_bytes, delta.packed, delta.entities)


def parse_delta(record: bytes) -> Delta:
    """A delta from its bytes. Raises BadMessage."""
    try:
        return delta_from_wire(fleet_pb2.Delta.FromString(record))
    except DecodeError as error:
        raise BadMessage("it does not decode") from error


def offer_to_wire(offer: Offer) -> fleet_pb2.Offer:
    """Also the header of the last-good file."""
    return fleet_pb2.Offer(
        snapshot=ref_to_wire(offer.ref),
        raw_bytes=offer.raw_bytes,
        packed_bytes=offer.packed_bytes,
        packed_sha256=offer.packed_sha256,
        pieces=offer.pieces,
        entities=offer.entities,
    )


def offer_from_wire(offer: fleet_pb2.Offer) -> Offer:
    """Raises BadMessage when it names no snapshot."""
    ref = ref_from_wire(offer.snapshot)
    if not ref.epoch or not ref.snapshot_hash:
        raise BadMessage("an offer without epoch or hash")
    return Offer(ref, offer.raw_bytes, offer.packed_bytes, offer.packed_sha256, offer.pieces, offer.entities)


def parse_offer(header: bytes) -> Offer:
    """An offer from its bytes. Raises BadMessage."""
    try:
        return offer_from_wire(fleet_pb2.Offer.FromString(header))
    except DecodeError as error:
        raise BadMessage("it does not decode") from error


def ref_to_wire(ref: SnapshotRef) -> fleet_pb2.SnapshotRef:
    return fleet_pb2.SnapshotRef(epoch=ref.epoch, version=ref.version, snapshot_hash=ref.snapshot_hash)


def ref_from_wire(ref: fleet_pb2.SnapshotRef) -> SnapshotRef:
    """Raises BadMessage when epoch or hash can't be one."""
    if len(ref.epoch) not in (0, 16) or len(ref.snapshot_hash) not in (0, 32):
        raise BadMessage("a snapshot's epoch or hash has a wrong length")
    return SnapshotRef(ref.epoch, ref.version, ref.snapshot_hash)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _text(value: str, limit: int = _TEXT_MAX) -> str:
    return value if len(value) <= limit else value[: limit - 3] + "..."
