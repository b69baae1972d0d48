"""Sides of a service over real processes: said to the Admin API, done by a node, counted, and read again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane, Node

WORKERS = 2


@dataclass
class Application:
    """An upstream that says its name, speaks WebSocket at /ws, and remembers what it was sent."""

    name: str
    copies: int = 0
    served: int = 0
    sockets: list[web.WebSocketResponse] = field(default_factory=list)

    async def http(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/ws":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            self.sockets.append(socket)
            async for message in socket:
                await socket.send_str(f"{self.name} {message.data}")
            return socket
        if request.headers.get("X-Pointsman-Mirror") == "1":
            self.copies += 1
        else:
            self.served += 1
        return web.Response(text=self.name)


@contextlib.asynccontextmanager
async def application(name: str) -> AsyncIterator[tuple[Application, str]]:
    made = Application(name)
    runner = web.ServerRunner(web.Server(made.http), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield made, "{}:{}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


@dataclass
class Rig:
    admin: aiohttp.ClientSession
    proxy: aiohttp.ClientSession
    node: Node
    blue: Application
    green: Application

    async def write(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """A write that has come to the node."""
        response = await self.admin.request(method, path, json=body, headers={"Prefer": f"wait={PATIENCE_S:g}"})
        assert response.status == 200, await response.text()
        told: dict[str, Any] = await response.json()
        return told

    async def settings(self, **settings: Any) -> dict[str, Any]:
        return await self.write("PATCH", "/fleet/services/shop/settings", settings)

    async def served_by(self, count: int, **headers: str) -> Counter[str]:
        async def one() -> str:
            async with self.proxy.get("/", headers=headers) as response:
                assert response.status == 200
                return await response.text()

        names = Counter[str]()
        for _ in range(0, count, 20):
            names.update(await asyncio.gather(*(one() for _ in range(20))))
        return names

    async def sides(self) -> dict[str, dict[str, Any]]:
        response = await self.admin.get("/fleet/traffic?service=shop")
        assert response.status == 200
        ((service),) = (await response.json())["data"]
        return {side["name"]: side for side in service["sides"]}


async def until_sides(rig: Rig, **requests: int) -> dict[str, dict[str, Any]]:
    """The sides once the control plane knows of so many requests."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            sides = await rig.sides()
            if all(sides.get(name, {}).get("totals", {}).get("requests") == count for name, count in requests.items()):
                return sides
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[Rig]:
    plane = ControlPlane(tmp_path)
    async with (
        application("blue") as (blue, at),
        application("green") as (green, other),
        contextlib.AsyncExitStack() as stack,
    ):
        stack.callback(plane.destroy)
        await plane.up()
        admin = await stack.enter_async_context(aiohttp.ClientSession(plane.url))
        node = Node("dp", tmp_path, plane.fleet, "--drain-delay-s=0.1", workers=WORKERS)
        stack.callback(node.destroy)
        await node.up()
        for name, address in (("blue", at), ("green", other)):
            assert (await admin.post("/upstreams", json={"name": name})).status == 201
            assert (await admin.post(f"/upstreams/{name}/targets", json={"target": address})).status == 201
        assert (await admin.post("/services", json={"name": "shop", "host": "blue"})).status == 201
        route = await admin.post("/services/shop/routes", json={"name": "all", "paths": ["/"]})
        assert route.status == 201, await route.text()
        async with asyncio.timeout(PATIENCE_S):
            while (await admin.get(f"http://{node.status}/status/ready")).status != 200:
                await asyncio.sleep(0.05)
        proxy = await stack.enter_async_context(aiohttp.ClientSession(f"http://{node.proxy}"))
        yield Rig(admin, proxy, node, blue, green)


async def preview_split_mirror_and_their_figures(rig: Rig) -> None:
    await rig.write(
        "PUT", "/fleet/services/shop/preview", {"to": "green", "header": "x-preview", "cookie": "p", "value": "1"}
    )
    assert await rig.served_by(20) == {"blue": 20}
    assert await rig.served_by(20, **{"X-Preview": "1"}) == {"green": 20}
    assert await rig.served_by(20, Cookie="a=2; p=1") == {"green": 20}
    sides = await until_sides(rig, blue=20, green=40)
    assert {name: side["role"] for name, side in sides.items()} == {"blue": "primary", "green": "preview"}
    assert sides["green"]["latency_ms"]["p99"] is not None
    traced = await rig.admin.post("/fleet/trace", json={"url": "http://shop.test/", "headers": {"x-preview": "1"}})
    assert (await traced.json())["upstream"]["name"] == "green"
    await rig.write("DELETE", "/fleet/services/shop/preview")
    assert await rig.served_by(20, **{"X-Preview": "1"}) == {"blue": 20}

    await rig.settings(split={"to": "green", "share": 2500})
    served = await rig.served_by(400)
    assert abs(served["green"] - 100) < WORKERS, "each worker counts out exactly"
    await rig.settings(split={"sticky": {"on": "header", "name": "x-user"}})
    for user in range(6):
        assert len(await rig.served_by(20, **{"X-User": f"u{user}"})) == 1
    served.update(await rig.served_by(0))
    await rig.settings(split=None)

    before = rig.green.served
    await rig.write("PUT", "/fleet/services/shop/mirror", {"to": "green", "share": 5000})
    assert await rig.served_by(100) == {"blue": 100}
    async with asyncio.timeout(PATIENCE_S):
        while (mirror := (await rig.sides())["green"]["mirror"]) is None or abs(mirror["sent"] - 50) >= WORKERS:
            await asyncio.sleep(0.05)
    assert rig.green.copies == mirror["sent"]
    assert rig.green.served == before, "copies are all it got"
    assert (mirror["failed"], mirror["skipped"]) == (0, 0)
    page = await (await rig.admin.get(f"http://{rig.node.status}/metrics")).text()
    labels = 'service="shop",upstream="green"'
    assert f"pointsman_side_requests_total{{{labels}}} {before}" in page
    for name in ("side_errors_total", "side_connect_errors_total", "side_open_requests", "side_closed_late_total"):
        assert f"pointsman_{name}{{{labels}}} 0" in page
    assert f'pointsman_mirror_copies_total{{{labels},outcome="answered"}} {mirror["sent"]}' in page


async def a_websocket_on_the_side_that_was_left_ends_at_the_deadline(rig: Rig) -> None:
    await rig.settings(drain_deadline=0.2)
    old = await rig.proxy.ws_connect("/ws")
    await old.send_str("hello")
    assert await old.receive_str() == "blue hello"
    await rig.write("PATCH", "/services/shop", {"host": "green"})
    new = await rig.proxy.ws_connect("/ws")
    async with asyncio.timeout(PATIENCE_S):
        message = await old.receive()
    assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.ERROR)
    await new.send_str("hello")
    assert await new.receive_str() == "green hello", "the new side's stays"
    async with asyncio.timeout(PATIENCE_S):
        while (await rig.sides()).get("blue", {}).get("totals", {}).get("closed_late") != 1:
            await asyncio.sleep(0.05)
        while rig.blue.sockets[0].close_code is None:
            await asyncio.sleep(0.01)
    await new.close()


async def test_sides_on_a_node(tmp_path: Path) -> None:
    """One control plane and node for all of it: to start them takes longer than the rest."""
    async with running(tmp_path) as rig:
        await preview_split_mirror_and_their_figures(rig)
        await a_websocket_on_the_side_that_was_left_ends_at_the_deadline(rig)
