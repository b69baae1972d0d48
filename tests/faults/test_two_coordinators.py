"""Two control planes over PostgreSQL, of which one is struck while it coordinates a rollout.

Goal: exactly one coordinates; what the database says was decided is what all nodes run in the end, what it does not is
nothing; no request is lost. Method: the first is stopped past its lease and continued; the second takes over and
carries out a rollout of its own meanwhile. Killed, stopped and split from the database, before the decision and after
it, twenty times each: `tests/prove/test_two_coordinators.py`.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.support import ledger
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.postgres import PostgresServer
from tests.support.processes import ControlPlane
from tests.support.rollouts import SERVICE, View, to
from tests.support.two_planes import TwoPlanes, host_at, load_on, strike, two_planes, written_in_silence


async def refused_by_name(fleet: TwoPlanes) -> None:
    """Asked where nobody coordinates, an operator hears who does, and of the entity that is held."""
    fleet.nodes[1].kill(signal.SIGSTOP)
    try:
        number = fleet.newest() + 1
        held = await fleet.ask(fleet.first, "POST", "/fleet/rollouts", to("green", vote_by_s=30))
        assert held.status == 202
        same = await fleet.ask(fleet.second, "POST", "/fleet/rollouts", to("green"))
        assert same.status == 409
        assert isinstance(same.body, dict)
        assert f"rollout {number} is about to change services" in same.body["message"]
        view = await fleet.view(fleet.second, number)
        abort = await fleet.ask(fleet.second, "POST", f"/fleet/rollouts/{number}/abort")
        assert abort.status == 409
        assert isinstance(abort.body, dict)
        assert f"is coordinated by control plane {view['coordinator']}; ask it" in abort.body["message"]
        assert (await fleet.ask(fleet.first, "POST", f"/fleet/rollouts/{number}/abort")).status == 200
    finally:
        fleet.nodes[1].kill(signal.SIGCONT)


async def a_canary_is_spoken_to_at_either(fleet: TwoPlanes) -> None:
    """Who drives it is nobody's business: each control plane shows it, takes a word, and refuses others by name."""

    async def word(plane: ControlPlane, path: str, body: object, prefer: str = PREFER) -> View:
        answer = await fleet.ask(plane, "POST", f"/switches{path}", body, prefer)
        assert answer.status in (200, 202), answer.body
        assert isinstance(answer.body, dict)
        return answer.body

    canary = {"steps": [20, 50], "gates": None}
    view = await word(fleet.second, "", {"service": SERVICE, "to": "green", "canary": canary})
    number = view["switch"]
    assert (view["state"], view["canary"]["step"]) == ("held", 1)
    await fleet.settled()  # the nodes of both
    async with asyncio.timeout(PATIENCE_S):  # and their figures are weighed, by whoever drives
        while not any([await weighs_all(fleet, plane, number) for plane in (fleet.first, fleet.second)]):
            await asyncio.sleep(0.1)
    other = await fleet.ask(fleet.first, "POST", "/switches", {"service": SERVICE, "to": "green"})
    assert isinstance(other.body, dict)
    assert (other.status, other.body["refusals"][0]["code"]) == (409, "HELD_BY_CANARY")
    view = await word(fleet.first, f"/{number}/promote", {})
    assert (view["state"], view["canary"]["share_percent"]) == ("held", 50)
    view = await word(fleet.first, f"/{number}/promote", {"all": True})
    assert view["state"] == "confirmed", view
    await fleet.settled()
    view = await word(fleet.second, f"/{number}/undo", {})
    assert (view["verb"], view["state"]) == ("undo", "confirmed"), view
    await fleet.settled()
    assert await host_at(fleet) == "blue"


async def weighs_all(fleet: TwoPlanes, plane: ControlPlane, number: int) -> bool:
    view = (await fleet.ask(plane, "GET", f"/switches/{number}")).body
    assert isinstance(view, dict)
    nodes = {side["node"] for side in view["canary"]["sides"] if side["requests"]} - {""}
    return len(nodes) == len(fleet.nodes) and view["canary"]["not_watched"] == []


