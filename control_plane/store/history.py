"""Versions in the database: taking the next one and reading what earlier ones did."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, tuple_, update

from control_plane.store import answers, audit
from control_plane.store.contract import Change, Dropped, Operation, Origin, Version
from control_plane.store.sealing import Codec
from control_plane.store.statements import Prepared
from control_plane.store.tables import CHANGE, HEAD, VERSION
from control_plane.store.transaction import PORTION, Touched

_NEXT = Prepared(
    update(HEAD).where(HEAD.c.one == 1).values(version=HEAD.c.version + bindparam("count")).returning(HEAD.c.version)
)
_HEAD = Prepared(select(HEAD.c.version).where(HEAD.c.one == 1))
_LOCK_HEAD = select(HEAD.c.epoch, HEAD.c.version).where(HEAD.c.one == 1).with_for_update()
_UNIT = select(VERSION.c.unit).where(VERSION.c.number == bindparam("of"))
_ADD_VERSION = Prepared(insert(VERSION))
_ADD_CHANGE = Prepared(insert(CHANGE))
_PARTIAL = -1  # the number of changes of a version that is being forgotten
_WHOLE = VERSION.c.change_count != _PARTIAL
_BEHIND_ALL = 2**31 - 1  # changes of one version have positions below it
_LINEAGE = select(HEAD.c.lineage).where(HEAD.c.one == 1)
_EPOCH = select(HEAD.c.epoch).where(HEAD.c.one == 1)


def head(connection: Connection) -> int:
    """Return the newest version."""
    version: int = _HEAD.scalar(connection, {})
    return version


def epoch(connection: Connection) -> bytes:
    """Return the name of this history."""
    name: bytes = connection.scalars(_EPOCH).one()
    return name


def lineage(connection: Connection) -> dict[bytes, int]:
    """Return the earlier histories that this one goes on from, each with the version up to which it does."""
    rows = json.loads(connection.scalars(_LINEAGE).one())
    return {bytes.fromhex(name): version for name, version in rows}


@dataclass(frozen=True, slots=True)
class Pending:
    """What one unit of work did, before it has a version."""

    origin: Origin
    committed_at: float
    changes: Sequence[tuple[Change, Touched]]


def lock_head(connection: Connection) -> tuple[bytes, int]:
    """Keep all other writers out until this transaction ends; return the epoch and the newest version."""
    row = connection.execute(_LOCK_HEAD).one()
    return row.epoch, row.version


def unit_of(connection: Connection, number: int) -> str | None:
    """Return the name of the transaction that took a version; None when it is not taken."""
    unit: str | None = connection.scalar(_UNIT, {"of": number})
    return unit


def take_versions(connection: Connection, batch: Sequence[Pending], *, unit: str = "") -> int:
    """Give each unit the next version, in order, and keep what it did; return the number of the first.

    `unit` names the transaction (`unit_of`).

    Must be the last thing a transaction does: the update locks the head row until the commit, so that no other writer
    can take a later version and commit before.
    """
    first: int = _NEXT.scalar(connection, {"count": len(batch)}) - len(batch) + 1
    _ADD_VERSION.change_each(
        connection,
        [
            {
                "number": number,
                "committed_at": pending.committed_at,
                "author": pending.origin.author,
                "source": pending.origin.source,
                "address": pending.origin.address,
                "reason": pending.origin.reason,
                "change_count": len(pending.changes),
                "unit": unit,
            }
            for number, pending in enumerate(batch, first)
        ],
    )
    rows = (
        {
            "version": number,
            "position": position,
            "operation": change.operation.value,
            "collection": change.collection,
            "id": change.id,
            "before": None if touched.before is None else touched.before.text,
            "after": None if touched.after is None else touched.after.text,
        }
        for number, pending in enumerate(batch, first)
        for position, (change, touched) in enumerate(pending.changes)
    )
    while portion := list(itertools.islice(rows, PORTION)):  # no statement may take long, however much was changed
        _ADD_CHANGE.change_each(connection, portion)
    for number, pending in enumerate(batch, first):
        if pending.origin.request_key:
            answers.set_version(connection, pending.origin.request_key, number)
    audit.append(
        connection,
        [
            audit.of_write(pending.origin, pending.committed_at, number, [change for change, _ in pending.changes])
            for number, pending in enumerate(batch, first)
        ],
    )
    return first


def versions(connection: Connection, *, size: int, before: int | None) -> Sequence[Version]:
    """Return versions, newest first, without their changes."""
    statement = select(VERSION).where(_WHOLE)
    if before is not None:
        statement = statement.where(VERSION.c.number < before)
    rows = connection.execute(statement.order_by(VERSION.c.number.desc()).limit(size))
    return [_version(row) for row in rows]


def versions_with_changes(
    connection: Connection, codec: Codec, *, above: int, up_to: int | None = None
) -> Sequence[Version]:
    """Return the versions above `above`, in commit order, with their changes."""
    statement = select(VERSION).where(VERSION.c.number > above, _WHOLE)
    if up_to is not None:
        statement = statement.where(VERSION.c.number <= up_to)
    changes: dict[int, list[Change]] = {}
    for row in _changed(connection, above, up_to):
        changes.setdefault(row.version, []).append(_change(row, codec))
    return [
        _version(row, tuple(changes.get(row.number, ())))
        for row in connection.execute(statement.order_by(VERSION.c.number))
    ]


def changes_between(connection: Connection, codec: Codec, above: int, up_to: int | None = None) -> Iterator[Change]:
    """Yield the changes of the versions above `above`, in order, read in portions."""
    return (_change(row, codec) for row in _changed(connection, above, up_to))


def _changed(connection: Connection, above: int, up_to: int | None) -> Iterator[Row[tuple[object, ...]]]:
    place = tuple_(CHANGE.c.version, CHANGE.c.position)  # one comparison of rows, which both databases do by the index
    version, position = above, _BEHIND_ALL
    while True:
        statement = (
            select(CHANGE)
            .where(place > (version, position))
            .order_by(CHANGE.c.version, CHANGE.c.position)
            .limit(PORTION)
        )
        if up_to is not None:
            statement = statement.where(CHANGE.c.version <= up_to)
        rows = connection.execute(statement).all()
        yield from rows
        if len(rows) < PORTION:
            return
        version, position = rows[-1].version, rows[-1].position


def of_entity(
    connection: Connection, codec: Codec, collection: str, entity_id: str, *, size: int
) -> list[tuple[Version, Change]]:
    """Return one entity's newest changes, newest first."""
    rows = connection.execute(
        select(CHANGE, VERSION)
        .join(VERSION, VERSION.c.number == CHANGE.c.version)
        .where(CHANGE.c.collection == collection, CHANGE.c.id == entity_id, _WHOLE)
        .order_by(CHANGE.c.version.desc())
        .limit(size)
    )
    return [(_version(row), _change(row, codec)) for row in rows]


