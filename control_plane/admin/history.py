"""`/versions`: what was written, when, by whom and why. Newest first."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.admin.messages import Answer, Call, json_answer, not_found
from control_plane.admin.operations import OFFSET, SIZE, Operation, page_of
from control_plane.admin.paging import decode_offset, encode_offset, page, page_size
from control_plane.admin.table import PathTable
from control_plane.entities.errors import InvalidOffset
from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Change, Store, Version

CHANGES_MAX = 1_000
"""Changes listed of one version; `changes_omitted` counts the rest. A file of 100,000 entities is one version."""


_VERSION: EntityBody = {
    "type": "object",
    "properties": {
        "version": {"type": "integer", "minimum": 1},
        "committed_at": {"type": "number"},
        **{name: {"type": "string"} for name in ("author", "source", "address", "reason")},
        "change_count": {"type": "integer"},
    },
    "required": ["version", "committed_at", "author", "source", "address", "reason", "change_count"],
}
_PAGE: dict[int, EntityBody | None] = {200: page_of(_VERSION)}


def mount(table: PathTable, store: Store) -> None:
    """Adds `/versions` and `/versions/{version}`."""
    history = _History(store)
    listed = Operation(summary="List what was written, newest first", parameters=(SIZE, OFFSET), answers=_PAGE)
    table.add("/versions", {"GET": history.list_page}, about={"GET": listed})
    shown = Operation(summary="Show one version with its changes", answers={200: _VERSION})
    table.add("/versions/{version}", {"GET": history.get}, about={"GET": shown})


@dataclass(frozen=True, slots=True)
class _History:
    store: Store

    async def list_page(self, call: Call, _path: tuple[str, ...]) -> Answer:
        size, key = page_size(call), decode_offset(call)
        before = None
        if key is not None:
            before = _number(key[0])
            if before is None:
                raise InvalidOffset(str(call.argument("offset")), "bad json encoding")
        rows = await self.store.versions(size=size + 1, before=before)
        offset = encode_offset(str(rows[size - 1].number)) if len(rows) > size else None
        shown: list[JsonValue] = [_version(version) for version in rows[:size]]
        return json_answer(200, page(call, shown, offset=offset, keep=("size",)))

    async def get(self, _call: Call, path: tuple[str, ...]) -> Answer:
        number = _number(path[0])
        version = await self.store.version(number) if number is not None else None
        if version is None:
            raise not_found()
        return json_answer(
            200,
            {
                **_version(version),
                "changes": [_change(change) for change in version.changes[:CHANGES_MAX]],
                "changes_omitted": max(0, len(version.changes) - CHANGES_MAX),
            },
        )


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _version(version: Version) -> EntityBody:
    origin = version.origin
    return {
        "version": version.number,
        "committed_at": version.committed_at,
        "author": origin.author,
        "source": origin.source,
        "address": origin.address,
        "reason": origin.reason,
        "change_count": version.change_count,
    }


def _change(change: Change) -> EntityBody:
    return {
        "operation": change.operation.value,
        "collection": change.collection,
        "id": change.id,
        "before": _redacted(change.collection, change.before),
        "after": _redacted(change.collection, change.after),
    }


def _redacted(collection: str, body: EntityBody | None) -> EntityBody | None:
    """The entity without its secrets: the history is read by more people than certificates are."""
    schema = STORED.get(collection)
    return body if body is None or schema is None else schema.redacted(body)
