"""Every way a switch can end, once each, on three real nodes under load. Not one request may be lost in any of them.

Method: one fleet for all, with active health checks on green, so that the preflight sees a target die. Each step leaves
the fleet as it found it: service on blue, every node live. The one node that is killed takes its own clients with it,
and only they are excused, from that moment on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import ledger
from tests.support.load import Destination, OpenLoop, Record
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import Answer, Fleet
from tests.support.rollouts import SERVICE, UNHURRIED, View, all_live, host_of, until_state, versions, why

CHECKS = {
    "active": {
        "type": "tcp",
        "healthy": {"interval": 0.2, "successes": 1},
        "unhealthy": {"interval": 0.2, "tcp_failures": 1, "timeouts": 1},
    }
}
LIST = "/switches"


@dataclass
class Books:
    """The clients of this node are excused from `since` on, in seconds of `time.monotonic`."""

    node: int = -1
    since: float = float("inf")

    def counts(self, record: Record) -> bool:
        return record.node != self.node or record.due < self.since - 1.0


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Fleet, Books]]:
    """Three nodes that serve the example under load; at the end the books must be straight."""
    async with Fleet(folder, nodes=3, workers=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        checked = await fleet.admin("PATCH", "/upstreams/green", {"healthchecks": CHECKS}, {"Prefer": PREFER})
        assert checked.status == 200, checked.body
        await all_live(fleet)
        await until_plan(fleet, ready=True, healthy=2)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=100, host=ledger.HOST)
        load.start()
        books = Books()
        yield fleet, books
        await load.stop()
        load.records[:] = [record for record in load.records if books.counts(record)]
        assert len(load.records) > 100
        assert (await ledger.books(fleet, load)).failures == []


async def switch(fleet: Fleet, to: str, *, wait_s: int = 60, **more: object) -> Answer:
    body = {"service": SERVICE, "to": to, "reason": f"to {to}", "policy": UNHURRIED, **more}
    return await fleet.admin("POST", LIST, body, {"Prefer": f"wait={wait_s}", "X-Pointsman-Author": "ann"})


async def undo(fleet: Fleet, number: int) -> Answer:
    return await fleet.admin("POST", f"{LIST}/{number}/undo", {}, {"Prefer": PREFER})


def of(answer: Answer) -> View:
    assert isinstance(answer.body, dict)
    return answer.body


async def plan(fleet: Fleet, to: str = "green", *, query: str = "", **more: object) -> View:
    answer = await fleet.admin("POST", f"{LIST}?dry_run=1{query}", {"service": SERVICE, "to": to, **more})
    assert answer.status == 200, answer.body
    return of(answer)


async def until_plan(fleet: Fleet, *, ready: bool, healthy: int) -> View:
    """Waits until every node's word on green is so: each of them checks by itself."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            drawn = await plan(fleet)
            seen = [node["healthy"] for node in drawn["nodes"]]
            words = {word for target in drawn["new_side"]["targets"] for word in target["seen"].values()}
            checked = not words & {"unknown", "unchecked"}
            if drawn["ready"] is ready and seen == [healthy] * 3 and checked:
                return drawn
            await asyncio.sleep(0.05)


async def until_safe(fleet: Fleet, number: int) -> View:
    async with asyncio.timeout(PATIENCE_S):
        while not (view := of(await fleet.admin("GET", f"{LIST}/{number}")))["safe_to_tear_down"]:
            await asyncio.sleep(0.1)
        return view


async def until_answers_are_told(fleet: Fleet, number: int) -> View:
    """Waits for each node's word on its first answer by the new side, and its last one by the old: they come apart."""
    told = ("first_new_us_after_instant", "last_old_us_after_instant")
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = of(await fleet.admin("GET", f"{LIST}/{number}"))
            if all(node[each] is not None for node in view["nodes"] for each in told):
                return view
            await asyncio.sleep(0.1)


async def test_every_ending_of_a_switch_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (fleet, books):
        number = await done_and_undone(fleet)
        await refused_at_preflight(fleet)
        await refused_by_a_node(fleet)
        await two_operators_at_once(fleet)
        await a_lagging_node_and_a_lost_one(fleet, books)
        await the_history_has_all_of_it(fleet, number)


