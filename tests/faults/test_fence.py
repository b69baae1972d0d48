"""A node that lost its control plane answers 503 for fenced services, also after a restart, and serves on reconnect.

Method: a real control plane and node; the control plane is stopped by SIGSTOP (it falls silent) or killed, then started
again. One service is fenced, another one is not.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.node_rig import TinyUpstream, request
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import Fleet


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await condition():
            await asyncio.sleep(0.02)


async def test_a_cut_node_fences_what_it_is_told_to_and_nothing_else(tmp_path: Path) -> None:
    async with TinyUpstream("blue") as blue, Fleet(tmp_path, nodes=1, workers=2) as fleet:
        await fleet.start({})
        (node,) = fleet.nodes
        for name in ("strict", "lax"):
            await fleet.admin("POST", "/services", {"name": name, "url": f"http://{blue.address}"})
            await fleet.admin("POST", f"/services/{name}/routes", {"paths": [f"/{name}"]})
        await fleet.until_ready()
        told = await fleet.admin(
            "PATCH",
            "/fleet/services/strict/settings",
            {"partition": "fence", "fence_after_s": 1},
            headers={"Prefer": PREFER},
        )
        assert told.status == 200, told

        async def statuses() -> tuple[set[int], set[int]]:
            """Of the strict and the lax service, over enough connections to meet both workers."""
            asked = [request(node.proxy_address, f"/{name}") for name in ("strict", "lax") for _ in range(8)]
            answers = [answer.status for answer in await asyncio.gather(*asked)]
            return set(answers[:8]), set(answers[8:])

        async def fenced() -> bool:
            return await statuses() == ({503}, {200})

        async def served() -> bool:
            return await statuses() == ({200}, {200})

        assert await served()
        fleet.control_plane.kill()
        await fleet.control_plane.wait()
        await until(fenced)
        refusal = await request(node.proxy_address, "/strict")
        assert "service 'strict' is fenced: this node has lost its control plane" in refusal.body
        status = (await fleet.call("GET", f"http://{node.status}/status")).body
        assert isinstance(status, dict)
        assert [service["name"] for service in status["fenced_services"]] == ["strict"]
        assert (
            b"pointsman_services_fenced 1"
            in (
                await request((node.status.rsplit(":", 1)[0], int(node.status.rsplit(":", 1)[1])), "/metrics")
            ).body.encode()
        )

        node.kill()
        await node.wait()
        node.destroy()
        await node.up()
        await fleet.until_ready()
        assert await fenced(), "a restart buys no time"

        await fleet.control_plane.up()
        await until(served)
        fleet.control_plane.kill(signal.SIGSTOP)
        try:
            await until(fenced)
        finally:
            fleet.control_plane.kill(signal.SIGCONT)
        await until(served)
