"""A rollout as JSON: what the Admin API shows and the store keeps, and what is made of it again after a restart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.rollout import Member, Policy, Rollout, Standing, State
from control_plane.store.contract import Change, Origin, RolloutRecord, Transaction

CHANGES_SHOWN_MAX = 200
LOOKED_AT_MAX = 20
"""Rollouts among which one that was decided is looked for."""


@dataclass(slots=True)
class Drained:
    """An upstream that lost its traffic: requests still open towards it, over all nodes that counted since."""

    upstream: str
    in_flight: int | None = None
    waiting_for: tuple[str, ...] = ()
    still_used_by: tuple[str, ...] = ()
    by_node: dict[str, int] = field(default_factory=dict)
    """Of each node that counted since, by id."""

    @property
    def safe(self) -> bool:
        """Whether nothing is open and nothing points there any more."""
        return self.in_flight == 0 and not self.waiting_for and not self.still_used_by


@dataclass(slots=True)
class Facts:
    """What is known of a rollout beside its machine. Times are seconds since 1970, or nanoseconds of the plane."""

    number: int
    origin: Origin
    changes: tuple[Change, ...] = ()
    gain: tuple[str, ...] = ()
    lose: tuple[str, ...] = ()
    created_at: float = 0.0
    ended_at: float | None = None
    took_s: float | None = None
    prepared_s: float | None = None
    base_version: int = 0
    at_plane_ns: int | None = None
    lead_s: float | None = None
    resumed: bool = False
    elsewhere: tuple[str, ...] = ()  # nodes of other control planes: not asked, they take the version as it comes
    coordinator: str = ""  # the control plane that brings it to its end
    fence: int = 0  # of the lease that it does so under
    drained: list[Drained] = field(default_factory=list)
    act: EntityBody | None = None  # what an operator's verb, a switch for example, wants to find again; kept as it is
    kept: EntityBody | None = None  # of a rollout that was read back: what was known when it was decided


def to_json(facts: Facts, machine: Rollout) -> EntityBody:
    """All of it. Of a rollout that was read back, the evidence of before with what became of it since."""
    view = _to_json(facts, machine)
    if facts.kept is None:
        return view
    new = ("state", "reason", "ended_at", "took_s", "resumed", "coordinator", "fence", "drained", "safe_to_tear_down")
    merged: EntityBody = {**facts.kept, **{name: view[name] for name in new}}
    nodes = facts.kept.get("nodes")
    merged["nodes"] = [
        {**node, "standing": member.standing.value, "reason": member.reason}
        for node in (nodes if isinstance(nodes, list) else ())
        if isinstance(node, dict) and (member := machine.members.get(str(node["node_id"]))) is not None
    ]
    return merged


def _to_json(facts: Facts, machine: Rollout) -> EntityBody:
    drained: list[JsonValue] = [
        {
            "upstream": each.upstream,
            "in_flight": each.in_flight,
            "waiting_for": list(each.waiting_for),
            "still_used_by": list(each.still_used_by),
            "by_node": dict(each.by_node),
            "safe_to_tear_down": each.safe,
        }
        for each in facts.drained
    ]
    nodes: list[JsonValue] = [
        _member(member, facts) for member in sorted(machine.members.values(), key=lambda each: (each.hostname, each.id))
    ]
    return {
        "rollout": facts.number,
        "state": machine.state.value,
        "reason": machine.reason,
        "aborted_by": machine.by,
        "author": facts.origin.author,
        "source": facts.origin.source,
        "why": facts.origin.reason,
        "created_at": facts.created_at,
        "ended_at": facts.ended_at,
        "took_s": facts.took_s,
        "prepared_s": facts.prepared_s,
        "base_version": facts.base_version,
        "version": machine.version,
        "rounds": machine.round,
        "at_plane_ns": facts.at_plane_ns,
        "lead_s": facts.lead_s,
        "skew_us": skew_us(machine.members.values()),
        "resumed": facts.resumed,
        "elsewhere": list(facts.elsewhere),
        "coordinator": facts.coordinator,
        "fence": facts.fence,
        "policy": policy_json(machine.policy),
        "act": facts.act,
        "changes": _changes(facts.changes),
        "gain": list(facts.gain),
        "lose": list(facts.lose),
        "drained": drained,
        "safe_to_tear_down": bool(facts.drained) and machine.state.final and all(each.safe for each in facts.drained),
        "nodes": nodes,
    }


def skew_us(members: Iterable[Member]) -> int | None:
    """From the first to the last activation, by the nodes' own words; None before there are two."""
    times = [member.activation.at_plane_ns for member in members if member.activation is not None]
    known = [at for at in times if at]
    return (max(known) - min(known)) // 1000 if len(known) > 1 else None


