"""What this worker has counted, as messages to the node process.

Sums of routes go ahead of the counters they were asked for with, in messages of bounded size, and only those that grew.
They are absolute, so the node process may lose one and is right again with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from data_plane.observe.traffic import PROXIED_OK, RouteTraffic, TrafficBook
from pointsman.wire.v1 import worker_pb2 as wire

ROUTES_PER_MESSAGE = 64


def tell_traffic(book: TrafficBook, send: Callable[[wire.FromWorker], None]) -> Generator[None, None, None]:
    """Send the sums that grew since they were sent last; yields after each route."""
    message = wire.FromWorker()
    for traffic in book.changed():
        _add(message.traffic, traffic)
        if len(message.traffic.routes) >= ROUTES_PER_MESSAGE:
            send(message)
            message = wire.FromWorker()
        yield
    if message.traffic.routes:
        send(message)


def _add(told: wire.Traffic, traffic: RouteTraffic) -> None:
    codes = dict(traffic.codes)
    quick = traffic.quick
    if quick:
        codes[PROXIED_OK] = codes.get(PROXIED_OK, 0) + quick
    route = told.routes.add(
        service=traffic.service,
        route=traffic.route,
        codes=codes.keys(),
        counts=codes.values(),
        kong_ms=traffic.kong_ms,
        upstream_ms=traffic.upstream_ms,
        request_ms=traffic.request_ms,
        kong_s=traffic.kong_s,
        upstream_s=traffic.upstream_s,
        request_s=traffic.request_s,
        bytes_in=traffic.bytes_in,
        bytes_out=traffic.bytes_out,
    )
    if quick:
        route.kong_ms[0] += quick
        route.upstream_ms[0] += quick
        route.request_ms[0] += quick
