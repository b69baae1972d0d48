"""May the traffic go there? What the nodes say of a side, weighed before anything moves. Pure: no clock, no I/O.

A side is the targets of one upstream that have a weight. Each node has a word on each of them, and what it has not said
counts as not healthy: doubt is no reason to send traffic. Whether a target is checked at all is the upstream's setting;
an unchecked one is taken as it is, and the plan says so, because then the nodes' own connections are the only proof.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.health import AddressState, TargetVerdict
from control_plane.fleet.rollout import Vote
from control_plane.switching.rehearsal import Rehearsed


class Code(StrEnum):
    """Why a switch is refused, or what an operator should know. Scripts rely on these words."""

    NO_NODE = "NO_NODE"
    HELD_BY_ROLLOUT = "HELD_BY_ROLLOUT"
    HELD_BY_CANARY = "HELD_BY_CANARY"
    NO_TARGET = "NO_TARGET"
    NODE_SEES_TOO_FEW = "NODE_SEES_TOO_FEW"
    SIDE_UNHEALTHY = "SIDE_UNHEALTHY"
    CAPACITY_TOO_SMALL = "CAPACITY_TOO_SMALL"
    NAME_NOT_RESOLVED = "NAME_NOT_RESOLVED"
    NOT_REPORTED = "NOT_REPORTED"
    NOT_CHECKED = "NOT_CHECKED"
    NODE_REFUSES = "NODE_REFUSES"
    NODE_SLOW = "NODE_SLOW"
    WOULD_ABORT = "WOULD_ABORT"
    TARGET_UNREACHED = "TARGET_UNREACHED"
    NEW_SIDE_CHANGES = "NEW_SIDE_CHANGES"
    SERVICE_DISABLED = "SERVICE_DISABLED"
    OLD_SIDE_NO_UPSTREAM = "OLD_SIDE_NO_UPSTREAM"
    NODES_ELSEWHERE = "NODES_ELSEWHERE"


ELSEWHERE_NAMED_MAX = 5
_OVERRIDABLE = (Code.NO_TARGET, Code.NODE_SEES_TOO_FEW, Code.SIDE_UNHEALTHY, Code.CAPACITY_TOO_SMALL)
"""What `force` passes over. Without a node there is nothing to force, and an open rollout is somebody else's."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: what is so, at which node or target, and what to do."""

    code: Code
    what: str
    remedy: str
    node: str = ""
    target: str = ""

    @property
    def overridable(self) -> bool:
        return self.code in _OVERRIDABLE

    def to_json(self) -> EntityBody:
        return {
            "code": self.code.value,
            "what": self.what,
            "node": self.node,
            "target": self.target,
            "remedy": self.remedy,
            "overridable": self.overridable,
        }


@dataclass(frozen=True, slots=True)
class Gates:
    """What a side must show before it gets traffic."""

    min_healthy_percent: float = 75.0
    """Of the side's targets, by the word of most nodes."""
    min_healthy_targets: int = 1
    """That each node must see."""
    min_capacity_percent: float = 0.0
    """Weight of the healthy targets against that of the side in use; 0 = shown, not asked for."""


class Seen(StrEnum):
    """A node's word on one target."""

    HEALTHY = "healthy"
    UNCHECKED = "unchecked"
    UNHEALTHY = "unhealthy"
    UNRESOLVED = "unresolved"
    UNKNOWN = "unknown"

    @property
    def usable(self) -> bool:
        return self in (Seen.HEALTHY, Seen.UNCHECKED)


@dataclass(frozen=True, slots=True)
class TargetView:
    """A target of a side; `seen` has each live node's word by id, `why` what a node says against it."""

    id: str
    target: str
    weight: int
    seen: Mapping[str, Seen]
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """By most nodes; half of them is enough, as in the fleet's verdict."""
        return bool(self.seen) and 2 * sum(word.usable for word in self.seen.values()) >= len(self.seen)


