"""Goal: a node whose stream is over is not taken for connected, however the end comes about."""

from __future__ import annotations

import time

import pytest

from control_plane.fleet.nodes import Nodes
from control_plane.fleet.published import Shelf
from control_plane.fleet.server import LinkServer
from control_plane.fleet.settings import FleetSettings
from tests.support.patience import until
from tests.unit.control_plane.fleet.rollout_rig import Talker


@pytest.mark.parametrize("turns", range(8))
async def test_a_node_is_gone_whenever_grpc_cancels_who_serves_it(turns: int) -> None:
    """A killed node's stream ends for the reader and by a cancellation, maybe while the first is dealt with."""
    settings = FleetSettings()
    nodes = Nodes(clock=time.monotonic, wall=time.time, lease_s=settings.lease_s, purge_after_s=1e6)
    server = LinkServer(settings, nodes, Shelf(), clock=time.monotonic)
    talker = Talker("node")
    talker.connect(server)
    await until(lambda: len(nodes.live()) == 1)
    await talker.break_off(turns)
    assert nodes.live() == []
