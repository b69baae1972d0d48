"""Connections opened before they are needed, so that the first requests to a new side find them ready.

They are opened as the services that will use them would open them, TLS identity included, and go to the endpoint's idle
ones. Bounded by what the caller asks for and by the pool's own size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from data_plane.proxy import pool
from data_plane.proxy.upstream import IDLE, UpstreamConnection
from data_plane.proxy.upstream_tls import server_name

if TYPE_CHECKING:
    from data_plane.balancer.endpoint import Endpoint
    from data_plane.proxy.shared import Shared
    from data_plane.proxy.tables import ServiceRuntime
    from data_plane.proxy.upstream_tls import Identity

OPENING_AT_ONCE_MAX = 64
STEP_S = 0.05
"""At most so much of a stall counts as waited."""


@dataclass(slots=True)
class Warmed:
    """One endpoint: how many idle connections of the identity are ready, and why the last failure, if any.

    `opened` are those made for it now.
    """

    endpoint: Endpoint
    idle: int = 0
    error: str = ""
    opened: int = 0


async def warm(
    shared: Shared,
    uses: Iterable[tuple[ServiceRuntime, Iterable[Endpoint]]],
    *,
    connections: int,
    within_s: float,
) -> list[Warmed]:
    """Open what is missing of `connections` idle ones to each endpoint of each use; never raises for an endpoint."""
    wanted = min(connections, shared.settings.upstream_keepalive_pool_size)
    jobs: dict[tuple[Endpoint, Identity | None], Warmed] = {}
    for service, endpoints in uses:
        for endpoint in endpoints:
            identity = _identity(service, endpoint)
            jobs.setdefault((endpoint, identity), Warmed(endpoint))
    gate = asyncio.Semaphore(OPENING_AT_ONCE_MAX)

    async def fill(endpoint: Endpoint, identity: Identity | None, told: Warmed) -> None:
        for _ in range(max(0, wanted - _idle(endpoint, identity))):
            async with gate:
                if not await _open(shared, endpoint, identity, told):
                    break

    tasks = [asyncio.ensure_future(fill(endpoint, identity, told)) for (endpoint, identity), told in jobs.items()]
    for task in await _late(shared.loop, tasks, within_s):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for (endpoint, identity), told in jobs.items():
        # Those that traffic took meanwhile were ready, too: a side of a canary has some already.
        told.idle = max(_idle(endpoint, identity), told.opened)
        if not told.idle and wanted and not told.error:
            told.error = f"no connection within {within_s:g} s"
    return list(jobs.values())


async def _late(
    loop: asyncio.AbstractEventLoop, tasks: Collection[asyncio.Future[None]], within_s: float
) -> Collection[asyncio.Future[None]]:
    """What is not done within a time in which this process ran.

    The time in which it did not is no endpoint's slowness: on a machine that is short of CPU a node would else refuse a
    rollout because of targets that are well.
    """
    waiting, left_s = set(tasks), within_s
    while waiting and left_s > 0:
        began, step_s = loop.time(), min(STEP_S, left_s)
        _, waiting = await asyncio.wait(waiting, timeout=step_s)
        left_s -= min(step_s, loop.time() - began)
    return waiting


def _identity(service: ServiceRuntime, endpoint: Endpoint) -> Identity | None:
    """As the exchange has it for a route that does not preserve the client's Host."""
    if service.tls is None:
        return None
    return service.tls, server_name(service.host_line(endpoint)[len(b"Host: ") :])


def _idle(endpoint: Endpoint, identity: Identity | None) -> int:
    return sum(
        isinstance(connection, UpstreamConnection) and connection.state == IDLE and connection.identity == identity
        for connection in endpoint.idle
    )


async def _open(shared: Shared, endpoint: Endpoint, identity: Identity | None, told: Warmed) -> bool:
    connection = UpstreamConnection(shared, endpoint, identity)
    connection.active_at = shared.now
    try:
        if identity is None:
            await shared.loop.create_connection(lambda: connection, endpoint.ip, endpoint.port)
        else:
            tls, name = identity
            transport, _ = await shared.loop.create_connection(
                lambda: connection,
                endpoint.ip,
                endpoint.port,
                ssl=tls.context,
                server_hostname=name,
                ssl_shutdown_timeout=pool.SHUTDOWN_S,
            )
            tls.check(transport.get_extra_info("ssl_object"))
    except asyncio.CancelledError:
        connection.forget()
        raise
    except (OSError, ValueError) as error:  # ssl's errors are OSErrors; ValueError: the name can't be one
        connection.forget()
        told.error = str(error) or type(error).__name__
        return False
    if connection.state != IDLE:
        told.error = "the server closed the connection at once"
        return False
    told.opened += 1
    pool.give_back(shared, connection)
    return True
