"""One unit of work over a SQLAlchemy connection: the statements, shared by all dialects.

Runs in the transaction that `sqlite.py` opened. It remembers what changed, so that the version can keep it: several
changes of one entity in a unit count as one, from what was there before to what is there after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, insert, select, tuple_, update

from control_plane.entities.errors import (
    ForeignKeyViolation,
    PrimaryKeyViolation,
    ReferencedByOthers,
    UniqueViolation,
)
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.schema import OnDelete, Schema, foreign_id
from control_plane.entities.types import EntityBody
from control_plane.store.contract import Change, Operation, TagFilter
from control_plane.store.tables import ENTITY, ENTITY_TAG, HEAD, REFERENCE, UNIQUE_KEY

PORTION = 1000
"""Rows that `each` reads at a time."""

_GET = select(ENTITY.c.body).where(
    ENTITY.c.collection == bindparam("collection"), ENTITY.c.id == bindparam("entity_id")
)
_FIND = select(UNIQUE_KEY.c.id).where(
    UNIQUE_KEY.c.collection == bindparam("collection"),
    UNIQUE_KEY.c.field == bindparam("field"),
    UNIQUE_KEY.c.value == bindparam("value"),
)
_HEAD = select(HEAD.c.version).where(HEAD.c.one == 1)
_CHILDREN = (
    select(REFERENCE.c.collection, REFERENCE.c.id, REFERENCE.c.field)
    .where(REFERENCE.c.parent_collection == bindparam("collection"), REFERENCE.c.parent_id == bindparam("entity_id"))
    .order_by(REFERENCE.c.collection, REFERENCE.c.id)
)
_UPDATE = (
    update(ENTITY)
    .where(ENTITY.c.collection == bindparam("in_collection"), ENTITY.c.id == bindparam("with_id"))
    .values(body=bindparam("new_body"))
)
_DELETE_ENTITY = delete(ENTITY).where(
    ENTITY.c.collection == bindparam("collection"), ENTITY.c.id == bindparam("entity_id")
)
_DELETE_KEYS = delete(UNIQUE_KEY).where(
    UNIQUE_KEY.c.collection == bindparam("collection"), UNIQUE_KEY.c.id == bindparam("entity_id")
)
_DELETE_REFERENCES = delete(REFERENCE).where(
    REFERENCE.c.collection == bindparam("collection"), REFERENCE.c.id == bindparam("entity_id")
)
_DELETE_TAGS = delete(ENTITY_TAG).where(
    ENTITY_TAG.c.collection == bindparam("collection"), ENTITY_TAG.c.id == bindparam("entity_id")
)


def encode(body: EntityBody) -> str:
    """Return a body as it is stored."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def decode(text: str) -> EntityBody:
    """Return a stored body."""
    body: EntityBody = json.loads(text)
    return body


@dataclass(frozen=True, slots=True)
class _Side:
    """The narrow rows that stand beside one entity."""

    keys: Mapping[str, str]
    references: Mapping[str, tuple[str, str]]
    tags: frozenset[str]

    @classmethod
    def of(cls, schema: Schema, body: EntityBody) -> _Side:
        keys = {}
        for parts in schema.unique_keys:
            values = [foreign_id(body.get(part)) if part in schema.foreign_fields else body.get(part) for part in parts]
            if all(value is not None for value in values):
                keys[",".join(parts)] = _key_value([str(value) for value in values])
        references = {}
        for field, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body.get(field))
            if parent_id is not None:
                references[field] = (foreign.collection, parent_id)
        tags = body.get("tags")
        return cls(keys, references, frozenset(str(tag) for tag in tags) if isinstance(tags, list) else frozenset())


def _key_value(values: Sequence[str]) -> str:
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


