"""The order of a node's start: workers hold a configuration before it is verified, and serve it only afterwards.

Method: a real node over a last-good file that its own key seals and whose content is not what its hash says.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_plane.node.last_good import Generation, LastGood
from data_plane.node.snapshot import NodeSnapshot
from tests.support.node_rig import TinyUpstream, config, prepared_node, request
from tests.support.processes import StartError


async def test_a_damaged_file_that_workers_hold_already_is_never_served(tmp_path: Path) -> None:
    async with TinyUpstream("good") as good, TinyUpstream("bad") as bad:
        node = prepared_node(tmp_path, config(good.address, version=1), workers=2)
        damaged = config(bad.address, version=2, routes=2000)
        folder = tmp_path / "node.state" / "last-good"
        LastGood(folder).save(NodeSnapshot(damaged.epoch, damaged.version, bytes(32), damaged.entities))

        def served() -> str | None:
            text = node.log_tail()
            return text if "active in all workers" in text else None

        try:
            await node.up()
            log = await node.until(served, "serve")
            assert (await request(node.proxy_address, "/")).body == "good"
            assert bad.requests == 0
            assert "do not have the offered snapshot hash" in log
            assert (folder / "current.bad").exists()
            assert LastGood(folder).load(Generation.PREVIOUS).snapshot == config(good.address, version=1)
        finally:
            node.destroy()


async def test_a_node_that_can_t_start_leaves_no_worker_behind(tmp_path: Path) -> None:
    """Workers are launched before most of the node is loaded, and so before some settings can be tried."""
    async with TinyUpstream("good") as good:
        node = prepared_node(tmp_path, config(good.address), "--resolver-family=MX", workers=2)
        try:
            with pytest.raises(StartError, match="setting resolver_family"):
                await node.up()
            with pytest.raises(ProcessLookupError):
                os.killpg(node.pid, 0)
        finally:
            node.destroy()
