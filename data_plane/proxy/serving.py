"""One worker's proxy as its owner sees it: a factory of client connections, and the way to end them.

`worker/listeners.py` hands the factory to `loop.create_server` and drives the drain.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable
from typing import cast

from data_plane.balancer.endpoint import Endpoint
from data_plane.observe.access_log import AccessLog
from data_plane.observe.counters import Counters
from data_plane.observe.side_counts import SideCounts
from data_plane.proxy.client import DOING, ClientConnection
from data_plane.proxy.mirroring import Mirroring
from data_plane.proxy.misdirected import MisdirectedConnection
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.shared import Shared
from data_plane.proxy.sweep import Sweep
from data_plane.proxy.tables import Active, ServiceRuntime
from data_plane.proxy.warming import Warmed, warm

GREETING_COUNTS_S = 2.0
"""A drain waits for greetings up to this age; a client that takes longer would not be served by waiting."""


def _as_protocol(connection: ClientConnection) -> asyncio.Protocol:
    """Return a connection as the loop's interface wants it.

    It has a protocol's methods and inherits nothing from it, for a compiled class that an exchange knows can't; loops
    ask it for methods only, as long as it isn't a buffered one.
    """
    return cast(asyncio.Protocol, connection)


class ClientFactory:
    """Makes a protocol for each accepted connection: `loop.create_server(factory, sock=...)`.

    `start()` begins the sweep that enforces all time limits; `stop()` ends it. Connections come and go in between.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._sweep = Sweep(shared)

    def __call__(self) -> asyncio.Protocol:
        return _as_protocol(ClientConnection(self._shared))

    @property
    def in_flight(self) -> int:
        """Requests begun and not yet answered completely."""
        return self._shared.counters.in_flight

    def greeted(self) -> asyncio.Protocol:
        """Make a protocol for a connection that begins with something else than a request: `worker/acceptor.py`.

        One that never gets that far hears nothing of its end, so what is noted about it grows old instead.
        """
        connection = ClientConnection(self._shared)
        greetings = self._shared.greetings
        self._forget_greetings()
        greetings[id(connection)] = time.monotonic()
        return _as_protocol(connection)

    def speaks_for(self, protocol: asyncio.Protocol, address: str) -> None:
        """Note whom a PROXY header names for a connection that is about to begin; empty = itself."""
        assert isinstance(protocol, ClientConnection)
        protocol.speaks_for = address

    def misdirected(self, protocol: asyncio.Protocol) -> asyncio.Protocol:
        """Make the protocol that answers plain requests on a TLS port, in place of one that has greeted."""
        assert isinstance(protocol, ClientConnection)
        self._shared.greetings.pop(id(protocol), None)
        connection = MisdirectedConnection(self._shared)
        connection.speaks_for = protocol.speaks_for
        return _as_protocol(connection)

    @property
    def settings(self) -> ProxySettings:
        """What the connections go by."""
        return self._shared.settings

    @property
    def connections(self) -> int:
        """Client connections open, those included that began a moment ago and are still at their greeting."""
        self._forget_greetings()
        return len(self._shared.clients) + len(self._shared.greetings)

    @property
    def reading(self) -> int:
        """Client connections on which a request head has begun and is not complete."""
        return sum(connection.has_partial_head for connection in self._shared.clients)

    def doing(self) -> dict[str, int]:
        """What the client connections are at, in words, with how many of them."""
        return dict(Counter(DOING[connection.state] for connection in self._shared.clients))

    def _forget_greetings(self) -> None:
        greetings = self._shared.greetings
        began_before = time.monotonic() - GREETING_COUNTS_S
        while greetings:
            oldest = next(iter(greetings))
            if greetings[oldest] > began_before:
                break
            del greetings[oldest]

    def loads(self) -> dict[Endpoint, int]:
        """How many requests are open towards each endpoint of an upstream."""
        loads: dict[Endpoint, int] = {}
        for connection in self._shared.upstreams:
            endpoint = connection.endpoint
            exchange = connection.exchange
            if exchange is not None and exchange.side is not None and endpoint.upstream:
                loads[endpoint] = loads.get(endpoint, 0) + 1
        return loads

    def open_sides(self) -> dict[SideCounts, int]:
        """How many requests are open towards each side of a service."""
        opened: dict[SideCounts, int] = {}
        for connection in self._shared.upstreams:
            side = connection.exchange.side if connection.exchange is not None else None
            if side is not None:
                opened[side] = opened.get(side, 0) + 1
        return opened

    def close_late(self, sides: Collection[tuple[str, str]]) -> int:
        """End what is open on these sides (service id, upstream id); returns how many requests that were."""
        late = [
            connection.exchange
            for connection in self._shared.upstreams
            if connection.exchange is not None
            and (side := connection.exchange.side) is not None
            and (side.service, side.upstream) in sides
        ]
        for exchange in late:
            exchange.close_late()
        return len(late)

    async def warm(
        self, uses: Iterable[tuple[ServiceRuntime, Iterable[Endpoint]]], *, connections: int, within_s: float
    ) -> list[Warmed]:
        """Open connections before they are needed; see `warming.py`."""
        return await warm(self._shared, uses, connections=connections, within_s=within_s)

    def start(self) -> None:
        """Begin the sweep of time limits; needs the running loop."""
        self._sweep.start()

    def begin_drain(self) -> None:
        """From now on every answer is the last of its connection.

        Connections on which no request is under way stay: their clients may use them until they hear of the end, and
        hear of it with the answer.
        """
        self._shared.draining = True

    def end_idle(self) -> None:
        """Let the sweep close connections that have been quiet for a second; nobody is told of this node any more."""
        self._shared.idle_ends = True

    def cut(self) -> None:
        """Abort all that is still open."""
        for connection in list(self._shared.clients):
            connection.transport.abort()

    def stop(self) -> None:
        """End the sweep, the connection attempts under way and the idle upstream connections."""
        self._sweep.stop()
        self._shared.mirroring.stop()
        for task in list(self._shared.connecting):
            task.cancel()
        for connection in list(self._shared.upstreams):
            if connection.exchange is None:
                connection.close()


def client_factory(
    active: Active,
    settings: ProxySettings,
    loop: asyncio.AbstractEventLoop,
    counters: Counters,
    *,
    scheme: str = "http",
    access_log: AccessLog | None = None,
) -> ClientFactory:
    """Return the factory of the traffic port; `active.tables` is read once per request."""
    shared = Shared(active, settings, loop, counters, scheme=scheme, access_log=access_log)
    shared.mirroring = Mirroring(shared)
    return ClientFactory(shared)