async def done_and_undone(fleet: Fleet) -> int:
    answer = await switch(fleet, "green")
    view = of(answer)
    assert answer.status == 200, why(view)
    assert (view["verb"], view["state"], view["reason"], view["author"]) == ("switch", "confirmed", "to green", "ann")
    (moved,) = view["services"]
    assert (moved["name"], moved["from"], moved["to"]) == (SERVICE, "blue", "green")
    assert [node["standing"] for node in view["nodes"]] == ["activated"] * 3
    assert all(node["late_us"] >= 0 and node["healthy"] == node["targets"] == 2 for node in view["nodes"])
    number = int(view["switch"])
    view = await until_answers_are_told(fleet, number)
    for node in view["nodes"]:
        assert node["first_new_us_after_instant"] >= -node["clock_error_us"], node
        assert node["last_old_us_after_instant"] is not None, node
    view = await until_safe(fleet, number)
    assert [node["open_on_old_side"] for node in view["nodes"]] == [0, 0, 0]
    assert view["old_sides"][0]["name"] == "blue"

    twice = await switch(fleet, "green")
    assert (twice.status, of(twice)["code"]) == (409, "ALREADY_THERE")

    answer = await undo(fleet, number)
    view = of(answer)
    assert answer.status == 200, why(view)
    assert (view["verb"], view["undoes"], view["to"], view["state"]) == ("undo", number, "blue", "confirmed")
    assert await host_of(fleet) == "blue"
    again = await undo(fleet, number)
    assert (again.status, of(again)["code"]) == (409, "UNDONE_ALREADY")
    of_undo = await undo(fleet, int(view["switch"]))
    assert (of_undo.status, of(of_undo)["code"]) == (409, "IS_AN_UNDO")
    assert of(await fleet.admin("GET", f"{LIST}/{number}"))["undone_by"] == view["switch"]
    return number


async def refused_at_preflight(fleet: Fleet) -> None:
    fleet.upstreams["green-1"].destroy()
    drawn = await until_plan(fleet, ready=False, healthy=1)
    (refusal,) = drawn["refusals"]
    assert refusal["code"] == "SIDE_UNHEALTHY"
    assert fleet.upstreams["green-1"].address in refusal["what"]
    answer = await switch(fleet, "green")
    assert (answer.status, of(answer)["code"]) == (409, "PREFLIGHT_REFUSED")
    small = await plan(fleet, policy={"min_healthy_percent": 50, "min_capacity_percent": 100})
    assert [each["code"] for each in small["refusals"]] == ["CAPACITY_TOO_SMALL"]

    fleet.upstreams["green-2"].destroy()
    drawn = await until_plan(fleet, ready=False, healthy=0)
    assert [each["code"] for each in drawn["refusals"]] == ["NODE_SEES_TOO_FEW"] * 3 + ["SIDE_UNHEALTHY"]
    assert {each["node"] for each in drawn["refusals"][:3]} == {node["hostname"] for node in drawn["nodes"]}
    unnamed = await fleet.admin("POST", LIST, {"service": SERVICE, "to": "green", "force": True})
    assert unnamed.status == 400, "force must say why"
    await asyncio.gather(fleet.upstreams["green-1"].up(), fleet.upstreams["green-2"].up())
    await until_plan(fleet, ready=True, healthy=2)

    empty = await fleet.admin("POST", "/upstreams", {"name": "empty"})
    assert empty.status == 201
    drawn = await plan(fleet, "empty")
    assert [each["code"] for each in drawn["refusals"]] == ["NO_TARGET"]
    for to, service, code in (("gren", SERVICE, "NO_SUCH_UPSTREAM"), ("green", "nope", "NO_SUCH_SERVICE")):
        missing = await fleet.admin("POST", LIST, {"service": service, "to": to})
        assert (missing.status, of(missing)["code"]) == (404, code)


