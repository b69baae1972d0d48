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
from control_plane.store.tables import IDENTITY

_SAME = (IDENTITY.c.kind == bindparam("of")) & (IDENTITY.c.id == bindparam("with_id"))
_GET = select(IDENTITY.c.body).where(_SAME)
_EACH = select(IDENTITY.c.body).where(IDENTITY.c.kind == bindparam("of")).order_by(IDENTITY.c.id)
_UPDATE = update(IDENTITY).where(_SAME).values(body=bindparam("new_body"))
_DELETE = delete(IDENTITY).where(_SAME)
# Core has no portable form of ON CONFLICT; SQLite's compiler understands PostgreSQL's, as long as it has no target.
_ADD = postgresql.insert(IDENTITY).on_conflict_do_nothing()


class SqlIdentities(Identities):
    """The objects, over one transaction's connection."""

    def __init__(self, connection: Connection, will_write: Callable[[], None]) -> None:
        self._connection = connection
        self._will_write = will_write

    @override
    def get(self, kind: str, identity: str) -> EntityBody | None:
        text = self._connection.scalar(_GET, {"of": kind, "with_id": identity})
        return None if text is None else json.loads(text)

    @override
    def each(self, kind: str) -> Sequence[EntityBody]:
        return [json.loads(text) for text in self._connection.scalars(_EACH, {"of": kind})]

    @override
    def put(self, kind: str, identity: str, body: EntityBody) -> None:
        self._will_write()
        changed = self._connection.execute(_UPDATE, {"of": kind, "with_id": identity, "new_body": json.dumps(body)})
        if changed.rowcount == 0:
            self.add(kind, identity, body)

    @override
    def add(self, kind: str, identity: str, body: EntityBody) -> bool:
        self._will_write()
        row = {"kind": kind, "id": identity, "body": json.dumps(body)}
        return self._connection.execute(_ADD, row).rowcount == 1

    @override
    def delete(self, kind: str, identity: str) -> bool:
        self._will_write()
        return self._connection.execute(_DELETE, {"of": kind, "with_id": identity}).rowcount == 1
