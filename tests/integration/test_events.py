"""Events of a real control plane with a real node: the stream over HTTP, the command line over a restart, a webhook."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.test_webhooks import Receiver, listening
from tests.support import ledger
from tests.support.patience import PATIENCE_S, PREFER, until
from tests.support.processes import ControlPlane, Fleet, Process
from tests.support.rollouts import all_live

Event = dict[str, Any]


async def stream(fleet: Fleet, query: str, headers: dict[str, str] | None = None) -> AsyncIterator[Event]:
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2 * PATIENCE_S)) as session,
        session.get(f"{fleet.control_plane.url}/events{query}", headers=headers) as response,
    ):
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        async for raw in response.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("data: "):
                yield json.loads(line[6:])


async def take(fleet: Fleet, query: str, count: int, headers: dict[str, str] | None = None) -> list[Event]:
    found: list[Event] = []
    async for event in stream(fleet, query, headers):
        found.append(event)
        if len(found) == count:
            break
    return found


async def test_a_switch_is_followed_step_by_step(tmp_path: Path) -> None:
    receiver = Receiver()
    async with listening(receiver), Fleet(tmp_path, nodes=1) as fleet:
        fleet.control_plane = ControlPlane(tmp_path, "--webhooks", receiver.address)
        await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await ledger.apply_example(fleet)
        await all_live(fleet)
        cli = Process("events", [str(Path(sys.executable).with_name("pointsman"))], tmp_path)
        try:
            cli.start("events", "--addr", fleet.control_plane.url, "--after", "0", "--types", "version,node,switch")
            await until(lambda: "connected" in cli.log_tail())

            body = {"services": ["example-service"], "to": "green", "reason": "release 7"}
            answer = await fleet.admin("POST", "/switches", body, {"Prefer": PREFER, "X-Pointsman-Author": "anna"})
            assert answer.status == 200, answer.body
            await until(lambda: "confirmed in" in cli.log_tail())
            text = cli.log_tail()
            assert 'switch  1 preparing: example-service blue -> green by anna "release 7"' in text
            assert text.index("1 preparing") < text.index("1 decided") < text.index("1 confirmed in")

            switch = await take(fleet, "?types=switch&after=0", 4)
            assert [event["data"]["state"] for event in switch] == ["preparing", "deciding", "decided", "confirmed"]
            assert switch[-1]["data"]["nodes"] == {"activated": 1}
            later = await take(fleet, "?types=switch", 2, {"Last-Event-ID": switch[1]["id"]})
            assert later == switch[2:]
            await until(lambda: len(receiver.seen) >= 4)
            assert receiver.ids[:4] == [event["id"] for event in switch]

            # A switch for later is told when it is planned, and when it comes to nothing.
            later_on = {"services": ["example-service"], "to": "blue", "at": time.time() + 3600, "reason": "tonight"}
            answer = await fleet.admin("POST", "/switches", later_on)
            assert answer.status == 202, answer.body
            number = answer.headers["Location"].rpartition("/")[2]
            assert (await fleet.admin("POST", f"/switches/{number}/abort", {"reason": "no"})).status == 200
            await until(lambda: f"switch  {number} cancelled" in cli.log_tail())
            assert f"switch  {number} scheduled for 2" in cli.log_tail()
            planned = [event["data"] for event in await take(fleet, "?types=switch&after=0", 6)][4:]
            assert [event["state"] for event in planned] == ["scheduled", "cancelled"]
            assert planned[1]["begins_at"] == later_on["at"]
            assert planned[1]["ended_because"].endswith("no")

            canary = {"services": ["example-service"], "to": "blue", "canary": {"steps": [50, 100]}}
            answer = await fleet.admin("POST", "/switches", canary)
            assert answer.status == 202, answer.body
            number = answer.headers["Location"].rpartition("/")[2]
            await until(
                lambda: f"switch  {number} held step 1, 50.0 %: example-service green -> blue" in cli.log_tail()
            )
            assert (await fleet.admin("POST", f"/switches/{number}/promote", {"all": True})).status in (200, 202)
            await until(lambda: f"switch  {number} confirmed" in cli.log_tail())

            # The command goes on behind a control plane that was killed.
            fleet.control_plane.kill()
            await fleet.control_plane.wait()
            await fleet.control_plane.up()
            await until(lambda: "interrupted" in cli.log_tail())
            await all_live(fleet)
            await fleet.admin("POST", "/upstreams", {"name": "later"}, {"X-Pointsman-Reason": "after the kill"})
            await until(lambda: "after the kill" in cli.log_tail())
        finally:
            cli.destroy()


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with Fleet(tmp_path, nodes=0) as fleet:
        await fleet.start({})
        yield fleet


async def test_streams_end_with_the_control_plane_and_not_before(plane: Fleet) -> None:
    reading = asyncio.create_task(take(plane, "", 99))
    await plane.admin("POST", "/upstreams", {"name": "blue"})
    assert not reading.done()
    assert await plane.control_plane.stop() == 0
    assert [event["type"] for event in await reading] in ([], ["version"])


async def test_what_is_asked_wrongly(plane: Fleet) -> None:
    answer = await plane.admin("GET", "/events?types=switch,nonsense")
    assert answer.status == 400
    assert answer.body == {
        "message": "types: 'nonsense' is no type of event; there are version, node, rollout, switch",
    }
    assert (await plane.admin("POST", "/events")).status == 405
    head = await plane.call("HEAD", f"{plane.control_plane.url}/events")
    assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")


async def test_there_is_an_end_to_the_streams_that_can_be_open(plane: Fleet) -> None:
    url = f"{plane.control_plane.url}/events"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        opened = [await session.get(url) for _ in range(64)]
        for each in opened:
            assert await each.content.readline() == b"retry: 1000\n"
        async with session.get(url) as refused:
            assert refused.status == 503
            assert "64 streams" in await refused.text()
        opened.pop().close()

        async def again() -> int:
            async with session.get(url) as response:
                return response.status

        # The server notices a reader that is gone when it has something to say.
        await plane.admin("POST", "/upstreams", {"name": "blue"})
        await plane.admin("POST", "/upstreams", {"name": "green"})
        async with asyncio.timeout(PATIENCE_S):
            while await again() != 200:
                await asyncio.sleep(0.05)
        for each in opened:
            each.close()