@dataclass(frozen=True, slots=True)
class Side:
    """An upstream with its weighted targets."""

    id: str
    name: str
    targets: tuple[TargetView, ...]

    @property
    def healthy(self) -> int:
        return sum(target.healthy for target in self.targets)

    @property
    def weight(self) -> int:
        """Of the targets that can take traffic."""
        return sum(target.weight for target in self.targets if target.healthy)

    @property
    def weight_in_all(self) -> int:
        return sum(target.weight for target in self.targets)

    def seen_by(self, node: str) -> int:
        """How many targets this node would use."""
        return sum(target.seen[node].usable for target in self.targets)

    def to_json(self) -> EntityBody:
        targets: list[JsonValue] = [
            {
                "target": target.target,
                "weight": target.weight,
                "healthy": target.healthy,
                "seen": {node: word.value for node, word in target.seen.items()},
                "why": dict(target.why),
            }
            for target in self.targets
        ]
        return {
            "upstream": self.name,
            "targets": targets,
            "healthy": self.healthy,
            "weight": self.weight,
            "weight_in_all": self.weight_in_all,
        }


@dataclass(frozen=True, slots=True)
class Move:
    """A service and where its traffic goes from and to, by names; `held_by` = the rollout or canary that holds it."""

    id: str
    service: str
    source: str
    to: str
    enabled: bool = True
    held_by: int | None = None
    by_canary: bool = False

    def to_json(self) -> EntityBody:
        return {"id": self.id, "name": self.service, "from": self.source, "to": self.to}


