"""Kong's write semantics over one transaction: what create, upsert, update and delete mean for any collection.

The Admin API and the declarative files both write through here, so that a rule about writing stands in one place. A
`key` is an id or, for collections that have one, the text of their endpoint key; children may be bound to a parent,
which then overrides what a body says about it. Errors are those of `control_plane/entities/errors.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, assert_never

from control_plane.entities.errors import InvalidPrimaryKey, NotFound
from control_plane.entities.fields import is_uuid
from control_plane.entities.plugin import PLUGIN, check_protocols
from control_plane.entities.registry import STORED
from control_plane.entities.schema import Resolve, Schema, foreign_id
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Operation, Transaction

ROUTES_ASKED_MAX = 1_000
"""Routes of a service that are asked whether a plugin's protocols can ever come; beyond them it is taken to fit."""


@dataclass(frozen=True, slots=True)
class Parent:
    """The entity below which a child is addressed: the child's foreign field, and what it points to."""

    field: str
    collection: str
    id: str


class Planned(Protocol):
    """A change of one entity that was planned before; `after` is None on delete."""

    @property
    def operation(self) -> Operation: ...
    @property
    def collection(self) -> str: ...
    @property
    def id(self) -> str: ...
    @property
    def after(self) -> EntityBody | None: ...


def carry_out(tx: Transaction, change: Planned) -> None:
    """Write what was planned, to the letter."""
    match change.operation:
        case Operation.CREATE:
            assert change.after is not None
            tx.insert(change.collection, change.after)
        case Operation.UPDATE:
            assert change.after is not None
            tx.replace(change.collection, change.after)
        case Operation.DELETE:
            tx.delete(change.collection, change.id)
        case _:
            assert_never(change.operation)


def lookup(tx: Transaction, collection: str, key: str, parent: Parent | None = None) -> EntityBody | None:
    """Find by id or endpoint key; a child of another parent is not found.

    Raises InvalidPrimaryKey for a key that is no UUID where there is no other key, InvalidUnique for one that could
    never be one.
    """
    found = tx.get(collection, key.lower()) if is_uuid(key) else _by_endpoint_key(tx, STORED[collection], key, parent)
    if found is not None and parent is not None and foreign_id(found.get(parent.field)) != parent.id:
        return None
    return found


def create(
    tx: Transaction, collection: str, body: EntityBody, *, now: float, parent: Parent | None = None
) -> EntityBody:
    """Insert a new entity and return it."""
    schema = STORED[collection]
    made = schema.on_insert(_bound(body, parent), now=now, resolve=resolver(tx))
    _check_related(tx, collection, made)
    _make_room(tx, schema, made, now=now)
    tx.insert(collection, made)
    return made


def upsert(
    tx: Transaction, collection: str, key: str, body: EntityBody, *, now: float, parent: Parent | None = None
) -> EntityBody:
    """Put `body` in the place of the entity with that key, keeping its id, or create it.

    Nothing of the former entity is kept, not even the time of its creation. A child of another parent is moved under
    `parent`. Of targets this is `update`, as in Kong, and raises NotFound where there is none.
    """
    schema = STORED[collection]
    if schema.put_is_patch:
        return update(tx, collection, key, body, now=now, parent=parent)
    bound = _bound(body, parent)
    if is_uuid(key):
        entity_id: str | None = key.lower()
        current = tx.get(collection, key.lower())
    else:
        current = _by_endpoint_key(tx, schema, key, parent)
        assert schema.endpoint_key is not None, "a collection without endpoint key has raised by now"
        bound[schema.endpoint_key] = key
        entity_id = None
    if current is None:
        made = schema.on_insert(bound, now=now, resolve=resolver(tx), entity_id=entity_id)
        _check_related(tx, collection, made)
        _make_room(tx, schema, made, now=now)
        tx.insert(collection, made)
    else:
        made = schema.on_upsert(bound, now=now, resolve=resolver(tx), entity_id=str(current["id"]))
        _check_related(tx, collection, made)
        tx.replace(collection, made)
    return made


def update(
    tx: Transaction, collection: str, key: str, patch: EntityBody, *, now: float, parent: Parent | None = None
) -> EntityBody:
    """Merge `patch` into the entity with that key; raises NotFound where there is none.

    A foreign value in the patch may move the child to another parent.
    """
    schema = STORED[collection]
    current = lookup(tx, collection, key, parent)
    if current is None:
        raise NotFound({"id": key.lower()} if is_uuid(key) else schema.redacted({str(schema.endpoint_key): key}))
    made = schema.on_update(current, patch, now=now, resolve=resolver(tx))
    _check_related(tx, collection, made)
    tx.replace(collection, made)
    return made


def delete(tx: Transaction, collection: str, key: str, *, parent: Parent | None = None) -> bool:
    """Delete the entity with that key and what cascades from it; False where there is none."""
    current = lookup(tx, collection, key, parent)
    return current is not None and tx.delete(collection, str(current["id"]))


def resolver(tx: Transaction) -> Resolve:
    """Return how schemas find a foreign entity that is named by a unique key."""

    def resolve(collection: str, field: str, value: str) -> str | None:
        if collection not in STORED:
            return None
        found = tx.find(collection, {field: value})
        return None if found is None else str(found["id"])

    return resolve


def _check_related(tx: Transaction, collection: str, made: EntityBody) -> None:
    """Raises for what an entity of this kind may not be beside the entities that it refers to."""
    if collection != PLUGIN.collection:
        return
    route, service = foreign_id(made.get("route")), foreign_id(made.get("service"))
    if route is None and service is None:
        return
    routes = tx.page("routes", size=ROUTES_ASKED_MAX, parent=("service", service)) if service is not None else ()
    check_protocols(made, None if route is None else tx.get("routes", route), routes)


def _make_room(tx: Transaction, schema: Schema, made: EntityBody, *, now: float) -> None:
    """Removes an entity whose time is over and whose key the new one takes."""
    if not schema.lifetimes:
        return
    for parts in schema.unique_keys:
        values = {part: str(made[part]) for part in parts if isinstance(made[part], str)}
        holder = tx.find(schema.collection, values) if len(values) == len(parts) else None
        if holder is not None and schema.expired(holder, now=now):
            tx.delete(schema.collection, str(holder["id"]))


def _unique_below_parent(schema: Schema) -> bool:
    """Whether the endpoint key tells siblings apart and no more."""
    return schema.endpoint_key is not None and (schema.endpoint_key,) not in schema.unique_keys


def _by_endpoint_key(tx: Transaction, schema: Schema, key: str, parent: Parent | None) -> EntityBody | None:
    if schema.endpoint_key is None:
        raise InvalidPrimaryKey
    if _unique_below_parent(schema):
        # Kong compares with the rows of the parent and never validates: what could not be a key is just not found.
        if parent is None:
            raise InvalidPrimaryKey
        return tx.find(schema.collection, {parent.field: parent.id, schema.endpoint_key: key})
    schema.check_key(key)
    return tx.find(schema.collection, {schema.endpoint_key: key})


def _bound(body: EntityBody, parent: Parent | None) -> EntityBody:
    return {**body, parent.field: {"id": parent.id}} if parent is not None else dict(body)
