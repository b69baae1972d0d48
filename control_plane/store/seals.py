"""What is sealed in a database, with which keys, and the ways from one key to another.

The table `seal` has a row for each key that may have sealed something here, with the key of the hashes sealed by it.
So it tells two things without opening a single secret: whether a keyring is the right one, and which keys can't be
given up yet. A unit of work that seals something sees to its row first, in the same transaction.

The row without an id stands for secrets that lie in the clear, as earlier programs left them: they are sealed before
the database is used again. Going from one key to another is done in portions, beside everything else, and begins anew
where it was interrupted, because what is done already is seen by its key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql

from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody
from control_plane.store.contract import StoreUnusable
from control_plane.store.keyring import Keyring
from control_plane.store.sealing import HASHED, SEALED, SECRETS, Codec, NotOpened, Place, pattern, unwrap_index_key
from control_plane.store.tables import CHANGE, ENTITY, IDENTITY, SEAL, UNIQUE_KEY

IN_THE_CLEAR = ""
PORTION = 500
"""Rows looked at in one transaction, so that writes need not wait for more."""

IDENTITY_SECRETS: Mapping[str, tuple[str, ...]] = {"node-ca": ("key",)}
"""What earlier programs kept in the clear, by kind; today whoever keeps an object says what is secret in it."""

Rewrite = Callable[[Codec, Place, EntityBody, Sequence[str]], EntityBody | None]
"""How a row's body becomes another: from codec, place, body and the fields that are secrets; None = it stays."""

_ADD = postgresql.insert(SEAL).on_conflict_do_nothing()
_OURS = sorted(SECRETS)
_SET_KEY = (
    update(UNIQUE_KEY)
    .where(
        UNIQUE_KEY.c.collection == bindparam("of"),
        UNIQUE_KEY.c.key == bindparam("by"),
        UNIQUE_KEY.c.id == bindparam("with_id"),
    )
    .values(value=bindparam("hashed"))
)


def keys_in_use(connection: Connection) -> list[str]:
    """Return the ids of the keys that may have sealed something here; the empty one = secrets lie in the clear."""
    return sorted(connection.scalars(select(SEAL.c.key_id)))


def note_key(connection: Connection, codec: Codec) -> None:
    """See to it that the active key is known to be in use."""
    connection.execute(_ADD, {"key_id": codec.active, "index_key": codec.wrapped_index_key()})


def open_codec(connection: Connection, keyring: Keyring, *, renew: bool) -> tuple[Codec, bool]:
    """Return how this database's bodies are read and written, and whether secrets lay in the clear and were sealed now.

    What lay in the clear may still be in places that the database no longer looks at; `forget_clear` ends that state.
    `renew` = where nothing was ever sealed, a ring with other keys may take over; only for a database that nobody else
    has open. Raises StoreUnusable for a keyring that lacks a key in use, or has another under its name.
    """
    wrapped = {row.key_id: row.index_key for row in connection.execute(select(SEAL))}
    in_the_clear = wrapped.pop(IN_THE_CLEAR, None) is not None
    missing = sorted(name for name in wrapped if name not in keyring.keys)
    if missing and renew and not any_sealed(connection):
        connection.execute(delete(SEAL).where(SEAL.c.key_id != IN_THE_CLEAR))
        wrapped, missing = {}, []
    if missing:
        raise StoreUnusable(
            f"secrets in the database are sealed with the key '{missing[0]}', which {keyring.source} does not have; "
            "give the keyring that was used before (docs/runbook.md, the key is lost)"
        )
    index_key = os.urandom(32)
    for name, text in wrapped.items():
        try:
            index_key = unwrap_index_key(keyring, name, text)
        except NotOpened:
            raise StoreUnusable(
                f"the key '{name}' in {keyring.source} is not the one that the database's secrets are sealed with; all "
                "control planes over a database need the same keyring"
            ) from None
    codec = Codec(keyring, index_key)
    if not wrapped:
        note_key(connection, codec)
    if in_the_clear:
        _seal_all(connection, codec)
    return codec, in_the_clear


