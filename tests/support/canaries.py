"""Canaries of a fleet of real processes: begun, spoken to, waited for, and what a bad new side did to requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from tests.support.load import Record
from tests.support.patience import PATIENCE_S
from tests.support.processes import Answer, Fleet
from tests.support.rollouts import SERVICE, View

LIST = "/switches"
FINAL = ("confirmed", "partial", "aborted", "undone")


async def begin(fleet: Fleet, *steps: float, wait_s: int | None = None, to: str = "green", **course: object) -> View:
    """Begins a canary of the example's service, whose gates look at little, so that they see it soon."""
    canary = {"steps": list(steps), "min_requests": 20, "window_s": 10, **course}
    body = {"service": SERVICE, "to": to, "canary": canary, "reason": f"canary to {to}"}
    headers = {"X-Pointsman-Author": "ann"} | ({} if wait_s is None else {"Prefer": f"wait={wait_s}"})
    answer = await fleet.admin("POST", LIST, body, headers)
    assert answer.status in (200, 202, 409), answer.body
    return of(answer)


async def tell(fleet: Fleet, number: int, verb: str, *, wait_s: int = 60, **body: object) -> Answer:
    """One of promote, hold, abort and undo."""
    headers = {"Prefer": f"wait={wait_s}", "X-Pointsman-Author": "bob"}
    return await fleet.admin("POST", f"{LIST}/{number}/{verb}", body, headers)


async def view_of(fleet: Fleet, number: int) -> View:
    return of(await fleet.admin("GET", f"{LIST}/{number}"))


async def until(fleet: Fleet, number: int, done: Callable[[View], bool], *, what: str = "") -> View:
    """Waits until the canary is shown as wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while not done(view := await view_of(fleet, number)):
        assert time.monotonic() < deadline, (what, view)
        await asyncio.sleep(0.02)
    return view


async def until_state(fleet: Fleet, number: int, *states: str) -> View:
    """Waits until the canary is in one of these states."""
    return await until(fleet, number, lambda view: view["state"] in states, what=f"waits for {states}")


async def until_step(fleet: Fleet, number: int, step: int) -> View:
    """Waits until a step is in force."""
    return await until(fleet, number, lambda view: view["canary"]["step"] >= step and view["state"] != "shifting")


async def make(fleet: Fleet, colour: str, *, ill: bool, only: str = "") -> None:
    """Lets the servers of a colour, or one of them, answer 500, or be well again."""
    for name, upstream in fleet.upstreams.items():
        if upstream.colour == colour and only in ("", name):
            answer = await fleet.call("GET", f"http://{upstream.address}/{'ill' if ill else 'well'}")
            assert answer.status == 200


def share_of(records: Sequence[Record], colour: str) -> tuple[int, int]:
    """Requests that a colour answered, of all that were answered by any."""
    answered = [record for record in records if record.colour]
    return sum(record.colour == colour for record in answered), len(answered)


def of(answer: Answer) -> View:
    assert isinstance(answer.body, dict)
    return answer.body
