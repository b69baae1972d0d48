"""Rollouts in the database: their records, the entities that open ones hold, and the lease of who coordinates.

None of it is configuration or takes a version by itself; but it is written in the transaction of a unit of work, so
that a decision and the version that it makes are one commit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, Executable, bindparam, delete, func, insert, select, text, true, update
from sqlalchemy.dialects import postgresql

from control_plane.store.contract import Lease, RolloutRecord
from control_plane.store.statements import Prepared
from control_plane.store.tables import LEASE, ROLLOUT, ROLLOUT_HOLD

_NEWEST = select(func.max(ROLLOUT.c.number))
_ANY_HELD = Prepared(select(ROLLOUT_HOLD.c.rollout).limit(1))
_HELD = Prepared(
    select(ROLLOUT_HOLD.c.rollout).where(
        ROLLOUT_HOLD.c.collection == bindparam("of"), ROLLOUT_HOLD.c.id == bindparam("with_id")
    )
)
_TIME: dict[str, Executable] = {
    "postgresql": select(func.extract("epoch", func.clock_timestamp())),
    "sqlite": text("SELECT (julianday('now') - 2440587.5) * 86400.0"),
}
_ADD_LEASE = postgresql.insert(LEASE).on_conflict_do_nothing()


def next_number(connection: Connection) -> int:
    """Return the number that the next rollout gets."""
    return int(connection.scalar(_NEWEST) or 0) + 1


def save(connection: Connection, record: RolloutRecord) -> None:
    """Put the record in the place of the one with its number, or add it."""
    values = {"state": record.state, "body": json.dumps(record.body, separators=(",", ":"))}
    changed = connection.execute(update(ROLLOUT).where(ROLLOUT.c.number == record.number).values(**values))
    if not changed.rowcount:
        connection.execute(insert(ROLLOUT).values(number=record.number, **values))


def get(connection: Connection, number: int) -> RolloutRecord | None:
    """Return one rollout."""
    row = connection.execute(select(ROLLOUT).where(ROLLOUT.c.number == number)).one_or_none()
    return None if row is None else RolloutRecord(row.number, row.state, json.loads(row.body))


def newest(connection: Connection, *, size: int, before: int | None = None) -> Sequence[RolloutRecord]:
    """Return rollouts, newest first; `before` = page on below that number."""
    statement = select(ROLLOUT)
    if before is not None:
        statement = statement.where(ROLLOUT.c.number < before)
    rows = connection.execute(statement.order_by(ROLLOUT.c.number.desc()).limit(size))
    return [RolloutRecord(row.number, row.state, json.loads(row.body)) for row in rows]


def in_states(connection: Connection, states: Iterable[str]) -> Sequence[RolloutRecord]:
    """Return the rollouts in any of these states, oldest first."""
    statement = select(ROLLOUT).where(ROLLOUT.c.state.in_(tuple(states))).order_by(ROLLOUT.c.number)
    return [RolloutRecord(row.number, row.state, json.loads(row.body)) for row in connection.execute(statement)]


def hold(connection: Connection, number: int, keys: Iterable[tuple[str, str]]) -> None:
    """Let the rollout hold these entities; the database refuses when another one holds any of them."""
    rows = [{"collection": collection, "id": entity_id, "rollout": number} for collection, entity_id in keys]
    if rows:
        connection.execute(insert(ROLLOUT_HOLD), rows)


def release(connection: Connection, number: int) -> None:
    """Let go of all that the rollout holds."""
    connection.execute(delete(ROLLOUT_HOLD).where(ROLLOUT_HOLD.c.rollout == number))


def holders(connection: Connection, keys: Iterable[tuple[str, str]]) -> Mapping[tuple[str, str], int]:
    """Return which rollout holds which of these entities. Costs one statement while no rollout is open."""
    if _ANY_HELD.scalar(connection, {}) is None:
        return {}
    found = {}
    for key in keys:
        number = _HELD.scalar(connection, {"of": key[0], "with_id": key[1]})
        if number is not None:
            found[key] = int(number)
    return found


def lease(connection: Connection, name: str) -> Lease | None:
    """Return who has a lease, or had it last."""
    row = connection.execute(select(LEASE).where(LEASE.c.name == name)).one_or_none()
    return None if row is None else Lease(row.holder, row.fence, row.expires_at)


def take_lease(connection: Connection, name: str, holder: str, *, for_s: float, alone: bool = False) -> Lease | None:
    """Renew one's own lease, or take one that is free or over with the next fence; None = another has it.

    One's own that is over is taken anew: whoever was away for that long must not go on as if nothing could have
    happened. `alone` = nobody else uses the store, so the lease is over for all others and never for oneself. One
    statement decides, so that of two who try one gets it, and the time is the database's: hosts' clocks differ.
    """
    connection.execute(_ADD_LEASE, {"name": name, "holder": "", "fence": 0, "expires_at": 0.0})
    now = _now(connection)
    is_over = true() if alone else LEASE.c.expires_at <= now
    is_mine = true() if alone else LEASE.c.expires_at > now
    renewal = update(LEASE).where(LEASE.c.name == name, LEASE.c.holder == holder, is_mine)
    if not connection.execute(renewal.values(expires_at=now + for_s)).rowcount:
        taking = update(LEASE).where(LEASE.c.name == name, is_over)
        values = {"holder": holder, "fence": LEASE.c.fence + 1, "expires_at": now + for_s}
        if not connection.execute(taking.values(**values)).rowcount:
            return None
    return lease(connection, name)


def drop_lease(connection: Connection, name: str, holder: str) -> None:
    """Let a lease of one's own be over, so that others need not wait."""
    mine = update(LEASE).where(LEASE.c.name == name, LEASE.c.holder == holder)
    connection.execute(mine.values(expires_at=0.0))


def _now(connection: Connection) -> float:
    """Return the database's time, in seconds since 1970."""
    return float(connection.scalar(_TIME[connection.dialect.name]) or 0.0)
