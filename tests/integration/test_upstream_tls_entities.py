"""TLS towards upstream servers as the entities say it, from the Admin API to the handshake."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from tests.support.node_rig import read_response, ready
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import ControlPlane, Node
from tests.support.tls import authority_pem, issued, server_context

UP = "up.test"
ONE, STRANGER, GATEWAY = (f"{n}0000000-0000-4000-8000-000000000000" for n in (1, 2, 3))

# What each service says, at its path, and what becomes of a request to it. The upstream `asks` wants a client
# certificate of its clients; `shows` does, too, and its entity has one; `deep` has an intermediate in its chain.
SERVICES: dict[str, tuple[dict[str, Any], int]] = {
    "plain": ({"host": "deep", "tls_verify": False}, 200),
    "verified": ({"host": "deep", "tls_verify": True, "ca_certificates": [ONE]}, 200),
    "wrong-ca": ({"host": "deep", "tls_verify": True, "ca_certificates": [STRANGER]}, 502),
    "no-ca": ({"host": "deep", "tls_verify": True}, 502),
    "shallow": ({"host": "deep", "tls_verify": True, "tls_verify_depth": 0, "ca_certificates": [ONE]}, 502),
    "deep-enough": ({"host": "deep", "tls_verify": True, "tls_verify_depth": 1, "ca_certificates": [ONE]}, 200),
    "of-service": ({"host": "asks", "client_certificate": {"id": GATEWAY}}, 200),
    "of-nobody": ({"host": "asks"}, 502),
    "of-upstream": ({"host": "shows"}, 200),
}


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def document(ports: dict[str, int]) -> dict[str, Any]:
    shown = issued("gateway.test", by="clients")
    upstreams: list[dict[str, Any]] = [
        {"name": name, "host_header": UP, "targets": [{"target": f"127.0.0.1:{port}"}]} for name, port in ports.items()
    ]
    upstreams[-1]["client_certificate"] = {"id": GATEWAY}
    return {
        "_format_version": "3.0",
        "ca_certificates": [
            {"id": ONE, "cert": authority_pem("one")},
            {"id": STRANGER, "cert": authority_pem("stranger")},
        ],
        "certificates": [{"id": GATEWAY, "cert": shown.cert, "key": shown.key}],
        "upstreams": upstreams,
        "services": [
            {
                "name": name,
                "protocol": "https",
                "port": 443,
                "retries": 0,
                **fields,
                "routes": [{"paths": [f"/{name}"]}],
            }
            for name, (fields, _) in SERVICES.items()
        ],
    }


async def test_who_is_believed_and_what_is_shown_is_what_the_entities_say(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        asks = server_context(issued(UP), wants_client_of="clients")
        ports = {
            "deep": await stack.enter_async_context(serving(server_context(issued(UP, depth=1)))),
            "asks": await stack.enter_async_context(serving(asks)),
            "shows": await stack.enter_async_context(serving(asks)),
        }
        plane = ControlPlane(tmp_path)
        stack.callback(plane.destroy)
        await plane.up()
        node = Node("dp", tmp_path, plane.fleet, "--drain-delay-s=0.1")
        stack.callback(node.destroy)
        await node.up()
        session = await stack.enter_async_context(aiohttp.ClientSession(plane.url))
        synced = await session.post("/config/sync", json=document(ports), headers={"Prefer": PREFER})
        assert synced.status in (200, 202), await synced.text()
        await ready(node)
        became: dict[str, int] = {}
        async with asyncio.timeout(PATIENCE_S):
            for name in SERVICES:
                reader, writer = await asyncio.open_connection(*node.proxy_address)
                writer.write(f"GET /{name} HTTP/1.1\r\nHost: gw.test\r\n\r\n".encode())
                became[name] = (await read_response(reader)).status
                writer.close()
        assert became == {name: status for name, (_, status) in SERVICES.items()}
