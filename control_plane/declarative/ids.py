"""The ids of entities that a file gives none: the same for the same file, as in Kong.

A UUID version 5 in two steps: a namespace for each collection, and in it the entity's key. So a file loaded into two
gateways makes the same entities, and loading it again after a reset makes them again. Entities without a key get
random ids.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Mapping

from control_plane.entities.schema import Schema, foreign_id
from control_plane.entities.types import EntityBody, JsonValue

_KONG = uuid.UUID("fd02801f-0957-4a15-a55a-c8d9606f30b5")
_PLUGIN_SCOPES = ("route", "service", "consumer")
_WORKSPACE = "*"  # stands for the default one


def deterministic_id(schema: Schema, body: EntityBody, references: Mapping[str, JsonValue]) -> str | None:
    """The id that follows from a file's entity; `references` are its foreign fields by id. None = it has no key."""
    key = _key(schema, body, references)
    if key is None:
        return None
    return str(uuid.uuid5(_namespace(schema.collection), key))


@functools.cache  # of the few collections
def _namespace(collection: str) -> uuid.UUID:
    return uuid.uuid5(_KONG, collection)


def _key(schema: Schema, body: EntityBody, references: Mapping[str, JsonValue]) -> str | None:
    collection = schema.collection
    if collection == "plugins":
        name = body.get("name")
        scopes = [foreign_id(references.get(scope)) or "" for scope in _PLUGIN_SCOPES]
        return ":".join(["plugins", _WORKSPACE, name, *scopes]) if isinstance(name, str) else None
    own = body.get(schema.endpoint_key) if schema.endpoint_key is not None else None
    if not isinstance(own, str) or not own:
        return None
    if (schema.endpoint_key,) in schema.unique_keys:
        if "consumer" in schema.foreign_fields:
            return f"{collection}:{_WORKSPACE}:{own}"  # a credential: unique for all consumers
        return own
    parents = [foreign_id(references.get(field)) for field in schema.foreign_fields]
    return ":".join([collection, _WORKSPACE, *(parent or "" for parent in parents), own])
