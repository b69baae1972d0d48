"""Two control planes over PostgreSQL, of which one is struck while it coordinates a rollout.

Goal: exactly one coordinates; what the database says was decided is what all nodes run in the end, what it does not is
nothing; no request is lost. Method: the first is killed, stopped past its lease and continued, or split from the
database, before the decision and after it; the second takes over and carries out a rollout of its own. The long series
is `tests/prove/test_two_coordinators.py`.
"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.support.postgres import PostgresServer
from tests.support.rollouts import to
from tests.support.two_planes import TwoPlanes, load_on, strike, two_planes


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
        change = {"operation": "create", "collection": "upstreams", "body": {"name": "other"}}
        other = await fleet.ask(fleet.second, "POST", "/fleet/rollouts", {"changes": [change]})
        assert other.status == 503
        assert isinstance(other.body, dict)
        view = await fleet.view(fleet.second, number)
        assert f"control plane {view['coordinator']} coordinates a rollout now; ask it" in other.body["message"]
        abort = await fleet.ask(fleet.second, "POST", f"/fleet/rollouts/{number}/abort")
        assert abort.status == 409
        assert isinstance(abort.body, dict)
        assert f"is coordinated by control plane {view['coordinator']}; ask it" in abort.body["message"]
        assert (await fleet.ask(fleet.first, "POST", f"/fleet/rollouts/{number}/abort")).status == 200
    finally:
        fleet.nodes[1].kill(signal.SIGCONT)


async def test_whatever_strikes_the_coordinator_there_is_one_truth(tmp_path: Path, postgres: PostgresServer) -> None:
    async with two_planes(tmp_path, postgres) as fleet, load_on(fleet, rate=60):
        await refused_by_name(fleet)
        seen = []
        for fate, state in (("killed", "decided"), ("stopped", "preparing"), ("split", "preparing")):
            seen.append((await strike(fleet, fate, state)).ended)
            await until_first_has_its_nodes(fleet)
        assert seen[1:] == ["aborted", "aborted"]


async def until_first_has_its_nodes(fleet: TwoPlanes) -> None:
    async with asyncio.timeout(60):
        while True:
            answer = await fleet.ask(fleet.first, "GET", "/fleet/nodes")
            assert isinstance(answer.body, dict)
            if [node["state"] for node in answer.body["data"]].count("current") == 2:
                return
            await asyncio.sleep(0.05)
