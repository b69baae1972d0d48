"""The whole Admin API over a store in a temporary file, called without a socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.admin.api import AdminApi
from control_plane.admin.information import Connections, Identity
from control_plane.admin.limits import Limits
from control_plane.admin.messages import Answer
from control_plane.admin.parts import Parts
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.identity.operators import Operators
from control_plane.snapshot.consistency import check_changes
from control_plane.store.contract import Store
from tests.support.fresh_store import fresh_sqlite
from tests.unit.control_plane.admin.calls import call
from tests.unit.control_plane.admin.fake_fleet import FakeFleet


@dataclass(frozen=True, slots=True)
class Client:
    """Asks the API and reads its answers."""

    api: AdminApi
    store: Store
    fleet: FakeFleet

    async def ask(
        self,
        method: str,
        target: str,
        body: JsonValue | bytes = None,
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Answer:
        """One call; a body that is not bytes is sent as JSON."""
        if body is None:
            raw = b""
        elif isinstance(body, bytes):
            raw = body
        else:
            raw, content_type = json.dumps(body).encode(), content_type or "application/json"
        return await self.api.answer(
            call(method, target, raw, content_type=content_type, headers=headers, limits=limits)
        )

    async def tree(self, method: str, target: str, body: JsonValue = None, *, status: int = 200) -> EntityBody:
        """One call whose answer is a JSON object with that status."""
        answer = await self.ask(method, target, body)
        assert answer.status == status, answer.body
        return tree(answer)


def tree(answer: Answer) -> EntityBody:
    """An answer's JSON object."""
    found = json.loads(answer.body)
    assert isinstance(found, dict)
    return found


def make_api(store: Store, fleet: FakeFleet, *, operators: Operators | None = None) -> AdminApi:
    """An API over these parts."""
    return AdminApi(
        Parts(store=store, fleet=fleet, operators=operators),
        identity=Identity(node_id="00000000-0000-4000-8000-000000000001", admin_address=lambda: "127.0.0.1:8001"),
        connections=lambda: Connections(accepted=3, active=2, requests=9, writing=1),
    )


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    store = await fresh_sqlite(tmp_path / "store.db", before_commit=check_changes)
    fleet = FakeFleet()
    yield Client(make_api(store, fleet), store, fleet)
    await store.close()
