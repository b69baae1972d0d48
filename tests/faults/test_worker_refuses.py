"""A config that no worker can build: the one before it goes on, also at a start from disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from data_plane.node.last_good import LastGood
from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire
from tests.support.node_rig import TinyUpstream, config, prepared_node, ready, request, status_address


def poisoned(snapshot: NodeSnapshot) -> NodeSnapshot:
    """The same with one more route, whose regex compiles nowhere."""
    entities = dict(snapshot.entities)
    bad = wire.Route(id="bad", name="bad-route", protocols=["http"], paths=["~/a(b"], service="s1")
    entities[("routes", "bad")] = wire.Entity(route=bad).SerializeToString()
    return replace(snapshot, version=snapshot.version + 1, entities=entities, snapshot_hash=snapshot_hash(entities))


async def test_a_last_good_config_that_is_refused_gives_way_to_the_one_before(tmp_path: Path) -> None:
    async with TinyUpstream("blue") as blue:
        good = config(blue.address, version=3)
        node = prepared_node(tmp_path, good)
        LastGood(tmp_path / "node.state" / "last-good").save(poisoned(good))
        try:
            await node.up()
            await ready(node)
            assert (await request(node.proxy_address)).status == 200
            assert json.loads((await request(status_address(node), "/status")).body)["version"] == 3
            assert "BAD_REGEX" in node.log_tail()
            assert "bad-route" in node.log_tail()
        finally:
            node.destroy()
