"""Our own settings of a service over HTTP."""

from __future__ import annotations

import pytest

from control_plane.entities.types import JsonValue
from tests.unit.control_plane.admin.conftest import Client, tree

SETTINGS = "/fleet/services/s/settings"


@pytest.fixture(autouse=True)
async def service(client: Client) -> str:
    return str((await client.tree("POST", "/services", {"name": "s", "host": "a.test"}, status=201))["id"])


async def test_nothing_set_reads_as_the_defaults(client: Client, service: str) -> None:
    settings = await client.tree("GET", SETTINGS)
    assert (settings["partition"], settings["fence_after_s"]) == ("serve_stale", 60)
    assert (settings["id"], settings["created_at"]) == (service, None)
    assert (await client.ask("GET", "/fleet/services/x/settings")).status == 404
    assert (await client.ask("PATCH", "/fleet/services/x/settings", {})).status == 404


async def test_patch_merges_put_replaces_delete_resets(client: Client, service: str) -> None:
    assert (await client.tree("PATCH", SETTINGS, {"fence_after_s": 5}))["partition"] == "serve_stale"
    made = await client.tree("PATCH", f"/fleet/services/{service}/settings", {"partition": "fence"})
    assert (made["partition"], made["fence_after_s"]) == ("fence", 5)
    assert (await client.tree("PUT", SETTINGS, {"partition": "fence"}))["fence_after_s"] == 60
    assert (await client.ask("DELETE", SETTINGS)).status == 204
    assert (await client.tree("GET", SETTINGS))["partition"] == "serve_stale"


@pytest.mark.parametrize("body", [{"partition": "x"}, {"fence_after_s": 0}, {"fence_after_s": 1e9}, {"unknown": 1}])
async def test_what_is_refused(client: Client, body: JsonValue) -> None:
    answer = await client.ask("PATCH", SETTINGS, body)
    assert (answer.status, tree(answer)["name"]) == (400, "schema violation")


async def test_they_go_with_their_service(client: Client, service: str) -> None:
    await client.tree("PATCH", SETTINGS, {"partition": "fence"})
    await client.ask("DELETE", "/services/s")
    await client.tree("PUT", f"/services/{service}", {"name": "s", "host": "a.test"}, status=200)
    assert (await client.tree("GET", SETTINGS))["partition"] == "serve_stale"


async def test_upstreams_are_named_and_kept_by_id(client: Client, service: str) -> None:
    green = (await client.tree("POST", "/upstreams", {"name": "green"}, status=201))["id"]
    made = await client.tree("PATCH", SETTINGS, {"split": {"to": "green", "share": 500}})
    assert made["split"] == {"to": green, "share": 500, "sticky": None}
    made = await client.tree("PATCH", SETTINGS, {"split": {"share": 2500}, "mirror": {"to": green, "share": 1}})
    assert (made["split"], made["mirror"]) == (
        {"to": green, "share": 2500, "sticky": None},
        {"to": green, "share": 1},
    )
    assert (await client.tree("PATCH", SETTINGS, {"split": None}))["split"] is None


async def test_an_upstream_that_is_not_there_is_refused_by_field(client: Client, service: str) -> None:
    nobody = "00000000-0000-4000-8000-000000000009"
    for to in ("green", nobody):
        answer = await client.ask("PATCH", SETTINGS, {"preview": {"to": to, "header": "x", "value": "1"}})
        assert answer.status == 400
        assert "no upstream" in str(tree(answer)["fields"])


async def test_an_upstream_in_use_cannot_go(client: Client, service: str) -> None:
    await client.tree("POST", "/upstreams", {"name": "green"}, status=201)
    await client.tree("PATCH", SETTINGS, {"split": {"to": "green", "share": 0}})
    answer = await client.ask("DELETE", "/upstreams/green")
    assert (answer.status, tree(answer)["name"]) == (400, "foreign key violation")
    assert "the split of service 's' sends requests to upstream 'green'" in str(tree(answer)["message"])
    await client.tree("PATCH", SETTINGS, {"split": None})
    assert (await client.ask("DELETE", "/upstreams/green")).status == 204


async def test_preview_and_mirror_are_verbs_of_their_own(client: Client, service: str) -> None:
    green = (await client.tree("POST", "/upstreams", {"name": "green"}, status=201))["id"]
    both: JsonValue = {"to": "green", "header": "x", "cookie": "c", "value": "1"}
    await client.tree("PUT", "/fleet/services/s/preview", both)
    made = await client.tree("PUT", "/fleet/services/s/preview", {"to": "green", "header": "x", "value": "2"})
    assert made["preview"] == {"to": green, "header": "x", "cookie": None, "value": "2"}
    made = await client.tree("PUT", "/fleet/services/s/mirror", {"to": "green", "share": 500})
    assert made["mirror"] == {"to": green, "share": 500}
    made = await client.tree("DELETE", "/fleet/services/s/preview")
    assert (made["preview"], made["mirror"]) == (None, {"to": green, "share": 500})
    answer = await client.ask("PUT", "/fleet/services/s/mirror", {"to": "green"})
    assert (answer.status, tree(answer)["fields"]) == (400, {"mirror": {"share": "required field missing"}})
    assert (await client.ask("PUT", "/fleet/services/x/mirror", {"to": "green", "share": 1})).status == 404
