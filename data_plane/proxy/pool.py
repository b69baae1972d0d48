"""Connections to endpoints: reuse of idle ones, making of new ones.

The idle connections live in the endpoint (`Endpoint.idle`), because it outlives swaps and goes away with its target: a
repointed service finds its connections warm, and a removed target leaves nothing behind. The newest is taken first, so
that the surplus of a busy minute grows old and is closed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from data_plane.proxy.upstream import IDLE, UpstreamConnection

if TYPE_CHECKING:
    from data_plane.balancer.endpoint import Endpoint
    from data_plane.proxy.exchange import Exchange
    from data_plane.proxy.shared import Shared


def take_idle(shared: Shared, endpoint: Endpoint) -> UpstreamConnection | None:
    """Return an idle connection that is still open, or None."""
    idle = endpoint.idle
    while idle:
        connection = idle.pop()
        assert isinstance(connection, UpstreamConnection)
        if connection.state == IDLE:
            shared.counters.upstream_connections_reused += 1
            return connection
    return None


def give_back(shared: Shared, connection: UpstreamConnection) -> None:
    """Keep a connection whose answer ended cleanly, within the limits."""
    settings = shared.settings
    endpoint = connection.endpoint
    idle = endpoint.idle
    requests_max = settings.upstream_keepalive_requests_max
    if endpoint.retired or (requests_max and connection.requests >= requests_max):
        connection.close()
        return
    if len(idle) >= settings.upstream_keepalive_pool_size:
        if not idle:
            connection.close()
            return
        oldest = idle.popleft()
        assert isinstance(oldest, UpstreamConnection)
        oldest.close()
    idle.append(connection)


def connect(shared: Shared, exchange: Exchange, endpoint: Endpoint, timeout_s: float) -> asyncio.Task[None]:
    """Open a connection for the exchange in a task of its own; the exchange may cancel it."""
    task = shared.loop.create_task(_connect(shared, exchange, endpoint, timeout_s))
    shared.connecting.add(task)
    task.add_done_callback(shared.connecting.discard)
    return task


async def _connect(shared: Shared, exchange: Exchange, endpoint: Endpoint, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            _, connection = await shared.loop.create_connection(
                lambda: UpstreamConnection(shared, endpoint), endpoint.ip, endpoint.port
            )
    except TimeoutError:
        exchange.connect_failed(504)
    except OSError:
        exchange.connect_failed(502)
    else:
        exchange.connected(connection)
