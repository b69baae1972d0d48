"""Health in Kong's shapes and in ours, from what the nodes of a fleet say."""

from __future__ import annotations

from control_plane.entities.types import EntityBody, JsonValue
from control_plane.fleet.health import AddressReport, AddressState, TargetReport
from tests.unit.control_plane.admin.conftest import Client

NODE_ID = "00000000-0000-4000-8000-000000000001"
UP, DOWN, OFF = AddressState.HEALTHY, AddressState.UNHEALTHY, AddressState.OFF
CHECKED: EntityBody = {"active": {"healthy": {"interval": 1}}, "threshold": 50}


async def upstream(client: Client, *targets: EntityBody, **fields: JsonValue) -> tuple[str, list[str]]:
    """An upstream `u`, checked unless told otherwise; its id and those of its targets."""
    made = await client.tree("POST", "/upstreams", {"name": "u", "healthchecks": CHECKED, **fields}, status=201)
    ids = []
    for body in targets:
        target = await client.tree("POST", "/upstreams/u/targets", body, status=201)
        ids.append(str(target["id"]))
    return str(made["id"]), ids


def say(client: Client, node: str, upstream_id: str, target: str, *addresses: AddressReport, error: str = "") -> None:
    client.fleet.live.setdefault(node, f"dp-{node}")
    report = TargetReport(upstream_id, target, error=error, addresses=addresses)
    client.fleet.book.report(node, [report], full=False)


def at(ip: str, state: AddressState, weight: int = 100, reason: str = "") -> AddressReport:
    return AddressReport(ip, 80, weight, state, 1_700_000_000, reason)


async def page(client: Client) -> list[EntityBody]:
    body = await client.tree("GET", "/upstreams/u/health")
    assert body["node_id"] == NODE_ID
    rows = body["data"]
    assert isinstance(rows, list)
    return [row for row in rows if isinstance(row, dict)]


async def test_kong_s_page_of_targets(client: Client) -> None:
    upstream_id, (one, two, three) = await upstream(
        client, {"target": "10.0.0.1:80"}, {"target": "[::1]:80"}, {"target": "api.test:80", "weight": 7}
    )
    say(client, "a", upstream_id, one, at("10.0.0.1", UP))
    say(client, "a", upstream_id, two, at("::1", DOWN))
    say(client, "a", upstream_id, three, error="dns server error: 3 name error")
    third, second, first = await page(client)
    assert first["health"] == "HEALTHY"
    assert first["data"] == {
        "host": "10.0.0.1",
        "port": 80,
        "dns": "A",
        "nodeWeight": 100,
        "weight": {"total": 100, "available": 100, "unavailable": 0},
        "addresses": [{"ip": "10.0.0.1", "port": 80, "weight": 100, "health": "HEALTHY"}],
    }
    assert second["health"] == "UNHEALTHY"
    assert isinstance(second["data"], dict)
    assert second["data"]["dns"] == "AAAA"
    assert second["data"]["weight"] == {"total": 100, "available": 0, "unavailable": 100}
    assert second["data"]["addresses"] == [{"ip": "[::1]", "port": 80, "weight": 100, "health": "UNHEALTHY"}]
    assert third["health"] == "DNS_ERROR"
    assert isinstance(third["data"], dict)
    assert (third["data"]["dns"], third["data"]["nodeWeight"]) == ("dns server error: 3 name error", 7)


async def test_a_target_that_no_live_node_knows_has_no_verdict(client: Client) -> None:
    upstream_id, (one, two) = await upstream(client, {"target": "10.0.0.1:80"}, {"target": "10.0.0.2:80"})
    say(client, "a", upstream_id, one, at("10.0.0.1", UP))
    second, first = await page(client)
    assert "health" in first
    assert "health" not in second
    say(client, "a", upstream_id, two, at("10.0.0.2", UP))
    client.fleet.live.clear()
    assert all("health" not in row and "data" not in row for row in await page(client))
    assert "data" not in await client.tree("GET", "/upstreams/u/health?balancer_health=1")


async def balancer(client: Client) -> EntityBody:
    data = (await client.tree("GET", "/upstreams/u/health?balancer_health=1"))["data"]
    assert isinstance(data, dict)
    return data


async def test_kong_s_view_of_the_upstream(client: Client) -> None:
    upstream_id, (one, two) = await upstream(client, {"target": "10.0.0.1:80"}, {"target": "10.0.0.2:80"})
    say(client, "a", upstream_id, one, at("10.0.0.1", UP))
    say(client, "a", upstream_id, two, at("10.0.0.2", UP))
    assert ((await balancer(client))["health"], (await balancer(client))["id"]) == ("HEALTHY", upstream_id)
    say(client, "a", upstream_id, two, at("10.0.0.2", DOWN))
    found = await balancer(client)
    assert (found["health"], found["balancer_health"]) == ("UNHEALTHY", "UNHEALTHY")  # 50 % is not more than 50 %
    details = found["details"]
    assert isinstance(details, dict)
    assert (details["healthy"], details["weight"]) == (False, {"total": 200, "available": 100, "unavailable": 100})
    hosts = details["hosts"]
    assert isinstance(hosts, list)
    assert hosts[1] == {
        "host": "10.0.0.2",
        "port": 80,
        "dns": "A",
        "nodeWeight": 100,
        "weight": {"total": 100, "available": 0, "unavailable": 100},
        "addresses": [{"ip": "10.0.0.2", "port": 80, "weight": 100, "healthy": False}],
    }


