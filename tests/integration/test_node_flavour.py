"""A real node that routes as Kong's older flavour does, by its setting."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire
from tests.support.node_rig import Entities, TinyUpstream, config, prepared_node, ready, request


@pytest.mark.parametrize(("flavour", "path"), [("traditional", "/srvreq"), ("traditional_compatible", "/srv/req")])
async def test_the_setting_picks_the_flavour(tmp_path: Path, flavour: str, path: str) -> None:
    """Only `traditional` knows `path_handling` v1."""
    async with TinyUpstream("blue") as upstream:
        base = config(upstream.address)
        entities: Entities = dict(base.entities)
        minute = Duration(seconds=60)
        entities["services", "s2"] = wire.Entity(
            service=wire.Service(
                id="s2", name="joined", protocol="http", host="127.0.0.1", port=upstream.port, path="/srv",
                connect_timeout=minute, write_timeout=minute, read_timeout=minute,
            )
        ).SerializeToString()  # fmt: skip
        entities["routes", "r2"] = wire.Entity(
            route=wire.Route(
                id="r2", protocols=["http"], paths=["/rou"], strip_path=True, path_handling="v1", service="s2"
            )
        ).SerializeToString()
        snapshot = NodeSnapshot(base.epoch, base.version, snapshot_hash(entities), entities)
        node = prepared_node(tmp_path, snapshot, f"--router-flavor={flavour}", workers=1)
        await node.up()
        try:
            await ready(node)
            assert (await request(node.proxy_address, "/roureq")).status == 200
            assert upstream.last_head.split(" ")[1] == path
        finally:
            node.destroy()
