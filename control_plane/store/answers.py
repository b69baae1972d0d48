"""Answers kept for requests with an Idempotency-Key: written in the transaction of the request that they answer."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql

from control_plane.store.contract import KeptAnswer, StoreBusy
from control_plane.store.tables import ANSWER

_FIND = select(ANSWER).where(ANSWER.c.key == bindparam("wanted"))
_KEEP = postgresql.insert(ANSWER).on_conflict_do_nothing()
_SET_VERSION = update(ANSWER).where(ANSWER.c.key == bindparam("wanted")).values(version=bindparam("made"))


def find(connection: Connection, key: str) -> KeptAnswer | None:
    """Return what was answered to the request with that key."""
    row = connection.execute(_FIND, {"wanted": key}).one_or_none()
    if row is None:
        return None
    return KeptAnswer(row.key, row.fingerprint, row.answered_at, row.status, row.body, row.version)


def keep(connection: Connection, answer: KeptAnswer) -> None:
    """Keep an answer; raises StoreBusy when another transaction was first with that key."""
    row = {
        "key": answer.key,
        "fingerprint": answer.fingerprint,
        "answered_at": answer.answered_at,
        "status": answer.status,
        "body": answer.body,
        "version": None,
    }
    if connection.execute(_KEEP, row).rowcount != 1:
        raise StoreBusy("a request with this Idempotency-Key is being answered; ask again shortly")


def set_version(connection: Connection, key: str, version: int) -> None:
    """Note the version that the request with that key made."""
    connection.execute(_SET_VERSION, {"wanted": key, "made": version})


def forget(connection: Connection, *, answered_before: float, count_max: int) -> None:
    """Forget answers of before that time, and the oldest beyond `count_max`."""
    connection.execute(delete(ANSWER).where(ANSWER.c.answered_at < answered_before))
    newest_too_many = connection.scalar(
        select(ANSWER.c.answered_at).order_by(ANSWER.c.answered_at.desc()).offset(count_max).limit(1)
    )
    if newest_too_many is not None:
        connection.execute(delete(ANSWER).where(ANSWER.c.answered_at <= newest_too_many))
