"""The route tester over real processes: a live node says what would become of a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.node_rig import TinyUpstream
from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane, Node

CONFIG: dict[str, Any] = {
    "_format_version": "3.0",
    "upstreams": [{"name": "blue", "targets": [{"target": "ADDRESS", "weight": 100}]}],
    "services": [
        {
            "name": "shop",
            "host": "blue",
            "path": "/base",
            "routes": [
                {"name": "cart", "paths": ["/cart"], "hosts": ["shop.test"], "methods": ["GET"]},
                {"name": "carts", "paths": ["/"], "hosts": ["shop.test"]},
                {
                    "name": "tls",
                    "paths": ["/cart"],
                    "hosts": ["shop.test"],
                    "snis": ["only.test"],
                    "protocols": ["https"],
                },
                {"name": "by-header", "paths": ["/cart"], "headers": {"x-a": ["1"]}},
            ],
        }
    ],
}


async def test_a_live_node_tells_what_would_become_of_a_request(tmp_path: Path) -> None:
    plane = ControlPlane(tmp_path)
    async with TinyUpstream("blue") as blue, contextlib.AsyncExitStack() as stack:
        stack.callback(plane.destroy)
        await plane.up()
        session = await stack.enter_async_context(aiohttp.ClientSession(plane.url))
        nobody = await session.post("/fleet/trace", json={"url": "http://shop.test/cart"})
        assert nobody.status == 503
        node = Node("dp", tmp_path, plane.fleet, "--drain-delay-s=0.1", workers=1)
        stack.callback(node.destroy)
        await node.up()
        text = json.dumps(CONFIG).replace("ADDRESS", blue.address)
        synced = await session.post("/config/sync", data=text, headers={"Content-Type": "application/json"})
        assert synced.status == 200, await synced.text()
        traced = await _traced(session, {"url": "http://shop.test/cart/1?a=b", "headers": {"x-a": "0"}})
        assert traced["route"]["name"] == "cart"
        assert traced["route"]["service"]["name"] == "shop"
        assert traced["matched_path"] == "/cart"
        assert traced["upstream"]["path"] == "/base/1?a=b"
        assert traced["upstream"]["name"] == "blue"
        assert [f"{e['ip']}:{e['port']}" for e in traced["upstream"]["endpoints"]] == [blue.address]
        assert blue.requests == 0
        lost = {near["route"]["name"]: near for near in traced["near"]}
        assert lost["carts"]["failures"] == []
        assert "more kinds of conditions" in lost["carts"]["outranked"]
        assert lost["by-header"]["failures"] == [{"field": "headers.x-a", "wants": "1", "has": "0"}]
        none = await _traced(session, {"method": "POST", "url": "http://other.test/cart"})
        assert (none["route"], none["status"]) == (None, 404)
        assert none["message"] == "no Route matched with those values"
        by_sni = await _traced(session, {"method": "POST", "url": "https://shop.test/cart", "sni": "only.test"})
        assert by_sni["route"]["name"] == "tls"
        named = await session.post("/fleet/trace", json={"url": "http://shop.test/", "node": "nobody"})
        assert named.status == 503
        for name in (node.node_id, traced["node"]["hostname"]):
            asked = await session.post("/fleet/trace", json={"url": "http://shop.test/cart", "node": name})
            assert (await asked.json())["node"]["node_id"] == node.node_id
        wrong = await session.post("/fleet/trace", json={"url": "ftp://shop.test/"})
        assert wrong.status == 400
        async with asyncio.timeout(PATIENCE_S):  # the last write may be on its way to the node still
            while 'pointsman_nodes{state="current"} 1.0' not in (page := await (await session.get("/metrics")).text()):
                await asyncio.sleep(0.05)
        assert 'kong_data_plane_last_seen{hostname="' in page
        assert "kong_datastore_reachable 1.0" in page


async def _traced(session: aiohttp.ClientSession, question: dict[str, Any]) -> dict[str, Any]:
    """Ask until a node answers with the newest version."""
    head = int((await (await session.get("/versions?size=1")).json())["data"][0]["version"])
    async with asyncio.timeout(PATIENCE_S):
        while True:
            response = await session.post("/fleet/trace", json=question)
            body: dict[str, Any] = await response.json()
            if response.status == 200 and body["version"] == head:
                return body
            await asyncio.sleep(0.05)
