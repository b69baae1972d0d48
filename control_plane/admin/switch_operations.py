"""What the paths of switches take and answer, as `/openapi.json` and the reference tell it.

A switch's answer names what scripts rely on; a canary's has its course and its gates' figures beside that.
"""

from __future__ import annotations

from dataclasses import replace

from control_plane.admin.operations import FORM, JSON, Operation, Parameter, answer_of
from control_plane.admin.rollout_operations import BEFORE, FEW, POLICY_FIELDS, REASON, WAIT
from control_plane.entities.types import EntityBody, JsonValue

_TEXT: EntityBody = {"type": "string"}
_YES: EntityBody = {"type": "boolean"}
_WHOLE: EntityBody = {"type": "integer", "minimum": 0}
_NUMBER: EntityBody = {"type": "number", "minimum": 0}
_OR_NONE: EntityBody = {"type": ["number", "null"]}
_NUMBER_OF: EntityBody = {"type": "integer", "minimum": 1}
_RECORD: EntityBody = {"type": "object"}

_MOVE = answer_of({"id": _TEXT, "name": _TEXT, "from": _TEXT, "to": _TEXT})
_FINDING = answer_of(
    {
        "code": {**_TEXT, "description": "Stable; the reference has all of them."},
        "what": _TEXT,
        "node": {**_TEXT, "description": "Host name; empty = it is about no single node."},
        "target": _TEXT,
        "remedy": _TEXT,
        "overridable": {**_YES, "description": "Whether `force` with a reason passes over it."},
    }
)
_SIDE = answer_of(
    {
        "upstream": _TEXT,
        "targets": {
            "type": "array",
            "items": answer_of(
                {
                    "target": _TEXT,
                    "weight": _WHOLE,
                    "healthy": {**_YES, "description": "By the word of most nodes."},
                    "seen": {**_RECORD, "description": "Each live node's word, by its id."},
                    "why": {**_RECORD, "description": "What a node says against it, by its id."},
                }
            ),
        },
        "healthy": _WHOLE,
        "weight": {**_WHOLE, "description": "Of the targets that can take traffic."},
        "weight_in_all": _WHOLE,
    }
)
_REHEARSAL = answer_of(
    {
        "rollout": _NUMBER_OF,
        "would_decide": {**_YES, "description": "Whether the answers would have been enough."},
        "reason": _TEXT,
        "nodes": {
            "type": "array",
            "items": answer_of(
                {
                    "node_id": _TEXT,
                    "hostname": _TEXT,
                    "vote": {"enum": ["ready", "ready_warn", "refuse", None]},
                    "prepared_s": _OR_NONE,
                    "targets": _WHOLE,
                    "healthy": _WHOLE,
                    "connections": {**_WHOLE, "description": "Opened to the new side."},
                    "unreached": {
                        "type": "array",
                        "items": answer_of({"target": _TEXT, "address": _TEXT, "error": _TEXT}),
                    },
                    "faults": {"type": "array", "items": _RECORD},
                    "reason": _TEXT,
                }
            ),
        },
    }
)
_PLANNED: EntityBody = {
    "dry_run": {"const": True},
    "ready": {**_YES, "description": "Whether nothing speaks against it."},
    "services": {"type": "array", "items": _MOVE},
    "to": _TEXT,
    "base_version": _WHOLE,
    "new_side": _SIDE,
    "old_sides": {"type": "array", "items": _SIDE},
    "capacity_percent": {**_OR_NONE, "description": "Weight of the new side against that in use; null = none is."},
    "nodes": {
        "type": "array",
        "items": answer_of({"node_id": _TEXT, "hostname": _TEXT, "healthy": _WHOLE, "targets": _WHOLE}),
    },
    "gates": answer_of(
        {"min_healthy_percent": _NUMBER, "min_healthy_targets": _WHOLE, "min_capacity_percent": _NUMBER}
    ),
    "refusals": {"type": "array", "items": _FINDING},
    "warnings": {"type": "array", "items": _FINDING},
}
_PLAN: EntityBody = {
    "type": "object",
    "properties": {
        **_PLANNED,
        "rehearsal": {**_REHEARSAL, "description": "With `ask_nodes`."},
        "canary": {**_RECORD, "description": "With `canary`: its course."},
    },
    "required": [*_PLANNED],
}
_NODE: EntityBody = {
    "type": "object",
    "properties": {
        "node_id": _TEXT,
        "hostname": _TEXT,
        "standing": {**_TEXT, "description": "activated, followed, lagging, gone, refused, slow, released and more."},
        "vote": {"type": ["string", "null"]},
        "prepared_s": _OR_NONE,
        "faults": {"type": "array"},
        "healthy": _WHOLE,
        "targets": _WHOLE,
        "connections": _WHOLE,
        "first_new_us_after_instant": {
            "type": ["integer", "null"],
            "description": "When the first answer of the new side began; null = none yet, or the node has not said.",
        },
        "last_old_us_after_instant": {
            "type": ["integer", "null"],
            "description": "When the last answer of the old side began; negative = before the instant.",
        },
        "late_us": {"type": ["integer", "null"], "description": "The latest worker, against the instant."},
        "open_on_old_side": {"type": ["integer", "null"], "description": "Requests; null = not counted yet."},
        "reason": _TEXT,
    },
    "required": ["node_id", "hostname", "standing", "reason"],
}
_OLD_SIDE: EntityBody = {
    "type": "object",
    "properties": {
        "name": _TEXT,
        "upstream": _TEXT,
        "in_flight": {"type": ["integer", "null"]},
        "waiting_for": {"type": "array", "items": _TEXT},
        "still_used_by": {"type": "array", "items": _TEXT},
        "safe_to_tear_down": _YES,
    },
}
_SWITCH: EntityBody = {
    "type": "object",
    "properties": {
        "switch": _NUMBER_OF,
        "verb": {"enum": ["switch", "undo", "canary"]},
        "services": {"type": "array", "items": _MOVE},
        "to": _TEXT,
        "state": {**_TEXT, "description": "confirmed, partial, aborted, undone or what it is on its way to."},
        "ended_because": _TEXT,
        "reason": _TEXT,
        "author": _TEXT,
        "forced": _YES,
        "undoes": {"type": ["integer", "null"]},
        "undone_by": {"type": ["integer", "null"]},
        "version": {"type": ["integer", "null"]},
        "took_s": _OR_NONE,
        "skew_us": {"type": ["integer", "null"], "description": "From the first node's activation to the last one's."},
        "nodes": {"type": "array", "items": _NODE},
        "old_sides": {"type": "array", "items": _OLD_SIDE},
        "safe_to_tear_down": _YES,
    },
    "required": ["switch", "verb", "services", "to", "state"],
}

