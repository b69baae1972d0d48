"""One real node stopped, or killed anywhere on its way from an offer to its report, and what is left of that.

Goal: a stopped node holds nobody up and catches up when it goes on; a killed one comes back with at least what it had
reported, and at the head. The kills come a random moment after a change, so that over the trials they meet every step:
the delta on its way, staged in some workers, active, written to the journal, reported.
"""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane, Fleet, Node


def version_told(view: object) -> int:
    """The version in a node's view; 0 while it is not known."""
    version = view.get("version", 0) if isinstance(view, dict) else None
    assert isinstance(version, int)
    return version


async def view(fleet: Fleet, node: Node) -> dict[str, object]:
    answer = await fleet.admin("GET", f"/fleet/nodes/{node.node_id}")
    assert isinstance(answer.body, dict)
    return answer.body


async def until_at(fleet: Fleet, node: Node, version: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while version_told(await view(fleet, node)) < version:
            assert node.running, node.log_tail()
            await asyncio.sleep(0.02)


async def switched(fleet: Fleet, number: int, prefer: str = "wait=0") -> int:
    """One change; its version."""
    body = {"host": ("green", "blue")[number % 2]}
    answer = await fleet.admin("PATCH", "/services/s", body, headers={"Prefer": prefer})
    assert answer.status in (200, 202), answer
    return int(answer.headers["X-Pointsman-Version"])


async def configured(fleet: Fleet) -> int:
    for colour in ("blue", "green"):
        await fleet.admin("POST", "/upstreams", {"name": colour})
    answer = await fleet.admin("POST", "/services", {"name": "s", "host": "blue"})
    return int(answer.headers["X-Pointsman-Version"])


async def test_a_stopped_node_holds_nobody_up_and_catches_up(tmp_path: Path) -> None:
    async with Fleet(tmp_path, nodes=2) as fleet:
        fleet.control_plane = ControlPlane(tmp_path, "--beat-interval-s=0.3")
        await fleet.start({})
        stopped, other = fleet.nodes
        head = await configured(fleet)
        for node in fleet.nodes:
            await until_at(fleet, node, head)
        stopped.kill(signal.SIGSTOP)
        try:
            for number in range(3):
                await until_at(fleet, other, await switched(fleet, number))
            async with asyncio.timeout(PATIENCE_S):
                while (await view(fleet, stopped))["state"] in ("current", "syncing"):
                    await asyncio.sleep(0.02)
            assert version_told(await view(fleet, stopped)) == head, "it is not said to run what it never reported"
        finally:
            stopped.kill(signal.SIGCONT)
        await until_at(fleet, stopped, await switched(fleet, 3))


async def kills(folder: Path, *, trials: int, seed: int) -> None:
    rng = random.Random(seed)
    async with Fleet(folder, nodes=1, workers=2) as fleet:
        await fleet.start({})
        (node,) = fleet.nodes
        await until_at(fleet, node, await configured(fleet))
        for number in range(trials):
            head = await switched(fleet, number)
            await asyncio.sleep(rng.uniform(0.0, 0.02))
            node.kill()
            await node.wait()
            node.destroy()
            # What the control plane has read of the node's word by now is what the node must not fall behind.
            reported = version_told(await view(fleet, node))
            await node.up()
            async with asyncio.timeout(PATIENCE_S):
                while (running := await fleet.node_version(node)) == 0:
                    await asyncio.sleep(0.01)
            assert running >= reported, f"seed {seed}, trial {number}"
            await until_at(fleet, node, head)
            # The guard against configurations that kill counts two ends within 30 s: a version that stays up clears it.
            (folder / f"{node.name}.state" / "last-good" / "lives.json").unlink(missing_ok=True)


async def test_a_node_killed_while_it_applies_comes_back_with_what_it_reported(tmp_path: Path) -> None:
    await kills(tmp_path, trials=3, seed=1)


@pytest.mark.prove
@pytest.mark.timeout(900)
async def test_a_node_killed_at_many_moments(tmp_path: Path) -> None:
    await kills(tmp_path, trials=60, seed=2)