@dataclass(frozen=True, slots=True)
class Plan:
    """What a switch would do. `nodes` = host names of the live nodes by id; `old` has the sides that lose traffic.

    `side_held_by` = the open rollout that is about to change the new side's own upstream or targets; `rehearsed` = what
    nodes answered when they were asked to prepare it, None = they were not asked. `elsewhere` names nodes at other
    control planes: what they see of the new side is not known here, and their votes are.
    """

    moves: tuple[Move, ...]
    new: Side
    old: tuple[Side, ...]
    nodes: Mapping[str, str]
    gates: Gates
    base_version: int
    side_held_by: int | None = None
    rehearsed: Rehearsed | None = None
    elsewhere: tuple[str, ...] = ()

    @property
    def unreported(self) -> bool:
        """Whether a node has said nothing yet of a target of the new side."""
        return any(Seen.UNKNOWN in target.seen.values() for target in self.new.targets)

    @property
    def capacity_percent(self) -> float | None:
        """Weight of the new side that can take traffic against that of the sides in use; None = they have none."""
        weight = sum(side.weight_in_all for side in self.old)
        return 100 * self.new.weight / weight if weight else None

    def refusals(self) -> list[Finding]:
        """Why it must not be done, the most telling first; empty = it may."""
        found = list(self._held())
        if not self.nodes:
            what = "no node is connected, so there is no traffic to switch and nobody to prove it"
            remedy = "start a node, or see `pointsman nodes`; `--quick` only writes"
            if self.elsewhere:
                what = f"no node is connected to this control plane, but to others: {self.elsewhere[0]} for one"
                remedy = "ask a control plane that has nodes"
            found.append(Finding(Code.NO_NODE, what, remedy))
            return found
        if not self.new.targets:
            remedy = f"add one: pointsman target create {self.new.name} target=HOST:PORT"
            found.append(Finding(Code.NO_TARGET, f"upstream {self.new.name} has no target with a weight", remedy))
            return found
        found += self._unhealthy()
        capacity = self.capacity_percent
        if capacity is not None and capacity < self.gates.min_capacity_percent:
            what = (
                f"upstream {self.new.name} has {capacity:.0f} % of the weight in use, "
                f"{self.gates.min_capacity_percent:g} % are asked for"
            )
            found.append(Finding(Code.CAPACITY_TOO_SMALL, what, "add targets, or raise their weight"))
        found += self._answered()
        return found

    def warnings(self) -> list[Finding]:
        """What does not stop a switch and should be known."""
        found: list[Finding] = []
        for move in self.moves:
            if not move.enabled:
                what = f"service {move.service} is disabled: no traffic goes there, before or after"
                found.append(Finding(Code.SERVICE_DISABLED, what, f"pointsman service set {move.service} enabled=true"))
            if move.source and move.source not in {side.name for side in self.old}:
                what = f"service {move.service} points to {move.source}, which is no upstream: its capacity is unknown"
                found.append(Finding(Code.OLD_SIDE_NO_UPSTREAM, what, "undo goes back there all the same"))
        if self.side_held_by is not None:
            what = f"rollout {self.side_held_by} is about to change upstream {self.new.name} or its targets"
            found.append(Finding(Code.NEW_SIDE_CHANGES, what, f"see it: pointsman rollout show {self.side_held_by}"))
        if self.elsewhere and self.rehearsed is None:
            named = ", ".join(self.elsewhere[:ELSEWHERE_NAMED_MAX])
            more = len(self.elsewhere) - ELSEWHERE_NAMED_MAX
            what = f"of nodes at other control planes it is not weighed what they see of the new side: {named}"
            what += f" and {more} more" if more > 0 else ""
            remedy = "they vote before it is decided; ask them first: --ask-nodes"
            found.append(Finding(Code.NODES_ELSEWHERE, what, remedy))
        for target in self.new.targets:
            found += self._of_target(target)
        found += self._told_by_nodes()
        return found

    def to_json(self) -> EntityBody:
        refusals, warnings = self.refusals(), self.warnings()
        nodes: list[JsonValue] = [
            {
                "node_id": node,
                "hostname": hostname,
                "healthy": self.new.seen_by(node),
                "targets": len(self.new.targets),
            }
            for node, hostname in sorted(self.nodes.items(), key=lambda each: (each[1], each[0]))
        ]
        capacity = self.capacity_percent
        return {
            "ready": not refusals,
            "services": [move.to_json() for move in self.moves],
            "to": self.new.name,
            "base_version": self.base_version,
            "new_side": self.new.to_json(),
            "old_sides": [side.to_json() for side in self.old],
            "capacity_percent": None if capacity is None else round(capacity, 1),
            "nodes": nodes,
            "gates": {
                "min_healthy_percent": self.gates.min_healthy_percent,
                "min_healthy_targets": self.gates.min_healthy_targets,
                "min_capacity_percent": self.gates.min_capacity_percent,
            },
            "refusals": [finding.to_json() for finding in refusals],
            "warnings": [finding.to_json() for finding in warnings],
            **({} if self.rehearsed is None else {"rehearsal": self.rehearsed.to_json()}),
        }

    def _answered(self) -> Iterable[Finding]:
        """Why the nodes' answers would have ended the switch; each node that refuses has its own finding."""
        told = self.rehearsed
        if told is None or told.would_decide:
            return
        refusing = [answer for answer in told.nodes if answer.vote is Vote.REFUSE]
        for answer in refusing:
            what = f"node {answer.hostname} refuses to prepare it: {answer.reason or 'it did not say why'}"
            remedy = "mend what it names, or let the others go without it: policy need_percent with on_refuse proceed"
            yield Finding(Code.NODE_REFUSES, what, remedy, node=answer.hostname)
        if not refusing:
            what = f"the nodes' answers are not enough: {told.reason}"
            yield Finding(Code.WOULD_ABORT, what, "see `pointsman nodes`, then ask again")

    def _told_by_nodes(self) -> Iterable[Finding]:
        """What nodes said beside their votes: who is slow, and each target that one could not connect to."""
        for answer in self.rehearsed.nodes if self.rehearsed is not None else ():
            if answer.vote is None:
                what = f"node {answer.hostname} has not answered: {answer.reason}"
                yield Finding(Code.NODE_SLOW, what, "see `pointsman nodes`", node=answer.hostname)
            for each in answer.unreached:
                at = f" at {each.address}" if each.address and each.address != each.target else ""
                what = f"node {answer.hostname} can't reach target {each.target}{at}: {each.error}"
                remedy = "mend the way from this node to the target, or the target"
                yield Finding(Code.TARGET_UNREACHED, what, remedy, node=answer.hostname, target=each.target)

    def _held(self) -> Iterable[Finding]:
        for move in self.moves:
            if move.held_by is not None and move.by_canary:
                yield Finding(
                    Code.HELD_BY_CANARY,
                    f"canary {move.held_by} is moving service {move.service}",
                    f"wait for its end, or end it: pointsman switch abort {move.held_by}",
                )
            elif move.held_by is not None:
                yield Finding(
                    Code.HELD_BY_ROLLOUT,
                    f"rollout {move.held_by} is about to change service {move.service}",
                    f"wait for its end, or end it: pointsman rollout abort {move.held_by}",
                )

    def _unhealthy(self) -> Iterable[Finding]:
        new, gates = self.new, self.gates
        remedy = f"see `pointsman upstream health {new.name}`; mend the targets, or force it and say why"
        asked = min(gates.min_healthy_targets, len(new.targets))
        for node, hostname in sorted(self.nodes.items(), key=lambda each: (each[1], each[0])):
            if (count := new.seen_by(node)) < asked:
                told = _complaint(new.targets, node)
                what = (
                    f"node {hostname} sees {count} of {len(new.targets)} targets of {new.name} healthy, {asked} needed"
                )
                yield Finding(Code.NODE_SEES_TOO_FEW, what + told, remedy, node=hostname)
        share = 100 * new.healthy / len(new.targets)
        if share < gates.min_healthy_percent:
            ill = ", ".join(target.target for target in new.targets if not target.healthy)
            what = (
                f"{new.healthy} of {len(new.targets)} targets of {new.name} are healthy ({share:.0f} %), "
                f"{gates.min_healthy_percent:g} % are needed; not healthy: {ill}"
            )
            first = next(target.target for target in new.targets if not target.healthy)
            yield Finding(Code.SIDE_UNHEALTHY, what, remedy, target=first)

    def _of_target(self, target: TargetView) -> Iterable[Finding]:
        """One finding a kind, not one a node: a name that nobody can resolve is one mistake."""
        for word, code, what, remedy in (
            (Seen.UNRESOLVED, Code.NAME_NOT_RESOLVED, "has no address", "correct the name, or the DNS"),
            (Seen.UNKNOWN, Code.NOT_REPORTED, "is not known yet", "ask again in a moment"),
            (Seen.UNCHECKED, Code.NOT_CHECKED, "is taken unchecked", "set active health checks on the upstream"),
        ):
            nodes = [node for node, seen in target.seen.items() if seen is word]
            if nodes:
                names = ", ".join(sorted(self.nodes[node] for node in nodes)[:8])
                why = target.why.get(nodes[0], "")
                told = f"target {target.target} {what} on {names}" + (f": {why}" if why else "")
                yield Finding(code, told, remedy, node=self.nodes[nodes[0]], target=target.target)


