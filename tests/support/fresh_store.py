"""Fresh SQLite stores for tests, made of one prepared file: all migrations take longer than most tests do."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from control_plane.store.contract import Store
from control_plane.store.sql_store import BeforeCommit
from control_plane.store.sqlite import open_sqlite

_prepared: list[bytes] = []


async def fresh_sqlite(
    path: Path, *, before_commit: BeforeCommit | None = None, clock: Callable[[], float] = time.time
) -> Store:
    """Opens the store at `path`; one that is not there yet begins empty, with a history of its own.

    It is what `open_sqlite` makes of no file: the same schema, by the same migrations, run once for all tests.
    """
    if not _prepared:
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder) / "store.db"
            await (await open_sqlite(first)).close()
            _prepared.append(_content(first))
    _begin(path)
    return await open_sqlite(path, before_commit=before_commit, clock=clock)


def _content(path: Path) -> bytes:
    return path.read_bytes()


def _begin(path: Path) -> None:
    if path.exists():
        return
    path.write_bytes(_prepared[0])
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE head SET epoch = ?", (os.urandom(16),))
