from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.store.contract import Store
from tests.contract.stores import STORES, Opener, in_server, open_in_file
from tests.support.postgres import PostgresServer


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest) -> Opener:
    if request.param == "sqlite":
        return open_in_file
    server: PostgresServer = request.getfixturevalue("postgres")
    return in_server(server)


@pytest.fixture(params=STORES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """What a fresh database is opened by."""
    if request.param == "sqlite":
        return str(tmp_path / "store.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create(tmp_path.name)


@pytest.fixture
async def store(open_store: Opener, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path, None)
    yield opened
    await opened.close()