def forget_clear(connection: Connection) -> None:
    """Note that nothing lies in the clear any more."""
    connection.execute(delete(SEAL).where(SEAL.c.key_id == IN_THE_CLEAR))


def rewrite_changes(connection: Connection, codec: Codec, rewrite: Rewrite) -> int:
    """Bring all of the history's bodies with secrets through `rewrite`; return how many rows it changed."""
    behind, rewritten = _changes(connection, codec, None, rewrite)
    while behind is not None:
        behind, count = _changes(connection, codec, behind, rewrite)
        rewritten += count
    return rewritten


def any_sealed(connection: Connection, key_id: str = "") -> bool:
    """Tell whether anything is sealed with a key; with any, when none is named."""
    wanted = pattern(key_id)
    return any(
        connection.scalar(select(exists().where(condition)))
        for condition in (
            ENTITY.c.collection.in_(_OURS) & ENTITY.c.body.like(wanted),
            CHANGE.c.collection.in_(_OURS) & or_(CHANGE.c.before.like(wanted), CHANGE.c.after.like(wanted)),
            IDENTITY.c.body.like(wanted),
        )
    )


@dataclass(slots=True)
class Resealing:
    """One pass over the whole database, a portion at a time; each in a transaction of its own."""

    codec: Codec
    table: int = 0
    behind: tuple[object, ...] | None = None
    rewritten: int = 0

    def portion(self, connection: Connection) -> bool:
        """Seal what is sealed with other keys; True when the pass is at its end."""
        note_key(connection, self.codec)
        turn = _TABLES[self.table]
        self.behind, count = turn(connection, self.codec, self.behind, _resealed)
        self.rewritten += count
        if self.behind is None:
            self.table += 1
        return self.table == len(_TABLES)

    def finish(self, connection: Connection) -> bool:
        """Forget the other keys unless something is still sealed with one of them; False then: another pass is due."""
        others = [name for name in keys_in_use(connection) if name not in (self.codec.active, IN_THE_CLEAR)]
        unused = [name for name in others if not any_sealed(connection, name)]
        if unused:
            note_key(connection, self.codec)
            connection.execute(delete(SEAL).where(SEAL.c.key_id.in_(unused)))
        return len(unused) == len(others)


async def reseal(
    codec: Codec, transaction: Callable[[Callable[[Connection], bool]], Awaitable[bool]], *, passes_max: int = 3
) -> int | None:
    """Bring everything to the active key; return how many rows were rewritten, None = others seal with another key.

    `transaction` runs a function in one of its own.
    """
    rewritten = 0
    for _ in range(passes_max):
        work = Resealing(codec)
        while not await transaction(work.portion):
            pass
        rewritten += work.rewritten
        if await transaction(work.finish):
            return rewritten
    return None


def _resealed(codec: Codec, place: Place, body: EntityBody, _secrets: Sequence[str]) -> EntityBody | None:
    """What is sealed with another key, sealed with the active one."""
    fresh = dict(body)
    for name, value in body.items():
        if isinstance(value, dict) and value.keys() == {SEALED} and codec.sealed_by(value) != codec.active:
            fresh[name] = codec.seal((*place, name), codec.open((*place, name), value))
    return fresh if fresh != body else None


def _sealed(codec: Codec, place: Place, body: EntityBody, secrets: Sequence[str]) -> EntityBody | None:
    """What lies in the clear, sealed."""
    plain = [name for name in secrets if isinstance(body.get(name), str)]
    return codec.sealed(place, body, plain) if plain else None


def _seal_all(connection: Connection, codec: Codec) -> None:
    for turn in _TABLES:
        behind, _ = turn(connection, codec, None, _sealed)
        while behind is not None:
            behind, _ = turn(connection, codec, behind, _sealed)
    _hash_keys(connection, codec)


