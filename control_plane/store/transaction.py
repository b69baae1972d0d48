"""One unit of work over a SQLAlchemy connection: the statements, shared by all dialects.

Runs in the transaction that the store opened. It remembers what changed, so that the version can keep it: several
changes of one entity in a unit count as one, from what was there before to what is there after.

Constraints are tried, not asked about first: an insert that does nothing on a conflict tells by its row count, costs
one statement, leaves the transaction usable in both dialects, and cannot be overtaken by another writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Select, bindparam, delete, exists, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from control_plane.entities.errors import (
    ForeignKeyViolation,
    PrimaryKeyViolation,
    ReferencedByOthers,
    UniqueViolation,
)
from control_plane.entities.registry import STORED
from control_plane.entities.schema import OnDelete, Schema, foreign_id
from control_plane.entities.types import EntityBody
from control_plane.store import rollout_records, seals
from control_plane.store.contract import (
    Change,
    Identities,
    Lease,
    Operation,
    Records,
    RolloutRecord,
    TagFilter,
    Transaction,
)
from control_plane.store.identities import SqlIdentities
from control_plane.store.sealing import SECRETS, Codec
from control_plane.store.statements import Prepared
from control_plane.store.tables import ENTITY, ENTITY_TAG, HEAD, REFERENCE, UNIQUE_KEY, AnyText

PORTION = 1_000
"""Rows read at a time where a whole collection is asked for."""

_HEAD = Prepared(select(HEAD.c.version).where(HEAD.c.one == 1))
_GET = Prepared(
    select(ENTITY.c.body).where(ENTITY.c.collection == bindparam("of"), ENTITY.c.id == bindparam("with_id"))
)
_FIND = Prepared(
    select(ENTITY.c.body)
    .join(UNIQUE_KEY, (UNIQUE_KEY.c.collection == ENTITY.c.collection) & (UNIQUE_KEY.c.id == ENTITY.c.id))
    .where(
        UNIQUE_KEY.c.collection == bindparam("of"),
        UNIQUE_KEY.c.key == bindparam("by"),
        UNIQUE_KEY.c.value == bindparam("wanted"),
    )
)
_PAGE = Prepared(
    select(ENTITY.c.id, ENTITY.c.body)
    .where(ENTITY.c.collection == bindparam("of"), ENTITY.c.id > bindparam("behind"))
    .order_by(ENTITY.c.id)
    .limit(bindparam("size"))
)
_CHILDREN = Prepared(
    select(REFERENCE.c.collection, REFERENCE.c.id, REFERENCE.c.field)
    .where(REFERENCE.c.parent_collection == bindparam("of"), REFERENCE.c.parent_id == bindparam("with_id"))
    .order_by(REFERENCE.c.collection, REFERENCE.c.id)
)
_UPDATE = Prepared(
    update(ENTITY)
    .where(ENTITY.c.collection == bindparam("of"), ENTITY.c.id == bindparam("with_id"))
    .values(body=bindparam("new_body"))
)
_DELETE = Prepared(delete(ENTITY).where(ENTITY.c.collection == bindparam("of"), ENTITY.c.id == bindparam("with_id")))
_DELETE_KEY = Prepared(
    delete(UNIQUE_KEY).where(
        UNIQUE_KEY.c.collection == bindparam("of"),
        UNIQUE_KEY.c.key == bindparam("by"),
        UNIQUE_KEY.c.value == bindparam("held"),
    )
)
_DELETE_REFERENCE = Prepared(
    delete(REFERENCE).where(
        REFERENCE.c.collection == bindparam("of"),
        REFERENCE.c.id == bindparam("with_id"),
        REFERENCE.c.field == bindparam("by"),
    )
)
_DELETE_TAG = Prepared(
    delete(ENTITY_TAG).where(
        ENTITY_TAG.c.id == bindparam("with_id"),
        ENTITY_TAG.c.tag == bindparam("held"),
        ENTITY_TAG.c.collection == bindparam("of"),
    )
)
# Core has no portable form of ON CONFLICT; SQLite's compiler understands PostgreSQL's, as long as it has no target.
_ADD_ENTITY = Prepared(postgresql.insert(ENTITY).on_conflict_do_nothing())
_ADD_KEY = Prepared(postgresql.insert(UNIQUE_KEY).on_conflict_do_nothing())
_ADD_TAG = Prepared(postgresql.insert(ENTITY_TAG).on_conflict_do_nothing())
_ADD_ENTITIES = postgresql.insert(ENTITY).on_conflict_do_nothing().returning(ENTITY.c.id)
_ADD_KEYS = postgresql.insert(UNIQUE_KEY).on_conflict_do_nothing().returning(UNIQUE_KEY.c.id, UNIQUE_KEY.c.key)
_ADD_REFERENCES = Prepared(insert(REFERENCE))
_WHICH = select(ENTITY.c.id).where(
    ENTITY.c.collection == bindparam("of"), ENTITY.c.id.in_(bindparam("ids", expanding=True))
)
# The parent's row is the source of the values: no parent, no row.
_ADD_REFERENCE = Prepared(
    REFERENCE.insert().from_select(
        ["collection", "id", "field", "parent_collection", "parent_id"],
        select(
            bindparam("of", type_=AnyText),
            bindparam("with_id", type_=AnyText),
            bindparam("by", type_=AnyText),
            ENTITY.c.collection,
            ENTITY.c.id,
        ).where(ENTITY.c.collection == bindparam("parent"), ENTITY.c.id == bindparam("parent_id")),
    )
)


@dataclass(frozen=True, slots=True)
class _Side:
    """The narrow rows that stand beside one entity."""

    keys: Mapping[tuple[str, ...], str]
    references: Mapping[str, tuple[str, str]]
    tags: frozenset[str]

    @classmethod
    def of(cls, schema: Schema, body: EntityBody, codec: Codec) -> _Side:
        keys = {}
        for parts in schema.unique_keys:
            values = [foreign_id(body.get(part)) if part in schema.foreign_fields else body.get(part) for part in parts]
            if None not in values or parts in schema.nulls_count:  # elsewhere an unset part collides with nothing
                texts = ["" if value is None else str(value) for value in values]
                keys[parts] = codec.key_value(schema.collection, parts, texts)
        references = {}
        for field, foreign in schema.foreign_fields.items():
            parent_id = foreign_id(body.get(field))
            if parent_id is not None:
                references[field] = (foreign.collection, parent_id)
        tags = body.get("tags")
        return cls(keys, references, frozenset(str(tag) for tag in tags) if isinstance(tags, list) else frozenset())


_NO_SIDE = _Side({}, {}, frozenset())


@dataclass(frozen=True, slots=True)
class Stored:
    """An entity with the very text that the database holds of it, so that the history need not encode it again."""

    body: EntityBody
    text: str


@dataclass(slots=True)
class Touched:
    """What became of one entity in a unit of work."""

    before: Stored | None
    after: Stored | None

    @property
    def characters(self) -> int:
        """How much text it is."""
        return sum(len(stored.text) for stored in (self.before, self.after) if stored is not None)


class SqlTransaction(Transaction):
    """A unit of work's view of the database."""

    def __init__(self, connection: Connection, codec: Codec) -> None:
        self._connection = connection
        self._codec = codec
        self._key_noted = False
        self._touched: dict[tuple[str, str], Touched] = {}
        self._acting_for: int | None = None
        self.wrote = False
        """Whether anything was written, also if it was undone again since."""

    def changes(self) -> list[tuple[Change, Touched]]:
        """What changed so far, in the order in which entities were first touched; what came to nothing is left out."""
        found = []
        for (collection, entity_id), touched in self._touched.items():
            before = None if touched.before is None else touched.before.body
            after = None if touched.after is None else touched.after.body
            if before != after:
                operation = (
                    Operation.CREATE if before is None else Operation.DELETE if after is None else Operation.UPDATE
                )
                found.append((Change(operation, collection, entity_id, before, after), touched))
        return found

    @property
    @override
    def records(self) -> Records:
        from control_plane.store.records import SqlRecords  # noqa: PLC0415  # builds on this module

        return SqlRecords(
            self._connection, self._codec, lambda: [change for change, _ in self.changes()], self._note_write
        )

    def _note_write(self) -> None:
        self.wrote = True

    def _note_key(self) -> None:
        """Before anything is sealed: the key is known to be in use, whatever becomes of it meanwhile."""
        if not self._key_noted:
            seals.note_key(self._connection, self._codec)
            self._key_noted = True

    def _encoded(self, collection: str, body: EntityBody) -> str:
        if any(body.get(name) is not None for name in SECRETS.get(collection, ())):
            self._note_key()
        return self._codec.encode(collection, body)

    @property
    @override
    def identities(self) -> Identities:
        return SqlIdentities(self._connection, self._codec, self._note_write, self._note_key)

    @override
    def next_rollout(self) -> int:
        return rollout_records.next_number(self._connection)

    @override
    def save_rollout(self, record: RolloutRecord) -> None:
        self.wrote = True
        rollout_records.save(self._connection, record)

    @override
    def rollout(self, number: int) -> RolloutRecord | None:
        return rollout_records.get(self._connection, number)

    @override
    def rollouts(self, *, size: int, before: int | None = None) -> Sequence[RolloutRecord]:
        return rollout_records.newest(self._connection, size=size, before=before)

    @override
    def rollouts_in(self, states: Sequence[str]) -> Sequence[RolloutRecord]:
        return rollout_records.in_states(self._connection, states)

    @override
    def hold(self, rollout: int, keys: Sequence[tuple[str, str]]) -> None:
        self.wrote = True
        rollout_records.hold(self._connection, rollout, keys)

    @override
    def release(self, rollout: int) -> None:
        self.wrote = True
        rollout_records.release(self._connection, rollout)

    @override
    def holders(self, keys: Sequence[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
        held = rollout_records.holders(self._connection, keys)
        return {key: number for key, number in held.items() if number != self._acting_for}

    @override
    def act_for(self, rollout: int) -> None:
        self._acting_for = rollout

    @override
    def lease(self, name: str) -> Lease | None:
        return rollout_records.lease(self._connection, name)

    @override
    def take_lease(self, name: str, holder: str, *, for_s: float, alone: bool = False) -> Lease | None:
        self.wrote = True
        return rollout_records.take_lease(self._connection, name, holder, for_s=for_s, alone=alone)

    @override
    def drop_lease(self, name: str, holder: str) -> None:
        self.wrote = True
        rollout_records.drop_lease(self._connection, name, holder)

    @override
    def head(self) -> int:
        version: int = _HEAD.scalar(self._connection, {})
        return version

    @override
    def get(self, collection: str, entity_id: str) -> EntityBody | None:
        text = _GET.scalar(self._connection, {"of": collection, "with_id": entity_id})
        return None if text is None else self._codec.decode(collection, text)

    @override
    def find(self, collection: str, values: Mapping[str, str]) -> EntityBody | None:
        for parts in STORED[collection].unique_keys:
            if values.keys() == set(parts):
                wanted = self._codec.key_value(collection, parts, [values[part] for part in parts])
                text = _FIND.scalar(self._connection, {"of": collection, "by": ",".join(parts), "wanted": wanted})
                return None if text is None else self._codec.decode(collection, text)
        raise ValueError(f"{sorted(values)} is no unique key of {collection}")

    @override
    def page(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[EntityBody]:
        texts = self.page_texts(collection, size=size, after=after, tags=tags, parent=parent)
        return [self._codec.decode(collection, text) for _, text in texts]

    @override
    def page_texts(
        self,
        collection: str,
        *,
        size: int,
        after: str = "",
        tags: TagFilter | None = None,
        parent: tuple[str, str] | None = None,
    ) -> Sequence[tuple[str, str]]:
        if tags is None and parent is None:
            found = _PAGE.rows(self._connection, {"of": collection, "behind": after, "size": size})
            return [(entity_id, text) for entity_id, text in found]
        rows = self._connection.execute(_filtered(collection, after, tags, parent).limit(size))
        return [(row.id, row.body) for row in rows]

    @override
    def each(self, collection: str) -> Iterator[EntityBody]:
        after = ""
        while rows := self.page_texts(collection, size=PORTION, after=after):
            for entity_id, text in rows:
                yield self._codec.decode(collection, text)
                after = entity_id
            if len(rows) < PORTION:
                return

    @override
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

    @override
    def insert(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        text = self._encoded(collection, body)
        row = {"collection": collection, "id": entity_id, "body": text}
        if _ADD_ENTITY.change(self._connection, row) != 1:
            raise PrimaryKeyViolation(entity_id)
        self.wrote = True
        self._put_aside(collection, entity_id, body, _NO_SIDE, _Side.of(STORED[collection], body, self._codec))
        self._remember(collection, entity_id, None, Stored(body, text))

    @override
    def insert_all(self, collection: str, bodies: Sequence[EntityBody]) -> None:
        schema = STORED[collection]
        for start in range(0, len(bodies), PORTION):
            portion = {str(body["id"]): body for body in bodies[start : start + PORTION]}
            if len(portion) < len(bodies[start : start + PORTION]):
                self._one_by_one(collection, bodies[start : start + PORTION])
                continue
            self._insert_portion(collection, schema, portion)

    def _insert_portion(self, collection: str, schema: Schema, portion: Mapping[str, EntityBody]) -> None:
        """A few statements for all; each tells by the rows that it returns which it could not add."""
        texts = {entity_id: self._encoded(collection, body) for entity_id, body in portion.items()}
        sides = {entity_id: _Side.of(schema, body, self._codec) for entity_id, body in portion.items()}
        self.wrote = True
        rows = [{"collection": collection, "id": entity_id, "body": text} for entity_id, text in texts.items()]
        added = set(self._connection.scalars(_ADD_ENTITIES, rows))
        for entity_id in portion:
            if entity_id not in added:
                raise PrimaryKeyViolation(entity_id)
        self._add_keys(collection, portion, sides)
        self._add_references(collection, sides)
        tags = [
            {"id": entity_id, "tag": tag, "collection": collection}
            for entity_id, side in sides.items()
            for tag in side.tags
        ]
        if tags:
            _ADD_TAG.change_each(self._connection, tags)
        for entity_id, body in portion.items():
            self._remember(collection, entity_id, None, Stored(body, texts[entity_id]))

    def _one_by_one(self, collection: str, bodies: Sequence[EntityBody]) -> None:
        for body in bodies:
            self.insert(collection, body)

    def _add_keys(self, collection: str, portion: Mapping[str, EntityBody], sides: Mapping[str, _Side]) -> None:
        rows = [
            {"collection": collection, "key": ",".join(parts), "value": value, "id": entity_id}
            for entity_id, side in sides.items()
            for parts, value in side.keys.items()
        ]
        if not rows:
            return
        added = {(row.id, row.key) for row in self._connection.execute(_ADD_KEYS, rows)}
        for row in rows:
            if (row["id"], row["key"]) not in added:
                body = portion[row["id"]]
                raise _taken(collection, body, row["key"].split(","))

    def _add_references(self, collection: str, sides: Mapping[str, _Side]) -> None:
        """The parents are asked for first: with one missing, the constraint would end the whole transaction."""
        rows = [
            {"collection": collection, "id": entity_id, "field": field, "parent_collection": parent, "parent_id": held}
            for entity_id, side in sides.items()
            for field, (parent, held) in side.references.items()
        ]
        wanted: dict[str, set[str]] = {}
        for row in rows:
            wanted.setdefault(row["parent_collection"], set()).add(row["parent_id"])
        for parent, ids in wanted.items():
            found = set(self._connection.scalars(_WHICH, {"of": parent, "ids": sorted(ids)}))
            for row in rows:
                if row["parent_collection"] == parent and row["parent_id"] not in found:
                    raise ForeignKeyViolation(row["field"], parent, {"id": row["parent_id"]})
        if rows:
            _ADD_REFERENCES.change_each(self._connection, rows)

    @override
    def replace(self, collection: str, body: EntityBody) -> None:
        entity_id = str(body["id"])
        before = self._stored(collection, entity_id)
        assert before is not None, f"{collection} {entity_id} is replaced but does not exist"
        text = self._encoded(collection, body)
        self.wrote = True
        _UPDATE.change(self._connection, {"of": collection, "with_id": entity_id, "new_body": text})
        schema = STORED[collection]
        self._put_aside(
            collection, entity_id, body, _Side.of(schema, before.body, self._codec), _Side.of(schema, body, self._codec)
        )
        self._remember(collection, entity_id, before, Stored(body, text))

    @override
    def delete(self, collection: str, entity_id: str) -> bool:
        before = self._stored(collection, entity_id)
        if before is None:
            return False
        children = _CHILDREN.rows(self._connection, {"of": collection, "with_id": entity_id})
        for below, _, field in children:
            if STORED[below].foreign_fields[field].on_delete is OnDelete.RESTRICT:
                raise ReferencedByOthers(collection, below)
        self.wrote = True
        for below, child_id, _ in children:
            self.delete(below, child_id)
        self._put_aside(
            collection, entity_id, before.body, _Side.of(STORED[collection], before.body, self._codec), _NO_SIDE
        )
        _DELETE.change(self._connection, {"of": collection, "with_id": entity_id})
        self._remember(collection, entity_id, before, None)
        return True

    def _stored(self, collection: str, entity_id: str) -> Stored | None:
        text = _GET.scalar(self._connection, {"of": collection, "with_id": entity_id})
        return None if text is None else Stored(self._codec.decode(collection, text), text)

    def _put_aside(self, collection: str, entity_id: str, body: EntityBody, old: _Side, new: _Side) -> None:
        """Brings the narrow rows from `old` to `new`, touching only those that differ."""
        connection = self._connection
        for parts, value in old.keys.items():
            if new.keys.get(parts) != value:
                _DELETE_KEY.change(connection, {"of": collection, "by": ",".join(parts), "held": value})
        for parts, value in new.keys.items():
            if old.keys.get(parts) != value:
                row = {"collection": collection, "key": ",".join(parts), "value": value, "id": entity_id}
                if _ADD_KEY.change(connection, row) != 1:
                    raise _taken(collection, body, parts)
        for field, held in old.references.items():
            if new.references.get(field) != held:
                _DELETE_REFERENCE.change(connection, {"of": collection, "with_id": entity_id, "by": field})
        for field, parent in new.references.items():
            if old.references.get(field) != parent:
                row = {"of": collection, "with_id": entity_id, "by": field, "parent": parent[0], "parent_id": parent[1]}
                if _ADD_REFERENCE.change(connection, row) != 1:
                    raise ForeignKeyViolation(field, parent[0], {"id": parent[1]})
        for tag in old.tags - new.tags:
            _DELETE_TAG.change(connection, {"of": collection, "with_id": entity_id, "held": tag})
        for tag in new.tags - old.tags:
            _ADD_TAG.change(connection, {"id": entity_id, "tag": tag, "collection": collection})

    def _remember(self, collection: str, entity_id: str, before: Stored | None, after: Stored | None) -> None:
        touched = self._touched.setdefault((collection, entity_id), Touched(before, None))
        touched.after = after


def _taken(collection: str, body: EntityBody, parts: Sequence[str]) -> UniqueViolation:
    """Names the key that another entity has, unless it is a secret: errors end up in logs of pipelines."""
    return UniqueViolation(STORED[collection].redacted({part: body[part] for part in parts}))


def _filtered(
    collection: str, after: str, tags: TagFilter | None, parent: tuple[str, str] | None
) -> Select[tuple[str, str]]:
    """Ids and bodies by ascending id, by whichever narrow table is the shortest way to them."""
    if parent is not None:
        field, parent_id = parent
        # Equality on the parent's collection too, since the index begins with it.
        statement = (
            select(ENTITY.c.id, ENTITY.c.body)
            .join(REFERENCE, (REFERENCE.c.collection == ENTITY.c.collection) & (REFERENCE.c.id == ENTITY.c.id))
            .where(
                REFERENCE.c.parent_collection == STORED[collection].foreign_fields[field].collection,
                REFERENCE.c.parent_id == parent_id,
                REFERENCE.c.collection == collection,
                REFERENCE.c.field == field,
                REFERENCE.c.id > after,
            )
            .order_by(REFERENCE.c.id)
        )
        return statement if tags is None else statement.where(*_with_tags(collection, tags))
    assert tags is not None
    first, *others = tags.tags
    if others and not tags.match_all:
        return (
            select(ENTITY.c.id, ENTITY.c.body)
            .where(ENTITY.c.collection == collection, ENTITY.c.id > after, *_with_tags(collection, tags))
            .order_by(ENTITY.c.id)
        )
    return (
        select(ENTITY.c.id, ENTITY.c.body)
        .join(ENTITY_TAG, (ENTITY_TAG.c.collection == ENTITY.c.collection) & (ENTITY_TAG.c.id == ENTITY.c.id))
        .where(
            ENTITY_TAG.c.tag == first,
            ENTITY_TAG.c.id > after,
            ENTITY_TAG.c.collection == collection,
            *(_with_tags(collection, TagFilter(tuple(others))) if others else ()),
        )
        .order_by(ENTITY_TAG.c.id)
    )


def _with_tags(collection: str, tags: TagFilter) -> list[ColumnElement[bool]]:
    groups = [(tag,) for tag in tags.tags] if tags.match_all else [tags.tags]
    held = ENTITY_TAG.alias("held")
    return [
        exists().where(held.c.id == ENTITY.c.id, held.c.tag.in_(group), held.c.collection == collection)
        for group in groups
    ]
