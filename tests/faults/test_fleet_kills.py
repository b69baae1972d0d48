"""Parts of a whole fleet killed under open-loop load: what happens to the parts that were not.

Goal: a killed control plane costs no request and nothing it had acknowledged; a killed worker or node costs only what
was in flight on it; whatever is started again comes back to the newest version. Method: real processes, SIGKILL, the
ledger's load and books. A request that breaks with its connection counts as lost, whoever is to blame.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from data_plane.node.last_good import Generation, LastGood
from tests.support import ledger
from tests.support.load import Destination, OpenLoop, Record
from tests.support.patience import PATIENCE_S, PREFER, until
from tests.support.processes import Fleet, Node

RATE = 200.0
LOOK_BACK_S = 30.0
"""Of the load's records, those looked at: a long run must not make each look slow."""
WRITERS = 4
ACKNOWLEDGED_BEFORE_THE_KILL = 60


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Two nodes of two workers each, which serve the example."""
    async with Fleet(tmp_path, nodes=2, workers=2, node_flags=("--drain-delay-s=1",)) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        yield fleet


def load_on(fleet: Fleet, *, failover: bool = False) -> OpenLoop:
    destinations = [Destination(*node.proxy_address) for node in fleet.nodes]
    load = OpenLoop(destinations, rate=RATE, host=ledger.HOST, failover=failover)
    load.start()
    return load


async def settled(fleet: Fleet, load: OpenLoop, *switches: ledger.Switch) -> ledger.Ledger:
    """Ends the load and makes its books."""
    return await ledger.books(fleet, load, switches)


async def more_answers(load: OpenLoop, node: int, count: int = 20) -> None:
    """Waits until `count` requests that were due after now are answered by `node`."""
    since = time.monotonic()

    def answered() -> int:
        recent = load.records[-int(RATE * LOOK_BACK_S) :]
        return sum(record.node == node and record.due > since and record.status == 200 for record in recent)

    await until(lambda: answered() >= count)


async def at_the_head(fleet: Fleet) -> int:
    """Waits until every node runs the newest version; returns it."""
    answer = await fleet.admin("GET", "/versions?size=1")
    assert isinstance(answer.body, dict)
    head = int(answer.body["data"][0]["version"])
    async with asyncio.timeout(PATIENCE_S):
        for node in fleet.nodes:
            while await fleet.node_version(node) < head:
                await asyncio.sleep(0.02)
    return head


async def known_as_gone(fleet: Fleet, node: Node) -> None:
    """Waits until the control plane has noticed that the node is not connected any more."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await fleet.admin("GET", "/fleet/nodes")
            assert isinstance(answer.body, dict)
            if not any(shown["connected"] for shown in answer.body["data"] if shown["node_id"] == node.node_id):
                return
            await asyncio.sleep(0.02)


async def on_disk(node: Node, version: int) -> None:
    """Waits until the node's last good file holds `version`: the journal beside it is written before the word."""
    file = LastGood(node.folder / f"{node.name}.state" / "last-good")
    async with asyncio.timeout(PATIENCE_S):
        while (kept := file.load(Generation.CURRENT).snapshot) is None or kept.version < version:
            await asyncio.sleep(0.02)


def workers_of(node: Node) -> list[int]:
    """Process ids of the node's workers."""
    children = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return [int(child) for child in children]


async def states(fleet: Fleet) -> list[str]:
    answer = await fleet.admin("GET", "/fleet/nodes")
    assert isinstance(answer.body, dict)
    return [node["state"] for node in answer.body["data"]]


async def status_of(fleet: Fleet, node: Node) -> dict[str, object]:
    answer = await fleet.call("GET", f"http://{node.status}/status")
    assert isinstance(answer.body, dict)
    return answer.body


def only_in_flight(lost: list[Record], *, node: int, most: int) -> None:
    """What a killed part may cost: at most one request on each connection to it, each broken with its connection."""
    assert {record.node for record in lost} <= {node}
    assert all(record.problem.startswith("connection lost before the answer") for record in lost), lost
    assert len(lost) <= most


async def _write_until_refused(fleet: Fleet, writer: int, acknowledged: dict[str, int]) -> None:
    number = 0
    while True:
        name = f"w{writer}-{number}"
        try:
            answer = await fleet.admin("POST", "/upstreams", {"name": name})
        except aiohttp.ClientError:
            return
        assert answer.status == 201, answer.body
        acknowledged[name] = int(answer.headers["X-Pointsman-Version"])
        number += 1


