"""Every way a canary can end, once each, on three real nodes under load. The gateway may lose nothing in any of them.

Method: one fleet for all; each part leaves it as it found it, on blue. A bad release is green's servers answering 500:
those answers are the release's, are brought to the clients as they are, and are counted apart; what must not happen is
that one is seen by a request that was begun after the canary was back, or that anything else fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import canaries, ledger
from tests.support.load import Destination, OpenLoop, Record
from tests.support.patience import PATIENCE_S
from tests.support.processes import Fleet
from tests.support.rollouts import SERVICE, all_live, host_of, why

RATE = 150


@dataclass
class Books:
    """Requests to a node that is killed, from then on, are excused; bad answers are, between these moments."""

    load: OpenLoop
    node: int = -1
    since: float = float("inf")
    bad: list[tuple[float, float]] = field(default_factory=list)

    def counts(self, record: Record) -> bool:
        return record.node != self.node or record.due < self.since - 1.0

    def allowed(self, record: Record) -> bool:
        return any(begin <= record.sent <= end for begin, end in self.bad)


@contextlib.asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[tuple[Fleet, Books]]:
    """Three nodes that serve the example under load; at the end the books must be straight."""
    async with Fleet(folder, nodes=3, workers=1) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        await all_live(fleet)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=RATE, host=ledger.HOST)
        load.start()
        books = Books(load)
        yield fleet, books
        await load.stop()
        load.records[:] = [record for record in load.records if books.counts(record)]
        assert len(load.records) > 500
        result = ledger.settle(
            load, (), revolutions=0, duplicates=await ledger.count_duplicates(fleet), check_weights=False
        )
        assert result.failures == []
        assert result.bad_answers > 0
        late = [record for record in load.records if record.status == 500 and not books.allowed(record)]
        assert not late, f"{len(late)} requests saw the bad side after it was said to be gone, first {late[0]}"


async def test_every_ending_of_a_canary_is_told_and_loses_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as (fleet, books):
        number = await done_by_itself(fleet)
        await held_promoted_and_refused_to_others(fleet)
        await undone_by_a_gate(fleet, books)
        await two_operators_at_once(fleet)
        await killed_on_its_way(fleet)
        await a_node_lost_in_the_middle(fleet, books)
        await the_history_has_all_of_it(fleet, number)


async def done_by_itself(fleet: Fleet) -> int:
    view = await canaries.begin(fleet, 20, 60, every_s=1, gates={"p99": None}, wait_s=40)
    assert view["state"] == "confirmed", why(view)
    number = int(view["switch"])
    assert [step["left"] for step in view["canary"]["steps"]] == ["passed", "passed", None]
    assert [step["percent"] for step in view["canary"]["steps"]] == [20, 60, 100]
    for step in view["canary"]["steps"][:2]:
        sums = {side["side"]: side["requests"] for side in step["verdict"]["sides"] if not side["node"]}
        assert sums["old"] > 0
        assert sums["new"] >= 20
    assert await host_of(fleet) == "green"
    settings = (await fleet.admin("GET", f"/fleet/services/{SERVICE}/settings")).body
    assert isinstance(settings, dict)
    assert settings["split"] is None
    assert [node["standing"] for node in view["nodes"]] == ["activated"] * 3
    back = await canaries.tell(fleet, number, "undo")
    assert (back.status, canaries.of(back)["to"]) == (200, "blue")
    assert (await canaries.view_of(fleet, number))["undone_by"] == canaries.of(back)["switch"]
    return number


async def held_promoted_and_refused_to_others(fleet: Fleet) -> None:
    """Without a time each step stands until it is promoted; whoever else wants the service is refused by name."""
    view = await canaries.begin(fleet, 10, 30, 50, wait_s=20, sticky={"on": "ip", "name": None})
    number = int(view["switch"])
    assert (view["state"], view["canary"]["step"]) == ("held", 1)
    for method, path, body in (
        ("PATCH", f"/services/{SERVICE}", {"host": "green"}),
        ("PATCH", f"/fleet/services/{SERVICE}/settings", {"split": None}),
        ("POST", "/switches", {"service": SERVICE, "to": "green"}),
        ("POST", "/switches", {"service": SERVICE, "to": "green", "canary": {"steps": [1]}}),
        ("POST", "/fleet/rollouts", {"changes": [{"collection": "services", "key": SERVICE, "body": {"retries": 1}}]}),
    ):
        refused = await fleet.admin(method, path, body)
        assert refused.status == 409, (method, path, refused.body)
        assert f"canary {number} is" in canaries.of(refused)["message"]
    gone = await fleet.admin("DELETE", "/upstreams/green")
    assert gone.status == 400, gone.body
    assert f"`pointsman switch abort {number}` ends" in canaries.of(gone)["message"]
    view = canaries.of(await canaries.tell(fleet, number, "promote", to_step=3))
    assert (view["state"], view["canary"]["step"], view["canary"]["share_percent"]) == ("held", 3, 50)
    assert [step["left"] for step in view["canary"]["steps"]] == ["promoted", "skipped", None, None]
    view = canaries.of(await canaries.tell(fleet, number, "abort", reason="enough seen"))
    assert (view["state"], view["ended_because"], view["ended_by"]) == ("aborted", "enough seen", "bob")
    assert await host_of(fleet) == "blue"
    for verb in ("promote", "hold", "abort"):
        late = await canaries.tell(fleet, number, verb)
        assert (late.status, canaries.of(late)["code"]) == (409, "GOING_BACK")
    nothing = await canaries.tell(fleet, number, "undo")
    assert (nothing.status, canaries.of(nothing)["code"]) == (409, "NOTHING_TO_UNDO")

    view = await canaries.begin(fleet, 10, 50, every_s=60, wait_s=0)
    number = int(view["switch"])
    await canaries.until_step(fleet, number, 1)
    held = canaries.of(await canaries.tell(fleet, number, "hold"))
    assert (held["state"], held["canary"]["held_by"]) == ("held", "bob")
    view = canaries.of(await canaries.tell(fleet, number, "promote", all=True))
    assert view["state"] == "confirmed", why(view)
    assert (await canaries.tell(fleet, number, "undo")).status == 200


async def undone_by_a_gate(fleet: Fleet, books: Books) -> None:
    """One bad server of green is found, and everything is back before the answer says so."""
    began = time.monotonic()
    await canaries.make(fleet, "green", ill=True, only="green-2")
    view = await canaries.begin(fleet, 30, 60, every_s=30, gates={"errors": "5%", "p99": None}, wait_s=40)
    books.bad.append((began, time.monotonic()))
    await canaries.make(fleet, "green", ill=False)
    assert (view["state"], view["code"]) == ("undone", "UNDONE"), why(view)
    breach = view["canary"]["breach"]
    assert breach["gate"] == "errors"
    assert breach["value"] > 0.05
    assert view["ended_because"] == f"gate errors: {breach['what']}"
    assert view["canary"]["steps"][0]["left"] == "broken"
    assert await host_of(fleet) == "blue"


async def two_operators_at_once(fleet: Fleet) -> None:
    body = {"service": SERVICE, "to": "green", "canary": {"steps": [10]}}
    answers = await asyncio.gather(*(fleet.admin("POST", "/switches", body) for _ in range(2)))
    assert sorted(answer.status for answer in answers) == [202, 409], [answer.body for answer in answers]
    number = next(int(canaries.of(answer)["switch"]) for answer in answers if answer.status == 202)
    await canaries.until_step(fleet, number, 1)
    words = await asyncio.gather(
        canaries.tell(fleet, number, "promote", all=True), canaries.tell(fleet, number, "abort", reason="no")
    )
    view = await canaries.until_state(fleet, number, *canaries.FINAL)
    assert {answer.status for answer in words} <= {200, 202, 409}, [answer.body for answer in words]
    assert await host_of(fleet) == ("green" if view["state"] == "confirmed" else "blue")
    if view["state"] == "confirmed":
        assert (await canaries.tell(fleet, number, "undo")).status == 200


async def killed_on_its_way(fleet: Fleet) -> None:
    """Killed while a step, and later the way back, waits for a node's vote; the long form kills in every state."""
    stalled = fleet.nodes[2]
    stalled.kill(signal.SIGSTOP)
    number = int((await canaries.begin(fleet, 20, 50))["switch"])
    assert (await canaries.view_of(fleet, number))["state"] == "shifting"
    await killed(fleet)
    stalled.kill(signal.SIGCONT)
    view = await canaries.until_state(fleet, number, "held")
    assert view["canary"]["step"] == 1
    await all_live(fleet)
    stalled.kill(signal.SIGSTOP)
    await canaries.tell(fleet, number, "abort", wait_s=0)
    await killed(fleet)
    stalled.kill(signal.SIGCONT)
    view = await canaries.until_state(fleet, number, "aborted")
    assert view["canary"]["back_version"] is not None
    assert await host_of(fleet) == "blue"
    await all_live(fleet)


