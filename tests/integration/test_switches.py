"""Switches over the Admin API without nodes' time: several services at once, and what is refused by name."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import ledger
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import Fleet
from tests.support.rollouts import all_live, why


async def test_several_services_move_and_go_back_as_one(tmp_path: Path) -> None:
    async with Fleet(tmp_path, nodes=1, workers=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        written = await fleet.admin("POST", "/services", {"name": "cart", "host": "blue"}, {"Prefer": PREFER})
        assert written.status == 201, written.body
        await all_live(fleet)
        head = int(written.headers["X-Pointsman-Version"])

        async def hosts() -> list[str]:
            body: Any = (await fleet.admin("GET", "/services")).body
            return [service["host"] for service in body["data"]]

        both = {"services": ["example-service", "cart"], "to": "green"}
        answer = await fleet.admin("POST", "/switches", both, {"Prefer": PREFER})
        view: Any = answer.body
        assert answer.status == 200, why(view)
        assert view["version"] == head + 1
        assert sorted(each["name"] for each in view["services"]) == ["cart", "example-service"]
        assert await hosts() == ["green", "green"]
        await the_node_says_what_it_runs(fleet)
        answer = await fleet.admin("POST", f"/switches/{view['switch']}/undo", None, {"Prefer": PREFER})
        assert answer.status == 200, answer.body
        assert await hosts() == ["blue", "blue"]

        # Force goes where the preflight would not, and says so for ever.
        await fleet.admin("POST", "/upstreams", {"name": "void"}, {"Prefer": PREFER})
        forced = {"service": "cart", "to": "void", "force": True, "reason": "maintenance", "policy": {"vote_by_s": 2}}
        answer = await fleet.admin("POST", "/switches", forced, {"Prefer": PREFER})
        view = answer.body
        assert (answer.status, view["forced"], view["plan"]["ready"]) == (200, True, False), why(view)


async def test_the_first_write_of_a_fleet_can_be_a_rollout(tmp_path: Path) -> None:
    """Nodes that run nothing swap at the instant as all others do, and keep what they have then."""
    async with Fleet(tmp_path, nodes=2, workers=2) as fleet:
        await fleet.start({})

        async def connected() -> int:
            nodes: Any = (await fleet.admin("GET", "/fleet/nodes")).body
            return sum(node["connected"] for node in nodes["data"])

        async with asyncio.timeout(PATIENCE_S):
            while await connected() < 2:
                await asyncio.sleep(0.05)
        prefer = {"Prefer": f"rollout, {PREFER}"}
        answer = await fleet.admin("PUT", "/services/shop", {"host": "example.test"}, prefer)
        assert answer.status == 200, answer.body
        listed: Any = (await fleet.admin("GET", "/fleet/rollouts")).body
        (view,) = listed["data"]
        assert (view["state"], view["base_version"], view["version"]) == ("confirmed", 0, 1)
        assert [node["standing"] for node in view["nodes"]] == ["activated", "activated"]
        fleet.control_plane.kill()
        for node in fleet.nodes:
            assert await node.stop() == 0
            await node.up()
        async with asyncio.timeout(PATIENCE_S):
            while [await fleet.node_version(node) for node in fleet.nodes] != [1, 1]:
                await asyncio.sleep(0.05)


async def the_node_says_what_it_runs(fleet: Fleet) -> None:
    """The hash that the control plane shows of a node is of the content that the node itself says it serves."""
    (node,) = fleet.nodes
    status: Any = (await fleet.call("GET", f"http://{node.status}/status")).body
    listed: Any = (await fleet.admin("GET", "/fleet/nodes")).body
    (shown,) = listed["data"]
    assert (shown["version"], shown["snapshot_hash"]) == (status["version"], status["snapshot_hash"])
    kong: Any = (await fleet.admin("GET", "/clustering/data-planes")).body
    assert kong["data"][0]["config_hash"] == status["configuration_hash"]


@pytest.fixture
async def alone(tmp_path: Path) -> Any:
    """A control plane without nodes."""
    async with Fleet(tmp_path, nodes=0) as fleet:
        await fleet.start({})
        config = {
            "services": [{"name": "shop", "host": "blue"}],
            "upstreams": [{"name": name, "targets": [{"target": "127.0.0.1:1"}]} for name in ("blue", "green")],
        }
        assert (await fleet.admin("POST", "/config/sync", config)).status == 200
        yield fleet


async def test_what_can_not_be_asked_is_refused_by_name(alone: Fleet) -> None:
    for body, field in (
        ({"service": "shop"}, "to"),
        ({"to": "green"}, "services"),
        ({"service": "shop", "services": ["shop"], "to": "green"}, "service"),
        ({"services": [1], "to": "green"}, "services"),
        ({"services": ["shop"] * 65, "to": "green"}, "services"),
        ({"service": "shop", "to": "green", "canary": [5, 100]}, "canary"),
        ({"service": "shop", "to": "green", "at": "12:00"}, "at"),
        ({"service": "shop", "to": "green", "colour": "red"}, "colour"),
        ({"service": "shop", "to": "green", "force": "yes"}, "force"),
        ({"service": "shop", "to": "green", "force": True}, "reason"),
        ({"service": "shop", "to": "green", "policy": {"min_healthy_targets": -1}}, "policy"),
        ({"service": "shop", "to": "green", "policy": {"unknown": 1}}, "policy"),
    ):
        answer = await alone.admin("POST", "/switches", body)
        assert answer.status == 400, body
        assert isinstance(answer.body, dict)
        assert field in answer.body["fields"], answer.body
    repeated = await alone.admin("POST", "/switches", {"service": "shop", "to": "green"}, {"Idempotency-Key": "a"})
    assert repeated.status == 400
    for path in ("/switches/1", "/switches/x", "/switches/99999999999999999999"):
        assert (await alone.admin("GET", path)).status == 404
    assert (await alone.admin("POST", "/switches/1/undo")).status == 404
    assert (await alone.admin("GET", "/switches?size=0")).status == 400
    assert (await alone.admin("GET", "/switches?before=x")).status == 400
    assert (await alone.admin("GET", "/switches")).body == {"data": []}


async def test_without_nodes_nothing_can_be_proved(alone: Fleet) -> None:
    answer = await alone.admin("POST", "/switches", {"service": "shop", "to": "green", "force": True, "reason": "x"})
    assert answer.status == 409
    assert isinstance(answer.body, dict)
    assert [each["code"] for each in answer.body["refusals"]] == ["NO_NODE"]


async def test_a_switch_for_later_is_begun_at_its_time_and_not_before(tmp_path: Path) -> None:
    async with Fleet(tmp_path, nodes=1, workers=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        await all_live(fleet)

        async def view(number: int) -> Any:
            return (await fleet.admin("GET", f"/switches/{number}")).body

        async def ask(to: str, in_s: float) -> int:
            body = {"service": "example-service", "to": to, "at": time.time() + in_s, "reason": "tonight"}
            answer = await fleet.admin("POST", "/switches", body, {"X-Pointsman-Author": "anna"})
            scheduled: Any = answer.body
            assert (answer.status, scheduled["state"], scheduled["author"]) == (202, "scheduled", "anna"), scheduled
            return int(scheduled["switch"])

        async def until(number: int, *states: str) -> Any:
            async with asyncio.timeout(PATIENCE_S):
                while (found := await view(number))["state"] not in states:
                    await asyncio.sleep(0.05)
            return found

        soon, far, never = await ask("green", 2.0), await ask("green", 3_600.0), await ask("green", 7_200.0)
        asked: Any = (await fleet.admin("GET", f"/switches/{soon}")).body
        assert (asked["state"], asked["version"], asked["nodes"]) == ("scheduled", None, [])
        answer = await fleet.admin("POST", f"/switches/{never}/abort", {"reason": "not tonight"})
        cancelled: Any = answer.body
        assert (answer.status, cancelled["state"]) == (200, "cancelled")
        assert cancelled["ended_because"].endswith("not tonight")
        assert (await fleet.admin("POST", f"/switches/{never}/abort", {})).status == 409

        done = await until(soon, "confirmed", "aborted", "refused", "missed")
        assert (done["state"], done["author"], done["reason"]) == ("confirmed", "anna", "tonight"), done
        assert done["created_at"] >= asked["at"]
        # It is undone like any other, past the ones that have not begun; these survive a kill.
        fleet.control_plane.kill()
        await fleet.control_plane.wait()
        await fleet.control_plane.up()
        await all_live(fleet)
        assert (await view(far))["state"] == "scheduled"
        answer = await fleet.admin("POST", f"/switches/{soon}/undo", None, {"Prefer": PREFER})
        assert answer.status == 200, answer.body

        # At its time it is refused as it would be by hand: it points there already.
        late = await ask("green", 1.0)
        first = await fleet.admin(
            "POST", "/switches", {"service": "example-service", "to": "green"}, {"Prefer": PREFER}
        )
        assert first.status == 200, first.body
        refused = await until(late, "confirmed", "refused", "missed")
        assert (refused["state"], refused["version"]) == ("refused", None)
        assert "already" in refused["ended_because"]


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("soon", "seconds since 1970"),
        (True, "seconds since 1970"),
        ("2026-11-28T22:00:00", "with its zone"),
        (1, "by the control plane's clock"),
        (4e12, "at most 366 days"),
    ],
)
async def test_times_that_can_not_be(alone: Fleet, at: object, says: str) -> None:
    answer = await alone.admin("POST", "/switches", {"service": "shop", "to": "green", "at": at})
    body: Any = answer.body
    assert (answer.status, says in body["fields"]["at"]) == (400, True), body


async def test_a_switch_for_later_names_what_is_there(alone: Fleet) -> None:
    at = time.time() + 600
    answer = await alone.admin("POST", "/switches", {"service": "shop", "to": "nowhere", "at": at})
    assert answer.status == 404
    answer = await alone.admin("POST", "/switches", {"service": "shop", "to": "green", "at": at})
    assert answer.status == 202  # no node is there now; one may be then