def _hash_keys(connection: Connection, codec: Codec) -> None:
    """Unique keys that hold a secret, as hashes."""
    for collection, secrets in SECRETS.items():
        for parts in STORED[collection].unique_keys:
            if not any(part in secrets for part in parts):
                continue
            by = ",".join(parts)
            here = (UNIQUE_KEY.c.collection == collection) & (UNIQUE_KEY.c.key == by)
            for row in connection.execute(select(UNIQUE_KEY.c.id, UNIQUE_KEY.c.value).where(here)).all():
                if not row.value.startswith(HASHED):
                    hashed = codec.key_value(collection, parts, json.loads(row.value))
                    connection.execute(_SET_KEY, {"of": collection, "by": by, "with_id": row.id, "hashed": hashed})


def _entities(
    connection: Connection, codec: Codec, behind: tuple[object, ...] | None, rewrite: Rewrite
) -> tuple[tuple[object, ...] | None, int]:
    place = (ENTITY.c.collection, ENTITY.c.id)
    rows = connection.execute(
        select(*place, ENTITY.c.body)
        .where(ENTITY.c.collection.in_(_OURS), *_behind(place, behind))
        .order_by(*place)
        .limit(PORTION)
    ).all()
    count = 0
    for row in rows:
        fresh = rewrite(codec, (row.collection, row.id), json.loads(row.body), SECRETS[row.collection])
        if fresh is not None:
            here = (ENTITY.c.collection == row.collection) & (ENTITY.c.id == row.id)
            connection.execute(update(ENTITY).where(here).values(body=_text(fresh)))
            count += 1
    return (None if len(rows) < PORTION else (rows[-1].collection, rows[-1].id)), count


def _changes(
    connection: Connection, codec: Codec, behind: tuple[object, ...] | None, rewrite: Rewrite
) -> tuple[tuple[object, ...] | None, int]:
    place = (CHANGE.c.version, CHANGE.c.position)
    rows = connection.execute(
        select(CHANGE).where(CHANGE.c.collection.in_(_OURS), *_behind(place, behind)).order_by(*place).limit(PORTION)
    ).all()
    count = 0
    for row in rows:
        fresh = {}
        for side, text in (("before", row.before), ("after", row.after)):
            body = None if text is None else json.loads(text)
            new = None if body is None else rewrite(codec, (row.collection, row.id), body, SECRETS[row.collection])
            if new is not None:
                fresh[side] = _text(new)
        if fresh:
            here = (CHANGE.c.version == row.version) & (CHANGE.c.position == row.position)
            connection.execute(update(CHANGE).where(here).values(**fresh))
            count += 1
    return (None if len(rows) < PORTION else (rows[-1].version, rows[-1].position)), count


def _identities(
    connection: Connection, codec: Codec, behind: tuple[object, ...] | None, rewrite: Rewrite
) -> tuple[tuple[object, ...] | None, int]:
    place = (IDENTITY.c.kind, IDENTITY.c.id)
    rows = connection.execute(
        select(*place, IDENTITY.c.body).where(*_behind(place, behind)).order_by(*place).limit(PORTION)
    ).all()
    count = 0
    for row in rows:
        secrets = IDENTITY_SECRETS.get(row.kind, ())
        fresh = rewrite(codec, ("identity", row.kind, row.id), json.loads(row.body), secrets)
        if fresh is not None:
            here = (IDENTITY.c.kind == row.kind) & (IDENTITY.c.id == row.id)
            connection.execute(update(IDENTITY).where(here).values(body=_text(fresh)))
            count += 1
    return (None if len(rows) < PORTION else (rows[-1].kind, rows[-1].id)), count


_TABLES = (_entities, _changes, _identities)


def _behind(place: tuple[object, ...], behind: tuple[object, ...] | None) -> list[ColumnElement[bool]]:
    return [] if behind is None else [tuple_(*place) > behind]


def _text(body: EntityBody) -> str:
    return json.dumps(body, separators=(",", ":"))
