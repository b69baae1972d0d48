"""The words of a rollout on the wire <-> this package's plain values. Frames are made once and shared by all nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.duration_pb2 import Duration

from control_plane.fleet.messages import FAULTS_MAX, printable, wire_ref
from control_plane.fleet.rollout import ActivationReport, UpstreamReport, Vote, Voted
from pointsman.snapshots import Fault, SnapshotRef
from pointsman.wire.v1 import fleet_pb2

PACKED_BYTES_MAX = 768 * 1024
"""Of a delta: it travels on the stream of small messages, and nodes take a mebibyte there."""
_UPSTREAMS_MAX = 32
_FAILURES_MAX = 16
_WORKERS_MAX = 1024
_VOTES = {
    fleet_pb2.VOTE_KIND_READY: Vote.READY,
    fleet_pb2.VOTE_KIND_READY_WARN: Vote.READY_WARN,
    fleet_pb2.VOTE_KIND_REFUSE: Vote.REFUSE,
}


@dataclass(frozen=True, slots=True)
class Warming:
    """Which upstreams get traffic, and how many connections the fleet opens to each of their targets."""

    upstreams: tuple[str, ...]
    connections_per_target: int
    nodes: int


@dataclass(frozen=True, slots=True)
class NodeVoted:
    """A node's vote in one round."""

    rollout: int
    round: int
    voted: Voted


@dataclass(frozen=True, slots=True)
class NodeActivated:
    """A node swapped, or could not: then `problem` says why."""

    rollout: int
    report: ActivationReport
    problem: str = ""


def prepare(
    rollout: int,
    round_number: int,
    delta: fleet_pb2.Delta,
    *,
    vote_within_s: float,
    hold_s: float,
    warming: Warming,
    warm: bool,
) -> bytes:
    """The first word."""
    return fleet_pb2.PlaneMessage(
        rollout_prepare=fleet_pb2.RolloutPrepare(
            rollout=rollout,
            round=round_number,
            delta=delta,
            vote_within=_duration(vote_within_s),
            hold=_duration(hold_s),
            upstreams=warming.upstreams,
            connections_per_target=warming.connections_per_target,
            nodes=warming.nodes,
            warm=warm,
        )
    ).SerializeToString()


def activate(rollout: int, snapshot: SnapshotRef, at_plane_ns: int) -> bytes:
    """The second: the decision is on disk."""
    return fleet_pb2.PlaneMessage(
        rollout_activate=fleet_pb2.RolloutActivate(
            rollout=rollout, snapshot=wire_ref(snapshot), at_plane_ns=at_plane_ns
        )
    ).SerializeToString()


def abort(rollout: int, reason: str) -> bytes:
    """Let go of what is prepared."""
    return fleet_pb2.PlaneMessage(
        rollout_abort=fleet_pb2.RolloutAbort(rollout=rollout, reason=reason[:255])
    ).SerializeToString()


def voted(message: fleet_pb2.RolloutVote) -> NodeVoted:
    """A node's vote; what it says is clipped. A kind of vote that a later protocol brought is a refusal."""
    return NodeVoted(
        message.rollout,
        message.round,
        Voted(
            _VOTES.get(message.kind, Vote.REFUSE),
            staged=message.workers > 0,
            took_s=max(0.0, message.took.seconds + message.took.nanos / 1e9),
            clock_error_us=message.clock_error_us,
            faults=tuple(_fault(fault) for fault in message.faults[:FAULTS_MAX]),
            upstreams=tuple(_upstream(each) for each in message.upstreams[:_UPSTREAMS_MAX]),
        ),
    )


def activated(message: fleet_pb2.RolloutActivated) -> NodeActivated:
    """A node's word on its activation."""
    late_us = tuple(message.late_us[:_WORKERS_MAX])
    report = ActivationReport(message.at_plane_ns, late_us, message.clock_error_us, message.ahead_us)
    problem = ""
    if message.HasField("fault"):
        problem = printable(message.fault.message or message.fault.code or "refused")
    return NodeActivated(message.rollout, report, problem)


def check_size(delta: fleet_pb2.Delta) -> str:
    """Why the delta can't travel; empty when it can."""
    if len(delta.packed) > PACKED_BYTES_MAX:
        return f"the change takes {len(delta.packed)} bytes packed, a rollout takes {PACKED_BYTES_MAX}; split it"
    return ""


def _upstream(check: fleet_pb2.UpstreamCheck) -> UpstreamReport:
    failures: Sequence[fleet_pb2.TargetCheck] = check.failures[:_FAILURES_MAX]
    return UpstreamReport(
        upstream=printable(check.upstream),
        targets=check.targets,
        healthy=min(check.healthy, check.targets),
        connections=check.connections,
        failures=tuple(
            (printable(failure.target), printable(failure.address), printable(failure.error)) for failure in failures
        ),
    )


def _fault(fault: fleet_pb2.Fault) -> Fault:
    return Fault(
        code=printable(fault.code),
        collection=printable(fault.collection),
        entity_id=printable(fault.entity_id),
        entity_name=printable(fault.entity_name),
        field=printable(fault.field),
        message=printable(fault.message),
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
