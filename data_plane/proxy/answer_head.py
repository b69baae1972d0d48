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


def add_unusual_tail(
    shared: Shared, head: ResponseHead, lines: list[bytes], connection: bytes, *, te_trailers: bool
) -> None:
    """Add what an upstream's answer lacks or has too much of: no Date or Server, a Via or Trailer of its own."""
    lines.append(connection)
    if not head.has_date:
        lines.append(shared.date_line())
    if shared.settings.server and not head.has_server:
        lines.append(shared.server_line)
    if shared.settings.via:
        lines.append(b"Via: " + (b"1.1 " if not head.via else head.via + b", 1.1 ") + shared.via_token)
    elif head.via:
        lines.append(b"Via: " + head.via)
    if head.trailer is not None and te_trailers:
        lines.append(b"Trailer: " + head.trailer)


def add_latencies(shared: Shared, lines: list[bytes], upstream_s: float, proxy_s: float) -> None:
    """Add those latencies that the settings ask for."""
    if shared.settings.upstream_latency:
        lines.append(shared.upstream_latency(int(upstream_s * 1000)))
    if shared.settings.proxy_latency:
        lines.append(shared.proxy_latency(int(proxy_s * 1000)))
