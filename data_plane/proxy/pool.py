"""Connections to endpoints: reuse of idle ones, making of new ones.

The idle connections live in the endpoint (`Endpoint.idle`), because it outlives swaps and goes away with its target: a
repointed service finds its connections warm, and a removed target leaves nothing behind. The newest is taken first, so
that the surplus of a busy minute grows old and is closed.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import ssl
from typing import TYPE_CHECKING

from data_plane.proxy.upstream import IDLE, Asker, UpstreamConnection

if TYPE_CHECKING:
    from data_plane.balancer.endpoint import Endpoint
    from data_plane.proxy.shared import Shared
    from data_plane.proxy.upstream_tls import Identity

logger = logging.getLogger(__name__)

SHUTDOWN_S = 2.0
"""For the end of a TLS connection to be said and answered; nothing is lost when it is not."""

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""What the system says when this process, or all of them together, can have no further socket."""
COMPLAINTS_EVERY_S = 1.0
"""How often that, or what clients do wrong, is logged at most."""


def take_idle(shared: Shared, endpoint: Endpoint, identity: Identity | None = None) -> UpstreamConnection | None:
    """Return an idle connection of that TLS identity (None = in the clear) that is still open, or None."""
    idle = endpoint.idle
    while idle:
        connection: UpstreamConnection = idle.pop()
        if connection.identity != identity:
            idle.append(connection)
            return _take_among(shared, endpoint, identity)
        if connection.state == IDLE:
            shared.counters.upstream_connections_reused += 1
            return connection
    return None


def _take_among(shared: Shared, endpoint: Endpoint, identity: Identity | None) -> UpstreamConnection | None:
    """As `take_idle`, where services with different identities share the endpoint.

    They share its places, too: names that clients choose (a preserved Host) must not multiply what is kept.
    """
    connection: UpstreamConnection
    for connection in reversed(endpoint.idle):
        if connection.identity == identity and connection.state == IDLE:
            endpoint.idle.remove(connection)
            shared.counters.upstream_connections_reused += 1
            return connection
    return None


def give_back(shared: Shared, connection: UpstreamConnection) -> None:
    """Keep a connection whose answer ended cleanly, within the limits."""
    endpoint = connection.endpoint
    idle = endpoint.idle
    if endpoint.retired or connection.requests >= shared.upstream_requests_max:
        connection.close()
        return
    if len(idle) >= shared.upstream_idle_max:
        if not idle:
            connection.close()
            return
        idle.popleft().close()
    idle.append(connection)


def connect(
    shared: Shared, exchange: Asker, endpoint: Endpoint, timeout_s: float, identity: Identity | None = None
) -> asyncio.Task[None]:
    """Open a connection for the exchange in a task of its own; the exchange may cancel it."""
    if identity is None:
        task = shared.loop.create_task(_connect(shared, exchange, endpoint, timeout_s))
    else:
        task = shared.loop.create_task(_connect_tls(shared, exchange, endpoint, timeout_s, identity))
    shared.connecting.add(task)

    def done(task: asyncio.Task[None]) -> None:
        shared.connecting.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("connecting to %s failed (%s)", endpoint.key, exchange.describe(), exc_info=error)
            exchange.crashed()

    task.add_done_callback(done)
    return task


async def _connect(shared: Shared, exchange: Asker, endpoint: Endpoint, timeout_s: float) -> None:
    connection = UpstreamConnection(shared, endpoint)
    try:
        async with asyncio.timeout(timeout_s):
            await shared.loop.create_connection(lambda: connection, endpoint.ip, endpoint.port)
    except BaseException as error:
        # Cancelled or too late, it may have been made already, and then the loop closes it without a word.
        connection.forget()
        if isinstance(error, TimeoutError):
            exchange.connect_failed(504)
        elif isinstance(error, OSError):
            exchange.connect_failed(_status_of(shared, error))
        else:
            raise
    else:
        exchange.connected(connection)


async def _connect_tls(
    shared: Shared, exchange: Asker, endpoint: Endpoint, timeout_s: float, identity: Identity
) -> None:
    """Connect and shake hands within the time; whatever fails before the end of that is a failed connect."""
    tls, name = identity
    connection = UpstreamConnection(shared, endpoint, identity)
    try:
        async with asyncio.timeout(timeout_s):
            transport, _ = await shared.loop.create_connection(
                lambda: connection,
                endpoint.ip,
                endpoint.port,
                ssl=tls.context,
                server_hostname=name,
                ssl_handshake_timeout=timeout_s + 1.0,
                ssl_shutdown_timeout=SHUTDOWN_S,
            )
    except asyncio.CancelledError:
        connection.forget()
        raise
    except TimeoutError:
        connection.forget()
        exchange.connect_failed(504)
        return
    except (OSError, ValueError) as error:  # ValueError: the name can't be one
        connection.forget()
        status = _status_of(shared, error)
        if status == 502:
            logger.warning("no TLS connection to %s as %s: %s", endpoint.key, name, error)
        exchange.connect_failed(status)
        return
    try:
        tls.check(transport.get_extra_info("ssl_object"))
    except ssl.SSLError as error:
        logger.warning("no TLS connection to %s as %s: %s", endpoint.key, name, error)
        connection.detach()
        exchange.connect_failed(502)
        return
    exchange.connected(connection)


def _status_of(shared: Shared, error: Exception) -> int:
    """What a connect that failed is answered with: 502, or 503 when this process has nothing to make another with."""
    if not isinstance(error, OSError) or error.errno not in EXHAUSTED:
        return 502
    now = shared.loop.time()
    if now - shared.complained_at >= COMPLAINTS_EVERY_S:
        shared.complained_at = now
        logger.error("no connection to any upstream can be opened: %s; requests get 503", error.strerror)
    return 503
