"""The paths of every entity, derived from its schema: a schema that joins `SCHEMAS` brings its paths with it.

For a collection P and each of its foreign fields f that points to Q:

    /P                    page, create
    /P/{p}                one entity
    /P/{p}/f              the parent that f points to; never deleted from here
    /Q/{q}/P              page of the children, create below this parent
    /Q/{q}/P/{p}          one child of this parent

`targets.py` has the paths of targets, which exist below their upstream only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from control_plane.admin.bodies import entity_body, is_form
from control_plane.admin.messages import (
    Addressed,
    Answer,
    Call,
    Current,
    Handler,
    Refused,
    entity_page,
    json_answer,
    message_answer,
    not_found,
)
from control_plane.admin.operations import about_collection, about_entity, about_parent
from control_plane.admin.paging import decode_id, encode_offset, page, page_of_texts, page_size, tag_filter
from control_plane.admin.preconditions import etag_of_text
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.credentials import BELOW_CONSUMER
from control_plane.entities.schema import ForeignField, Schema
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store import editor
from control_plane.store.contract import Transaction

Schemas = Mapping[str, Schema]
CONSUMERS = "consumers"


def mount(
    table: PathTable,
    schemas: Schemas,
    writes: Writes,
    *,
    nested_only: frozenset[str],
    apart: frozenset[str] = frozenset(),
) -> None:
    """Adds the paths of all schemas but those in `nested_only`.

    What concerns the collections in `apart`, their own paths and those below and to them, has a module of its own.
    """
    for collection, schema in schemas.items():
        if collection in nested_only or collection in apart:
            continue
        flat = FlatEntity(schema, writes)
        place = "{" + collection + "}"
        flat_list = ConsumerPages(schema, writes).list_page if collection == CONSUMERS else flat.list_page
        table.add(f"/{schema.path}", {"GET": flat_list, "POST": flat.create}, about=about_collection(schema))
        table.add(f"/{schema.path}/{place}", entity_methods(flat), about=about_entity(schema))
        for name, foreign in schema.foreign_fields.items():
            if foreign.collection not in schemas or foreign.collection in apart:
                continue
            parent_schema = schemas[foreign.collection]
            parent = ParentOf(schema, name, parent_schema, writes)
            table.add(f"/{schema.path}/{place}/{name}", entity_methods(parent), about=about_parent(parent_schema, name))
            nested = NestedEntity(schema, name, foreign, writes)
            below = BELOW_CONSUMER.get(collection, schema.path)
            above = f"/{parent_schema.path}/{{{foreign.collection}}}/{below}"
            table.add(
                above,
                {"GET": nested.list_page, "POST": nested.create},
                about=about_collection(schema, below=parent_schema),
            )
            table.add(f"{above}/{place}", entity_methods(nested), about=about_entity(schema, below=parent_schema))


def entity_methods(entity: FlatEntity | NestedEntity | ParentOf) -> dict[str, Handler]:
    """The methods of a path that leads to one entity."""
    return {"GET": entity.get, "PUT": entity.put, "PATCH": entity.patch, "DELETE": entity.delete}


@dataclass(frozen=True, slots=True)
class FlatEntity:
    """`/P` and `/P/{p}`."""

    schema: Schema
    writes: Writes

    async def list_page(self, call: Call, _: tuple[str, ...]) -> Answer:
        """A page by ascending id."""
        size, after, tags = page_size(call), decode_id(call), tag_filter(call)
        collection, keep = self.schema.collection, ("tags", "size")
        if self.schema.shown_as_kept:
            texts = await self.writes.store.read(
                lambda tx: tx.page_texts(collection, size=size + 1, after=after, tags=tags)
            )
            return page_as_kept(call, texts, size, keep=keep)
        rows = await self.writes.store.read(lambda tx: tx.page(collection, size=size + 1, after=after, tags=tags))
        return keyset_page(call, list(rows), size, keep=keep, shown=self._shown)

    async def create(self, call: Call, _: tuple[str, ...]) -> Answer:
        """A new entity."""
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            return self.schema.shown(editor.create(tx, self.schema.collection, body, now=now), now=now)

        return await self.writes.entity(call, work, status=201)

    async def get(self, call: Call, path: tuple[str, ...]) -> Answer:
        """The entity."""
        return found(await self.writes.store.read(self._current(path)))

    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Creates or replaces it."""
        (key,) = path
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            return self.schema.shown(editor.upsert(tx, self.schema.collection, key, body, now=now), now=now)

        return await self.writes.entity(call, work, current=self._current(path))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Merges into it."""
        (key,) = path
        body = await _patch_body(call, self.schema, self._current(path), self.writes)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            return self.schema.shown(editor.update(tx, self.schema.collection, key, body, now=now), now=now)

        return await self.writes.entity(call, work, current=self._current(path))

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Removes it; one that is not there is as good as removed."""
        (key,) = path

        def work(tx: Transaction) -> None:
            editor.delete(tx, self.schema.collection, key)

        return await self.writes.entity(call, work, status=204, current=self._current(path))

    def _current(self, path: tuple[str, ...]) -> Current:
        (key,) = path
        return lambda tx: addressed(self.schema, editor.lookup(tx, self.schema.collection, key), now=self.writes.now())

    def _shown(self, entity: EntityBody) -> EntityBody | None:
        return as_shown(self.schema, entity, now=self.writes.now())


