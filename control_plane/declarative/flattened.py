"""A refused file in Kong's two shapes: a tree like the file, and a flat list with one entry an entity.

The tree has an error where the file has the value, with null for list elements that are right. The flat list
(`flatten_errors=1`) repeats each entity as it was sent, without its children, so that whoever made the file from other
sources can tell which of them is meant. What can be told of an entity is then left out of the tree.
"""

from __future__ import annotations

import re

from control_plane.declarative.document import Document, FileEntity
from control_plane.declarative.ids import deterministic_id
from control_plane.declarative.problems import FileRefused, Problem
from control_plane.entities.errors import ENTITY, literal
from control_plane.entities.fields import is_uuid
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue

_STEP = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def kong_errors(refused: FileRefused, document: Document | None, *, flatten: bool) -> EntityBody:
    """Kong's error body for a file that was refused; `document` is None for a text that could not be read."""
    entities = {} if document is None else {at.path: at for held in document.entities.values() for at in held}
    flat: dict[str, list[JsonValue]] = {}
    tree: EntityBody = {}
    for problem in refused.problems:
        if flatten and problem.path in entities:
            flat.setdefault(problem.path, []).append(_error(problem))
        elif not problem.path and not problem.field:
            tree["error"] = f"failed parsing declarative configuration: {problem.message}"
        else:
            _put(tree, _steps(problem), problem.message)
    body: EntityBody = {
        "code": refused.code,
        "name": refused.name,
        "message": f"declarative config is invalid: {literal(tree)}",
        "fields": tree,
    }
    if flatten:
        body["flattened_errors"] = [_entry(entities[path], errors) for path, errors in flat.items()]
    return body


def _entry(entity: FileEntity, errors: list[JsonValue]) -> EntityBody:
    schema = SCHEMAS[entity.collection]
    shown: EntityBody = dict(entity.body)
    if entity.parent is not None:
        parent_id = _id_of(entity.parent)
        if parent_id is not None:
            shown[entity.parent_field] = {"id": parent_id}
    entry: EntityBody = {"entity_type": schema.singular, "entity": shown, "errors": errors}
    entity_id, name, tags = entity.body.get("id"), entity.body.get("name"), entity.body.get("tags")
    if isinstance(entity_id, str) and is_uuid(entity_id):
        entry["entity_id"] = entity_id
    if isinstance(name, str) and name:
        entry["entity_name"] = name
    if isinstance(tags, list) and all(isinstance(tag, str) for tag in tags):
        entry["entity_tags"] = tags
    return entry


def _id_of(entity: FileEntity) -> str | None:
    given = entity.body.get("id")
    if isinstance(given, str) and is_uuid(given):
        return given.lower()
    above: EntityBody = {} if entity.parent is None else {entity.parent_field: {"id": _id_of(entity.parent)}}
    return deterministic_id(SCHEMAS[entity.collection], entity.body, above)


def _error(problem: Problem) -> EntityBody:
    if not problem.field:
        return {"type": "entity", "message": problem.message}
    steps = [step if isinstance(step, str) else str(step + 1) for step in _parsed(problem.field)]
    return {"type": "field", "field": ".".join(steps), "message": problem.message}


def _steps(problem: Problem) -> list[str | int]:
    steps = _parsed(problem.path) + _parsed(problem.field)
    return steps if problem.field or not problem.entity_type else [*steps, ENTITY]


def _parsed(path: str) -> list[str | int]:
    return [name or int(position) for name, position in _STEP.findall(path)]


def _put(tree: JsonValue, steps: list[str | int], message: str) -> None:
    """Puts a message at its place, making the way there."""
    for at, step in enumerate(steps):
        last = at == len(steps) - 1
        empty: JsonValue = [] if not last and isinstance(steps[at + 1], int) else {}
        if isinstance(tree, dict):
            name = str(step)
            if last and name == ENTITY:
                held = tree.setdefault(ENTITY, [])
                if isinstance(held, list):
                    held.append(message)
                return
            if last:
                tree.setdefault(name, message)
                return
            tree = tree.setdefault(name, empty)
        elif isinstance(tree, list) and isinstance(step, int):
            tree.extend([None] * (step + 1 - len(tree)))
            if last:
                tree[step] = tree[step] if tree[step] is not None else message
                return
            if tree[step] is None:
                tree[step] = empty
            tree = tree[step]
        else:
            return  # a message stands there already, and says enough
