"""Two control planes over PostgreSQL, of which one is struck while it coordinates a rollout.

Goal: exactly one coordinates; what the database says was decided is what all nodes run in the end, what it does not is
nothing; no request is lost. Method: the first is stopped past its lease and continued; the second takes over and
carries out a rollout of its own meanwhile. Killed, stopped and split from the database, before the decision and after
it, twenty times each: `tests/prove/test_two_coordinators.py`.
"""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.patience import PREFER
from tests.support.postgres import PostgresServer
from tests.support.processes import ControlPlane
from tests.support.rollouts import SERVICE, View, to
from tests.support.two_planes import TwoPlanes, host_at, load_on, strike, two_planes


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


async def test_a_coordinator_that_was_stopped_past_its_lease_meets_the_fence(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with two_planes(tmp_path, postgres) as fleet, load_on(fleet, rate=60):
        await a_canary_is_spoken_to_at_either(fleet)
        await refused_by_name(fleet)
        assert (await strike(fleet, "stopped", "preparing")).ended == "aborted"
