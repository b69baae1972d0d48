"""The OpenAPI 3.1 document at `/openapi.json`: every path and every kind of entity, made of what serves them.

Nothing is written by hand that could come to differ: entities come from their schemas, paths and methods from the table
that answers them, and what a path takes and gives from where it is mounted (`operations.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.admin.messages import Answer, Call, json_answer
from control_plane.admin.operations import (
    ANYTHING,
    CHANGE_COUNTS,
    ENTITY_CHANGE,
    JSON,
    VERSION_CHANGE,
    Operation,
    Parameter,
    component,
    reference,
)
from control_plane.admin.table import PathTable
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue

_PLACE = re.compile(r"\{([^}]*)\}")

_WAITING = (
    Parameter(
        name="Prefer",
        schema={"type": "string", "pattern": "^wait=[0-9]{1,3}$"},
        description="`wait=SECONDS`: answer when every live node runs this write, or 202 when the time is over.",
        where="header",
    ),
    Parameter(
        name="X-Pointsman-Author",
        schema={"type": "string", "maxLength": 200},
        description="Who is writing, for the history; percent-encoded.",
        where="header",
    ),
    Parameter(
        name="X-Pointsman-Reason",
        schema={"type": "string", "maxLength": 1000},
        description="Why, for the history; percent-encoded.",
        where="header",
    ),
    Parameter(
        name="Idempotency-Key",
        schema={"type": "string", "pattern": "^[!-~]{1,255}$"},
        description="A request that is sent again with the same key gets the first one's answer and does nothing more.",
        where="header",
    ),
    Parameter(
        name="dry_run",
        schema={"type": "integer", "enum": [0, 1]},
        description="1 = do everything but the write, and answer 200 with what it would have changed.",
    ),
)

_GUARDING = (
    Parameter(
        name="If-Match",
        schema={"type": "string", "pattern": '^([*]|"[!#-~]*")$'},
        description="The `ETag` of what the write is meant for; 412 with what others did, if it is no longer that.",
        where="header",
    ),
)

_ERROR: EntityBody = {
    "type": "object",
    "description": "What is wrong. Errors about entities have a code, its name, and the fields at fault.",
    "properties": {
        "message": {"type": ["string", "null"]},
        "code": {"type": ["integer", "string"], "description": "A number as Kong has it; of switches a word."},
        "name": {"type": "string"},
        "fields": {"type": "object"},
        "options": {"type": "object"},
    },
    "required": ["message"],
}

_REHEARSED: EntityBody = {
    "type": "object",
    "description": "What a write would answer and change; nothing was written. Beside it stands what it would return.",
    "properties": {
        "dry_run": {"const": True},
        "status": {"type": "integer"},
        **CHANGE_COUNTS,
        "changes": {
            "type": "array",
            "items": {"anyOf": [reference("EntityChange"), reference("VersionChange")]},
            "description": "Of a rollback in the form of the history.",
        },
    },
    "required": ["dry_run", "status", *CHANGE_COUNTS],
}

_NOT_YET_EVERYWHERE: EntityBody = {
    "type": "object",
    "description": "The write is done and kept, but not every live node has said that it runs it.",
    "properties": {
        "version": {"type": "integer", "minimum": 0},
        "nodes": {
            "type": "object",
            "properties": {
                "total": {"type": "integer", "minimum": 0},
                "applied": {"type": "integer", "minimum": 0},
                "rejected": {"type": "array", "items": {"type": "string"}},
                "lagging": {"type": "array", "items": {"type": "object"}},
            },
            "required": ["total", "applied", "rejected", "lagging"],
        },
        "waited_s": {"type": "number", "minimum": 0},
    },
    "required": ["version", "nodes", "waited_s"],
}


def mount(table: PathTable, schemas: Mapping[str, Schema], *, version: str) -> None:
    """Adds `/openapi.json`. The document is made when it is first asked for, after all paths are there."""
    about = {"GET": Operation(summary="Describe the Admin API: this document", answers={200: ANYTHING})}
    table.add("/openapi.json", {"GET": _Described(table, schemas, version).get}, about=about)


@dataclass(slots=True)
class _Described:
    table: PathTable
    schemas: Mapping[str, Schema]
    version: str
    _made: Answer | None = field(default=None, init=False)

    async def get(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        if self._made is None:
            self._made = json_answer(200, document(self.table, self.schemas, version=self.version))
        return Answer(200, self._made.body)


def document(table: PathTable, schemas: Mapping[str, Schema], *, version: str) -> EntityBody:
    """Return the OpenAPI document of these paths and entities."""
    paths: dict[str, JsonValue] = {}
    for template, method, operation in table.operations():
        path, parameters = _path(template)
        item = paths.setdefault(path, {"parameters": parameters} if parameters else {})
        assert isinstance(item, dict)
        item[method.lower()] = _operation(path, method, operation)
    components: dict[str, JsonValue] = {"Error": _ERROR, "NotYetEverywhere": _NOT_YET_EVERYWHERE}
    components |= {"Rehearsed": _REHEARSED, "EntityChange": ENTITY_CHANGE, "VersionChange": VERSION_CHANGE}
    for schema in schemas.values():
        name = component(schema)
        components[name] = schema.answer_schema()
        components[f"{name}Write"] = schema.json_schema()
        components[f"{name}Patch"] = schema.patch_schema()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "pointsman Admin API",
            "version": version,
            "description": "Kong's Admin API for the entities that are here, and our own paths beside it. HEAD goes "
            "wherever GET does, and OPTIONS everywhere.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [],
        "paths": paths,
        "components": {"schemas": components},
    }


def _path(template: str) -> tuple[str, list[JsonValue]]:
    """The path with a name of its own for each variable segment, and these as parameters."""
    taken: list[str] = []

    def named(found: re.Match[str]) -> str:
        name = found[1]
        while name in taken:
            name += "_"
        taken.append(name)
        return "{" + name + "}"

    path = _PLACE.sub(named, template)
    parameters: list[JsonValue] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in taken
    ]
    return path, parameters


def _operation(path: str, method: str, operation: Operation) -> EntityBody:
    segments = [segment for segment in path.strip("/").split("/") if segment]
    name = "_".join(re.sub(r"[^A-Za-z0-9]+", "_", segment.strip("{}")) for segment in segments) or "root"
    described: EntityBody = {
        "operationId": f"{method.lower()}_{name}" + ("_one" if path.endswith("}") else ""),
        "summary": operation.summary or f"{method} {path}",
        "tags": [segments[0] if segments else "information"],
    }
    parameters = [
        *operation.parameters,
        *(_WAITING if operation.writes else ()),
        *(_GUARDING if operation.guarded else ()),
    ]
    if parameters:
        described["parameters"] = [
            {"name": one.name, "in": one.where, "schema": one.schema, "description": one.description}
            for one in parameters
        ]
    if operation.body:
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {content_type: {"schema": schema} for content_type, schema in operation.body.items()},
        }
    if not operation.described:
        described["responses"] = {"default": {"description": "See the reference"}}
        return described
    answers: EntityBody = {}
    expected = dict(operation.answers)
    if operation.writes:
        done = expected.get(200)
        rehearsed = reference("Rehearsed")
        expected[200] = rehearsed if done is None else {"anyOf": [done, rehearsed]}
    for status, schema in sorted(expected.items()):
        answer: EntityBody = {"description": _MEANINGS.get(status, "Done")}
        if schema is not None:
            answer["content"] = {operation.answer_type: {"schema": schema}}
        answers[str(status)] = answer
    if operation.writes:
        answers["202"] = {
            "description": "Written; not every live node runs it yet",
            "content": {JSON: {"schema": reference("NotYetEverywhere")}},
        }
    answers["default"] = {"description": "Refused", "content": {JSON: {"schema": reference("Error")}}}
    described["responses"] = answers
    return described


_MEANINGS: Mapping[int, str] = {200: "Here it is", 201: "Created", 204: "Done; there is nothing to say"}
