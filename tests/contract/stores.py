"""Every store there is, opened the same way: the one suite runs over each of them.

A store that joins adds its opener here and nothing else. `Opener(folder, before_commit)` opens the store whose data
lives in `folder`, making it the first time; opening the same folder again after `close` finds what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from control_plane.store.contract import Change, Store, Transaction
from control_plane.store.postgres import open_postgres
from tests.support.fresh_store import fresh_sqlite
from tests.support.postgres import KEYRING, PostgresServer

BeforeCommit = Callable[[Transaction, Sequence[Change]], None]
Opener = Callable[[Path, BeforeCommit | None], Awaitable[Store]]
STORES = ("postgres", "sqlite")


async def open_in_file(folder: Path, before_commit: BeforeCommit | None) -> Store:
    """SQLite in the folder."""
    return await fresh_sqlite(folder / "store.db", before_commit=before_commit)


def in_server(server: PostgresServer) -> Opener:
    """A database of the server for each folder."""

    async def opener(folder: Path, before_commit: BeforeCommit | None) -> Store:
        url = server.create("t" + hashlib.sha256(str(folder).encode()).hexdigest()[:20])
        return await open_postgres(url, keyring=KEYRING, before_commit=before_commit)

    return opener
