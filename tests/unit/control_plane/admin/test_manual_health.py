"""An operator's word on a target: stored, versioned, visible, and lifted."""

from __future__ import annotations

from typing import cast

import pytest

from control_plane.admin.manual_health import HEALTHY_TTL_S
from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.admin.conftest import Client, tree

CHECKED: EntityBody = {"passive": {"unhealthy": {"tcp_failures": 1}}}


@pytest.fixture
async def target(client: Client) -> str:
    await client.tree("POST", "/upstreams", {"name": "u", "healthchecks": CHECKED}, status=201)
    made = await client.tree("POST", "/upstreams/u/targets", {"target": "10.0.0.1:80"}, status=201)
    return str(made["id"])


async def words(client: Client) -> list[EntityBody]:
    settings = await client.tree("GET", "/fleet/upstreams/u/settings")
    return cast("list[EntityBody]", settings["manual_health"])


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_a_target_is_called_unhealthy_until_it_is_lifted(client: Client, target: str, method: str) -> None:
    answer = await client.ask(method, f"/upstreams/u/targets/{target}/unhealthy")
    assert (answer.status, answer.body) == (204, b"")
    assert int(answer.headers["X-Pointsman-Version"]) == 3
    assert await words(client) == [{"target": target, "address": None, "healthy": False, "until": 0}]
    shown = (await client.tree("GET", "/fleet/upstreams/u/health"))["targets"]
    assert isinstance(shown, list)
    assert isinstance(shown[0], dict)
    assert shown[0]["manual"] == [{"address": None, "healthy": False, "until": 0}]
    assert (await client.ask("DELETE", "/upstreams/u/targets/10.0.0.1:80/health")).status == 204
    assert await words(client) == []
    assert (await client.ask("DELETE", "/upstreams/u/targets/10.0.0.1:80/health")).status == 204


async def test_healthy_takes_the_place_of_unhealthy_and_is_over_after_a_while(client: Client, target: str) -> None:
    await client.ask("PUT", f"/upstreams/u/targets/{target}/unhealthy")
    await client.ask("PUT", f"/upstreams/u/targets/{target}/healthy")
    (word,) = await words(client)
    assert word["healthy"] is True
    until = word["until"]
    assert isinstance(until, int)
    assert 0 < until - client.api.writes.now() <= HEALTHY_TTL_S + 1


@pytest.mark.parametrize(
    ("place", "address"),
    [
        ("10.0.0.1:80", "10.0.0.1:80"),
        ("10.0.0.9", "10.0.0.9:8000"),
        ("%5B::1%5D:80", "[::1]:80"),
    ],
)
async def test_one_address(client: Client, target: str, place: str, address: str) -> None:
    assert (await client.ask("PUT", f"/upstreams/u/targets/{target}/{place}/unhealthy")).status == 204
    assert [word["address"] for word in await words(client)] == [address]
    assert (await client.ask("DELETE", f"/upstreams/u/targets/{target}/{place}/health")).status == 204
    assert await words(client) == []


async def test_a_target_s_own_name_means_all_of_its_addresses(client: Client, target: str) -> None:
    named = await client.tree("POST", "/upstreams/u/targets", {"target": "api.test:80"}, status=201)
    for place in ("api.test", "api.test:80"):
        assert (await client.ask("PUT", f"/upstreams/u/targets/api.test:80/{place}/unhealthy")).status == 204
        assert await words(client) == [{"target": named["id"], "address": None, "healthy": False, "until": 0}]
    answer = await client.ask("PUT", f"/upstreams/u/targets/{target}/other.test:80/unhealthy")
    assert answer.status == 400
    assert "invalid address" in str(tree(answer)["message"])


@pytest.mark.parametrize("body", [None, {"ttl": 600}])
async def test_a_time_to_live(client: Client, target: str, body: JsonValue) -> None:
    query = "?ttl=600" if body is None else ""
    assert (await client.ask("PUT", f"/upstreams/u/targets/{target}/unhealthy{query}", body)).status == 204
    (word,) = await words(client)
    assert isinstance(word["until"], int)
    assert 590 < word["until"] - client.api.writes.now() <= 601
    await client.ask("PUT", f"/upstreams/u/targets/{target}/healthy?ttl=0")
    assert [word["until"] for word in await words(client)] == [0]


@pytest.mark.parametrize("ttl", ["x", "-1", "nan", "inf", "99999999999", ""])
async def test_a_time_to_live_that_makes_no_sense(client: Client, target: str, ttl: str) -> None:
    answer = await client.ask("PUT", f"/upstreams/u/targets/{target}/unhealthy?ttl={ttl}")
    assert answer.status == 400
    assert await words(client) == []


@pytest.mark.parametrize("path", ["/upstreams/x/targets/10.0.0.1:80", "/upstreams/u/targets/10.0.0.2:80"])
async def test_what_is_not_there(client: Client, target: str, path: str) -> None:
    assert target
    for call in (("PUT", f"{path}/healthy"), ("PUT", f"{path}/10.0.0.1:80/unhealthy"), ("DELETE", f"{path}/health")):
        answer = await client.ask(*call)
        assert (answer.status, tree(answer)) == (404, {"message": "Not found"})


async def test_a_target_of_another_upstream_is_not_there(client: Client, target: str) -> None:
    await client.tree("POST", "/upstreams", {"name": "v", "healthchecks": CHECKED}, status=201)
    assert (await client.ask("PUT", f"/upstreams/v/targets/{target}/healthy")).status == 404


async def test_an_upstream_without_checks_has_nothing_to_overrule(client: Client) -> None:
    await client.tree("POST", "/upstreams", {"name": "u"}, status=201)
    await client.tree("POST", "/upstreams/u/targets", {"target": "10.0.0.1:80"}, status=201)
    answer = await client.ask("PUT", "/upstreams/u/targets/10.0.0.1:80/unhealthy")
    assert (answer.status, tree(answer)) == (400, {"message": "no healthchecker found for u"})


async def test_reading_is_no_way_to_set(client: Client, target: str) -> None:
    assert (await client.ask("GET", f"/upstreams/u/targets/{target}/healthy")).status == 405
