"""The lines that this gateway adds to answers, its own and those of upstreams, apart from the common case.

What nearly every answer needs is in `Exchange.begin_answer`; here is what is asked for seldom. No piece has a line end
at its end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from data_plane.proxy import answers

if TYPE_CHECKING:
    from data_plane.proxy.exchange import Exchange
    from data_plane.proxy.response_head import ResponseHead
    from data_plane.proxy.shared import Shared

KEEP_ALIVE = b"Connection: keep-alive"
CLOSE = b"Connection: close"
UPGRADE = b"Connection: Upgrade"


def own_answer(
    shared: Shared,
    exchange: Exchange,
    status: int,
    content_type: bytes,
    *,
    size: int,
    fields: tuple[bytes, ...],
    keep: bool,
    proxied: bool,
    debug: tuple[bytes, ...],
) -> list[bytes]:
    """Return the head of an answer of ours; `proxied` = in place of an upstream's, `size` = octets of its body."""
    settings = shared.settings
    lines = [
        answers.status_line(status),
        shared.date_line(),
        b"Content-Type: " + content_type,
        KEEP_ALIVE if keep else CLOSE,
        *fields,
        b"Content-Length: %d" % size,
    ]
    if proxied:
        now = time.monotonic()
        add_latencies(shared, lines, now - exchange.balanced_at, exchange.balanced_at - exchange.started_at)
        if settings.via:
            lines.append(b"Via: 1.1 " + shared.via_token)
    elif settings.response_latency:
        lines.append(b"X-Kong-Response-Latency: %d" % int((time.monotonic() - exchange.started_at) * 1000))
    if settings.server:
        lines.append(shared.server_line)
    if settings.request_id_downstream:
        lines.append(b"X-Kong-Request-Id: " + exchange.request_id)
    lines += debug
    return lines


def add_tail(exchange: Exchange, shared: Shared, head: ResponseHead, lines: list[bytes], connection: bytes) -> None:
    """Add our lines to an upstream's answer that lacks some or has too much, or where other ones are asked for."""
    settings = shared.settings
    lines.append(connection)
    if not head.has_date:
        lines.append(shared.date_line())
    if settings.server and not head.has_server:
        lines.append(shared.server_line)
    if settings.via:
        lines.append(b"Via: " + (b"1.1 " if not head.via else head.via + b", 1.1 ") + shared.via_token)
    elif head.via:
        lines.append(b"Via: " + head.via)
    if head.trailer is not None and exchange.te_trailers:
        lines.append(b"Trailer: " + head.trailer)
    if settings.upstream_status:
        lines.append(b"X-Kong-Upstream-Status: %d" % head.status)
    add_latencies(shared, lines, exchange.upstream_s, exchange.proxy_s)
    if settings.request_id_downstream:
        lines.append(b"X-Kong-Request-Id: " + exchange.request_id)


def add_latencies(shared: Shared, lines: list[bytes], upstream_s: float, proxy_s: float) -> None:
    """Add those latencies that the settings ask for."""
    if shared.settings.upstream_latency:
        lines.append(b"X-Kong-Upstream-Latency: %d" % int(upstream_s * 1000))
    if shared.settings.proxy_latency:
        lines.append(b"X-Kong-Proxy-Latency: %d" % int(proxy_s * 1000))
