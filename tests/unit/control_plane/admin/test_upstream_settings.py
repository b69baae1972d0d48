"""Our own settings of an upstream over HTTP; draining a target and bringing it back."""

from __future__ import annotations

import json

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.admin.conftest import Client, tree

SETTINGS = "/fleet/upstreams/u/settings"


@pytest.fixture
async def target(client: Client) -> str:
    await client.tree("POST", "/upstreams", {"name": "u"}, status=201)
    made = await client.tree("POST", "/upstreams/u/targets", {"target": "10.0.0.1:80", "weight": 40}, status=201)
    return str(made["id"])


async def test_nothing_set_reads_as_the_defaults(client: Client, target: str) -> None:
    assert target
    settings = await client.tree("GET", SETTINGS)
    assert (settings["slow_start"], settings["probe_sampling"], settings["manual_health"]) == (0, "auto", [])
    assert settings["created_at"] is None
    assert (await client.ask("GET", "/fleet/upstreams/x/settings")).status == 404


async def test_patch_merges_put_replaces_delete_resets(client: Client, target: str) -> None:
    body: EntityBody = {"slow_start": 10, "manual_health": [{"target": "10.0.0.1:80", "healthy": False}]}
    made = await client.tree("PATCH", SETTINGS, body)
    assert made["manual_health"] == [{"target": target, "address": None, "healthy": False, "until": 0}]
    assert (await client.tree("PATCH", SETTINGS, {"probe_sampling": "on"}))["slow_start"] == 10
    replaced = await client.tree("PUT", SETTINGS, {"probe_sampling": "off"})
    assert (replaced["slow_start"], replaced["probe_sampling"], replaced["manual_health"]) == (0, "off", [])
    answer = await client.ask("DELETE", SETTINGS)
    assert (answer.status, "X-Pointsman-Version" in answer.headers) == (204, True)
    assert (await client.tree("GET", SETTINGS))["probe_sampling"] == "auto"


@pytest.mark.parametrize(
    "body",
    [
        {"slow_start": -1},
        {"unknown": 1},
        {"manual_health": [{"target": "10.0.0.2:80", "healthy": True}]},
        {"manual_health": [{"healthy": True}]},
        {"former_weights": [{"target": "10.0.0.1:80", "weight": -1}]},
    ],
)
async def test_what_is_refused(client: Client, target: str, body: JsonValue) -> None:
    assert target
    answer = await client.ask("PATCH", SETTINGS, body)
    assert answer.status == 400
    assert tree(answer)["name"] == "schema violation"


async def test_they_show_nowhere_among_kong_s_entities(client: Client, target: str) -> None:
    await client.tree("PATCH", SETTINGS, {"slow_start": 10})
    for path in ("/upstream_settings", "/schemas/upstream_settings", "/upstreams/u/upstream_settings"):
        assert (await client.ask("GET", path)).status == 404
    for path in ("/upstreams/u", f"/upstreams/u/targets/{target}"):
        assert "slow_start" not in await client.tree("GET", path)
    assert b"upstream_settings" not in (await client.ask("GET", "/endpoints")).body


async def test_they_go_with_their_upstream(client: Client, target: str) -> None:
    assert target
    await client.tree("PATCH", SETTINGS, {"slow_start": 10})
    await client.ask("DELETE", "/upstreams/u")
    await client.tree("POST", "/upstreams", {"name": "u"}, status=201)
    assert (await client.tree("GET", SETTINGS))["slow_start"] == 0


async def test_a_dump_has_them_and_a_sync_reads_them_back(client: Client, target: str) -> None:
    assert target
    await client.tree("PATCH", SETTINGS, {"slow_start": 10})
    dumped = await client.tree("GET", "/config/dump?format=json")
    assert dumped["_pointsman"] == {"upstream_settings": [{"upstream": "u", "slow_start": 10}]}
    await client.ask("DELETE", SETTINGS)
    summary = await client.ask("POST", "/config/sync", json.dumps(dumped).encode(), content_type="application/json")
    assert tree(summary)["created"] == 1
    assert (await client.tree("GET", SETTINGS))["slow_start"] == 10


@pytest.mark.parametrize("key", ["10.0.0.1:80", "id"])
async def test_draining_and_bringing_back(client: Client, target: str, key: str) -> None:
    place = f"/fleet/upstreams/u/targets/{target if key == 'id' else key}"
    drained = await client.ask("PUT", f"{place}/drain")
    assert (tree(drained)["weight"], "X-Pointsman-Version" in drained.headers) == (0, True)
    assert (await client.tree("PUT", f"{place}/drain"))["weight"] == 0  # again changes nothing
    assert (await client.tree("GET", SETTINGS))["former_weights"] == [{"target": target, "weight": 40}]
    assert (await client.tree("POST", f"{place}/ready"))["weight"] == 40
    assert (await client.tree("GET", SETTINGS))["former_weights"] == []
    assert (await client.tree("POST", f"{place}/ready"))["weight"] == 40


async def test_ready_after_a_weight_of_zero_by_other_means(client: Client, target: str) -> None:
    await client.tree("PATCH", f"/upstreams/u/targets/{target}", {"weight": 0})
    assert (await client.tree("PUT", f"/fleet/upstreams/u/targets/{target}/ready"))["weight"] == 100


async def test_ready_keeps_a_weight_that_somebody_gave_meanwhile(client: Client, target: str) -> None:
    await client.tree("PUT", f"/fleet/upstreams/u/targets/{target}/drain")
    await client.tree("PATCH", f"/upstreams/u/targets/{target}", {"weight": 5})
    assert (await client.tree("PUT", f"/fleet/upstreams/u/targets/{target}/ready"))["weight"] == 5
    assert (await client.tree("GET", SETTINGS))["former_weights"] == []


async def test_ready_lifts_what_was_said_of_the_target(client: Client, target: str) -> None:
    words: JsonValue = [{"target": target, "healthy": False}]
    await client.tree("PATCH", SETTINGS, {"manual_health": words})
    await client.tree("PUT", f"/fleet/upstreams/u/targets/{target}/ready")
    assert (await client.tree("GET", SETTINGS))["manual_health"] == []


async def test_draining_what_is_not_there(client: Client, target: str) -> None:
    assert target
    assert (await client.ask("PUT", "/fleet/upstreams/u/targets/10.0.0.2:80/drain")).status == 404
    assert (await client.ask("PUT", "/fleet/upstreams/x/targets/10.0.0.1:80/ready")).status == 404
