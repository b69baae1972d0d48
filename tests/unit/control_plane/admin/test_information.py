"""What the Admin API says about itself, its history and its nodes."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody
from control_plane.fleet.nodes import NodeState, NodeView, SyncStatus
from control_plane.fleet.own_settings import Fence
from tests.unit.control_plane.admin.conftest import Client, tree


async def test_root_has_what_clients_read(client: Client) -> None:
    root = await client.tree("GET", "/")
    assert re.fullmatch(r"\d+\.\d+\.\d+", str(root["version"]))
    assert "enterprise" not in str(root["version"])
    assert root["edition"] == "community"
    configuration = root["configuration"]
    assert isinstance(configuration, dict)
    assert (configuration["database"], configuration["role"]) == ("postgres", "control_plane")
    assert configuration["router_flavor"] == "traditional_compatible"
    assert root["plugins"] == {"available_on_server": {}, "enabled_in_cluster": []}


async def test_status(client: Client) -> None:
    status = await client.tree("GET", "/status?unit=k&scale=1")
    assert status["database"] == {"reachable": True}
    assert status["server"] == {
        "connections_accepted": 3, "connections_active": 2, "connections_handled": 3, "connections_reading": 0,
        "connections_waiting": 1, "connections_writing": 1, "total_requests": 9,
    }  # fmt: skip
    assert "KiB" in str(status["memory"])
    refused = await client.tree("GET", "/status?unit=V", status=400)
    assert refused["message"] == "invalid unit 'V' (expected 'k/K', 'm/M', or 'g/G')"


async def test_endpoints(client: Client) -> None:
    endpoints = await client.tree("GET", "/endpoints")
    data = endpoints["data"]
    assert isinstance(data, list)
    assert data[0] == "/"
    assert "/services/{services}/routes/{routes}" in data
    assert data == sorted(data, key=lambda path: str(path).split("/"))


@pytest.mark.parametrize("collection", list(SCHEMAS))
async def test_schemas(client: Client, collection: str) -> None:
    document = await client.tree("GET", f"/schemas/{collection}")
    assert document == SCHEMAS[collection].document()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/schemas/x", "No entity named 'x'"),
        ("/schemas/plugins/x", "No plugin named 'x'"),
        ("/schemas/vaults/x", "No vault named 'x'"),
        ("/schemas", "Not found"),
    ],
)
async def test_unknown_schemas(client: Client, target: str, message: str) -> None:
    assert await client.tree("GET", target, status=404) == {"message": message}


async def test_validate_looks_at_no_store(client: Client) -> None:
    done = {"message": "schema validation successful"}
    assert await client.tree("POST", "/schemas/services/validate", {"host": "h"}) == done
    assert await client.tree("POST", "/schemas/services/validate?retries=3", {"host": "h"}) == done
    assert (await client.tree("POST", "/schemas/services/validate?retries=x", {"host": "h"}, status=400))["code"] == 2
    assert (await client.tree("POST", "/schemas/services/validate", {}, status=400))["code"] == 2
    assert (await client.ask("POST", "/schemas/x/validate", {})).status == 404
    unknown: EntityBody = {"target": "a:1", "upstream": {"id": "00000001-0000-4000-8000-000000000001"}}
    assert await client.tree("POST", "/schemas/targets/validate", unknown) == done
    assert await client.store.head() == 0


async def test_tags(client: Client) -> None:
    made = await client.tree("POST", "/services", {"host": "h", "tags": ["a", "ü b"]}, status=201)
    await client.tree("POST", "/upstreams", {"name": "u", "tags": ["a"]}, status=201)
    everything = await client.tree("GET", "/tags")
    assert len(list(map(str, everything["data"] if isinstance(everything["data"], list) else []))) == 3
    one = await client.tree("GET", "/tags/%C3%BC%20b?tags=ignored")
    assert one["data"] == [{"tag": "ü b", "entity_name": "services", "entity_id": made["id"]}]
    first = await client.tree("GET", "/tags/a?size=1")
    assert str(first["next"]).startswith("/tags/a?offset=")
    second = await client.tree("GET", str(first["next"]))
    assert second["next"] is None
    assert first["data"] != second["data"]
    assert (await client.tree("GET", "/tags/none"))["data"] == []
    assert (await client.tree("GET", "/tags/a,b", status=400))["code"] == 10
    refused = await client.tree("POST", "/tags", {}, status=400)
    assert refused["fields"] == {"tags": "does not support insert/upsert/update/delete operations"}


async def test_versions_newest_first(client: Client) -> None:
    for number in range(3):
        await client.tree("POST", "/upstreams", {"name": f"u{number}"}, status=201)
    first = await client.tree("GET", "/versions?size=2")
    second = await client.tree("GET", str(first["next"]))
    pages = [page["data"] for page in (first, second)]
    numbers = [[row["version"] for row in page if isinstance(row, dict)] for page in pages if isinstance(page, list)]
    assert numbers == [[3, 2], [1]]
    assert second["next"] is None


async def test_one_version(client: Client) -> None:
    made = await client.tree("POST", "/upstreams", {"name": "u"}, status=201)
    version = await client.tree("GET", "/versions/1")
    assert version["changes"] == [
        {
            "operation": "create",
            "collection": "upstreams",
            "id": made["id"],
            "name": "u",
            "fields": [],
            "before": None,
            "after": made,
        }
    ]
    assert version["changes_omitted"] == 0
    for missing in ("0", "2", "x", "-1", "9" * 30, "%C2%B2"):
        assert (await client.ask("GET", f"/versions/{missing}")).status == 404


async def test_bad_offsets_of_versions(client: Client) -> None:
    assert (await client.tree("GET", "/versions?offset=WyJ4Il0", status=400))["code"] == 7


VIEW = NodeView(
    id="n1", hostname="one", ip="127.0.0.1", software="pointsman/0.1", labels={"zone": "a"}, state=NodeState.CURRENT,
    connected=True, version=3, snapshot_hash="ab", offered_version=3, in_flight=0, beat_age_s=0.5, applied_took_s=0.01,
    rejected_version=None, rejected_stage=None, faults=(), reason="", first_seen=1.0, last_seen=2.0, workers=2,
    proxy_addresses=("127.0.0.1:8000",), status_address="127.0.0.1:8007", sync_status=SyncStatus.NORMAL,
)  # fmt: skip


async def test_a_node_that_is_gone_shows_what_it_must_have_fenced(client: Client) -> None:
    gone = replace(VIEW, connected=False, state=NodeState.EXPIRED, beat_age_s=40.0)
    client.fleet.views, client.fleet.fenced = (gone,), (Fence("a", 20.0), Fence("b", 60.0))
    fencing = (await client.tree("GET", "/fleet/nodes/n1"))["fencing"]
    assert isinstance(fencing, list)
    rows = [row for row in fencing if isinstance(row, dict)]
    assert [(row["service"], row["fenced"]) for row in rows] == [("a", True), ("b", False)]
    client.fleet.views = (VIEW,)
    assert (await client.tree("GET", "/fleet/nodes/n1"))["fencing"] == []


async def test_nodes(client: Client) -> None:
    client.fleet.views = (VIEW,)
    page = await client.tree("GET", "/fleet/nodes")
    node = await client.tree("GET", "/fleet/nodes/n1")
    assert page == {"data": [node], "next": None}
    assert (node["node_id"], node["state"], node["version"], node["last_seen_s_ago"]) == ("n1", "current", 3, 0.5)
    assert (node["apply_took_s"], node["labels"]) == (0.01, {"zone": "a"})
    assert (await client.ask("GET", "/fleet/nodes/n2")).status == 404


async def test_kongs_view_of_the_nodes(client: Client) -> None:
    client.fleet.kong = tuple(
        {"id": f"n{number}", "hostname": "h", "ip": "1.2.3.4", "config_hash": "0" * 32, "last_seen": 1, "version": "x"}
        for number in range(3)
    )
    first = await client.tree("GET", "/clustering/data-planes?size=2")
    second = await client.tree("GET", str(first["next"]))
    assert (first["data"], second["data"]) == (list(client.fleet.kong[:2]), list(client.fleet.kong[2:]))
    status = await client.ask("GET", "/clustering/status")
    assert status.headers["Deprecation"] == "true"
    assert tree(status)["n1"] == {"hostname": "h", "ip": "1.2.3.4", "config_hash": "0" * 32, "last_seen": 1}
    assert (await client.ask("GET", "/clustering/data-planes/n1")).status == 404