async def refused_by_a_node(fleet: Fleet) -> None:
    """Nobody checks this side, so the preflight lets it pass with a warning, and the nodes find out by connecting."""
    dead = {"target": "127.0.0.1:1", "weight": 1}
    assert (await fleet.admin("POST", "/upstreams", {"name": "unchecked"})).status == 201
    assert (await fleet.admin("POST", "/upstreams/unchecked/targets", dead, {"Prefer": PREFER})).status == 201
    async with asyncio.timeout(PATIENCE_S):
        while not (drawn := await plan(fleet, "unchecked"))["ready"]:
            await asyncio.sleep(0.05)
    assert [each["code"] for each in drawn["warnings"]] == ["NOT_CHECKED"]
    asked = await plan(fleet, "unchecked", query="&ask_nodes=1")
    assert [each["code"] for each in asked["refusals"]] == ["NODE_REFUSES"] * 3
    assert "none of its 1 targets can take traffic" in asked["refusals"][0]["what"]
    unreached = [each for each in asked["warnings"] if each["code"] == "TARGET_UNREACHED"]
    assert {each["node"] for each in unreached} == {node["hostname"] for node in asked["nodes"]}
    assert all(each["target"] == "127.0.0.1:1" and "can't reach" in each["what"] for each in unreached)
    half = {"target": fleet.upstreams["green-1"].address, "weight": 1}
    assert (await fleet.admin("POST", "/upstreams/unchecked/targets", half, {"Prefer": PREFER})).status == 201
    before = await versions(fleet)
    asked = await plan(fleet, "unchecked", query="&ask_nodes=1", policy={"min_healthy_percent": 50})
    assert [node["vote"] for node in asked["rehearsal"]["nodes"]] == ["ready_warn"] * 3, asked["rehearsal"]
    assert (asked["ready"], asked["rehearsal"]["would_decide"]) == (True, True)
    assert sum(each["code"] == "TARGET_UNREACHED" for each in asked["warnings"]) == 3
    assert (await host_of(fleet), await versions(fleet)) == ("blue", before)
    gone = await fleet.admin("DELETE", f"/upstreams/unchecked/targets/{half['target']}", None, {"Prefer": PREFER})
    assert gone.status == 204
    answer = await switch(fleet, "unchecked")
    view = of(answer)
    assert (answer.status, view["code"], view["state"]) == (409, "ABORTED", "aborted")
    assert "none of its 1 targets can take traffic" in view["ended_because"]
    assert next(fault["code"] for node in view["nodes"] for fault in node["faults"]) == "NO_HEALTHY_TARGET"
    assert await host_of(fleet) == "blue"
    nothing = await undo(fleet, int(view["switch"]))
    assert (nothing.status, of(nothing)["code"]) == (409, "NOTHING_TO_UNDO")


async def two_operators_at_once(fleet: Fleet) -> None:
    first, second = await asyncio.gather(switch(fleet, "green"), switch(fleet, "green"))
    assert sorted((first.status, second.status)) == [200, 409], (first.body, second.body)
    won, lost = (first, second) if first.status == 200 else (second, first)
    held, late = f"rollout {of(won)['switch']} is about to change", "points to green already"
    assert held in of(lost)["message"] or late in of(lost)["message"]
    both = await asyncio.gather(undo(fleet, int(of(won)["switch"])), undo(fleet, int(of(won)["switch"])))
    assert sorted(answer.status for answer in both) == [200, 409], [answer.body for answer in both]
    assert await host_of(fleet) == "blue"

    moved = of(await switch(fleet, "green"))
    other = await fleet.admin("PATCH", f"/services/{SERVICE}", {"host": "blue"}, {"Prefer": PREFER})
    assert other.status == 200
    changed = await undo(fleet, int(moved["switch"]))
    assert (changed.status, of(changed)["code"]) == (409, "SERVICE_CHANGED")
    assert "points to blue" in of(changed)["message"]


async def a_lagging_node_and_a_lost_one(fleet: Fleet, books: Books) -> None:
    stalled = fleet.nodes[2]
    stalled.kill(signal.SIGSTOP)
    try:
        await a_rehearsal_names_who_is_slow_and_gives_way(fleet)
        answer = await switch(fleet, "green", policy={"vote_by_s": 0.5, "need_percent": 60, "confirm_by_s": 0.5})
    finally:
        stalled.kill(signal.SIGCONT)
    view = of(answer)
    assert (answer.status, view["state"]) == (202, "partial"), why(view)
    standings = {node["node_id"]: node["standing"] for node in view["nodes"]}
    assert standings == {node.node_id: "lagging" if node is stalled else "activated" for node in fleet.nodes}
    assert view["safe_to_tear_down"] is False
    await all_live(fleet)
    answer = await undo(fleet, int(view["switch"]))
    assert answer.status == 200, answer.body

    # A node that is lost in the middle does not count; the others are switched and the lost one comes back to it.
    stalled.kill(signal.SIGSTOP)
    begun = await switch(fleet, "green", wait_s=0, policy=UNHURRIED)
    assert begun.status == 202, begun.body
    number = int(of(begun)["switch"])
    async with asyncio.timeout(PATIENCE_S):
        while len(of(await fleet.admin("GET", f"{LIST}/{number}"))["nodes"]) < 3:
            await asyncio.sleep(0.01)
    early = await undo(fleet, number)
    assert (early.status, of(early)["code"]) == (409, "NOT_DECIDED")
    books.node, books.since = 2, time.monotonic()
    stalled.destroy()
    async with asyncio.timeout(PATIENCE_S):
        while (view := of(await fleet.admin("GET", f"{LIST}/{number}")))["state"] not in ("confirmed", "aborted"):
            await asyncio.sleep(0.02)
    assert view["state"] == "confirmed", why(view)
    assert sorted(node["standing"] for node in view["nodes"]) == ["activated", "activated", "gone"]
    await stalled.up()
    await all_live(fleet)


