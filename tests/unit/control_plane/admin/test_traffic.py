"""`/fleet/traffic`: figures of the nodes put together by service and side."""

from __future__ import annotations

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.side_figures import MirrorFigures, SideFigures, SideRate, SideRow
from pointsman.rules.latency_buckets import BUCKETS
from tests.unit.control_plane.admin.conftest import Client, tree


def rate(node: str, service: JsonValue, upstream: JsonValue, lately: int, **facts: int) -> SideRate:
    """A node's side that answered `lately` requests within 1 ms in the last 10 s, of ten times as many in all."""
    figures = SideFigures(
        10 * lately, facts.get("errors", 0), facts.get("connect_errors", 0), open=facts.get("open", 0), since=1
    )
    latency = (lately, *[0] * (BUCKETS - 1))
    mirror = MirrorFigures(sent=facts["mirrored"]) if "mirrored" in facts else None
    row = SideRow(str(service), str(upstream), figures, mirror, facts.get("closed_late", 0))
    return SideRate(node, row, 10.0, SideFigures(lately, facts.get("errors", 0), 0, latency, since=1))


async def made(client: Client) -> tuple[JsonValue, JsonValue, JsonValue]:
    """Ids of a service, its host blue, and green."""
    blue = (await client.tree("POST", "/upstreams", {"name": "blue"}, status=201))["id"]
    green = (await client.tree("POST", "/upstreams", {"name": "green"}, status=201))["id"]
    service = (await client.tree("POST", "/services", {"name": "shop", "host": "blue"}, status=201))["id"]
    return service, blue, green


def sides(body: EntityBody) -> dict[str, EntityBody]:
    data = body["data"]
    assert isinstance(data, list)
    (service,) = data
    assert isinstance(service, dict)
    found = service["sides"]
    assert isinstance(found, list)
    return {str(side["name"]): side for side in found if isinstance(side, dict)}


async def test_sides_are_summed_over_the_nodes_that_are_live(client: Client) -> None:
    service, blue, green = await made(client)
    await client.tree("PATCH", "/fleet/services/shop/settings", {"split": {"to": "green", "share": 500}})
    client.fleet.live = {"n1": "dp-1", "n2": "dp-2"}
    client.fleet.rates = (
        rate("n1", service, blue, 100, open=3, closed_late=2),
        rate("n2", service, blue, 200),
        rate("n1", service, green, 100, errors=25, mirrored=7),
        rate("gone", service, green, 1000),
    )
    body = await client.tree("GET", "/fleet/traffic")
    assert (body["window_s"], body["nodes"], body["omitted"]) == (10.0, 2, 0)
    found = sides(body)
    assert list(found) == ["blue", "green"]
    blue_side, green_side = found["blue"], found["green"]
    assert (blue_side["role"], blue_side["share_asked"], blue_side["share_seen"]) == ("primary", 0.95, 0.75)
    assert (green_side["role"], green_side["share_asked"], green_side["share_seen"]) == ("split", 0.05, 0.25)
    assert (blue_side["requests_per_s"], green_side["requests_per_s"]) == (30.0, 10.0)
    assert (blue_side["error_ratio"], green_side["error_ratio"]) == (0.0, 0.25)
    assert (blue_side["open"], green_side["open"]) == (3, 0)
    assert blue_side["totals"] == {"requests": 3000, "errors_5xx": 0, "connect_errors": 0, "closed_late": 2}
    assert green_side["mirror"] == {"sent": 7, "errors_5xx": 0, "failed": 0, "skipped": 0}
    assert blue_side["mirror"] is None
    nodes = blue_side["nodes"]
    assert isinstance(nodes, list)
    assert [(each["hostname"], each["requests_per_s"]) for each in nodes if isinstance(each, dict)] == [
        ("dp-1", 10.0),
        ("dp-2", 20.0),
    ]
    latency = blue_side["latency_ms"]
    assert isinstance(latency, dict)
    assert latency["p99"] == 0.99


async def test_a_side_without_a_request_is_there_and_one_that_was_left_says_so(client: Client) -> None:
    service, _, green = await made(client)
    await client.tree(
        "PATCH", "/fleet/services/shop/settings", {"preview": {"to": "green", "header": "x", "value": "1"}}
    )
    found = sides(await client.tree("GET", "/fleet/traffic?service=shop"))
    assert {name: side["role"] for name, side in found.items()} == {"blue": "primary", "green": "preview"}
    assert found["green"]["share_seen"] is None
    assert found["green"]["error_ratio"] is None
    await client.tree("PATCH", "/fleet/services/shop/settings", {"preview": None})
    client.fleet.live, client.fleet.rates = {"n1": "dp-1"}, (rate("n1", service, green, 0, open=2),)
    found = sides(await client.tree("GET", "/fleet/traffic"))
    assert (found["green"]["role"], found["green"]["open"]) == ("left", 2)


async def test_a_host_that_is_no_upstream_is_a_side_too(client: Client) -> None:
    service = (await client.tree("POST", "/services", {"name": "s", "host": "a.test"}, status=201))["id"]
    client.fleet.live, client.fleet.rates = {"n1": "dp-1"}, (rate("n1", service, "", 10),)
    found = sides(await client.tree("GET", "/fleet/traffic"))
    assert (found["a.test"]["upstream"], found["a.test"]["role"]) == (None, "primary")


async def test_of_many_services_the_busiest_are_shown(client: Client) -> None:
    await made(client)
    assert (await client.tree("GET", "/fleet/traffic"))["data"] == []
    answer = await client.ask("GET", "/fleet/traffic?service=nobody")
    assert answer.status == 404
    assert tree(answer)["message"] == "Not found"