async def what_is_open_at_the_other_is_waited_for(fleet: TwoPlanes) -> None:
    """A request to the other one's node holds the old side: it is not safe to tear down until that has its answer."""
    route = await fleet.ask(fleet.first, "PATCH", "/routes/example-route", {"request_buffering": False}, PREFER)
    assert route.status == 200, route.body
    await fleet.settled()
    before, other = await host_at(fleet), fleet.nodes[2]
    reader, writer = await asyncio.open_connection(*other.proxy_address)
    head = f"POST /held HTTP/1.1\r\nHost: {ledger.HOST}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    writer.write(head.encode())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 "), "it is under way"
    writer.write(b"a")
    colour = "green" if before == "blue" else "blue"
    done = await fleet.ask(fleet.first, "POST", "/fleet/rollouts", to(colour, vote_by_s=30), PREFER)
    assert done.status == 200, done.body
    number = fleet.newest()
    async with asyncio.timeout(PATIENCE_S):
        while not (drained := (await fleet.view(fleet.first, number))["drained"])[0]["by_node"].get(other.node_id):
            await asyncio.sleep(0.1)
    assert not drained[0]["safe_to_tear_down"]
    assert not (await fleet.view(fleet.first, number))["safe_to_tear_down"]
    writer.write(b"b")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    async with asyncio.timeout(PATIENCE_S):
        while not (view := await fleet.view(fleet.first, number))["safe_to_tear_down"]:
            await asyncio.sleep(0.1)
    (drained,) = view["drained"]
    assert (drained["in_flight"], drained["waiting_for"]) == (0, [])


async def a_canary_names_whom_it_does_not_see(fleet: TwoPlanes) -> None:
    other = "green" if await host_at(fleet) == "blue" else "blue"
    asked = {"service": SERVICE, "to": other, "canary": {"steps": [20], "gates": None}}
    begun = await fleet.ask(fleet.first, "POST", "/switches", asked, PREFER)
    assert isinstance(begun.body, dict)
    number, step = begun.body["switch"], begun.body["canary"]["steps"][0]["rollout"]
    rollout = await fleet.view(fleet.first, step)
    assert rollout["elsewhere"], rollout
    assert len(rollout["nodes"]) + len(rollout["elsewhere"]) == len(fleet.nodes)
    async with asyncio.timeout(PATIENCE_S):
        while not any([await unseen(fleet, plane, number) for plane in (fleet.first, fleet.second)]):
            await asyncio.sleep(0.1)
    ended = await fleet.ask(fleet.first, "POST", f"/switches/{number}/abort", {}, PREFER)
    assert isinstance(ended.body, dict)
    assert ended.body["state"] == "aborted", ended.body


async def unseen(fleet: TwoPlanes, plane: ControlPlane, number: int) -> bool:
    view = (await fleet.ask(plane, "GET", f"/switches/{number}")).body
    assert isinstance(view, dict)
    return bool(view["canary"]["not_watched"])


async def no_word_between_them_gets_through(fleet: TwoPlanes) -> None:
    """Each still sees what the other has committed, by looking; a rollout names the nodes that it could not ask."""
    async with fleet.no_words():
        await written_in_silence(fleet)
        await a_canary_names_whom_it_does_not_see(fleet)
    await fleet.settled()


async def test_a_coordinator_that_was_stopped_past_its_lease_meets_the_fence(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with two_planes(tmp_path, postgres) as fleet, load_on(fleet, rate=60):
        await a_canary_is_spoken_to_at_either(fleet)
        await refused_by_name(fleet)
        await what_is_open_at_the_other_is_waited_for(fleet)
        assert (await strike(fleet, "stopped", "preparing")).ended == "aborted"
        assert (await strike(fleet, "split", "decided")).ended in ("confirmed", "partial")
        await no_word_between_them_gets_through(fleet)
