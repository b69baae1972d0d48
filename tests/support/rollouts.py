"""Rollouts of a fleet of real processes, and a control plane killed in the middle of one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.support.processes import Answer, Fleet

PATIENCE_S = 60.0
SERVICE = "example-service"
OPEN = ("queued", "preparing", "deciding", "decided")

View = dict[str, Any]


def to(colour: str, **policy: object) -> dict[str, object]:
    """The body of a rollout that sends the example's traffic to a colour."""
    change = {"operation": "update", "collection": "services", "key": SERVICE, "body": {"host": colour}}
    return {"changes": [change], "policy": policy, "reason": f"to {colour}"}


async def roll_out(fleet: Fleet, body: Mapping[str, object], *, wait_s: int = 20) -> Answer:
    """Begins a rollout and waits for its end."""
    return await fleet.admin("POST", "/fleet/rollouts", body, {"Prefer": f"wait={wait_s}"})


async def view_of(fleet: Fleet, number: int) -> View:
    answer = await fleet.admin("GET", f"/fleet/rollouts/{number}")
    assert isinstance(answer.body, dict)
    return answer.body


async def until_state(fleet: Fleet, number: int, *states: str) -> View:
    """Waits until the rollout is in one of these states."""
    async with asyncio.timeout(PATIENCE_S):
        while (view := await view_of(fleet, number))["state"] not in states:
            await asyncio.sleep(0.01)
        return view


async def host_of(fleet: Fleet) -> str:
    answer = await fleet.admin("GET", f"/services/{SERVICE}")
    assert isinstance(answer.body, dict)
    return str(answer.body["host"])


async def versions(fleet: Fleet) -> list[int]:
    return [await fleet.node_version(node) for node in fleet.nodes]


@dataclass(frozen=True, slots=True)
class Killed:
    """A trial: the state that the store held when the control plane was killed, and how the rollout ended."""

    stored: str
    ended: str


def stored_state(fleet: Fleet, number: int) -> str:
    """A rollout's state on disk, past the control plane."""
    with sqlite3.connect(f"file:{fleet.folder / 'control-plane.db'}?mode=ro", uri=True, timeout=5) as connection:
        row = connection.execute("SELECT state FROM rollout WHERE number = ?", (number,)).fetchone()
    return str(row[0]) if row is not None else ""


async def kill_during(fleet: Fleet, colour: str, *, state: str, delay_s: float) -> Killed:
    """Kills the control plane `delay_s` after the rollout's state is on disk, starts it again, and checks the end.

    Whatever was decided holds: an aborted rollout has changed nothing on any node, a decided one is what all of them
    come to run. Either way the next rollout goes through.
    """
    before_host, before = await host_of(fleet), await versions(fleet)
    newest = (await fleet.admin("GET", "/fleet/rollouts?size=1")).body
    assert isinstance(newest, dict)
    number = newest["data"][0]["rollout"] + 1 if newest["data"] else 1
    posting = asyncio.create_task(fleet.admin("POST", "/fleet/rollouts", to(colour)))
    deadline = time.monotonic() + PATIENCE_S
    wanted = OPEN if state == "queued" else (*OPEN[3:], "confirmed", "partial")
    while stored_state(fleet, number) not in wanted:
        assert time.monotonic() < deadline, "the rollout never came that far"
        await asyncio.sleep(0.001)
    await asyncio.sleep(delay_s)
    fleet.control_plane.kill(signal.SIGKILL)
    await fleet.control_plane.wait()
    with contextlib.suppress(aiohttp.ClientError):  # its answer may have died with the control plane
        await posting
    stored = stored_state(fleet, number)
    await fleet.control_plane.up()
    view = await until_state(fleet, number, "confirmed", "partial", "aborted")
    # A commit whose writer died at once shows when the log is recovered, so an earlier state may be of a moment ago.
    assert view["state"] == "confirmed" or stored in ("queued", "preparing", "deciding"), view
    if view["state"] == "aborted":
        assert await host_of(fleet) == before_host
        assert await versions(fleet) == before, "an aborted rollout changed what a node runs"
    else:
        assert view["state"] == "confirmed", view
        assert (await host_of(fleet), view["version"]) == (colour, max(before) + 1)
        async with asyncio.timeout(PATIENCE_S):
            while min(await versions(fleet)) < view["version"]:
                await asyncio.sleep(0.02)
    await all_live(fleet)
    return Killed(stored, view["state"])


async def all_live(fleet: Fleet) -> None:
    """Waits until every node is connected and runs the head."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await fleet.admin("GET", "/fleet/nodes")
            assert isinstance(answer.body, dict)
            if [node["state"] for node in answer.body["data"]] == ["current"] * len(fleet.nodes):
                return
            await asyncio.sleep(0.02)


def delays(rng: random.Random, count: int, most_s: float) -> list[float]:
    """Moments spread over a phase."""
    return [rng.uniform(0.0, most_s) for _ in range(count)]
