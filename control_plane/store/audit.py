"""The audit trail: who did what, when and from where, as a chain of records that are only ever added.

Each record's hash covers its content and the hash of the record before it, so that one that was altered, taken out or
put in between breaks the chain there. A row beside the records knows the last number and hash: it tells when the
newest records were cut off. Whoever can write to the database can make a new chain of it all; note the newest hash
somewhere else (`pointsman audit verify` prints it) and compare, to find that too.

Records name entities by collection, id and name, never by content, and paths by their template: a path may hold a key.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import AuditEntry, AuditRecord, Change, Origin
from control_plane.store.statements import Prepared
from control_plane.store.tables import AUDIT, AUDIT_HEAD

CHANGES_LISTED_MAX = 20
"""Entities named in one record; the rest are counted. The version has all of them."""

BEGINNING = "0" * 64
"""The hash before the first record."""

_DETAILS = json.JSONEncoder(separators=(",", ":"), sort_keys=True)
_CONTENT = json.JSONEncoder(separators=(",", ":"))
_HEAD = select(AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash).where(AUDIT_HEAD.c.one == 1)
_TAKE = Prepared(
    update(AUDIT_HEAD)
    .where(AUDIT_HEAD.c.one == 1)
    .values(number=AUDIT_HEAD.c.number + bindparam("count"))
    .returning(AUDIT_HEAD.c.number, AUDIT_HEAD.c.hash)
)
_CLOSE = Prepared(update(AUDIT_HEAD).where(AUDIT_HEAD.c.one == 1).values(hash=bindparam("newest")))
_ADD = Prepared(insert(AUDIT))


def of_write(origin: Origin, at: float, version: int, changes: Sequence[Change]) -> AuditEntry:
    """The entry of a write that took a version."""
    listed: list[JsonValue] = [_named(change) for change in changes[:CHANGES_LISTED_MAX]]
    details: EntityBody = {"changes": listed, "change_count": len(changes)}
    return AuditEntry(at, origin, "done", version, details)


def append(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    """Add records at the end, in order. The head's row is locked until the commit, so no two chains begin here."""
    if not entries:
        return
    ((last, previous),) = _TAKE.rows(connection, {"count": len(entries)})
    rows = []
    for number, entry in enumerate(entries, last - len(entries) + 1):
        origin = entry.origin
        details: EntityBody = {**({"reason": origin.reason} if origin.reason else {}), **entry.details}
        row: dict[str, object] = {
            "number": number,
            "at": entry.at,
            "author": origin.author,
            "source": origin.source,
            "address": origin.address,
            "action": origin.action,
            "outcome": entry.outcome,
            "version": entry.version,
            "details": _DETAILS.encode(details),
            "previous": previous,
        }
        row["hash"] = previous = _digest(list(row.values()))
        rows.append(row)
    _ADD.change_each(connection, rows)
    _CLOSE.change(connection, {"newest": previous})


def hash_of(record: AuditRecord) -> str:
    """What a record's hash has to be."""
    content: list[object] = [
        record.number,
        record.at,
        record.author,
        record.source,
        record.address,
        record.action,
        record.outcome,
        record.version,
        record.details,
        record.previous,
    ]
    return _digest(content)


def _digest(content: list[object]) -> str:
    """Of a record's columns in their order, without its own hash."""
    return hashlib.sha256(_CONTENT.encode(content).encode()).hexdigest()


def head(connection: Connection) -> tuple[int, str]:
    """Return the number and hash of the newest record."""
    number, newest = connection.execute(_HEAD).one()
    return number, newest


def ascending(connection: Connection, *, size: int, above: int) -> list[AuditRecord]:
    """Return records behind the number `above`."""
    rows = connection.execute(select(AUDIT).where(AUDIT.c.number > above).order_by(AUDIT.c.number).limit(size))
    return [_record(row) for row in rows]


def newest(connection: Connection, *, size: int, below: int | None) -> list[AuditRecord]:
    """Return records, newest first."""
    statement = select(AUDIT)
    if below is not None:
        statement = statement.where(AUDIT.c.number < below)
    return [_record(row) for row in connection.execute(statement.order_by(AUDIT.c.number.desc()).limit(size))]


def problems(records: Iterable[AuditRecord], end: tuple[int, str]) -> Iterator[tuple[int, str]]:
    """What is wrong with a chain, as (number of the record, what): nothing for a whole one.

    `records` are all of them, ascending; `end` is what `head` says.
    """
    number, previous = 0, BEGINNING
    for record in records:
        if record.number == number + 2:
            yield number + 1, f"record {number + 1} is missing"
        elif record.number != number + 1:
            yield number + 1, f"records {number + 1} to {record.number - 1} are missing"
        elif record.previous != previous:
            yield record.number, f"record {record.number} does not follow from the record before it"
        if record.hash != hash_of(record):
            yield record.number, f"record {record.number} was altered"
        number, previous = record.number, record.hash
    if number < end[0]:
        yield number + 1, f"the newest records are missing: {number + 1} to {end[0]}"
    elif number > end[0]:
        yield end[0] + 1, f"records above {end[0]} were put in"
    elif previous != end[1]:
        yield number, f"record {number} is not the one that was written last"


def _named(change: Change) -> EntityBody:
    body = change.after or change.before or {}
    schema = STORED.get(change.collection)
    key = schema.endpoint_key if schema is not None and schema.endpoint_key not in schema.secrets else None
    named: EntityBody = {"operation": change.operation.value, "collection": change.collection, "id": change.id}
    if key is not None and body.get(key) is not None:
        named["name"] = body[key]
    return named


def _record(row: Row[tuple[object, ...]]) -> AuditRecord:
    return AuditRecord(**row._mapping)
