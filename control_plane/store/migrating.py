"""Brings a database to the schema of this program, from empty or from any earlier one.

An empty database gets today's tables at once and is marked as migrated; one that is at this program's schema is only
asked for its mark. So Alembic, whose import alone takes longer than either, is loaded for a database of an earlier
program only. Tests hold the tables so made equal to the migrated ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Column, Connection, MetaData, PrimaryKeyConstraint, String, Table, insert, inspect, select, text

from control_plane.store.contract import StoreUnusable
from control_plane.store.tables import AUDIT_HEAD, HEAD, SCHEMA, as_made

if TYPE_CHECKING:
    from alembic.config import Config

_SCRIPTS = Path(__file__).parent / "migrations"
ONE_AT_A_TIME = 0x706F696E74736D6D
_MARK = Table(
    "alembic_version",
    MetaData(),
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
"""Alembic's own table, with the revision that the database is at."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a database's schema compares with this program's."""

    current: str | None  # None = empty
    head: str
    pending: tuple[str, ...]  # revisions still to be run, in order
    known: bool  # False = of a newer program


def schema_state(connection: Connection) -> SchemaState:
    """Look without changing anything; raises StoreUnusable for a database of another program."""
    current = _current(connection)
    if current == SCHEMA:
        return SchemaState(current, SCHEMA, (), known=True)
    chain = _chain(connection)
    known = current is None or current in chain
    done = chain.index(current) + 1 if current in chain else 0
    return SchemaState(current, chain[-1], tuple(chain[done:]) if known else (), known)


def _current(connection: Connection) -> str | None:
    tables = inspect(connection).get_table_names()
    current: str | None = connection.scalar(select(_MARK.c.version_num)) if _MARK.name in tables else None
    if current is None and set(tables) - {_MARK.name}:
        raise StoreUnusable(
            "the database holds tables already, but it is not a database of this program; give it one of its own"
        )
    return current


def _chain(connection: Connection) -> list[str]:
    """All revisions, oldest first."""
    from alembic.script import ScriptDirectory  # noqa: PLC0415  # see the module's head

    scripts = ScriptDirectory.from_config(_config(connection))
    return [script.revision for script in scripts.walk_revisions()][::-1]


def migrate(connection: Connection, *, from_earlier: bool = True, to: str = "head") -> SchemaState:
    """Upgrade to the newest schema; return how it was before.

    `from_earlier=False` upgrades an empty database only: where several processes share one, an operator decides when.
    Raises StoreUnusable for a database that this program does not know or must not touch.
    """
    if connection.dialect.name == "postgresql":  # several control planes may start over an empty database at once
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ONE_AT_A_TIME})"))
    if to in ("head", SCHEMA) and _current(connection) is None:
        _create(connection)
        return SchemaState(None, SCHEMA, (SCHEMA,), known=True)
    state = schema_state(connection)
    if not state.known:
        raise StoreUnusable(
            f"the database has schema {state.current}, which is newer than this program; start the version that wrote "
            "it"
        )
    if state.current is not None and state.pending and not from_earlier:
        raise StoreUnusable(
            f"the database has schema {state.current}, this program needs {state.head}; stop all control planes over "
            "it, make a backup, and run `pointsman db upgrade`"
        )
    if state.pending:
        from alembic import command  # noqa: PLC0415  # see the module's head

        command.upgrade(_config(connection), to)
    return state


def _create(connection: Connection) -> None:
    """Fills an empty database with what all migrations together would make of it."""
    as_made().create_all(connection, checkfirst=False)
    connection.execute(insert(HEAD).values(one=1, epoch=os.urandom(16), version=0))
    connection.execute(insert(AUDIT_HEAD).values(one=1, number=0, hash="0" * 64))
    _MARK.create(connection, checkfirst=True)
    connection.execute(insert(_MARK).values(version_num=SCHEMA))


def _config(connection: Connection) -> Config:
    from alembic.config import Config  # noqa: PLC0415  # see the module's head

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
