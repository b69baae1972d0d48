"""docs/reference/admin-api-paths.md, made from the document that `/openapi.json` answers.

python -m tests.support.paths_reference > docs/reference/admin-api-paths.md
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from control_plane.admin import switches
from control_plane.admin.api import AdminApi
from control_plane.admin.information import Connections, Identity
from control_plane.admin.openapi import document
from control_plane.admin.operations import Operation
from control_plane.admin.parts import Parts
from control_plane.admin.table import PathTable
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.sqlite import open_sqlite
from tests.unit.control_plane.admin.fake_fleet import FakeFleet

if TYPE_CHECKING:
    from control_plane.switching.switches import Switches

_HEAD = """# Paths of the Admin API

Made from `GET /openapi.json` (OpenAPI 3.1), which a running control plane answers and which also has every field of
every body. `HEAD` goes wherever `GET` does, `OPTIONS` everywhere. Errors are `{"message", "code", "name", "fields"}`;
writes take `Prefer: wait=SECONDS` and tell their version in `X-Pointsman-Version`.
[admin-api.md](admin-api.md) explains what is ours beyond Kong.
"""


async def _table() -> PathTable:
    """Return the paths of an Admin API as it is started."""
    with tempfile.TemporaryDirectory(prefix="pointsman-paths-") as folder:
        store = await open_sqlite(Path(folder) / "store.db")
        try:
            return AdminApi(
                Parts(store=store, fleet=FakeFleet()),
                identity=Identity(node_id="-", admin_address=lambda: "127.0.0.1:8001"),
                connections=lambda: Connections(accepted=0, active=0, requests=0, writing=0),
            ).table
        finally:
            await store.close()


def operations() -> list[tuple[str, str, Operation]]:
    """Return every (path, method, what it does), for tests that run over all of them."""
    return asyncio.run(_table()).operations()


async def described() -> EntityBody:
    """Return the OpenAPI document of an Admin API as it is started, with the paths of switches.

    Those need a fleet of real nodes; here they are only told of, never called, so nothing stands behind them.
    """
    table = await _table()
    switches.mount(table, cast("Switches", SimpleNamespace()), time.time)
    return document(table, SCHEMAS, version="-")


def reference(tree: EntityBody) -> str:
    """Return the page of an OpenAPI document."""
    lines = [_HEAD, "| path | method | | takes | answers |", "|---|---|---|---|---|"]
    paths = tree["paths"]
    assert isinstance(paths, dict)
    for path, item in paths.items():
        assert isinstance(item, dict)
        for method, operation in item.items():
            if method == "parameters":
                continue
            assert isinstance(operation, dict)
            takes = [f"`{name}`" for name in _names(operation.get("parameters"), where="query")]
            body = operation.get("requestBody")
            if isinstance(body, dict):
                takes.append("a body")
            answers = operation["responses"]
            assert isinstance(answers, dict)
            statuses = ", ".join(status for status in answers if status != "default") or "refuses"
            cells = (f"`{path}`", method.upper(), str(operation["summary"]), ", ".join(takes), statuses)
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _names(parameters: JsonValue, *, where: str) -> list[str]:
    if not isinstance(parameters, list):
        return []
    return [str(one["name"]) for one in parameters if isinstance(one, dict) and one["in"] == where]


if __name__ == "__main__":
    sys.stdout.write(reference(asyncio.run(described())))
