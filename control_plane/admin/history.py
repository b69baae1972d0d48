"""`/versions`: what was written, when, by whom and why, newest first; differences between any two; and the way back.

A version that is no longer kept is answered 410, one that is not there yet 404, both in words. Secrets are masked here
always; a rollback restores them nevertheless, because it works on what the store has and not on what is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from control_plane.admin.bodies import entity_body
from control_plane.admin.messages import Answer, Call, Refused, json_answer, not_found
from control_plane.admin.operations import (
    FORM,
    JSON,
    OFFSET,
    SIZE,
    VERSION_CHANGES,
    Operation,
    Parameter,
    answer_of,
    page_of,
)
from control_plane.admin.paging import decode_offset, encode_offset, page, page_size
from control_plane.admin.table import PathTable
from control_plane.admin.version_guard import EXPECTED_VERSION, version_guard
from control_plane.admin.writes import Writes
from control_plane.declarative.changes import entity_change
from control_plane.entities.errors import InvalidOffset
from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store import past
from control_plane.store.contract import Change, Store, Transaction, Version

T = TypeVar("T")

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
_FACTS = _VERSION["properties"]
assert isinstance(_FACTS, dict)
_WITH_CHANGES = answer_of({**_FACTS, **VERSION_CHANGES})
_NUMBER: EntityBody = {"type": "integer", "minimum": 0}
_AGAINST = Parameter(
    name="against",
    schema={"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    description="The other version; the one before unless it is said.",
)
_REASON: EntityBody = {
    "type": "object",
    "properties": {"reason": {"type": ["string", "null"], "maxLength": 1000, "description": "For the history."}},
    "additionalProperties": False,
}


def mount(table: PathTable, writes: Writes) -> None:
    """Adds `/versions` and the paths below it."""
    history = _History(writes)
    listed = Operation(summary="List what was written, newest first", parameters=(SIZE, OFFSET), answers=_PAGE)
    table.add("/versions", {"GET": history.list_page}, about={"GET": listed})
    shown = Operation(summary="Show one version with its changes", answers={200: _WITH_CHANGES})
    table.add("/versions/{version}", {"GET": history.get}, about={"GET": shown})
    compared = Operation(
        summary="Show what leads from another version to this one",
        parameters=(_AGAINST,),
        answers={200: answer_of({"version": _NUMBER, "against": _NUMBER, **VERSION_CHANGES})},
    )
    table.add("/versions/{version}/diff", {"GET": history.diff}, about={"GET": compared})
    back = Operation(
        summary="Make the configuration what it was at this version, as a new version",
        body={JSON: _REASON, FORM: _REASON},
        answers={200: answer_of({"rolled_back_to": _NUMBER, **VERSION_CHANGES})},
        parameters=(EXPECTED_VERSION,),
        body_required=False,
        writes=True,
    )
    table.add("/versions/{version}/rollback", {"POST": history.rollback}, about={"POST": back})


@dataclass(frozen=True, slots=True)
class _History:
    writes: Writes

    @property
    def store(self) -> Store:
        return self.writes.store

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
        number = _version_number(path[0])
        version = await self.store.version(number)
        if version is None:
            await self._explain(number)
            raise not_found()
        return json_answer(
            200,
            {
                **_version(version),
                **_changes(version.changes),
            },
        )

    async def diff(self, call: Call, path: tuple[str, ...]) -> Answer:
        """What leads from the state at `against` (by default the version before) to that at this version."""
        number = _version_number(path[0])
        text = call.argument("against")
        against = max(0, number - 1) if text is None else _version_number(text)
        changes = await self._asked(lambda tx: past.difference(tx, against, number))
        return json_answer(200, {"version": number, "against": against, **_changes(changes)})

    async def rollback(self, call: Call, path: tuple[str, ...]) -> Answer:
        """Makes the configuration what it was at the version, as a new version.

        The body may give the reason: {"reason": "..."}; it counts as the header X-Pointsman-Reason does.
        """
        number = _version_number(path[0])
        body = await entity_body(call, dict)
        reason = body.get("reason")
        if body.keys() - {"reason"} or not isinstance(reason, str | None):
            raise Refused(400, 'the body may hold {"reason": "why"} and nothing else')

        def work(tx: Transaction) -> EntityBody:
            try:
                changes = past.restore(tx, number)
            except past.UnknownVersion as unknown:
                raise _unknown(unknown) from unknown
            return {"rolled_back_to": number, **_changes(changes)}

        return await self.writes.perform(
            call,
            work,
            source="rollback",
            outcome=lambda told: told or {},
            tagged=False,
            reason=reason or "",
            whole=version_guard(call.headers),
        )

    async def _explain(self, number: int) -> None:
        """Raises Refused with why a version is not there, where there is more to say than that."""
        await self._asked(lambda tx: past.check_known(tx, number))

    async def _asked(self, work: Callable[[Transaction], T]) -> T:
        try:
            return await self.store.read(work)
        except past.UnknownVersion as unknown:
            raise _unknown(unknown) from unknown


def _unknown(unknown: past.UnknownVersion) -> Refused:
    return Refused(410 if unknown.dropped else 404, str(unknown))


def _version_number(text: str) -> int:
    number = _number(text)
    if number is None:
        raise Refused(404, "versions are numbers; GET /versions lists them")
    return number


def _changes(changes: Sequence[Change]) -> EntityBody:
    """Changes for a reader: what they do, their fields, and each entity before and after, without secrets."""
    return {
        "change_count": len(changes),
        "changes": [_change(change) for change in changes[:CHANGES_MAX]],
        "changes_omitted": max(0, len(changes) - CHANGES_MAX),
    }


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
    told = entity_change(change)
    return {
        "operation": change.operation.value,
        "collection": change.collection,
        "id": change.id,
        "name": told.name,
        "fields": [{"field": at.field, "before": at.before, "after": at.after} for at in told.fields()],
        "before": _redacted(change.collection, change.before),
        "after": _redacted(change.collection, change.after),
    }


def _redacted(collection: str, body: EntityBody | None) -> EntityBody | None:
    """The entity without its secrets: the history is read by more people than certificates are."""
    schema = STORED.get(collection)
    return body if body is None or schema is None else schema.redacted(body)
