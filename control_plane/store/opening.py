"""Which store a setting names: a file is SQLite, a URL is PostgreSQL.

A store is imported where it is opened: settings are checked without any, and what PostgreSQL needs is a good part of
the start of a control plane over a file, which has no use for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from control_plane.store.keyring import Keyring, parse, read_file

if TYPE_CHECKING:
    from control_plane.store.sql_store import BeforeCommit, SqlStore

SCHEMES = ("postgresql://", "postgres://")


def is_postgres(database: str) -> bool:
    """Whether the setting is a PostgreSQL URL."""
    return database.startswith(SCHEMES)


def shown(database: str) -> str:
    """The database as messages and logs may show it: without a password."""
    if not is_postgres(database):
        return database
    from control_plane.store.postgres_link import Link  # noqa: PLC0415  # see the module's head

    return f"PostgreSQL {Link(database).name}"


def refusal(database: str) -> str | None:
    """What is wrong with the setting; None = it names a file or a PostgreSQL database."""
    if "://" in database and not is_postgres(database):
        return "that is neither a file nor a URL like postgresql://user@host:5432/pointsman"
    if not database:
        return "it is empty; name a file or a URL like postgresql://user@host:5432/pointsman"
    return None


async def open_store(
    database: str, *, keyring: Keyring | None = None, before_commit: BeforeCommit | None = None
) -> SqlStore:
    """Opens what the setting names; without a keyring, an SQLite file brings its own.

    Raises StoreUnusable and StoreUnavailable.
    """
    if is_postgres(database):
        from control_plane.store.postgres import open_postgres  # noqa: PLC0415  # see the module's head

        return await open_postgres(database, keyring=keyring, before_commit=before_commit)
    from control_plane.store.sqlite import open_sqlite  # noqa: PLC0415  # see the module's head

    return await open_sqlite(Path(database), keyring=keyring, before_commit=before_commit)


def given_keyring(text: str, file: str) -> Keyring | None:
    """The keyring of the settings `keyring` and `keyring_file`; None = neither is set. Raises StoreUnusable."""
    if text:
        return parse(text, source="the setting keyring")
    return read_file(Path(file)) if file else None
