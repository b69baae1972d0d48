"""One worker's proxy as its owner sees it: a factory of client connections, and the way to end them.

`worker/listeners.py` hands the factory to `loop.create_server` and drives the drain.
"""

from __future__ import annotations

import asyncio

from data_plane.observe.counters import Counters
from data_plane.proxy.client import READY, ClientConnection
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.shared import Shared
from data_plane.proxy.sweep import Sweep
from data_plane.proxy.tables import Active


class ClientFactory:
    """Makes a protocol for each accepted connection: `loop.create_server(factory, sock=...)`.

    `start()` begins the sweep that enforces all time limits; `stop()` ends it. Connections come and go in between.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._sweep = Sweep(shared)

    def __call__(self) -> asyncio.Protocol:
        return ClientConnection(self._shared)

    @property
    def in_flight(self) -> int:
        """Requests begun and not yet answered completely."""
        return self._shared.counters.in_flight

    @property
    def connections(self) -> int:
        """Client connections open."""
        return len(self._shared.clients)

    def start(self) -> None:
        """Begin the sweep of time limits; needs the running loop."""
        self._sweep.start()

    def begin_drain(self) -> None:
        """From now on every answer is the last of its connection.

        Connections on which no request is under way get a second to send one, and are closed by a sweep after that: a
        request that crosses the closing on the wire is answered rather than reset.
        """
        self._shared.draining = True

    def cut(self) -> None:
        """Abort all that is still open."""
        for connection in list(self._shared.clients):
            connection.transport.abort()

    def close_idle(self) -> None:
        """Close the client connections on which no request is under way."""
        for connection in list(self._shared.clients):
            if connection.state == READY and not connection.has_partial_head:
                connection.close_idle()

    def stop(self) -> None:
        """End the sweep, the connection attempts under way and the idle upstream connections."""
        self._sweep.stop()
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
) -> ClientFactory:
    """Return the factory of the traffic port; `active.tables` is read once per request."""
    return ClientFactory(Shared(active, settings, loop, counters, scheme=scheme))
