"""What a method of a path takes and gives, said where the path is mounted and read by `openapi.py`.

    table.add("/fleet/trace", {"POST": tracing.trace}, about={"POST": Operation(summary="...", body=..., answers=...)})

A path that says nothing still stands in the document, with its handler's docstring and any JSON as its answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field

from control_plane.admin.messages import Handler
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
YAML = "application/yaml"
TEXT = "text/plain"

ANYTHING: EntityBody = {}
"""The schema of every JSON value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One query argument or header."""

    name: str
    schema: EntityBody
    description: str
    where: str = "query"  # or header


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    summary: str
    body: Mapping[str, EntityBody] = field(default_factory=dict)  # content type -> schema; empty = takes none
    answers: Mapping[int, EntityBody | None] = field(default_factory=lambda: {200: ANYTHING})
    """Status -> schema of the JSON body, None = no body. Errors have one shape everywhere and are not listed."""
    parameters: tuple[Parameter, ...] = ()
    body_required: bool = True
    answer_type: str = JSON
    described: bool = True  # False = nobody said what it answers, so it may answer anything
    writes: bool = False  # a version comes of it, so it may wait for the nodes, be rehearsed and be sent again
    guarded: bool = False  # it leads to something with an entity tag, so it may be sent with If-Match


def reference(name: str) -> EntityBody:
    """A schema among the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}


SIZE = Parameter(
    name="size",
    schema={"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    description="Entities a page.",
)
OFFSET = Parameter(name="offset", schema={"type": "string"}, description="Where the page begins: the last one's word.")
TAGS = Parameter(
    name="tags", schema={"type": "string"}, description="`a,b` = carries both, `a/b` = carries one of them."
)
CUSTOM_ID = Parameter(
    name="custom_id", schema={"type": "string", "minLength": 1}, description="The one consumer with this custom_id."
)


FIELD_CHANGE: EntityBody = {
    "type": "object",
    "properties": {"field": {"type": "string"}, "before": {}, "after": {}},
    "required": ["field", "before", "after"],
    "additionalProperties": False,
}
_VERBS: EntityBody = {"enum": ["create", "update", "delete"]}
ENTITY_CHANGE: EntityBody = {
    "type": "object",
    "properties": {
        "operation": _VERBS,
        "entity_type": {"type": "string"},
        "id": {"type": "string"},
        "name": {"type": "string", "description": "A target's address; empty = it has none."},
        "parent": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "fields": {"type": "array", "items": FIELD_CHANGE, "description": "What an update changes."},
    },
    "required": ["operation", "entity_type", "id", "name", "parent", "fields"],
    "additionalProperties": False,
}
_COUNT: EntityBody = {"type": "integer", "minimum": 0}
CHANGE_COUNTS: EntityBody = {
    "created": _COUNT,
    "updated": _COUNT,
    "deleted": _COUNT,
    "changes": {"type": "array", "items": reference("EntityChange")},
    "omitted": {**_COUNT, "description": "Changes that are not listed."},
}
VERSION_CHANGE: EntityBody = {
    "type": "object",
    "properties": {
        "operation": _VERBS,
        "collection": {"type": "string"},
        "id": {"type": "string"},
        "name": {"type": "string"},
        "fields": {"type": "array", "items": FIELD_CHANGE},
        "before": {"type": ["object", "null"]},
        "after": {"type": ["object", "null"]},
    },
    "required": ["operation", "collection", "id", "name", "fields", "before", "after"],
    "additionalProperties": False,
}
VERSION_CHANGES: EntityBody = {
    "change_count": _COUNT,
    "changes": {"type": "array", "items": reference("VersionChange")},
    "changes_omitted": _COUNT,
}


def answer_of(properties: EntityBody) -> EntityBody:
    """The schema of an answer that has these properties, all of them, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def operation_of(handler: Handler) -> Operation:
    """What is known of a handler that nobody described."""
    first = (inspect.getdoc(handler) or "").split("\n\n")[0]
    return Operation(summary=" ".join(first.split()).rstrip("."), described=False)


def component(schema: Schema) -> str:
    """The name of a kind of entity among the components."""
    return "".join(part.capitalize() for part in schema.singular.split("_"))


def entity_bodies(schema: Schema, *, patch: bool = False) -> dict[str, EntityBody]:
    """The bodies in which an entity may be sent."""
    form = reference(f"{component(schema)}{'Patch' if patch else 'Write'}")
    return {JSON: form, FORM: form, MULTIPART: form}


def page_of(rows: EntityBody) -> EntityBody:
    """The schema of a page."""
    required: list[JsonValue] = ["data", "next"]
    return {
        "type": "object",
        "properties": {
            "data": {"type": "array", "items": rows},
            "next": {"type": ["string", "null"], "description": "The next page's path; null = this is the last."},
            "offset": {"type": "string", "description": "Absent on the last page."},
        },
        "required": required,
    }


def about_collection(schema: Schema, *, below: Schema | None = None) -> dict[str, Operation]:
    """A collection, or a parent's part of it."""
    of = f" of one {_words(below)}" if below is not None else ""
    entity = reference(component(schema))
    parameters = (SIZE, OFFSET, TAGS, CUSTOM_ID) if schema.collection == "consumers" else (SIZE, OFFSET, TAGS)
    return {
        "GET": Operation(
            summary=f"List the {_words(schema)}s{of}", parameters=parameters, answers={200: page_of(entity)}
        ),
        "POST": Operation(
            summary=f"Create {_article(schema)}{of}", body=entity_bodies(schema), answers={201: entity}, writes=True
        ),
    }


def about_entity(schema: Schema, *, below: Schema | None = None) -> dict[str, Operation]:
    """One entity, flat or below its parent."""
    of = f" of one {_words(below)}" if below is not None else ""
    return _entity(schema, f"the {_words(schema)}{of}") | {
        "DELETE": Operation(summary=f"Delete the {_words(schema)}{of}", answers={204: None}, writes=True, guarded=True)
    }


def about_parent(parent: Schema, field_name: str) -> dict[str, Operation]:
    """The entity that a foreign field points to."""
    return _entity(parent, f"the {_words(parent)} that `{field_name}` points to") | {
        "DELETE": Operation(summary="Never deletes; answers 405 or 404", answers={})
    }


def _entity(schema: Schema, what: str) -> dict[str, Operation]:
    entity = reference(component(schema))
    return {
        "GET": Operation(summary=f"Show {what}", answers={200: entity}),
        "PUT": Operation(
            summary=f"Replace {what}, or create it",
            body=entity_bodies(schema),
            answers={200: entity},
            writes=True,
            guarded=True,
        ),
        "PATCH": Operation(
            summary=f"Change fields of {what}",
            body=entity_bodies(schema, patch=True),
            answers={200: entity},
            writes=True,
            guarded=True,
        ),
    }


def _words(schema: Schema) -> str:
    return schema.singular.replace("_", " ")


def _article(schema: Schema) -> str:
    words = _words(schema)
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
