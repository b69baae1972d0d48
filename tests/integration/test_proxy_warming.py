"""Connections that are opened before they are needed; a vote in a rollout says what came of it."""

from __future__ import annotations

import asyncio
import time

from tests.support.proxying import proxy_to, upstream_of


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_a_time_in_which_the_worker_did_not_run_is_no_endpoint_s_slowness() -> None:
    async with upstream_of(silent) as port, proxy_to(port) as rig:
        assert rig.active.tables is not None
        uses = [(rig.active.tables.services["s"], rig.balancer.endpoints)]
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        (warmed,) = await rig.factory.warm(uses, connections=1, within_s=0.2)
        assert (warmed.idle, warmed.error) == (1, "")
