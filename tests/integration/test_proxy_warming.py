"""Connections opened before they are needed: ready when the first requests come, also while others take them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.support.patience import PATIENCE_S, until
from tests.support.proxying import Client, Rig, endpoint_at, proxy_to, upstream_of

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Upstream:
    """Counts its connections; answers once `open` is set."""

    def __init__(self) -> None:
        self.connections = 0
        self.asked = 0
        self.open = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            await self.open.wait()
            writer.write(OK)


async def ask_at_once(rig: Rig, count: int) -> list[Client]:
    clients = [await Client.open(rig.port) for _ in range(count)]
    for client in clients:
        client.send(GET)
    return clients


async def answered(clients: list[Client]) -> list[int]:
    found = [(await client.answer()).status for client in clients]
    for client in clients:
        await client.close()
    return found


async def test_the_first_requests_find_connections_ready() -> None:
    upstream = Upstream()
    async with upstream_of(upstream) as port, proxy_to(port) as rig:
        assert rig.active.tables is not None
        uses = [(rig.active.tables.services["s"], rig.balancer.endpoints)]
        (told,) = await rig.factory.warm(uses, connections=3, within_s=PATIENCE_S)
        assert (told.idle, told.opened, told.error) == (3, 3, "")
        (again,) = await rig.factory.warm(uses, connections=3, within_s=PATIENCE_S)
        assert (again.idle, again.opened) == (3, 0), "they are there"
        clients = await ask_at_once(rig, 3)
        await until(lambda: upstream.asked == 3)
        upstream.open.set()
        assert await answered(clients) == [200] * 3
        assert upstream.connections == 3, "a request opened one of its own"


async def test_connections_that_traffic_takes_while_others_are_opened_were_ready() -> None:
    """One endpoint is ready at once and its connections are in use before the other's time is over."""
    upstream = Upstream()
    async with upstream_of(upstream) as port, proxy_to(port) as rig:
        with nobody_accepts() as deaf:
            assert rig.active.tables is not None
            endpoints = [*rig.balancer.endpoints, endpoint_at(deaf)]
            uses = [(rig.active.tables.services["s"], endpoints)]
            warming = asyncio.create_task(rig.factory.warm(uses, connections=2, within_s=1.0))
            await until(lambda: len(endpoints[0].idle) == 2)
            clients = await ask_at_once(rig, 2)
            await until(lambda: upstream.asked == 2)
            assert len(endpoints[0].idle) == 0
            ready, late = await warming
            assert (ready.idle, ready.error) == (2, "")
            assert (late.idle, late.error) == (0, "no connection within 1 s")
            upstream.open.set()
            assert await answered(clients) == [200] * 2
            assert upstream.connections == 2


async def test_a_time_in_which_the_worker_did_not_run_is_no_endpoint_s_slowness() -> None:
    async with upstream_of(Upstream()) as port, proxy_to(port) as rig:
        assert rig.active.tables is not None
        uses = [(rig.active.tables.services["s"], rig.balancer.endpoints)]
        asyncio.get_running_loop().call_soon(time.sleep, 0.3)
        (told,) = await rig.factory.warm(uses, connections=1, within_s=0.2)
        assert (told.idle, told.error) == (1, "")


@contextmanager
def nobody_accepts() -> Iterator[int]:
    """A port whose queue is full: who connects there waits."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
