"""Brings a database to the schema of this program, from empty or from any earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from control_plane.store.contract import StoreUnusable

_SCRIPTS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = 0x706F696E74736D6D


@dataclass(frozen=True, slots=True)
class SchemaState:
    """How a database's schema compares with this program's."""

    current: str | None  # None = empty
    head: str
    pending: tuple[str, ...]  # revisions still to be run, in order
    known: bool  # False = of a newer program


def schema_state(connection: Connection) -> SchemaState:
    """Look without changing anything; raises StoreUnusable for a database of another program."""
    scripts = ScriptDirectory.from_config(_config(connection))
    chain = [script.revision for script in scripts.walk_revisions()][::-1]
    current = MigrationContext.configure(connection).get_current_revision()
    if current is None and inspect(connection).get_table_names():
        raise StoreUnusable(
            "the database holds tables already, but it is not a database of this program; give it one of its own"
        )
    known = current is None or current in chain
    done = chain.index(current) + 1 if current in chain else 0
    return SchemaState(current, chain[-1], tuple(chain[done:]) if known else (), known)


def migrate(connection: Connection, *, from_earlier: bool = True, to: str = "head") -> SchemaState:
    """Upgrade to the newest schema; return how it was before.

    `from_earlier=False` upgrades an empty database only: where several processes share one, an operator decides when.
    Raises StoreUnusable for a database that this program does not know or must not touch.
    """
    if connection.dialect.name == "postgresql":  # several control planes may start over an empty database at once
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_ONE_AT_A_TIME})"))
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
        command.upgrade(_config(connection), to)
    return state


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
