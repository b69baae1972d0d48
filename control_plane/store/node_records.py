"""The registry of nodes that were seen, in the database. It is no configuration and takes no version."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, delete, insert, select

from control_plane.store.contract import NodeRecord
from control_plane.store.tables import NODE


def save(connection: Connection, records: Sequence[NodeRecord]) -> None:
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
        )
        for row in connection.execute(select(NODE).order_by(NODE.c.id))
    ]


def forget(connection: Connection, *, last_seen_before: float) -> None:
    """Drop nodes last seen before that time."""
    connection.execute(delete(NODE).where(NODE.c.last_seen < last_seen_before))
