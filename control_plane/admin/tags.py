"""`/tags`: which entities carry which tag. Tags are written on entities only."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.admin.messages import Answer, Call, json_answer
from control_plane.admin.operations import OFFSET, SIZE, Operation, page_of
from control_plane.admin.paging import decode_offset, encode_offset, page, page_size
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Writes
from control_plane.entities.errors import InvalidUnique, SchemaViolation
from control_plane.entities.typedefs import check_tag
from control_plane.entities.types import EntityBody, JsonValue


def mount(table: PathTable, writes: Writes) -> None:
    """Adds `/tags` and `/tags/{tags}`."""
    tags = _Tags(writes)
    rows: dict[int, EntityBody | None] = {200: page_of({"type": "object", "required": ["tag", "entity_name"]})}
    read = Operation(summary="List tags and the entities that carry them", parameters=(SIZE, OFFSET), answers=rows)
    refused = Operation(summary="Refused: tags belong to entities", answers={})
    table.add("/tags", {"GET": tags.all_tags, "POST": tags.refuse}, about={"GET": read, "POST": refused})
    table.add(
        "/tags/{tags}",
        {"GET": tags.one_tag, "PUT": tags.refuse, "PATCH": tags.refuse, "DELETE": tags.refuse},
        about={"GET": read, **dict.fromkeys(("PUT", "PATCH", "DELETE"), refused)},
    )


@dataclass(frozen=True, slots=True)
class _Tags:
    writes: Writes

    async def all_tags(self, call: Call, _path: tuple[str, ...]) -> Answer:
        return await self._page(call, None)

    async def one_tag(self, call: Call, path: tuple[str, ...]) -> Answer:
        (tag,) = path
        problem = check_tag(tag)
        if problem is not None:
            raise InvalidUnique("tag", problem)
        return await self._page(call, tag)

    async def refuse(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        raise SchemaViolation({"tags": "does not support insert/upsert/update/delete operations"})

    async def _page(self, call: Call, tag: str | None) -> Answer:
        size, key = page_size(call), decode_offset(call, parts=3)
        after = (key[0], key[1], key[2]) if key is not None else None
        rows = await self.writes.store.read(lambda tx: list(tx.tagged(tag=tag, size=size + 1, after=after)))
        offset = encode_offset(*rows[size - 1]) if len(rows) > size else None
        shown: list[JsonValue] = [_row(*row) for row in rows[:size]]
        return json_answer(200, page(call, shown, offset=offset, keep=("size",) if tag is None else ()))


def _row(entity_id: str, tag: str, collection: str) -> EntityBody:
    return {"tag": tag, "entity_name": collection, "entity_id": entity_id}