def oldest(connection: Connection) -> int:
    """Return the lowest version kept; one above the head when there is none."""
    lowest: int | None = connection.scalar(select(func.min(VERSION.c.number)).where(_WHOLE))
    return head(connection) + 1 if lowest is None else lowest


def first_at_or_after(connection: Connection, committed_at: float) -> int:
    """Return the lowest version committed then or later; one above the head when there is none."""
    lowest: int | None = connection.scalar(
        select(func.min(VERSION.c.number)).where(VERSION.c.committed_at >= committed_at, _WHOLE)
    )
    return head(connection) + 1 if lowest is None else lowest


def drop_below(connection: Connection, version: int, *, changes_max: int) -> Dropped:
    """Forget versions below `version`, oldest first, and no more than about `changes_max` changes."""
    below = min(version, head(connection))
    rows = connection.execute(
        select(VERSION.c.number, VERSION.c.change_count)
        .where(VERSION.c.number < below)
        .order_by(VERSION.c.number)
        .limit(changes_max)
    ).all()
    if not rows:
        return Dropped(0, more=False)
    first = rows[0]
    if first.change_count > changes_max or first.change_count == _PARTIAL:
        return _drop_part(connection, first.number, changes_max, begun=first.change_count == _PARTIAL)
    whole = list(itertools.takewhile(lambda row: row.change_count != _PARTIAL, rows))
    counts = itertools.accumulate(row.change_count for row in whole)
    dropped = max(1, sum(count <= changes_max for count in counts))
    last = whole[dropped - 1].number
    connection.execute(delete(CHANGE).where(CHANGE.c.version <= last))
    connection.execute(delete(VERSION).where(VERSION.c.number <= last))
    return Dropped(dropped, more=last + 1 < below)


def _drop_part(connection: Connection, number: int, changes_max: int, *, begun: bool) -> Dropped:
    """Forget the last changes of one version, and the version with the last of them: readers don't see it any more."""
    newest: int | None = connection.scalar(select(func.max(CHANGE.c.position)).where(CHANGE.c.version == number))
    left = -1 if newest is None else newest - changes_max
    connection.execute(delete(CHANGE).where(CHANGE.c.version == number, CHANGE.c.position > left))
    if left < 0:
        connection.execute(delete(VERSION).where(VERSION.c.number == number))
    else:
        connection.execute(update(VERSION).where(VERSION.c.number == number).values(change_count=_PARTIAL))
    return Dropped(0 if begun else 1, more=True)


def _version(row: Row[tuple[object, ...]], changes: tuple[Change, ...] = ()) -> Version:
    return Version(
        row.number,
        row.committed_at,
        Origin(row.author, row.source, row.address, row.reason),
        row.change_count,
        changes,
    )


def _change(row: Row[tuple[object, ...]], codec: Codec) -> Change:
    return Change(
        Operation(row.operation),
        row.collection,
        row.id,
        None if row.before is None else codec.decode(row.collection, row.before),
        None if row.after is None else codec.decode(row.collection, row.after),
    )
