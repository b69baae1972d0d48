"""What tests of rollouts share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.snapshot.consistency import before_commit
from control_plane.store.contract import Store
from control_plane.store.sqlite import open_sqlite


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """One that checks what is written, as a control plane's does."""
    store = await open_sqlite(tmp_path / "store.db", before_commit=before_commit)
    yield store
    await store.close()