@dataclass(frozen=True, slots=True)
class ConsumerPages:
    """`/consumers`, where `custom_id` asks for the one consumer that another system knows by that id."""

    schema: Schema
    writes: Writes

    async def list_page(self, call: Call, path: tuple[str, ...]) -> Answer:
        """A page by ascending id, or the consumer with that `custom_id`."""
        asked = [value for name, value in call.query if name == "custom_id"]
        if not asked:
            return await FlatEntity(self.schema, self.writes).list_page(call, path)
        if len(asked) > 1 or not asked[0]:
            raise Refused(400, "custom_id must be an unempty string")
        consumer = await self.writes.store.read(lambda tx: tx.find(CONSUMERS, {"custom_id": asked[0]}))
        return json_answer(200, entity_page([] if consumer is None else [consumer]))


@dataclass(frozen=True, slots=True)
class NestedEntity:
    """`/Q/{q}/P` and `/Q/{q}/P/{p}`: the children of one parent."""

    schema: Schema
    field: str
    foreign: ForeignField
    writes: Writes
    find_parent: Callable[[Transaction, str], EntityBody | None] | None = None
    """How the parent is found where that is not by its id or endpoint key."""

    async def list_page(self, call: Call, path: tuple[str, ...]) -> Answer:
        """A page of the parent's children. As in Kong the tag filter is accepted and has no effect here."""
        (parent_key,) = path
        size, after = page_size(call), decode_id(call)
        collection = self.schema.collection

        def below(tx: Transaction) -> tuple[str, str]:
            parent = self._parent(tx, parent_key)
            return parent.field, parent.id

        if self.schema.shown_as_kept:
            texts = await self.writes.store.read(
                lambda tx: tx.page_texts(collection, size=size + 1, after=after, parent=below(tx))
            )
            return page_as_kept(call, texts, size)
        rows = await self.writes.store.read(
            lambda tx: tx.page(collection, size=size + 1, after=after, parent=below(tx))
        )
        return keyset_page(call, list(rows), size, keep=(), shown=self._shown)

    async def create(self, call: Call, path: tuple[str, ...]) -> Answer:
        """A new child of the parent."""
        (parent_key,) = path
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            parent = self._parent(tx, parent_key)
            return self.schema.shown(editor.create(tx, self.schema.collection, body, now=now, parent=parent), now=now)

        return await self.writes.entity(call, work, status=201)

    async def get(self, call: Call, path: tuple[str, ...]) -> Answer:
        """The child, if it is one of this parent's."""
        return found(await self.writes.store.read(self._current(path)))

    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Creates or replaces it. A child of another parent moves here."""
        parent_key, key = path
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            parent = self._parent(tx, parent_key)
            made = editor.upsert(tx, self.schema.collection, key, body, now=now, parent=parent)
            return self.schema.shown(made, now=now)

        return await self.writes.entity(call, work, current=self._current(path))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Merges into it; the body may move it to another parent."""
        parent_key, key = path
        body = await _patch_body(call, self.schema, self._current(path), self.writes)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            child = self._child(tx, parent_key, key)
            made = editor.update(tx, self.schema.collection, str(child["id"]), body, now=now)
            return self.schema.shown(made, now=now)

        return await self.writes.entity(call, work, current=self._current(path))

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Removes it; other than on the flat path it must be there."""
        parent_key, key = path

        def work(tx: Transaction) -> None:
            editor.delete(tx, self.schema.collection, str(self._child(tx, parent_key, key)["id"]))

        return await self.writes.entity(call, work, status=204, current=self._current(path))

    def _current(self, path: tuple[str, ...]) -> Current:
        parent_key, key = path

        def current(tx: Transaction) -> Addressed | None:
            parent = self._parent(tx, parent_key)
            held = editor.lookup(tx, self.schema.collection, key, parent=parent)
            return addressed(self.schema, held, now=self.writes.now())

        return current

    def _parent(self, tx: Transaction, key: str) -> editor.Parent:
        if self.find_parent is not None:
            parent = self.find_parent(tx, key)
        else:
            parent = editor.lookup(tx, self.foreign.collection, key)
        if parent is None:
            raise not_found()
        return editor.Parent(self.field, self.foreign.collection, str(parent["id"]))

    def _child(self, tx: Transaction, parent_key: str, key: str) -> EntityBody:
        child = editor.lookup(tx, self.schema.collection, key, parent=self._parent(tx, parent_key))
        if child is None or self._shown(child) is None:
            raise not_found()
        return child

    def _shown(self, entity: EntityBody) -> EntityBody | None:
        return as_shown(self.schema, entity, now=self.writes.now())


@dataclass(frozen=True, slots=True)
class ParentOf:
    """`/P/{p}/f`: the entity that a foreign field points to."""

    schema: Schema
    field: str
    parent: Schema
    writes: Writes

    async def get(self, call: Call, path: tuple[str, ...]) -> Answer:
        """The parent."""
        return found(await self.writes.store.read(self._current(path)))

    async def put(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Replaces the parent. Where there is none it creates one and links it."""
        (key,) = path
        body = await entity_body(call, self.parent.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            child = self._child(tx, key)
            parent_id = self._link(child)
            if parent_id is not None:
                return editor.upsert(tx, self.parent.collection, parent_id, body, now=now)
            made = editor.create(tx, self.parent.collection, body, now=now)
            link: EntityBody = {self.field: {"id": made["id"]}}
            editor.update(tx, self.schema.collection, str(child["id"]), link, now=now)
            return made

        return await self.writes.entity(call, work, current=self._current(path))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Merges into the parent."""
        (key,) = path
        body = await entity_body(call, self.parent.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            parent_id = self._link(self._child(tx, key))
            if parent_id is None:
                raise not_found()
            return editor.update(tx, self.parent.collection, parent_id, body, now=now)

        return await self.writes.entity(call, work, current=self._current(path))

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Never deletes: a parent may have other children."""
        (key,) = path
        if await self.writes.store.read(lambda tx: self._link(self._child(tx, key))) is None:
            raise not_found()
        return message_answer(405, "Method not allowed")

    def _current(self, path: tuple[str, ...]) -> Current:
        (key,) = path

        def current(tx: Transaction) -> Addressed | None:
            parent_id = self._link(self._child(tx, key))
            held = None if parent_id is None else tx.get(self.parent.collection, parent_id)
            return addressed(self.parent, held, now=self.writes.now())

        return current

    def _child(self, tx: Transaction, key: str) -> EntityBody:
        child = editor.lookup(tx, self.schema.collection, key)
        if child is None:
            raise not_found()
        return child

    def _link(self, child: EntityBody) -> str | None:
        link = child[self.field]
        return str(link["id"]) if isinstance(link, dict) else None


async def _patch_body(call: Call, schema: Schema, current: Current, writes: Writes) -> EntityBody:
    """A patch's body. What a form says of a plugin's settings has the types of the plugin that is there, as in Kong."""
    if not schema.varies or not is_form(call):
        return await entity_body(call, schema.coerce)
    held = await writes.store.read(current)
    return await entity_body(call, partial(schema.coerce, over=None if held is None else held.body))


def addressed(schema: Schema, body: EntityBody | None, *, now: float) -> Addressed | None:
    """A stored entity as what a path leads to; None for one whose time is over."""
    seen = None if body is None else as_shown(schema, body, now=now)
    return None if seen is None else Addressed(schema.collection, seen)


def found(shown: Addressed | None) -> Answer:
    """200 with the entity and its tag. Raises Refused (404) for None."""
    if shown is None:
        raise not_found()
    answer = json_answer(200, shown.body)
    answer.headers["ETag"] = etag_of_text(answer.body)
    return answer


def as_shown(schema: Schema, entity: EntityBody, *, now: float) -> EntityBody | None:
    """A stored entity as its readers see it; None for one whose time is over."""
    return None if schema.expired(entity, now=now) else schema.shown(entity, now=now)


def page_as_kept(call: Call, rows: Sequence[tuple[str, str]], size: int, *, keep: tuple[str, ...] = ()) -> Answer:
    """`keyset_page` of (id, JSON text)."""
    offset = encode_offset(rows[size - 1][0]) if len(rows) > size else None
    return page_of_texts(call, [text for _, text in rows[:size]], offset=offset, keep=keep)


def keyset_page(
    call: Call,
    rows: list[EntityBody],
    size: int,
    *,
    keep: tuple[str, ...],
    shown: Callable[[EntityBody], EntityBody | None] | None = None,
) -> Answer:
    """A page of up to `size` rows from one row more, by which it is known whether a further page exists.

    `shown` = the row as it is shown, None for one that is not; the page is then the shorter.
    """
    offset = encode_offset(str(rows[size - 1]["id"])) if len(rows) > size else None
    listed = [row if shown is None else shown(row) for row in rows[:size]]
    data: list[JsonValue] = [row for row in listed if row is not None]
    return json_answer(200, page(call, data, offset=offset, keep=keep))