_POLICY: EntityBody = {
    "type": "object",
    "properties": {
        "min_healthy_percent": {**_NUMBER, "maximum": 100},
        "min_healthy_targets": {**_WHOLE, "maximum": 1000},
        "min_capacity_percent": {**_NUMBER, "maximum": 10_000},
        **{name: field for name, field in POLICY_FIELDS.items() if name != "min_healthy_percent"},
    },
    "description": "What it asks of the side and of the fleet; a rollout's fields and three of its own.",
}
_NAMES: EntityBody = {"type": "array", "items": {**_TEXT, "minLength": 1}, "minItems": 1, "maxItems": 64}
_WISH: EntityBody = {
    "type": "object",
    "properties": {
        "services": {**_NAMES, "description": "Names or ids; `service` names a single one."},
        "service": {**_TEXT, "minLength": 1},
        "to": {**_TEXT, "minLength": 1, "description": "The upstream that takes over."},
        "reason": REASON,
        "force": {**_YES, "description": "Pass over what is about health and capacity; needs a reason."},
        "policy": _POLICY,
        "at": {"type": ["string", "number"], "description": "Begin then: a time with its zone, or seconds since 1970."},
        "canary": {
            **_RECORD,
            "description": "Step by step: `steps` in percent, `every_s`, `sticky`, `gates` and more.",
        },
    },
    "required": ["to"],
}


def _bodies(properties: EntityBody) -> dict[str, EntityBody]:
    return {JSON: {"type": "object", "properties": properties}}


def _flag(name: str, description: str) -> Parameter:
    return Parameter(name=name, schema={"type": "integer", "enum": [0, 1]}, description=description)


_ENDS: dict[int, EntityBody | None] = {200: _SWITCH, 202: _SWITCH}
_BEGUN: dict[int, EntityBody | None] = {200: {"anyOf": [_SWITCH, _PLAN]}, 202: _SWITCH}
_ROWS: list[JsonValue] = ["data"]
_SERVICE = Parameter(name="service", schema=_TEXT, description="Only those that moved this service, by name or id.")

LIST = Operation(
    summary="List switches, newest first",
    parameters=(FEW, BEFORE, _SERVICE),
    answers={
        200: {"type": "object", "properties": {"data": {"type": "array", "items": _SWITCH}}, "required": _ROWS},
    },
)
CREATE = Operation(
    summary="Plan a switch (`dry_run`), or begin one, at once or as a canary",
    body={JSON: _WISH, FORM: _WISH},
    parameters=(
        _flag("dry_run", "1 = answer the plan; nothing happens."),
        _flag("ask_nodes", "With `dry_run`: 1 = every node prepares it as far as its vote, and lets go."),
        WAIT,
    ),
    answers=_BEGUN,
)
GET = Operation(summary="Show one switch with what each node proved", answers={200: _SWITCH})
UNDO = Operation(
    summary="Go back to the side before",
    body=_bodies({"reason": REASON, "policy": _POLICY}),
    body_required=False,
    parameters=(WAIT,),
    answers=_ENDS,
)
PROMOTE = replace(
    UNDO,
    summary="Bring a canary to its next step, or a later one, without waiting for time or gates",
    body=_bodies({"reason": REASON, "to_step": _NUMBER_OF, "all": _YES}),
)
HOLD = replace(
    UNDO,
    summary="Keep a canary on its step until it is promoted; its gates go on watching",
    body=_bodies({"reason": REASON}),
)
ABORT = replace(HOLD, summary="End a canary: all requests back to the old side")
