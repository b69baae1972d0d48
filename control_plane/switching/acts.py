"""What a switch leaves in its rollout's record, so that it can be shown, and undone, as what the operator meant.

    act = {"verb": "switch" | "undo" | "canary", "services": [{"id", "name", "from", "to"}, ...], "to": "green",
           "undoes": null | 7, "forced": false, "plan": {...} | null}

The number of a switch is its rollout's. An act never changes once it is written; how it went is the rollout's to say.
A canary has a number and a record of its own, and the rollouts that are its steps have acts that are none of these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.switching.preflight import Move


class Verb(StrEnum):
    SWITCH = "switch"
    UNDO = "undo"
    CANARY = "canary"


_VERBS = tuple(verb.value for verb in Verb)


@dataclass(frozen=True, slots=True)
class Act:
    """One switch or undo; `plan` is what the preflight saw, None where there was none."""

    verb: Verb
    moves: tuple[Move, ...]
    to: str
    undoes: int | None = None
    forced: bool = False
    plan: EntityBody | None = None

    def to_json(self) -> EntityBody:
        return {
            "verb": self.verb.value,
            "services": [move.to_json() for move in self.moves],
            "to": self.to,
            "undoes": self.undoes,
            "forced": self.forced,
            "plan": self.plan,
        }

    def touches(self, service: str) -> bool:
        """Whether it moved a service, by name or id."""
        return any(service in (move.id, move.service) for move in self.moves)


def act_of(rollout: EntityBody) -> Act | None:
    """The act in a rollout's record; None when it is no switch."""
    told = rollout.get("act")
    if not isinstance(told, dict) or told.get("verb") not in _VERBS:
        return None
    services, undoes, plan = told.get("services"), told.get("undoes"), told.get("plan")
    moves = tuple(
        Move(str(each["id"]), str(each["name"]), str(each["from"]), str(each["to"]))
        for each in (services if isinstance(services, list) else ())
        if isinstance(each, dict)
    )
    return Act(
        Verb(str(told["verb"])),
        moves,
        str(told.get("to")),
        undoes if isinstance(undoes, int) else None,
        bool(told.get("forced")),
        plan if isinstance(plan, dict) else None,
    )


def view_of(rollout: EntityBody, act: Act, *, undone_by: int | None) -> EntityBody:
    """A switch as the Admin API shows it: who moved what and why, and the table of proof, one line a node."""
    return {
        "switch": rollout["rollout"],
        "verb": act.verb.value,
        "services": [move.to_json() for move in act.moves],
        "to": act.to,
        "state": rollout["state"],
        **({"at": rollout["at"]} if "at" in rollout else {}),
        "ended_because": rollout["reason"],
        "reason": rollout["why"],
        "author": rollout["author"],
        "forced": act.forced,
        "undoes": act.undoes,
        "undone_by": undone_by,
        "created_at": rollout["created_at"],
        "ended_at": rollout["ended_at"],
        "took_s": rollout["took_s"],
        "base_version": rollout["base_version"],
        "version": rollout["version"],
        "policy": rollout["policy"],
        "plan": act.plan,
        **proof_of(rollout, act.moves),
    }


def proof_of(rollout: EntityBody, moves: Sequence[Move]) -> EntityBody:
    """What the nodes proved in a rollout, and how the sides that `moves` take traffic from come to rest."""
    drained = rollout.get("drained")
    sides = [side for side in (drained if isinstance(drained, list) else ()) if isinstance(side, dict)]
    nodes = rollout.get("nodes")
    proof: list[JsonValue] = [
        _proof(node, sides) for node in (nodes if isinstance(nodes, list) else ()) if isinstance(node, dict)
    ]
    return {
        "prepared_s": rollout.get("prepared_s"),
        "lead_s": rollout.get("lead_s"),
        "skew_us": rollout.get("skew_us"),
        "nodes": proof,
        "old_sides": _old_sides(sides, moves),
        "safe_to_tear_down": bool(rollout.get("safe_to_tear_down")),
    }


def _proof(node: EntityBody, sides: Sequence[EntityBody]) -> EntityBody:
    vote, late = node.get("vote"), node.get("late_us")
    told = vote if isinstance(vote, dict) else {}
    checks = told.get("upstreams")
    upstreams = [each for each in (checks if isinstance(checks, list) else ()) if isinstance(each, dict)]
    counts = []
    for side in sides:
        by_node = side.get("by_node")
        counts.append(by_node.get(str(node["node_id"])) if isinstance(by_node, dict) else None)
    known = [count for count in counts if isinstance(count, int)]
    lateness = [each for each in late if isinstance(each, int)] if isinstance(late, list) else []
    return {
        "node_id": node["node_id"],
        "hostname": node["hostname"],
        "standing": node["standing"],
        "vote": told.get("vote"),
        "prepared_s": told.get("took_s"),
        "faults": told.get("faults", []),
        "healthy": sum(each["healthy"] for each in upstreams if isinstance(each["healthy"], int)),
        "targets": sum(each["targets"] for each in upstreams if isinstance(each["targets"], int)),
        "connections": sum(each["connections"] for each in upstreams if isinstance(each["connections"], int)),
        "activated_us_after_instant": node.get("activated_us_after_instant"),
        "first_new_us_after_instant": node.get("first_new_us_after_instant"),
        "last_old_us_after_instant": node.get("last_old_us_after_instant"),
        "late_us": max(lateness, default=None),
        "clock_error_us": node.get("clock_error_us"),
        "open_on_old_side": sum(known) if sides and len(known) == len(counts) else None,
        "reason": node["reason"],
    }


def _old_sides(sides: Sequence[EntityBody], moves: Sequence[Move]) -> list[JsonValue]:
    """Names beside ids where they are known; the record has ids."""
    names = sorted({move.source for move in moves if move.source})
    shown: list[JsonValue] = []
    for side in sides:
        kept = {name: value for name, value in side.items() if name != "by_node"}
        shown.append({"name": names[0] if len(sides) == len(names) == 1 else "", **kept})
    return shown