class SqlTransaction:
    """Keeps `contract.Transaction` over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._changed: dict[tuple[str, str], tuple[EntityBody | None, EntityBody | None]] = {}

    def changes(self) -> tuple[Change, ...]:
        """Return what changed so far, in the order in which entities were first touched."""
        found = []
        for (collection, entity_id), (before, after) in self._changed.items():
            if before is None and after is None:
                continue
            operation = Operation.CREATE if before is None else Operation.DELETE if after is None else Operation.UPDATE
            found.append(Change(operation, collection, entity_id, before, after))
        return tuple(found)

    def head(self) -> int:
        version: int = self._connection.scalars(_HEAD).one()
        return version

    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        body = self._connection.scalar(_GET, {"collection": collection, "entity_id": entity_id.lower()})
        return None if body is None else decode(body)

    def find(self, collection: str, values: Mapping[str, str]) -> EntityBody | None:
        for parts in SCHEMAS[collection].unique_keys:
            if set(parts) == set(values):
                entity_id = self._owner(collection, ",".join(parts), _key_value([values[part] for part in parts]))
                return None if entity_id is None else self.get(collection, entity_id)
        raise ValueError(f"{sorted(values)} is no unique key of {collection}")

    def page(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[EntityBody]:
        statement = select(ENTITY.c.body).where(ENTITY.c.collection == collection)
        if after:
            statement = statement.where(ENTITY.c.id > after)
        if parent is not None:
            field, parent_id = parent
            # Equality on the parent's collection too, since the index begins with it.
            of_parent = select(REFERENCE.c.id).where(
                REFERENCE.c.parent_collection == SCHEMAS[collection].foreign_fields[field].collection,
                REFERENCE.c.parent_id == parent_id,
                REFERENCE.c.collection == collection,
                REFERENCE.c.field == field,
            )
            statement = statement.where(ENTITY.c.id.in_(of_parent))
        if tags is not None:
            for group in [(tag,) for tag in tags.tags] if tags.match_all else [tags.tags]:
                tagged = select(ENTITY_TAG.c.id).where(
                    ENTITY_TAG.c.collection == collection, ENTITY_TAG.c.tag.in_(group)
                )
                statement = statement.where(ENTITY.c.id.in_(tagged))
        rows = self._connection.scalars(statement.order_by(ENTITY.c.id).limit(size))
        return [decode(body) for body in rows]

    def each(self, collection: str) -> Iterator[EntityBody]:
        after = ""
        while portion := self.page(collection, size=PORTION, after=after):
            yield from portion
            after = str(portion[-1]["id"])

    def tagged(
        self, *, tag: str | None, size: int, after: tuple[str, str, str] | None
    ) -> Sequence[tuple[str, str, str]]:
        columns = (ENTITY_TAG.c.id, ENTITY_TAG.c.tag, ENTITY_TAG.c.collection)
        statement = select(*columns)
        if tag is not None:
            statement = statement.where(ENTITY_TAG.c.tag == tag)
        if after is not None:
            statement = statement.where(tuple_(*columns) > after)
        rows = self._connection.execute(statement.order_by(*columns).limit(size))
        return [(row.id, row.tag, row.collection) for row in rows]

    def insert(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        if self._connection.scalar(_GET, {"collection": collection, "entity_id": entity_id}) is not None:
            raise PrimaryKeyViolation(entity_id)
        side = _Side.of(SCHEMAS[collection], body)
        self._check(collection, entity_id, body, side.keys, side.references)
        row = {"collection": collection, "id": entity_id, "body": encode(body)}
        self._connection.execute(insert(ENTITY), row)
        self._add_side(collection, entity_id, side)
        self._remember(collection, entity_id, None, body)

    def replace(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        before = self.get(collection, entity_id)
        assert before is not None, f"{collection} {entity_id} is replaced but does not exist"
        schema = SCHEMAS[collection]
        old, new = _Side.of(schema, before), _Side.of(schema, body)
        keys = {field: value for field, value in new.keys.items() if old.keys.get(field) != value}
        references = {field: parent for field, parent in new.references.items() if old.references.get(field) != parent}
        self._check(collection, entity_id, body, keys, references)
        self._connection.execute(_UPDATE, {"in_collection": collection, "with_id": entity_id, "new_body": encode(body)})
        if old != new:
            self._drop_side(collection, entity_id)
            self._add_side(collection, entity_id, new)
        self._remember(collection, entity_id, before, body)

    def delete(self, collection: str, entity_id: str) -> bool:
        entity_id = entity_id.lower()
        before = self.get(collection, entity_id)
        if before is None:
            return False
        rows = self._connection.execute(_CHILDREN, {"collection": collection, "entity_id": entity_id})
        children = [(row.collection, row.id, row.field) for row in rows]
        for child, _, field in children:
            if SCHEMAS[child].foreign_fields[field].on_delete is OnDelete.RESTRICT:
                raise ReferencedByOthers(collection, child)
        for child, child_id, _ in children:
            self.delete(child, child_id)
        self._drop_side(collection, entity_id)
        self._connection.execute(_DELETE_ENTITY, {"collection": collection, "entity_id": entity_id})
        self._remember(collection, entity_id, before, None)
        return True

    def _owner(self, collection: str, field: str, value: str) -> str | None:
        found: str | None = self._connection.scalar(_FIND, {"collection": collection, "field": field, "value": value})
        return found

    def _check(
        self,
        collection: str,
        entity_id: str,
        body: EntityBody,
        keys: Mapping[str, str],
        references: Mapping[str, tuple[str, str]],
    ) -> None:
        """Tell a broken constraint in Kong's words; the constraints themselves hold against everyone else."""
        for field, (parent_collection, parent_id) in references.items():
            if self._connection.scalar(_GET, {"collection": parent_collection, "entity_id": parent_id}) is None:
                raise ForeignKeyViolation(field, parent_collection, {"id": parent_id})
        for field, value in keys.items():
            owner = self._owner(collection, field, value)
            if owner is not None and owner != entity_id:
                raise UniqueViolation({part: body[part] for part in field.split(",")})

    def _add_side(self, collection: str, entity_id: str, side: _Side) -> None:
        owner = {"collection": collection, "id": entity_id}
        if side.keys:
            rows = [{**owner, "field": field, "value": value} for field, value in side.keys.items()]
            self._connection.execute(insert(UNIQUE_KEY), rows)
        if side.references:
            self._connection.execute(
                insert(REFERENCE),
                [
                    {**owner, "field": field, "parent_collection": parent, "parent_id": parent_id}
                    for field, (parent, parent_id) in side.references.items()
                ],
            )
        if side.tags:
            self._connection.execute(insert(ENTITY_TAG), [{**owner, "tag": tag} for tag in sorted(side.tags)])

    def _drop_side(self, collection: str, entity_id: str) -> None:
        owner = {"collection": collection, "entity_id": entity_id}
        for statement in (_DELETE_KEYS, _DELETE_REFERENCES, _DELETE_TAGS):
            self._connection.execute(statement, owner)

    def _remember(self, collection: str, entity_id: str, before: EntityBody | None, after: EntityBody | None) -> None:
        first, _ = self._changed.get((collection, entity_id), (before, None))
        self._changed[(collection, entity_id)] = (first, after)
