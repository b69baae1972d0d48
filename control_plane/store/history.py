"""Versions and nodes in the database: the statements beside those on entities."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from control_plane.store.contract import Change, NodeRecord, Operation, Origin, Version
from control_plane.store.tables import CHANGE, HEAD, NODE, VERSION
from control_plane.store.transaction import decode, encode

_NEXT = update(HEAD).where(HEAD.c.one == 1).values(version=HEAD.c.version + 1).returning(HEAD.c.version)
_HEAD = select(HEAD.c.version).where(HEAD.c.one == 1)
_EPOCH = select(HEAD.c.epoch).where(HEAD.c.one == 1)


def head(connection: Connection) -> int:
    """Return the newest version."""
    version: int = connection.scalars(_HEAD).one()
    return version


def epoch(connection: Connection) -> bytes:
    """Return the name of this history."""
    name: bytes = connection.scalars(_EPOCH).one()
    return name


def take_version(connection: Connection, origin: Origin, changes: Sequence[Change]) -> int:
    """Take the next version and keep what it changed. Must be the last thing a transaction does.

    The update locks the head row until the commit, so no other writer can take a later version and commit before.
    """
    number: int = connection.scalars(_NEXT).one()
    connection.execute(
        insert(VERSION),
        {
            "number": number,
            "committed_at": time.time(),
            "author": origin.author,
            "source": origin.source,
            "address": origin.address,
            "reason": origin.reason,
            "change_count": len(changes),
        },
    )
    connection.execute(
        insert(CHANGE),
        [
            {
                "version": number,
                "position": position,
                "operation": change.operation.value,
                "collection": change.collection,
                "id": change.id,
                "before": None if change.before is None else encode(change.before),
                "after": None if change.after is None else encode(change.after),
            }
            for position, change in enumerate(changes)
        ],
    )
    return number


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


def save_nodes(connection: Connection, records: Sequence[NodeRecord]) -> None:
    """Put the records in the place of those with their ids."""
    connection.execute(
        delete(NODE).where(NODE.c.id == bindparam("node_id")), [{"node_id": record.id} for record in records]
    )
    connection.execute(
        insert(NODE),
        [
            {
                "id": record.id,
                "hostname": record.hostname,
                "ip": record.ip,
                "software": record.software,
                "labels": json.dumps(dict(record.labels)),
                "config_hash": record.config_hash,
                "version": record.version,
                "last_seen": record.last_seen,
                "first_seen": record.first_seen,
                "sync_status": record.sync_status,
            }
            for record in records
        ],
    )


def nodes(connection: Connection) -> Sequence[NodeRecord]:
    """Return all nodes by id."""
    return [
        NodeRecord(
            id=row.id,
            hostname=row.hostname,
            ip=row.ip,
            software=row.software,
            labels=json.loads(row.labels),
            config_hash=row.config_hash,
            version=row.version,
            last_seen=row.last_seen,
            first_seen=row.first_seen,
            sync_status=row.sync_status,
        )
        for row in connection.execute(select(NODE).order_by(NODE.c.id))
    ]


def forget_nodes(connection: Connection, *, last_seen_before: float) -> None:
    """Drop nodes last seen before that time."""
    connection.execute(delete(NODE).where(NODE.c.last_seen < last_seen_before))
