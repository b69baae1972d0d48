"""What this worker has counted, as messages to the node process.

Sums of routes go ahead of the counters they were asked for with, in messages of bounded size, and only those that grew.
They are absolute, so the node process may lose one and is right again with the next.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Mapping

from data_plane.observe.side_counts import SideBook, SideCounts
from data_plane.observe.traffic import PROXIED_OK, RouteTraffic, TrafficBook
from pointsman.wire.v1 import worker_pb2 as wire
from pointsman.wire.v1.fleet_pb2 import SideSums

ROUTES_PER_MESSAGE = 64
SIDES_PER_MESSAGE = 64


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


def tell_sides(
    book: SideBook,
    opened: Mapping[SideCounts, int],
    watched: Container[str],
    send: Callable[[wire.FromWorker], None],
) -> Generator[None, None, None]:
    """Send the sides that differ from what was sent last; yields after each service.

    `opened` are the requests under way, `watched` the services whose settings name other sides than their host.
    """
    message = wire.FromWorker()
    for service, sides in list(book.sides.items()):
        for counts in list(sides.values()):
            now = counts.state(opened.get(counts, 0))
            if now == counts.told:
                continue
            counts.told = now
            message.sides.sides.append(_side(counts, opened.get(counts, 0), watched=service in watched))
        if len(message.sides.sides) >= SIDES_PER_MESSAGE:
            send(message)
            message = wire.FromWorker()
        yield
    if message.sides.sides:
        send(message)


def _side(counts: SideCounts, opened: int, *, watched: bool) -> SideSums:
    told = SideSums(
        service=counts.service,
        upstream=counts.upstream,
        requests=counts.requests,
        errors_5xx=counts.errors_5xx,
        connect_errors=counts.connect_errors,
        latency=counts.latency_counts(),
        open=opened,
        closed_late=counts.closed_late,
        watched=watched,
        service_name=counts.service_name,
        upstream_name=counts.upstream_name,
        first_answer_ns=int(counts.first_at * 1e9),
        last_answer_ns=int(counts.last_at * 1e9),
    )
    if counts.mirrored:
        told.mirror.sent = counts.mirror_sent
        told.mirror.errors_5xx = counts.mirror_errors_5xx
        told.mirror.failed = counts.mirror_failed
        told.mirror.skipped = counts.mirror_skipped
    return told
