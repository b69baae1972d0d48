"""What every write answers beyond Kong: the version, the wait for nodes, and who and why in the history."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.admin.limits import Limits
from control_plane.entities.types import EntityBody
from control_plane.fleet.waiting import NodeProgress, Outcome
from pointsman.snapshots import Fault, Stage
from tests.unit.control_plane.admin.conftest import Client, tree

APPLIED = NodeProgress("id-1", "one", Outcome.APPLIED, 1, took_s=0.01)
LAGGING = NodeProgress("id-2", "two", Outcome.LAGGING, 0, reason="offered and not answered")
REJECTED = NodeProgress(
    "id-3",
    "three",
    Outcome.REJECTED,
    0,
    reason="refused",
    stage=next(iter(Stage)),
    faults=(Fault(code="x", collection="routes", entity_id="r", entity_name="n", field="paths", message="m"),),
)


async def test_every_write_says_its_version(client: Client) -> None:
    versions = []
    writes: list[tuple[str, str, EntityBody | None]] = [
        ("POST", "/services", {"name": "a", "host": "h"}),
        ("PATCH", "/services/a", {"retries": 1}),
        ("PUT", "/services/a", {"host": "h"}),
        ("DELETE", "/services/a", None),
        ("DELETE", "/services/a", None),  # nothing to do: the version stays
    ]
    for method, target, body in writes:
        answer = await client.ask(method, target, body)
        versions.append(answer.headers["X-Pointsman-Version"])
    assert versions == ["1", "2", "3", "4", "4"]
    assert "X-Pointsman-Version" not in (await client.ask("GET", "/services")).headers


async def test_without_a_wish_nobody_waits(client: Client) -> None:
    await client.ask("POST", "/services", {"host": "h"})
    assert client.fleet.waits == []


@pytest.mark.parametrize(("method", "status"), [("POST", 201), ("PUT", 200), ("PATCH", 200), ("DELETE", 204)])
async def test_when_all_nodes_run_it_the_answer_is_the_usual_one(client: Client, method: str, status: int) -> None:
    client.fleet.progress = (APPLIED,)
    if method in ("PATCH", "DELETE"):
        await client.ask("POST", "/services", {"name": "a", "host": "h"})
    target = "/services" if method == "POST" else "/services/a"
    answer = await client.ask(method, target, {"host": "h"}, headers={"Prefer": "wait=5"})
    assert answer.status == status
    assert answer.headers["Preference-Applied"] == "wait=5"
    assert client.fleet.waits == [(int(answer.headers["X-Pointsman-Version"]), 5.0)]


async def test_otherwise_202_says_who_and_why(client: Client) -> None:
    client.fleet.progress = (APPLIED, LAGGING, REJECTED)
    answer = await client.ask("POST", "/services", {"name": "a", "host": "h"}, headers={"Prefer": "wait=5"})
    assert answer.status == 202
    body = tree(answer)
    entity = body.pop("entity")
    assert isinstance(entity, dict)
    assert entity["name"] == "a"
    fault = {
        "code": "x",
        "collection": "routes",
        "entity_id": "r",
        "entity_name": "n",
        "field": "paths",
        "message": "m",
    }
    assert body == {
        "version": 1,
        "waited_s": 0.25,
        "nodes": {
            "total": 3,
            "applied": 1,
            "rejected": ["id-3"],
            "lagging": [
                {"node_id": "id-2", "hostname": "two", "state": "lagging", "version": 0,
                 "reason": "offered and not answered", "stage": None, "faults": []},
                {"node_id": "id-3", "hostname": "three", "state": "rejected", "version": 0, "reason": "refused",
                 "stage": next(iter(Stage)).value, "faults": [fault]},
            ],
        },
    }  # fmt: skip
    assert answer.headers["X-Pointsman-Version"] == "1"


async def test_no_live_node_is_202(client: Client) -> None:
    answer = await client.ask("DELETE", "/services/a", headers={"Prefer": "wait=1"})
    body = tree(answer)
    assert answer.status == 202
    assert body["nodes"] == {"total": 0, "applied": 0, "rejected": [], "lagging": []}
    assert body["entity"] is None


async def test_the_wait_is_bounded(client: Client) -> None:
    limits = Limits(wait_s_max=2.0)
    answer = await client.ask(
        "POST", "/services", {"host": "h"}, headers={"Prefer": "respond-async, wait=1000"}, limits=limits
    )
    assert answer.headers["Preference-Applied"] == "wait=2"
    assert client.fleet.waits == [(1, 2.0)]


async def test_a_stop_ends_waits_with_the_truth(client: Client) -> None:
    client.fleet.hang = True
    client.fleet.progress = (LAGGING,)
    asking = asyncio.create_task(client.ask("POST", "/services", {"host": "h"}, headers={"Prefer": "wait=60"}))
    while not client.fleet.waits:
        await asyncio.sleep(0)
    client.api.writes.end_waits()
    answer = await asking
    assert answer.status == 202
    assert (await client.store.head()) == 1


async def test_who_and_why_are_kept(client: Client) -> None:
    headers = {"X-Pointsman-Author": "ada", "X-Pointsman-Reason": "2.7.1 gr%C3%BCn%0Aforged"}
    await client.ask("POST", "/services", {"name": "a", "host": "h"}, headers=headers)
    version = await client.tree("GET", "/versions/1")
    assert (version["author"], version["reason"]) == ("ada", "2.7.1 grün forged")
    assert (version["source"], version["address"]) == ("admin-api", "127.0.0.1")


async def test_a_reason_has_a_limit(client: Client) -> None:
    answer = await client.ask("POST", "/services", {"host": "h"}, headers={"X-Pointsman-Reason": "x" * 1001})
    assert answer.status == 400
    assert "X-Pointsman-Reason" in str(tree(answer)["message"])
    assert await client.store.head() == 0
