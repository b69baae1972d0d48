"""Versions in the database: taking the next one and reading what earlier ones did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, insert, select, update

from control_plane.store.contract import Change, Operation, Origin, Version
from control_plane.store.tables import CHANGE, HEAD, VERSION
from control_plane.store.transaction import Touched, decode

_NEXT = (
    update(HEAD).where(HEAD.c.one == 1).values(version=HEAD.c.version + bindparam("count")).returning(HEAD.c.version)
)
_HEAD = select(HEAD.c.version).where(HEAD.c.one == 1)
_ADD_VERSION = insert(VERSION)
_ADD_CHANGE = insert(CHANGE)
_EPOCH = select(HEAD.c.epoch).where(HEAD.c.one == 1)


def head(connection: Connection) -> int:
    """Return the newest version."""
    version: int = connection.scalars(_HEAD).one()
    return version


def epoch(connection: Connection) -> bytes:
    """Return the name of this history."""
    name: bytes = connection.scalars(_EPOCH).one()
    return name


@dataclass(frozen=True, slots=True)
class Pending:
    """What one unit of work did, before it has a version."""

    origin: Origin
    committed_at: float
    changes: Sequence[tuple[Change, Touched]]


def take_versions(connection: Connection, batch: Sequence[Pending]) -> int:
    """Give each unit the next version, in order, and keep what it did; return the number of the first.

    Must be the last thing a transaction does: the update locks the head row until the commit, so that no other writer
    can take a later version and commit before.
    """
    first: int = connection.scalars(_NEXT, {"count": len(batch)}).one() - len(batch) + 1
    connection.execute(
        _ADD_VERSION,
        [
            {
                "number": number,
                "committed_at": pending.committed_at,
                "author": pending.origin.author,
                "source": pending.origin.source,
                "address": pending.origin.address,
                "reason": pending.origin.reason,
                "change_count": len(pending.changes),
            }
            for number, pending in enumerate(batch, first)
        ],
    )
    connection.execute(
        _ADD_CHANGE,
        [
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
        ],
    )
    return first


def versions(connection: Connection, *, size: int, before: int | None) -> Sequence[Version]:
    """Return versions, newest first, without their changes."""
    statement = select(VERSION)
    if before is not None:
        statement = statement.where(VERSION.c.number < before)
    rows = connection.execute(statement.order_by(VERSION.c.number.desc()).limit(size))
    return [
        Version(row.number, row.committed_at, Origin(row.author, row.source, row.address, row.reason), row.change_count)
        for row in rows
    ]


def versions_with_changes(connection: Connection, *, above: int, up_to: int | None = None) -> Sequence[Version]:
    """Return the versions above `above`, in commit order, with their changes."""
    statement = select(VERSION).where(VERSION.c.number > above)
    changed = select(CHANGE).where(CHANGE.c.version > above)
    if up_to is not None:
        statement = statement.where(VERSION.c.number <= up_to)
        changed = changed.where(CHANGE.c.version <= up_to)
    changes: dict[int, list[Change]] = {}
    for row in connection.execute(changed.order_by(CHANGE.c.version, CHANGE.c.position)):
        changes.setdefault(row.version, []).append(
            Change(
                Operation(row.operation),
                row.collection,
                row.id,
                None if row.before is None else decode(row.before),
                None if row.after is None else decode(row.after),
            )
        )
    return [
        Version(
            row.number,
            row.committed_at,
            Origin(row.author, row.source, row.address, row.reason),
            row.change_count,
            tuple(changes.get(row.number, ())),
        )
        for row in connection.execute(statement.order_by(VERSION.c.number))
    ]
