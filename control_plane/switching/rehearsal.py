"""What each node says when it is asked to prepare a switch that is not meant: the votes of a rehearsal. Pure.

A report of health says what a node's checks have found. Only a node that prepares resolves the names, opens
connections and shakes hands by TLS as the requests after the switch would; so this is the evidence behind
`switch plan --ask-nodes`. Connections that it opened are kept as idle ones, and nothing else remains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.rollout import Member, Rollout, Vote, Voted
from pointsman.snapshots import Fault


@dataclass(frozen=True, slots=True)
class Unreached:
    """A target that a node could not connect to: its address as written, the one that was tried, the error."""

    target: str
    address: str
    error: str


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """One node's word; `vote` is None when it said nothing in time or was lost, and `reason` then says which."""

    node: str
    hostname: str
    vote: Vote | None
    took_s: float = 0.0
    targets: int = 0
    healthy: int = 0
    connections: int = 0
    unreached: tuple[Unreached, ...] = ()
    faults: tuple[Fault, ...] = ()
    reason: str = ""

    def to_json(self) -> EntityBody:
        unreached: list[JsonValue] = [asdict(each) for each in self.unreached]
        faults: list[JsonValue] = [asdict(each) for each in self.faults]
        return {
            "node_id": self.node,
            "hostname": self.hostname,
            "vote": self.vote.value if self.vote is not None else None,
            "prepared_s": self.took_s if self.vote is not None else None,
            "targets": self.targets,
            "healthy": self.healthy,
            "connections": self.connections,
            "unreached": unreached,
            "faults": faults,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """A rehearsal that has ended; `rollout` is its number, `reason` says why it would not have been decided."""

    rollout: int
    would_decide: bool
    reason: str
    nodes: tuple[NodeAnswer, ...]

    def to_json(self) -> EntityBody:
        nodes: list[JsonValue] = [answer.to_json() for answer in self.nodes]
        return {
            "rollout": self.rollout,
            "would_decide": self.would_decide,
            "reason": "" if self.would_decide else self.reason,
            "nodes": nodes,
        }


def rehearsed(number: int, machine: Rollout, names: Mapping[str, str]) -> Rehearsed:
    """What came of a rehearsal. `names` = the new side's targets as written, by id."""
    members: Sequence[Member] = sorted(machine.members.values(), key=lambda each: (each.hostname, each.id))
    answers = tuple(_answer(member, names) for member in members)
    return Rehearsed(number, machine.would_decide, machine.reason, answers)


def _answer(member: Member, names: Mapping[str, str]) -> NodeAnswer:
    vote = member.vote
    if vote is None:
        return NodeAnswer(member.id, member.hostname, None, reason=member.reason or "was not asked to the end")
    upstreams = vote.upstreams
    return NodeAnswer(
        member.id,
        member.hostname,
        vote.vote,
        vote.took_s,
        sum(each.targets for each in upstreams),
        sum(each.healthy for each in upstreams),
        sum(each.connections for each in upstreams),
        _unreached(vote, names),
        vote.faults,
        member.reason,
    )


def _unreached(vote: Voted, names: Mapping[str, str]) -> tuple[Unreached, ...]:
    return tuple(
        Unreached(names.get(target, target), address, error)
        for each in vote.upstreams
        for target, address, error in each.failures
    )
