"""What the paths of rollouts take and answer, as `/openapi.json` and the reference tell it."""

from __future__ import annotations

from dataclasses import replace

from control_plane.admin.operations import JSON, Operation, Parameter, answer_of
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.rollout import Reaction, Standing, State, Vote

CHANGES_MAX = 1000
OPERATIONS = ("create", "upsert", "update", "delete")

_TEXT: EntityBody = {"type": "string"}
_YES: EntityBody = {"type": "boolean"}
_WHOLE: EntityBody = {"type": "integer", "minimum": 0}
_WHOLE_OR_NONE: EntityBody = {"type": ["integer", "null"]}
_OR_NONE: EntityBody = {"type": ["number", "null"]}
_TEXTS: EntityBody = {"type": "array", "items": _TEXT}
_NUMBER_OF: EntityBody = {"type": "integer", "minimum": 1}

NUMBERS = {
    "need_percent": (1.0, 100.0),
    "vote_by_s": (0.1, 60.0),
    "min_healthy_percent": (0.0, 100.0),
    "confirm_by_s": (0.1, 60.0),
    "hold_s": (1.0, 600.0),
}
"""The numbers of a policy, with the least and the most of each."""
CONNECTIONS_MAX = 10_000
"""`connections_per_target` at most."""
POLICY_FIELDS: EntityBody = {
    **{name: {"type": "number", "minimum": low, "maximum": high} for name, (low, high) in NUMBERS.items()},
    "on_refuse": {"enum": [each.value for each in Reaction]},
    "on_slow": {"enum": [each.value for each in Reaction]},
    "tolerate": {**_TEXTS, "description": "Codes of faults that are no refusal, NO_HEALTHY_TARGET for example."},
    "connections_per_target": {**_WHOLE, "maximum": CONNECTIONS_MAX},
}
WAIT = Parameter(
    name="Prefer",
    schema=_TEXT,
    description="`wait=SECONDS`: answer when it has ended, at the latest after that time.",
    where="header",
)
BEFORE = Parameter(
    name="before", schema={**_WHOLE, "maximum": 10**18 - 1}, description="Only those with a smaller number."
)
FEW = Parameter(
    name="size", schema={"type": "integer", "minimum": 1, "maximum": 100, "default": 20}, description="How many."
)
REASON: EntityBody = {**_TEXT, "maxLength": 1000, "description": "For the history."}

_OPERATION_NAMES: list[JsonValue] = list(OPERATIONS)
_COLLECTIONS: list[JsonValue] = [*sorted(SCHEMAS)]
_CHANGE: EntityBody = {
    "type": "object",
    "properties": {
        "operation": {"enum": _OPERATION_NAMES, "default": "update"},
        "collection": {"enum": _COLLECTIONS},
        "key": {**_TEXT, "description": "Name or id; not for create."},
        "parent": {**_TEXT, "description": "The upstream of a target, by name or id."},
        "body": {"type": "object", "description": "Fields, as the collection's own path takes them."},
    },
    "required": ["collection"],
    "additionalProperties": False,
}
_ASKED: EntityBody = {
    "type": "object",
    "properties": {
        "changes": {"type": "array", "items": _CHANGE, "minItems": 1, "maxItems": CHANGES_MAX},
        "reason": REASON,
        "policy": {"type": "object", "properties": POLICY_FIELDS, "additionalProperties": False},
    },
    "required": ["changes"],
    "additionalProperties": False,
}
_VOTE: EntityBody = {
    **answer_of(
        {
            "vote": {"enum": [each.value for each in Vote]},
            "staged": _YES,
            "took_s": {"type": "number"},
            "faults": {"type": "array"},
            "upstreams": {"type": "array", "description": "What it found of each upstream that gets traffic."},
        }
    ),
    "type": ["object", "null"],
}
_NODE: EntityBody = {
    "type": "object",
    "properties": {
        "node_id": _TEXT,
        "hostname": _TEXT,
        "standing": {"enum": [each.value for each in Standing]},
        "reason": _TEXT,
        "vote": _VOTE,
        "activated_us_after_instant": _WHOLE_OR_NONE,
        "first_new_us_after_instant": _WHOLE_OR_NONE,
        "last_old_us_after_instant": _WHOLE_OR_NONE,
        "late_us": {"type": ["array", "null"], "items": _WHOLE, "description": "Of each worker."},
        "armed_us_before_instant": _WHOLE_OR_NONE,
        "clock_error_us": _WHOLE_OR_NONE,
    },
    "required": ["node_id", "hostname", "standing", "reason"],
}
_DRAINED = answer_of(
    {
        "upstream": {**_TEXT, "description": "Its id."},
        "in_flight": _WHOLE_OR_NONE,
        "waiting_for": _TEXTS,
        "still_used_by": _TEXTS,
        "by_node": {"type": "object", "description": "Open requests by the id of each node that counted since."},
        "safe_to_tear_down": _YES,
    }
)
_ROLLOUT: EntityBody = {
    "type": "object",
    "properties": {
        "rollout": _NUMBER_OF,
        "state": {**_TEXT, "description": f"One of {', '.join(each.value for each in State)}."},
        "reason": {**_TEXT, "description": "Why it ended so; empty = it went well."},
        "author": _TEXT,
        "why": _TEXT,
        "created_at": {"type": "number"},
        "took_s": _OR_NONE,
        "prepared_s": _OR_NONE,
        "base_version": _WHOLE,
        "version": _WHOLE_OR_NONE,
        "skew_us": {**_WHOLE_OR_NONE, "description": "From the first node's activation to the last one's."},
        "elsewhere": {**_TEXTS, "description": "Nodes of other control planes: they take the version as it comes."},
        "coordinator": _TEXT,
        "fence": _WHOLE,
        "policy": {"type": "object", "properties": POLICY_FIELDS},
        "changes": {
            "type": "array",
            "items": answer_of(
                {"operation": _TEXT, "collection": _TEXT, "id": _TEXT, "name": {"type": ["string", "null"]}}
            ),
        },
        "drained": {"type": "array", "items": _DRAINED},
        "safe_to_tear_down": _YES,
        "nodes": {"type": "array", "items": _NODE},
    },
    "required": ["rollout", "state", "reason", "version", "changes", "nodes"],
}
_ROWS: list[JsonValue] = ["data"]

LIST = Operation(
    summary="List rollouts, newest first",
    parameters=(FEW, BEFORE),
    answers={200: {"type": "object", "properties": {"data": {"type": "array", "items": _ROLLOUT}}, "required": _ROWS}},
)
CREATE = Operation(
    summary="Bring changes to the whole fleet at one instant, or to nobody",
    body={JSON: _ASKED},
    parameters=(WAIT,),
    answers={200: _ROLLOUT, 202: _ROLLOUT},
)
GET = Operation(summary="Show one rollout with what each node said", answers={200: _ROLLOUT})
ABORT = replace(GET, summary="End a rollout that is not decided: nothing has changed")