def policy_json(policy: Policy) -> EntityBody:
    body = asdict(policy)
    body["tolerate"] = sorted(policy.tolerate)
    body["on_refuse"], body["on_slow"] = policy.on_refuse.value, policy.on_slow.value
    return body


def from_record(record: RolloutRecord) -> tuple[Facts, Rollout]:
    """What must be known of a rollout to bring it to its end: who was asked, and what was decided."""
    body = record.body
    members = {}
    nodes = body.get("nodes")
    for node in nodes if isinstance(nodes, list) else ():
        assert isinstance(node, dict)
        member = Member(str(node["node_id"]), str(node["hostname"]), Standing(str(node["standing"])))
        if member.standing is Standing.ARMED:
            member.reason = "was armed when the control plane ended"
        members[member.id] = member
    machine = Rollout(Policy(), members, State(record.state))
    version = body.get("version")
    machine.version = int(version) if isinstance(version, int) else None
    origin = Origin(str(body.get("author")), str(body.get("source")), "", str(body.get("why")))
    created_at, base = body.get("created_at"), body.get("base_version")
    gain, lose = body.get("gain"), body.get("lose")
    act, fence = body.get("act"), body.get("fence")
    return (
        Facts(
            record.number,
            origin,
            gain=tuple(str(each) for each in gain) if isinstance(gain, list) else (),
            lose=tuple(str(each) for each in lose) if isinstance(lose, list) else (),
            created_at=created_at if isinstance(created_at, float) else 0.0,
            base_version=base if isinstance(base, int) else 0,
            resumed=True,
            coordinator=str(body.get("coordinator", "")),
            fence=fence if isinstance(fence, int) else 0,
            act=act if isinstance(act, dict) else None,
            kept=body,
        ),
        machine,
    )


def newest_decided(tx: Transaction) -> int:
    """The version of the newest rollout that every node should have come to run; 0 = there is none among the last."""
    for record in tx.rollouts(size=LOOKED_AT_MAX):
        version = record.body.get("version")
        if record.state in (State.CONFIRMED.value, State.PARTIAL.value) and isinstance(version, int):
            return version
    return 0


def _changes(changes: Sequence[Change]) -> list[JsonValue]:
    """Which entities, never their bodies: those may hold private keys, and the history has them."""
    shown: list[JsonValue] = []
    for change in changes[:CHANGES_SHOWN_MAX]:
        body = change.after or change.before or {}
        shown.append(
            {
                "operation": change.operation.value,
                "collection": change.collection,
                "id": change.id,
                "name": body.get("name") or body.get("target"),
            }
        )
    return shown


def _member(member: Member, facts: Facts) -> EntityBody:
    vote = member.vote
    activation = member.activation
    after_us: int | None = None
    if activation is not None and facts.at_plane_ns is not None and activation.at_plane_ns:
        after_us = (activation.at_plane_ns - facts.at_plane_ns) // 1000
    upstreams: list[JsonValue] = [
        {
            "upstream": each.upstream,
            "targets": each.targets,
            "healthy": each.healthy,
            "connections": each.connections,
            "failures": [
                {"target": target, "address": address, "error": error} for target, address, error in each.failures
            ],
        }
        for each in (vote.upstreams if vote is not None else ())
    ]
    return {
        "node_id": member.id,
        "hostname": member.hostname,
        "standing": member.standing.value,
        "reason": member.reason,
        "vote": None
        if vote is None
        else {
            "vote": vote.vote.value,
            "staged": vote.staged,
            "took_s": vote.took_s,
            "faults": [asdict(fault) for fault in vote.faults],
            "upstreams": upstreams,
        },
        "activated_us_after_instant": after_us,
        "first_new_us_after_instant": member.first_new_us,
        "last_old_us_after_instant": member.last_old_us,
        "late_us": list(activation.late_us) if activation is not None else None,
        "armed_us_before_instant": activation.ahead_us if activation is not None else None,
        "clock_error_us": activation.clock_error_us
        if activation is not None
        else (vote.clock_error_us if vote is not None else None),
    }
