"""Every store there is, opened the same way: the one suite runs over each of them.

A store that joins adds its opener here and nothing else. `Opener(folder, before_commit)` opens the store whose data
lives in `folder`, making it the first time; opening the same folder again after `close` finds what was written.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from control_plane.store.contract import Change, Store, Transaction
from control_plane.store.sqlite import open_sqlite

BeforeCommit = Callable[[Transaction, Sequence[Change]], None]
Opener = Callable[[Path, BeforeCommit | None], Awaitable[Store]]


async def _open_sqlite(folder: Path, before_commit: BeforeCommit | None) -> Store:
    return await open_sqlite(folder / "store.db", before_commit=before_commit)


OPENERS: Mapping[str, Opener] = {"sqlite": _open_sqlite}
