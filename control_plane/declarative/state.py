"""What the store holds, as a plan asks for it.

Two ways to look, one question: a `sync` has to see everything anyway and loads each collection once; a small `apply`
over a big store asks the store for the few entities it names. Both see the store as it was before the plan.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.schema import Schema, foreign_id
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Transaction

Key = tuple[str, ...]
"""The values of a unique key, in the order of its fields; foreign parts by id."""


class Current(Protocol):
    """Lookups in the store's present state."""

    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        """The entity with this id."""

    def find(self, collection: str, fields: Sequence[str], key: Key) -> EntityBody | None:
        """The entity with this unique key."""

    def each(self, collection: str) -> Mapping[str, EntityBody]:
        """All entities of a collection by id, in ascending order of ids."""


class LoadedState:
    """Every collection read once; lookups by key through an index made at the first question."""

    def __init__(self, tx: Transaction) -> None:
        self._by_id: dict[str, dict[str, EntityBody]] = {
            collection: {str(body["id"]): body for body in tx.each(collection)} for collection in SCHEMAS
        }
        self._by_key: dict[tuple[str, tuple[str, ...]], dict[Key, EntityBody]] = {}

    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        return self._by_id[collection].get(entity_id) if collection in self._by_id else None

    def find(self, collection: str, fields: Sequence[str], key: Key) -> EntityBody | None:
        index = self._by_key.get((collection, tuple(fields)))
        if index is None:
            index = {}
            for body in self._by_id[collection].values():
                held = key_of(body, fields)
                if held is not None:
                    index[held] = body
            self._by_key[collection, tuple(fields)] = index
        return index.get(key)

    def each(self, collection: str) -> Mapping[str, EntityBody]:
        """All entities of a collection by id, in ascending order of ids."""
        return self._by_id[collection]


class AskedState:
    """Each question goes to the store."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        return self._tx.get(collection, entity_id) if collection in SCHEMAS else None

    def find(self, collection: str, fields: Sequence[str], key: Key) -> EntityBody | None:
        return self._tx.find(collection, dict(zip(fields, key, strict=True)))

    def each(self, collection: str) -> Mapping[str, EntityBody]:
        return {str(body["id"]): body for body in self._tx.each(collection)}


def key_of(body: EntityBody, fields: Sequence[str]) -> Key | None:
    """An entity's values of a unique key; None when a part is unset, since unset parts collide with nothing."""
    parts = []
    for name in fields:
        part = foreign_id(body.get(name)) if isinstance(body.get(name), dict) else body.get(name)
        if not isinstance(part, str):
            return None
        parts.append(part)
    return tuple(parts)


def name_of(schema: Schema, body: EntityBody) -> str:
    """An entity's name, or what stands for one in its collection (a target's address); empty if it has none."""
    value = body.get(schema.endpoint_key) if schema.endpoint_key is not None else None
    return value if isinstance(value, str) else ""


def shown_name(schema: Schema, body: EntityBody) -> str:
    """`name_of`, but empty where the name is itself a secret, like a consumer's key."""
    return "" if schema.endpoint_key in schema.secrets else name_of(schema, body)


def has_tags(body: EntityBody, tags: Iterable[str]) -> bool:
    """Whether an entity carries all of `tags`; true of every entity when there are none to carry."""
    held = body.get("tags")
    return all(isinstance(held, list) and tag in held for tag in tags)
