"""The registry of nodes that were seen, in the database. It is no configuration and takes no version."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select
from sqlalchemy.dialects import postgresql

from control_plane.store.contract import NodeRecord, PlaneRecord
from control_plane.store.tables import NODE, PLANE

_FORGET_OLDER = delete(NODE).where(NODE.c.id == bindparam("node_id"), NODE.c.last_seen <= bindparam("seen"))
_ADD_NODE = postgresql.insert(NODE).on_conflict_do_nothing()


def save(connection: Connection, records: Sequence[NodeRecord]) -> None:
    """Put the records in the place of those with their ids; the one seen last stays.

    A node that moved from one control plane to another is saved by both, in whatever order.
    """
    connection.execute(_FORGET_OLDER, [{"node_id": record.id, "seen": record.last_seen} for record in records])
    connection.execute(
        _ADD_NODE,
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
                "plane": record.plane,
                "epoch": record.epoch,
                "refused": record.refused,
            }
            for record in records
        ],
    )


def load(connection: Connection) -> Sequence[NodeRecord]:
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
            plane=row.plane,
            epoch=row.epoch,
            refused=row.refused,
        )
        for row in connection.execute(select(NODE).order_by(NODE.c.id))
    ]


def forget(connection: Connection, *, last_seen_before: float) -> None:
    """Drop nodes last seen before that time."""
    connection.execute(delete(NODE).where(NODE.c.last_seen < last_seen_before))


def save_plane(connection: Connection, record: PlaneRecord, *, others_seen_before: float) -> Sequence[PlaneRecord]:
    """Put the control plane's record in its place, drop those seen last before that time, and return the rest."""
    connection.execute(delete(PLANE).where((PLANE.c.id == record.id) | (PLANE.c.seen_at < others_seen_before)))
    row = {"id": record.id, "hostname": record.hostname, "started_at": record.started_at, "seen_at": record.seen_at}
    connection.execute(insert(PLANE), [row])
    return [
        PlaneRecord(row.id, row.hostname, row.started_at, row.seen_at)
        for row in connection.execute(select(PLANE).order_by(PLANE.c.id))
    ]