async def killed(fleet: Fleet) -> None:
    fleet.control_plane.kill(signal.SIGKILL)
    await fleet.control_plane.wait()
    await fleet.control_plane.up()


async def a_node_lost_in_the_middle(fleet: Fleet, books: Books) -> None:
    number = int((await canaries.begin(fleet, 20, 50, wait_s=20))["switch"])
    books.node, books.since = 2, time.monotonic()
    fleet.nodes[2].destroy()
    async with asyncio.timeout(PATIENCE_S):
        while len([node for node in await nodes(fleet) if node["state"] == "current"]) == 3:
            await asyncio.sleep(0.05)
    view = canaries.of(await canaries.tell(fleet, number, "promote", all=True))
    assert view["state"] == "confirmed", why(view)
    await fleet.nodes[2].up()
    await all_live(fleet)
    assert (await canaries.tell(fleet, number, "undo")).status == 200


async def nodes(fleet: Fleet) -> list[dict[str, object]]:
    body = (await fleet.admin("GET", "/fleet/nodes")).body
    assert isinstance(body, dict)
    found: list[dict[str, object]] = body["data"]
    return found


async def the_history_has_all_of_it(fleet: Fleet, first: int) -> None:
    body = canaries.of(await fleet.admin("GET", f"/switches?size=100&service={SERVICE}"))
    numbers = [view["switch"] for view in body["data"]]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[-1] == first
    canaried = [view for view in body["data"] if view["verb"] == "canary"]
    assert {view["state"] for view in canaried} >= {"confirmed", "aborted", "undone"}
    rollouts = canaries.of(await fleet.admin("GET", "/fleet/rollouts?size=100"))["data"]
    assert {view["rollout"] for view in rollouts}.isdisjoint({view["switch"] for view in canaried})
    missing = await fleet.admin("POST", "/switches/9999/promote", {})
    assert (missing.status, canaries.of(missing)["code"]) == (404, "NO_SUCH_SWITCH")
    plain = next(view["switch"] for view in body["data"] if view["verb"] == "undo")
    refused = await fleet.admin("POST", f"/switches/{plain}/hold", {})
    assert (refused.status, canaries.of(refused)["code"]) == (409, "NOT_A_CANARY")