def target_view(target: EntityBody, verdict: TargetVerdict | None, nodes: Iterable[str]) -> TargetView:
    """A stored target with what each of these nodes says of it."""
    seen: dict[str, Seen] = {}
    why: dict[str, str] = {}
    for node in nodes:
        word, reason = _word(verdict, node)
        seen[node] = word
        if reason:
            why[node] = reason
    weight = target.get("weight")
    return TargetView(str(target["id"]), str(target["target"]), weight if isinstance(weight, int) else 0, seen, why)


def _word(verdict: TargetVerdict | None, node: str) -> tuple[Seen, str]:
    if verdict is None or node not in verdict.nodes:
        return Seen.UNKNOWN, ""
    if node in verdict.failing:
        return Seen.UNRESOLVED, verdict.failing[node]
    reports = [address.said[node] for address in verdict.addresses if node in address.said]
    states = {report.state for report in reports}
    if AddressState.HEALTHY in states:
        return Seen.HEALTHY, ""
    if AddressState.OFF in states:
        return Seen.UNCHECKED, ""
    return Seen.UNHEALTHY, next((report.reason for report in reports if report.reason), "")


def _complaint(targets: Sequence[TargetView], node: str) -> str:
    """What the node says against the first target that it would not use."""
    for target in targets:
        word = target.seen[node]
        if not word.usable:
            why = target.why.get(node, "")
            return f"; {target.target} is {word.value}" + (f": {why}" if why else "")
    return ""
