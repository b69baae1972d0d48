"""Rollouts of a fleet of real processes, and a control plane killed in the middle of one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.patience import PATIENCE_S
from tests.support.processes import Answer, ControlPlane, Fleet

SERVICE = "example-service"
OPEN = ("queued", "preparing", "deciding", "decided")
FINAL = ("confirmed", "partial", "aborted")

UNHURRIED = {"vote_by_s": 60, "confirm_by_s": 60}
"""A policy for where it is not the point that a node is slow: on a busy machine all of them may be."""

View = dict[str, Any]


def why(view: View) -> str:
    """How a rollout or a switch stands, in few words: its reason, and the nodes of which there is something to say."""
    reason = view.get("ended_because") or view.get("reason") or view.get("message")
    nodes = [
        f"{node['hostname']} {node['standing']} {node.get('reason') or ''}".rstrip()
        for node in view.get("nodes") or ()
        if node["standing"] != "activated"
    ]
    return f"{view.get('state')}: {reason}; {'; '.join(nodes[:5])}"


def to(colour: str, **policy: object) -> dict[str, object]:
    """The body of a rollout that sends the example's traffic to a colour."""
    change = {"operation": "update", "collection": "services", "key": SERVICE, "body": {"host": colour}}
    return {"changes": [change], "policy": policy, "reason": f"to {colour}"}


async def roll_out(fleet: Fleet, body: Mapping[str, object], *, wait_s: int = 60) -> Answer:
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
    return _state_in(fleet.folder / "control-plane.db", number, mode="ro")


def recovered_state(fleet: Fleet, number: int) -> str:
    """A rollout's state as the next control plane will find it; only while none runs.

    A commit is in the log before the shared index of the log says so. Who reads through the index that a killed writer
    left behind may not see it; who opens the database anew makes the index anew from the log. This reads a copy without
    the index, and leaves that work on the database itself to the control plane.
    """
    database = fleet.folder / "control-plane.db"
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("", "-wal"):
            if (source := database.with_name(database.name + suffix)).exists():
                shutil.copyfile(source, Path(folder) / source.name)
        return _state_in(Path(folder) / database.name, number, mode="rw")


def _state_in(database: Path, number: int, *, mode: str) -> str:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode={mode}", uri=True, timeout=5)) as connection:
        row = connection.execute("SELECT state FROM rollout WHERE number = ?", (number,)).fetchone()
    return str(row[0]) if row is not None else ""


async def kill_during(fleet: Fleet, colour: str, *, state: str, delay_s: float) -> Killed:
    """Kills the control plane `delay_s` after the rollout reached the state, starts it again, and checks the end.

    `queued` and `decided` are states on disk; `preparing` lasts because one node is stopped and does not vote.
    Whatever was decided holds: an aborted rollout has changed nothing on any node, a decided one is what all of them
    come to run. Either way the next rollout goes through.
    """
    before = await _before(fleet)
    number = before.number
    stalled = fleet.nodes[-1] if state == "preparing" else None
    if stalled is not None:
        stalled.kill(signal.SIGSTOP)
    try:
        posting = asyncio.create_task(fleet.admin("POST", "/fleet/rollouts", to(colour, **UNHURRIED)))
        await _reached(fleet, number, state)
        await asyncio.sleep(delay_s)
        fleet.control_plane.kill(signal.SIGKILL)
        await fleet.control_plane.wait()
    finally:
        if stalled is not None:
            stalled.kill(signal.SIGCONT)
    with contextlib.suppress(aiohttp.ClientError):  # its answer may have died with the control plane
        await posting
    return await _one_truth(fleet, colour, before)


@contextlib.contextmanager
def deciding_ends(control_plane: ControlPlane, point: str) -> Iterator[None]:
    """One that is started meanwhile ends at `point` of the first decision that it writes (`failpoints.py`)."""
    plain = control_plane.arguments
    control_plane.arguments = [sys.executable, "-m", "tests.support.killed_deciding", point]
    try:
        yield
    finally:
        control_plane.arguments = plain


async def kill_deciding(fleet: Fleet, colour: str) -> Killed:
    """As `kill_during`, of a control plane that was started to end by itself when it decides."""
    before = await _before(fleet)
    with contextlib.suppress(aiohttp.ClientError):
        await fleet.admin("POST", "/fleet/rollouts", to(colour, **UNHURRIED))
    assert await fleet.control_plane.wait() == -signal.SIGKILL
    return await _one_truth(fleet, colour, before)


@dataclass(frozen=True)
class _Before:
    """The number of the next rollout, and what it finds."""

    number: int
    host: str
    versions: list[int]


async def _before(fleet: Fleet) -> _Before:
    newest = (await fleet.admin("GET", "/fleet/rollouts?size=1")).body
    assert isinstance(newest, dict)
    number = newest["data"][0]["rollout"] + 1 if newest["data"] else 1
    return _Before(number, await host_of(fleet), await versions(fleet))


async def _one_truth(fleet: Fleet, colour: str, before: _Before) -> Killed:
    """Starts the control plane again, and checks that what the disk held became so."""
    number = before.number
    stored = recovered_state(fleet, number)
    await fleet.control_plane.up()
    view = await until_state(fleet, number, *FINAL)
    undecided = stored in ("queued", "preparing", "deciding")
    wanted = stored if stored in FINAL else "aborted" if undecided else "confirmed"
    assert view["state"] == wanted, f"{stored}; {why(view)}"
    if view["state"] == "aborted":
        assert await host_of(fleet) == before.host
        assert await versions(fleet) == before.versions, "an aborted rollout changed what a node runs"
    else:
        assert (await host_of(fleet), view["version"]) == (colour, max(before.versions) + 1)
        async with asyncio.timeout(PATIENCE_S):
            while min(await versions(fleet)) < view["version"]:
                await asyncio.sleep(0.02)
    await all_live(fleet)
    return Killed(stored, view["state"])


async def _reached(fleet: Fleet, number: int, state: str) -> None:
    async with asyncio.timeout(PATIENCE_S):
        if state == "preparing":
            while (await fleet.admin("GET", f"/fleet/rollouts/{number}")).status != 200:
                await asyncio.sleep(0.002)
            await until_state(fleet, number, "preparing")
            return
        # Who looks too late, on a busy machine, finds that it has ended.
        wanted = (*(OPEN if state == "queued" else OPEN[3:]), *FINAL)
        while stored_state(fleet, number) not in wanted:
            await asyncio.sleep(0.001)


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
