"""The way out when keys are lost for good: what they sealed is dropped by name, as a version, and the rest goes on.

An entity whose secret does not open is of no use to anybody, so it is deleted, with what cascades from it; whatever
else refers to it lets go. In the history its secret becomes null: who did what and when stays, and going back to a
version that needs the secret is refused (`past.py`). Authorities of the nodes' identities are dropped, too, and made
anew at the next start.

One transaction, with no control plane over the database. Nothing here opens a secret for anybody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, select
from typing_extensions import override

from control_plane.entities.registry import STORED
from control_plane.entities.schema import foreign_id
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store import history, seals
from control_plane.store.contract import Change, Operation, Origin
from control_plane.store.history import Pending
from control_plane.store.keyring import Keyring
from control_plane.store.sealing import SEALED, SECRETS, Codec, NotOpened, Place, pattern, unwrap_index_key
from control_plane.store.tables import ENTITY, IDENTITY, REFERENCE, SEAL, UNIQUE_KEY
from control_plane.store.transaction import SqlTransaction

SOURCE = "db forget-secrets"


@dataclass(slots=True)
class Forgotten:
    """What was dropped, or would be."""

    keys: Sequence[str]
    """Ids of the keys that the ring does not have, or has another one for."""
    dropped: Sequence[str] = ()
    """The entities that are deleted or let go of one, in words."""
    identities: list[tuple[str, str]] = field(default_factory=list)
    """(kind, id) of what was kept of who may speak to the control plane."""
    past: int = 0
    """Rows of the history in which a secret became null."""
    version: int | None = None
    """The version that the deletions are; None = no entity had such a secret."""

    @property
    def anything(self) -> bool:
        """Whether there is something that does not open."""
        return bool(self.keys or self.dropped or self.identities or self.past)


class _Leaving(Codec):
    """Opens what it can; the rest is null."""

    @override
    def open(self, place: Place, envelope: EntityBody) -> JsonValue:
        try:
            return super().open(place, envelope)
        except NotOpened:
            return None

    def opens(self, place: Place, envelope: EntityBody) -> bool:
        """Whether a value is not lost."""
        return self.open(place, envelope) is not None


def forget(connection: Connection, keyring: Keyring, *, now: float) -> Forgotten:
    """Drop what does not open with this ring, in the connection's transaction; `now` is seconds since 1970."""
    codec, lost = _left(connection, keyring)
    done = Forgotten(lost)
    tx = SqlTransaction(connection, codec)
    for collection, entity_id in _unopened(connection, codec):
        _drop(tx, connection, collection, entity_id)
    touched = tx.changes()
    done.dropped = [_in_words(tx, change) for change, _ in touched]
    if touched:
        reason = f"sealed with keys that are lost: {', '.join(lost) or 'unknown'}"
        origin = Origin(source=SOURCE, reason=reason, action=SOURCE)
        done.version = history.take_versions(connection, [Pending(origin, now, touched)])
    done.past = seals.rewrite_changes(connection, codec, _nulled)
    for kind, identity in _unopened_identities(connection, codec):
        connection.execute(delete(IDENTITY).where(IDENTITY.c.kind == kind, IDENTITY.c.id == identity))
        done.identities.append((kind, identity))
    connection.execute(delete(SEAL).where(SEAL.c.key_id.in_(lost)))
    seals.note_key(connection, codec)
    return done


def _in_words(tx: SqlTransaction, change: Change) -> str:
    """One change; a name that is a secret is left out."""
    schema, body = STORED[change.collection], change.before or {}
    named = "" if schema.endpoint_key in schema.secrets else body.get(schema.endpoint_key or "")
    consumer_id = foreign_id(body.get("consumer"))
    consumer = None if consumer_id is None else tx.get("consumers", consumer_id)
    owner = "" if consumer is None else f" of consumer '{consumer['username'] or consumer['custom_id']}'"
    what = f"{schema.singular} '{named or change.id}'{owner}"
    return what if change.operation is Operation.DELETE else f"{what}: no longer refers to what is dropped"


def _left(connection: Connection, keyring: Keyring) -> tuple[_Leaving, list[str]]:
    """A codec of what the ring has, and the ids of the keys in use that it has not.

    What any key of the ring opens stands in the index by the database's own key, which every key in use has sealed:
    it is only lost when all of them are, and then nothing is left that stands there.
    """
    lost = []
    index_key = os.urandom(32)
    for row in connection.execute(select(SEAL).order_by(SEAL.c.key_id)).all():
        if row.key_id == seals.IN_THE_CLEAR:
            continue
        try:
            index_key = unwrap_index_key(keyring, row.key_id, row.index_key)
        except NotOpened:
            lost.append(row.key_id)
    return _Leaving(keyring, index_key), lost


def _is_lost(codec: _Leaving, place: Place, body: EntityBody) -> bool:
    return any(
        isinstance(value, dict) and value.keys() == {SEALED} and not codec.opens((*place, name), value)
        for name, value in body.items()
    )


def _unopened(connection: Connection, codec: _Leaving) -> list[tuple[str, str]]:
    rows = connection.execute(
        select(ENTITY).where(ENTITY.c.collection.in_(sorted(SECRETS)), ENTITY.c.body.like(pattern()))
    )
    found = [
        (row.collection, row.id) for row in rows if _is_lost(codec, (row.collection, row.id), json.loads(row.body))
    ]
    return sorted(found)


def _unopened_identities(connection: Connection, codec: _Leaving) -> list[tuple[str, str]]:
    rows = connection.execute(select(IDENTITY).where(IDENTITY.c.body.like(pattern())).order_by(*IDENTITY.primary_key))
    return [(row.kind, row.id) for row in rows if _is_lost(codec, ("identity", row.kind, row.id), json.loads(row.body))]


def _drop(tx: SqlTransaction, connection: Connection, collection: str, entity_id: str) -> None:
    """Deletes an entity after all that would keep it has let go of it."""
    children = connection.execute(
        select(REFERENCE.c.collection, REFERENCE.c.id, REFERENCE.c.field).where(
            REFERENCE.c.parent_collection == collection, REFERENCE.c.parent_id == entity_id
        )
    ).all()
    for child in children:
        if not STORED[child.collection].foreign_fields[child.field].required:
            held = tx.get(child.collection, child.id)
            assert held is not None, "a reference has its entity"
            tx.replace(child.collection, {**held, child.field: None})
    tx.delete(collection, entity_id)
    # The transaction deletes keys by their values, and one that is lost has none.
    connection.execute(delete(UNIQUE_KEY).where(UNIQUE_KEY.c.collection == collection, UNIQUE_KEY.c.id == entity_id))


def _nulled(codec: Codec, place: Place, body: EntityBody, _secrets: Sequence[str]) -> EntityBody | None:
    """What does not open, as null."""
    assert isinstance(codec, _Leaving)
    fresh = {
        name: None
        if isinstance(value, dict) and value.keys() == {SEALED} and not codec.opens((*place, name), value)
        else value
        for name, value in body.items()
    }
    return fresh if fresh != body else None
