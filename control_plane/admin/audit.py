"""`/audit`: who did what, when and from where, newest first; and whether the trail is whole.

Writes that took a version are recorded with it (`store/audit.py`). Here are the refusals worth knowing about: somebody
was not allowed to, came from where nobody should, or collided with another editor. Mistakes in a request (400, 404) are
no concern of an audit. Refusals are recorded at a bounded rate, and the next record counts those that were not: nobody
can fill the disk by being refused.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from control_plane.admin.messages import Answer, Call, Refused, json_answer
from control_plane.admin.operations import OFFSET, SIZE, Operation, Parameter, answer_of, page_of
from control_plane.admin.paging import decode_offset, encode_offset, page, page_size
from control_plane.admin.table import PathTable
from control_plane.admin.writes import origin_of
from control_plane.entities.errors import InvalidOffset
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store import audit
from control_plane.store.contract import AuditEntry, AuditRecord, Store, StoreError, Transaction

_log = logging.getLogger(__name__)

RECORDED_STATUSES = frozenset({401, 403, 409, 412, 421})
REFUSALS_PER_S_MAX = 10
PORTION = 1_000
PROBLEMS_MAX = 100

_HASH: EntityBody = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_COUNT: EntityBody = {"type": "integer", "minimum": 0}
_RECORD = answer_of(
    {
        "number": {"type": "integer", "minimum": 1},
        "at": {"type": "number"},
        "author": {"type": "string"},
        "source": {"type": "string"},
        "address": {"type": "string"},
        "action": {"type": "string", "description": "Method and path, without names and keys."},
        "outcome": {"type": "string"},
        "version": {"type": ["integer", "null"]},
        "details": {},
        "hash": {**_HASH, "description": "Over this record and the hash of the one before."},
    }
)
_EXPECT = Parameter(
    name="expect",
    schema={"type": "string", "pattern": "^[0-9]{1,18}:[0-9A-Fa-f]{64}$"},
    description="NUMBER:HASH, as an earlier verification told it under `newest`.",
)
_VERIFIED = answer_of(
    {
        "valid": {"type": "boolean"},
        "records": _COUNT,
        "newest": {"type": "string"},
        "problems": {"type": "array", "items": answer_of({"number": _COUNT, "message": {"type": "string"}})},
        "omitted": _COUNT,
    }
)


class Refusals:
    """Writes the records of refused writes."""

    def __init__(
        self, store: Store, *, clock: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._monotonic = monotonic
        self._second = 0
        self._in_second = 0
        self._left_out = 0

    async def note(self, call: Call, status: int) -> None:
        """Records that a write was answered with `status`, if that is of interest and not too often."""
        if status not in RECORDED_STATUSES or not self._may_write():
            return
        try:
            origin = origin_of(call, "admin-api")
        except Refused:
            return
        details: EntityBody = {"status": status}
        if self._left_out:
            details["not_recorded"] = self._left_out
            self._left_out = 0
        entry = AuditEntry(self._clock(), origin, "refused", None, details)
        try:
            await self._store.write(lambda tx: tx.records.append_audit([entry]), origin)
        except StoreError as error:
            _log.warning("a refusal is missing in the audit trail", extra={"why": error, "status": status})

    def _may_write(self) -> bool:
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > REFUSALS_PER_S_MAX:
            self._left_out += 1
            return False
        return True


def mount(table: PathTable, store: Store) -> None:
    """Adds `/audit` and `/audit/verify`."""
    trail = _Trail(store)
    listed = Operation(
        summary="List who did what, newest first", parameters=(SIZE, OFFSET), answers={200: page_of(_RECORD)}
    )
    table.add("/audit", {"GET": trail.list_page}, about={"GET": listed})
    verified = Operation(
        summary="Say whether the audit trail is whole", parameters=(_EXPECT,), answers={200: _VERIFIED}
    )
    table.add("/audit/verify", {"GET": trail.verify}, about={"GET": verified})


@dataclass(frozen=True, slots=True)
class _Trail:
    store: Store

    async def list_page(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """A page of the trail."""
        size, key = page_size(call), decode_offset(call)
        below = None
        if key is not None:
            if not key[0].isascii() or not key[0].isdigit() or len(key[0]) > 18:
                raise InvalidOffset(str(call.argument("offset")), "bad json encoding")
            below = int(key[0])
        rows = await self.store.read(lambda tx: tx.records.audit_newest(size=size + 1, below=below))
        offset = encode_offset(str(rows[size - 1].number)) if len(rows) > size else None
        shown: list[JsonValue] = [_shown(record) for record in rows[:size]]
        return json_answer(200, page(call, shown, offset=offset, keep=("size",)))

    async def verify(self, call: Call, _path: tuple[str, ...]) -> Answer:
        """The whole chain, walked. `expect=NUMBER:HASH`, noted elsewhere before, finds a chain that was made anew."""
        expected = _expected(call.argument("expect"))

        def work(tx: Transaction) -> EntityBody:
            end = tx.records.audit_head()
            found: list[tuple[int, str]] = []
            omitted = 0
            for problem in audit.problems(_each(tx), end):
                if len(found) < PROBLEMS_MAX:
                    found.append(problem)
                else:
                    omitted += 1
            if expected is not None:
                held = tx.records.audit(size=1, above=expected[0] - 1)
                if not held or held[0].number != expected[0] or held[0].hash != expected[1]:
                    found.append((expected[0], f"record {expected[0]} has not the hash that was expected"))
            return {
                "valid": not found,
                "records": end[0],
                "newest": f"{end[0]}:{end[1]}",
                "problems": [{"number": number, "message": text} for number, text in found],
                "omitted": omitted,
            }

        return json_answer(200, await self.store.read(work))


def _each(tx: Transaction) -> Iterator[AuditRecord]:
    above = 0
    while rows := tx.records.audit(size=PORTION, above=above):
        yield from rows
        above = rows[-1].number


def _expected(text: str | None) -> tuple[int, str] | None:
    if text is None:
        return None
    number, _, digest = text.partition(":")
    if not number.isascii() or not number.isdigit() or len(number) > 18 or len(digest) != 64:
        raise Refused(400, "expect must be NUMBER:HASH, as an earlier verification told it under 'newest'")
    return int(number), digest.lower()


def _shown(record: AuditRecord) -> EntityBody:
    return {
        "number": record.number,
        "at": record.at,
        "author": record.author,
        "source": record.source,
        "address": record.address,
        "action": record.action,
        "outcome": record.outcome,
        "version": record.version,
        "details": _parsed(record.details),
        "hash": record.hash,
    }


def _parsed(text: str) -> JsonValue:
    try:
        tree: JsonValue = json.loads(text)
    except ValueError:  # somebody altered the row; `verify` says so
        return text
    return tree