async def test_without_checks_the_upstream_is_off_and_usable(client: Client) -> None:
    upstream_id, (one,) = await upstream(client, {"target": "10.0.0.1:80"}, healthchecks={})
    say(client, "a", upstream_id, one, at("10.0.0.1", OFF))
    found = await balancer(client)
    assert (found["health"], found["balancer_health"]) == ("HEALTHCHECKS_OFF", "HEALTHY")
    assert (await page(client))[0]["health"] == "HEALTHCHECKS_OFF"


async def test_failover_targets_count_when_no_regular_one_is_left(client: Client) -> None:
    upstream_id, (one, two) = await upstream(
        client, {"target": "10.0.0.1:80"}, {"target": "10.0.0.2:80", "failover": True}
    )
    say(client, "a", upstream_id, two, at("10.0.0.2", UP))
    say(client, "a", upstream_id, one, at("10.0.0.1", UP))
    assert (await balancer(client))["health"] == "HEALTHY"
    say(client, "a", upstream_id, one, at("10.0.0.1", DOWN))
    assert (await balancer(client))["health"] == "HEALTHY"
    say(client, "a", upstream_id, two, at("10.0.0.2", DOWN))
    assert (await balancer(client))["health"] == "UNHEALTHY"


async def test_an_upstream_that_nobody_can_use_yet(client: Client) -> None:
    await upstream(client)
    assert "data" not in await client.tree("GET", "/upstreams/u/health?balancer_health=1")
    client.fleet.live["a"] = "dp-a"
    assert (await balancer(client))["balancer_health"] == "UNHEALTHY"


async def test_our_view_has_every_node_s_word_and_who_differs(client: Client) -> None:
    upstream_id, (one,) = await upstream(client, {"target": "10.0.0.1:80"})
    say(client, "a", upstream_id, one, at("10.0.0.1", UP))
    say(client, "b", upstream_id, one, at("10.0.0.1", UP))
    say(client, "c", upstream_id, one, at("10.0.0.1", DOWN, reason="active tcp failure"))
    client.fleet.live["d"] = "dp-d"
    client.fleet.book.beat("a", 0, {(upstream_id, one): 4}, now=0.0)
    found = await client.tree("GET", "/fleet/upstreams/u/health")
    assert found["upstream"] == {"id": upstream_id, "name": "u"}
    assert (found["health"], found["disagreement"]) == ("HEALTHY", True)
    assert found["nodes"] == {"live": 4, "reporting": 3}
    assert (found["in_flight"], found["in_flight_s_ago"]) == (4, 0.5)
    targets = found["targets"]
    assert isinstance(targets, list)
    (target,) = targets
    assert isinstance(target, dict)
    assert (target["health"], target["in_flight_by_node"]) == ("HEALTHY", {"a": 4})
    addresses = target["addresses"]
    assert isinstance(addresses, list)
    (address,) = addresses
    assert isinstance(address, dict)
    assert (address["verdict"], address["dissenting"], address["nodes_omitted"]) == ("most", ["c"], 0)
    nodes = address["nodes"]
    assert isinstance(nodes, list)
    assert nodes[0] == {
        "node_id": "c",
        "hostname": "dp-c",
        "health": "UNHEALTHY",
        "since": 1_700_000_000,
        "reason": "active tcp failure",
    }
    assert len(nodes) == 3


async def test_our_view_without_nodes(client: Client) -> None:
    await upstream(client, {"target": "10.0.0.1:80"})
    found = await client.tree("GET", "/fleet/upstreams/u/health")
    assert (found["health"], found["balancer_health"], found["in_flight_s_ago"]) == (None, None, None)
    targets = found["targets"]
    assert isinstance(targets, list)
    assert isinstance(targets[0], dict)
    assert (targets[0]["health"], targets[0]["addresses"]) == (None, [])
    assert (await client.ask("GET", "/fleet/upstreams/x/health")).status == 404


async def test_a_name_that_one_node_cannot_resolve(client: Client) -> None:
    upstream_id, (one,) = await upstream(client, {"target": "api.test:80"})
    say(client, "a", upstream_id, one, at("10.0.0.1", UP))
    say(client, "b", upstream_id, one, error="3 name error")
    found = await client.tree("GET", "/fleet/upstreams/u/health")
    targets = found["targets"]
    assert isinstance(targets, list)
    assert isinstance(targets[0], dict)
    assert targets[0]["unresolved"] == [{"node_id": "b", "hostname": "dp-b", "error": "3 name error"}]
    assert targets[0]["disagreement"] is True