async def test_a_control_plane_killed_while_it_writes_costs_no_request_and_nothing_acknowledged(fleet: Fleet) -> None:
    load = load_on(fleet)
    acknowledged: dict[str, int] = {}
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as writers:
        for writer in range(WRITERS):
            writers.create_task(_write_until_refused(fleet, writer, acknowledged))
        while len(acknowledged) < ACKNOWLEDGED_BEFORE_THE_KILL:
            await asyncio.sleep(0.005)
        fleet.control_plane.kill(signal.SIGKILL)
    await fleet.control_plane.wait()
    for node in range(2):
        await more_answers(load, node)

    await fleet.control_plane.up()
    for name, version in acknowledged.items():
        assert (await fleet.admin("GET", f"/upstreams/{name}")).status == 200, f"{name} was acknowledged and is gone"
        answer = await fleet.admin("GET", f"/versions/{version}")
        assert isinstance(answer.body, dict)
        assert [change["after"]["name"] for change in answer.body["changes"]] == [name]
    assert await at_the_head(fleet) >= max(acknowledged.values())
    async with asyncio.timeout(PATIENCE_S):
        while await states(fleet) != ["current", "current"]:
            await asyncio.sleep(0.05)
    switch = await ledger.switch_to(fleet, "green")
    await more_answers(load, 0)
    result = await settled(fleet, load, switch)
    assert result.failures == []


async def test_a_node_restarted_without_a_control_plane_serves_its_last_good_config(fleet: Fleet) -> None:
    switch = await ledger.switch_to(fleet, "green")
    load = load_on(fleet)
    fleet.control_plane.kill(signal.SIGKILL)
    await fleet.control_plane.wait()
    second = fleet.nodes[1]
    await on_disk(second, switch.version)
    await more_answers(load, 1)
    most = load.open_connections(1)
    second.kill(signal.SIGKILL)
    await second.wait()
    await second.up()
    await fleet.until_ready()
    assert (await status_of(fleet, second))["control_plane_connected"] is False
    assert await fleet.node_version(second) == switch.version
    await more_answers(load, 1)

    await fleet.control_plane.up()
    async with asyncio.timeout(PATIENCE_S):
        while not (await status_of(fleet, second))["control_plane_connected"]:
            await asyncio.sleep(0.02)
    assert (await fleet.admin("PATCH", "/services/example-service", {"retries": 4})).status == 200
    assert await at_the_head(fleet) > switch.version
    result = await settled(fleet, load, switch)
    assert {record.colour for record in load.records if record.colour} == {"green"}
    assert result.doubled == result.stray == 0
    assert {record.node for record in result.lost} <= {1}, "the other node lost requests"
    broken = [record for record in result.lost if not record.problem.startswith("cannot connect")]
    only_in_flight(broken, node=1, most=most)


async def test_a_killed_worker_costs_only_what_was_in_flight_on_it(fleet: Fleet) -> None:
    load = load_on(fleet)
    for node in range(2):
        await more_answers(load, node)
    first = fleet.nodes[0]
    victim = workers_of(first)[0]
    most = load.open_connections(0)
    os.kill(victim, signal.SIGKILL)
    switch = await ledger.switch_to(fleet, "green")
    await until(lambda: len(workers_of(first)) == 2 and victim not in workers_of(first))
    await fleet.until_ready()
    for node in range(2):
        await more_answers(load, node)
    back = await ledger.switch_to(fleet, "blue")
    result = await settled(fleet, load, switch, back)
    workers = (await status_of(fleet, first))["workers"]
    assert isinstance(workers, dict)
    assert (workers["ready"], workers["restarts"]) == (2, 1)
    assert {process["version"] for process in workers["processes"]} == {back.version}
    only_in_flight(result.lost, node=0, most=most)
    assert result.doubled == result.stray == 0
    assert result.violations == []


async def test_a_killed_node_costs_the_others_nothing_and_comes_back_to_the_head(fleet: Fleet) -> None:
    load = load_on(fleet)
    for node in range(2):
        await more_answers(load, node)
    first = fleet.nodes[0]
    most = load.open_connections(0)
    first.kill(signal.SIGKILL)
    await first.wait()
    await known_as_gone(fleet, first)
    answer = await fleet.admin("PATCH", "/services/example-service", {"host": "green"}, {"Prefer": PREFER})
    assert answer.status == 200, "a node that is gone is not waited for"
    await first.up()  # the same ports, whether or not its orphaned workers have ended
    await fleet.until_ready()
    await at_the_head(fleet)
    await more_answers(load, 0)
    back = await ledger.switch_to(fleet, "blue")
    await more_answers(load, 0)
    result = await settled(fleet, load, back)
    assert {record.node for record in result.lost} <= {0}, "the other node lost requests"
    broken = [record for record in result.lost if not record.problem.startswith("cannot connect")]
    only_in_flight(broken, node=0, most=most)
    assert result.doubled == result.stray == 0
    assert result.violations == []


async def test_a_node_told_to_end_loses_nothing_of_clients_that_honour_its_close(fleet: Fleet) -> None:
    load = load_on(fleet, failover=True)
    for node in range(2):
        await more_answers(load, node)
    first = fleet.nodes[0]
    first.kill(signal.SIGTERM)
    assert await first.wait() == 0
    await more_answers(load, 1)
    await first.up()
    await fleet.until_ready()
    await at_the_head(fleet)
    await more_answers(load, 0)
    result = await settled(fleet, load)
    assert result.failures == []
    assert any(record.moves for record in load.records), "nobody met the refusal that this is about"
