"""Random misbehaviour on both sides at once, from a printed seed: afterwards nothing is held.

What one test of one fault can't show is that two of them at the same moment leave no count behind: an endpoint taken
and never released, a request in flight for ever, a connection in the pool that carries somebody else's answer.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from data_plane.model import ServiceConfig
from data_plane.proxy.settings import ProxySettings
from tests.support.proxying import Client, proxy_to, route_to_first, upstream_of

CLIENTS = 40
REQUESTS_EACH = 25


async def chaotic(rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve requests by token, but close, reset, stop, or speak nonsense now and then."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        token = head.split(b" ", 2)[1]
        fields = head.lower()
        if b"\r\ncontent-length: " in fields:
            length = int(fields.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            if rng.random() < 0.1:
                writer.write(b"HTTP/1.1 413 No\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(token) + token)
                return
            await reader.readexactly(length)
        elif b"\r\ntransfer-encoding: " in fields:
            while await reader.readuntil(b"\r\n") != b"0\r\n":
                pass
            await reader.readuntil(b"\r\n")
        dice = rng.random()
        if dice < 0.05:
            return
        if dice < 0.1:
            writer.write(b"BANANA\r\n\r\n")
            return
        if dice < 0.15:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + token)
            return
        if dice < 0.2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(token) + token + b"EXTRA")
        elif dice < 0.4:
            writer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(token), token)
            )
        elif dice < 0.45:
            await reader.read()
            return
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(token))
            if rng.random() < 0.3:
                await asyncio.sleep(0.005)
            writer.write(token)


async def misbehave(rng: random.Random, port: int, name: int, wrong: list[str]) -> None:
    """Send requests, whole or not; an answer that carries another token is wrong."""
    client: Client | None = None
    for number in range(REQUESTS_EACH):
        if client is None:
            client = await Client.open(port)
        token = b"/%d-%d" % (name, number)
        body = rng.choice([b"", b"", b"x" * rng.randrange(200_000)])
        method = rng.choice([b"GET", b"PUT", b"POST"])
        request = method + b" " + token + b" HTTP/1.1\r\nHost: h\r\n"
        if body and rng.random() < 0.5:
            request += b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        elif body:
            request += b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            request += b"\r\n"
        dice = rng.random()
        if dice < 0.1:
            client.send(request[: rng.randrange(len(request))])
            await asyncio.sleep(rng.random() * 0.01)
            client.reset() if rng.random() < 0.5 else await client.close()
            client = None
            continue
        client.send(request)
        if dice < 0.15:
            await asyncio.sleep(rng.random() * 0.01)
            client.reset()
            client = None
            continue
        try:
            answer = await client.answer()
        except TimeoutError:
            wrong.append(f"{token!r} ({method!r}, {len(body)} octets) got no answer")
            return
        except (ConnectionError, asyncio.IncompleteReadError):
            client.writer.transport.abort()
            client = None
            continue
        if answer.status in (200, 413) and answer.body != token:
            wrong.append(f"{token!r} got {answer.status} {answer.body[:60]!r}")
        elif answer.status not in (200, 413, 502, 504):
            wrong.append(f"{token!r} got {answer.status}")
        if answer.field("Connection") == "close":
            await client.close()
            client = None
    if client is not None:
        await client.close()


@pytest.mark.parametrize("buffered", [True, False])
async def test_nothing_is_held_after_random_faults_on_both_sides(*, buffered: bool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    wrong: list[str] = []
    service = ServiceConfig(id="s", host="up.test", retries=2, read_timeout_s=0.2)
    settings = ProxySettings(body_idle_timeout_s=0.5, head_timeout_s=0.5, send_timeout_s=0.5)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await chaotic(random.Random(rng.random()), reader, writer)
        except RuntimeError:
            return  # uvloop's word for writing to a connection that is gone

    async with (
        upstream_of(handler) as first,
        upstream_of(handler) as second,
        proxy_to(
            first,
            second,
            service=service,
            settings=settings,
            routes=[route_to_first(request_buffering=buffered)],
        ) as rig,
    ):
        names = range(CLIENTS)
        await asyncio.gather(*(misbehave(random.Random(seed + name), rig.port, name, wrong) for name in names))
        assert wrong == []
        await rig.settled()
        assert rig.counters.errors_internal == 0
        assert all(endpoint.in_flight == 0 for endpoint in rig.balancer.endpoints)
