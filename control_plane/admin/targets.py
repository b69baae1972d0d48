"""Targets, which exist below their upstream only.

Other than elsewhere lists are newest first, with a plain position as the offset; PUT is PATCH, so that a PUT of a
target that is not there answers 404 (decK relies on it); and the flat paths answer 404 always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.admin.bodies import entity_body
from control_plane.admin.collections import found, page_as_kept
from control_plane.admin.messages import Addressed, Answer, Call, Current, json_answer, not_found
from control_plane.admin.operations import Operation, about_collection, about_entity
from control_plane.admin.paging import SIZE_MAX, decode_id, is_number, page, page_size
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.errors import InvalidOffset
from control_plane.entities.schema import Schema
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream import UPSTREAM
from control_plane.store import editor
from control_plane.store.contract import Transaction

TARGETS = "targets"
UPSTREAMS = "upstreams"
PARENT = "upstream"


def mount(table: PathTable, targets: Targets) -> None:
    """Adds the paths below `/upstreams/{upstreams}`."""
    above = "/upstreams/{upstreams}"
    about = about_collection(targets.schema, below=UPSTREAM)
    table.add(f"{above}/targets", {"GET": targets.list_newest, "POST": targets.create}, about=about)
    table.add(f"{above}/targets/all", {"GET": targets.list_all}, about={"GET": about["GET"]})
    table.add(
        f"{above}/targets/{{targets}}",
        {"GET": targets.get, "PUT": targets.patch, "PATCH": targets.patch, "DELETE": targets.delete},
        about=_about_target(targets.schema),
    )


def _about_target(schema: Schema) -> dict[str, Operation]:
    about = about_entity(schema, below=UPSTREAM)
    return {**about, "PUT": about["PATCH"]}


@dataclass(frozen=True, slots=True)
class Targets:
    """The handlers; the first variable segment is the upstream's id or name."""

    schema: Schema
    writes: Writes

    async def list_newest(self, call: Call, path: tuple[str, ...]) -> Answer:
        """The upstream's targets, weight 0 included, newest first."""
        return json_answer(200, await self.newest_page(call, path[0]))

    async def list_all(self, call: Call, path: tuple[str, ...]) -> Answer:
        """All rows by id with normal paging."""
        size, after = page_size(call), decode_id(call)

        def work(tx: Transaction) -> Sequence[tuple[str, str]]:
            parent = (PARENT, _upstream(tx, path[0]).id)
            return tx.page_texts(TARGETS, size=size + 1, after=after, parent=parent)

        return page_as_kept(call, await self.writes.store.read(work), size)

    async def create(self, call: Call, path: tuple[str, ...]) -> Answer:
        """A new target of the upstream."""
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            return editor.create(tx, TARGETS, body, now=now, parent=_upstream(tx, path[0]))

        return await self.writes.entity(call, work, status=201)

    async def get(self, call: Call, path: tuple[str, ...]) -> Answer:
        """One target, by id or by its exact address."""
        return found(await self.writes.store.read(self._current(path)))

    async def patch(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Merges into a target."""
        upstream_key, key = path
        body = await entity_body(call, self.schema.coerce)
        now = self.writes.now()

        def work(tx: Transaction) -> EntityBody:
            target = _target(tx, upstream_key, key)
            parent = _upstream(tx, upstream_key)
            return editor.update(tx, TARGETS, str(target["id"]), body, now=now, parent=parent)

        return await self.writes.entity(call, work, current=self._current(path))

    async def delete(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Removes a target; it must be there."""
        upstream_key, key = path

        def work(tx: Transaction) -> None:
            target = _target(tx, upstream_key, key)
            editor.delete(tx, TARGETS, str(target["id"]), parent=_upstream(tx, upstream_key))

        return await self.writes.entity(call, work, status=204, current=self._current(path))

    def _current(self, path: tuple[str, ...]) -> Current:
        upstream_key, key = path
        return lambda tx: Addressed(TARGETS, _target(tx, upstream_key, key))

    async def newest_page(self, call: Call, upstream_key: str) -> EntityBody:
        """A page of the upstream's targets, newest first, by position."""
        size, start = _clamped_size(call), _position(call)

        def work(tx: Transaction) -> list[EntityBody]:
            parent = (PARENT, _upstream(tx, upstream_key).id)
            rows: list[EntityBody] = []
            while True:
                more = tx.page(TARGETS, size=SIZE_MAX, after=str(rows[-1]["id"]) if rows else "", parent=parent)
                rows.extend(more)
                if len(more) < SIZE_MAX:
                    return rows

        rows = await self.writes.store.read(work)
        rows.sort(key=_created_at, reverse=True)
        shown: list[JsonValue] = list(rows[start : start + size])
        end = start + size
        return page(call, shown, offset=str(end) if end < len(rows) else None)


def _created_at(target: EntityBody) -> float:
    created_at = target["created_at"]
    return float(created_at) if isinstance(created_at, int | float) else 0.0


def _upstream(tx: Transaction, key: str) -> editor.Parent:
    upstream = editor.lookup(tx, UPSTREAMS, key)
    if upstream is None:
        raise not_found()
    return editor.Parent(PARENT, UPSTREAMS, str(upstream["id"]))


def _target(tx: Transaction, upstream_key: str, key: str) -> EntityBody:
    target = editor.lookup(tx, TARGETS, key, parent=_upstream(tx, upstream_key))
    if target is None:
        raise not_found()
    return target


def _clamped_size(call: Call) -> int:
    """The page size here: what is too large becomes the largest."""
    text = call.argument("size")
    return SIZE_MAX if text is not None and is_number(text) and float(text) > SIZE_MAX else page_size(call)


def _position(call: Call) -> int:
    text = call.argument("offset")
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise InvalidOffset(text[:100], "expected the offset of an earlier page")
    return int(text)
