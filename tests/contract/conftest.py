from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.store.contract import Store
from tests.contract.stores import OPENERS, Opener


@pytest.fixture(params=sorted(OPENERS))
def open_store(request: pytest.FixtureRequest) -> Opener:
    return OPENERS[request.param]


@pytest.fixture
async def store(open_store: Opener, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path, None)
    yield opened
    await opened.close()
