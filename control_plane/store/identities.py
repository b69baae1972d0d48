"""Who may speak to the control plane, in the database: tokens, authorities, certificates that were given out.

Whoever owns a kind of object decides what is in it (`control_plane/identity`); here it is JSON by kind and id.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql
from typing_extensions import override

from control_plane.entities.types import EntityBody
from control_plane.store.contract import Identities
from control_plane.store.sealing import Codec
from control_plane.store.tables import IDENTITY

_SAME = (IDENTITY.c.kind == bindparam("of")) & (IDENTITY.c.id == bindparam("with_id"))
_GET = select(IDENTITY.c.body).where(_SAME)
_EACH = select(IDENTITY.c.id, IDENTITY.c.body).where(IDENTITY.c.kind == bindparam("of")).order_by(IDENTITY.c.id)
_UPDATE = update(IDENTITY).where(_SAME).values(body=bindparam("new_body"))
_DELETE = delete(IDENTITY).where(_SAME)
# Core has no portable form of ON CONFLICT; SQLite's compiler understands PostgreSQL's, as long as it has no target.
_ADD = postgresql.insert(IDENTITY).on_conflict_do_nothing()


class SqlIdentities(Identities):
    """The objects, over one transaction's connection."""

    def __init__(
        self,
        connection: Connection,
        codec: Codec,
        will_write: Callable[[], None],
        will_seal: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._codec = codec
        self._will_write = will_write
        self._will_seal = will_seal

    @override
    def get(self, kind: str, identity: str) -> EntityBody | None:
        text = self._connection.scalar(_GET, {"of": kind, "with_id": identity})
        return None if text is None else self._opened(kind, json.loads(text), identity)

    @override
    def each(self, kind: str) -> Sequence[EntityBody]:
        rows = self._connection.execute(_EACH, {"of": kind})
        return [self._opened(kind, json.loads(row.body), row.id) for row in rows]

    @override
    def put(self, kind: str, identity: str, body: EntityBody, *, secrets: Sequence[str] = ()) -> None:
        self._will_write()
        text = self._text(kind, identity, body, secrets)
        changed = self._connection.execute(_UPDATE, {"of": kind, "with_id": identity, "new_body": text})
        if changed.rowcount == 0:
            self.add(kind, identity, body, secrets=secrets)

    @override
    def add(self, kind: str, identity: str, body: EntityBody, *, secrets: Sequence[str] = ()) -> bool:
        self._will_write()
        row = {"kind": kind, "id": identity, "body": self._text(kind, identity, body, secrets)}
        return self._connection.execute(_ADD, row).rowcount == 1

    @override
    def delete(self, kind: str, identity: str) -> bool:
        self._will_write()
        return self._connection.execute(_DELETE, {"of": kind, "with_id": identity}).rowcount == 1

    def _text(self, kind: str, identity: str, body: EntityBody, secrets: Sequence[str]) -> str:
        if secrets:
            self._will_seal()
            body = self._codec.sealed(("identity", kind, identity), body, secrets)
        return json.dumps(body, separators=(",", ":"))

    def _opened(self, kind: str, body: EntityBody, identity: str) -> EntityBody:
        self._codec.open_all(("identity", kind, identity), body)
        return body
