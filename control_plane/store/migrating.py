"""Brings a database to the schema of this program, from empty or from any earlier one."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from control_plane.store.contract import StoreUnusable

_SCRIPTS = Path(__file__).parent / "migrations"


def migrate(connection: Connection) -> None:
    """Upgrade to the newest schema; raises StoreUnusable for a database that this program does not know."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    current = MigrationContext.configure(connection).get_current_revision()
    if current is not None and current not in known:
        raise StoreUnusable(
            f"the database has schema {current}, which is newer than this program; start the version that wrote it"
        )
    if current is None and inspect(connection).get_table_names():
        raise StoreUnusable(
            "the database holds tables already, but it is not a database of this program; give it one of its own"
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