async def a_rehearsal_names_who_is_slow_and_gives_way(fleet: Fleet) -> None:
    """With one node stopped."""
    asked = await plan(fleet, query="&ask_nodes=1", policy={"vote_by_s": 0.5, "need_percent": 60})
    votes = [node["vote"] for node in asked["rehearsal"]["nodes"]]
    assert (asked["ready"], sorted(map(str, votes))) == (True, ["None", "ready", "ready"])
    assert [each["code"] for each in asked["warnings"]] == ["NODE_SLOW"]
    asked = await plan(fleet, query="&ask_nodes=1", policy={"vote_by_s": 0.5})
    assert [each["code"] for each in asked["refusals"]] == ["WOULD_ABORT"]
    first = int(asked["rehearsal"]["rollout"]) + 1
    asking = asyncio.create_task(plan(fleet, query="&ask_nodes=1", policy={"vote_by_s": 50}))
    async with asyncio.timeout(PATIENCE_S):
        while (await fleet.admin("GET", f"/fleet/rollouts/{first}")).status != 200:
            await asyncio.sleep(0.01)
    await until_state(fleet, first, "preparing")
    meant = await switch(fleet, "green", policy={"vote_by_s": 0.5})
    assert (meant.status, of(meant)["code"]) == (409, "ABORTED"), "all nodes were needed"
    told = await asking
    assert told["rehearsal"]["reason"] == f"gave way to rollout {of(meant)['switch']}"

    asking = asyncio.create_task(plan(fleet, query="&ask_nodes=1", policy={"vote_by_s": 50}))
    number = int(of(meant)["switch"]) + 1
    async with asyncio.timeout(PATIENCE_S):
        while (await fleet.admin("GET", f"/fleet/rollouts/{number}")).status != 200:
            await asyncio.sleep(0.01)
    written = await fleet.admin("PATCH", f"/services/{SERVICE}", {"retries": 4})
    told = await asking
    version = written.headers["X-Pointsman-Version"]
    assert told["rehearsal"]["reason"] == f"gave way to version {version}, written meanwhile"


async def the_history_has_all_of_it(fleet: Fleet, first: int) -> None:
    found = of(await fleet.admin("GET", f"{LIST}?size=100&service={SERVICE}"))["data"]
    numbers = [view["switch"] for view in found]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == first
    assert {view["state"] for view in found} == {"confirmed", "partial", "aborted"}
    assert {view["verb"] for view in found} == {"switch", "undo"}
    page = of(await fleet.admin("GET", f"{LIST}?size=2&before={numbers[0]}"))["data"]
    assert [view["switch"] for view in page] == numbers[1:3]
    assert of(await fleet.admin("GET", f"{LIST}?service=nope"))["data"] == []

    fleet.control_plane.kill()
    await fleet.control_plane.wait()
    await fleet.control_plane.up()
    answer = await undo(fleet, numbers[0])  # at once: nodes that are on their way back are waited for
    assert answer.status == 200, answer.body
    assert [node["standing"] for node in of(answer)["nodes"]] == ["activated"] * 3
    numbers.insert(0, int(of(answer)["switch"]))
    kept = of(await fleet.admin("GET", f"{LIST}?size=100"))["data"]
    assert [view["switch"] for view in kept] == numbers
    undone = of(await fleet.admin("GET", f"{LIST}/{numbers[1]}"))
    assert (undone["plan"]["new_side"]["healthy"], undone["undone_by"]) == (2, numbers[0])

    await fleet.control_plane.stop()
    await fleet.control_plane.up()
    async with asyncio.timeout(PATIENCE_S):
        while "is unknown" in str((answer := await switch(fleet, "green")).body):
            assert answer.status == 409  # a node's first word on its targets may take longer than a plan waits for it
    assert answer.status == 200, answer.body
    assert len(of(answer)["nodes"]) == 3
    answer = await undo(fleet, int(of(answer)["switch"]))
    assert answer.status == 200, answer.body
