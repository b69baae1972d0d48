"""What the access log is given of a request that has ended. Called with an access log only."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from data_plane.observe.access_log import Record

if TYPE_CHECKING:
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.exchange import Exchange


def record_of(exchange: Exchange, client: ClientConnection, now: float) -> Record:
    """Return the record; without a plan the request was malformed, and nothing of its head is known."""
    plan = exchange.plan
    head = client.head
    code = exchange.code
    proxied = code > 0 and not code & 1
    return Record(
        ended=time.time(),
        ended_at=now,
        client=client.peer.client_address(head) if plan is not None else client.peer.client,
        scheme=client.scheme,
        port=client.port,
        method=head.method if plan is not None else b"",
        path=head.path if plan is not None else b"",
        query=head.query if plan is not None else b"",
        http10=head.http10,
        host=head.host if plan is not None else b"",
        fields=head.block if plan is not None else b"",
        status=code >> 1,
        own=bool(code & 1),
        answer=exchange.answer_lines,
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
        request_id=exchange.request_id,
        route=plan.route if plan is not None else None,
        service=plan.service.config if plan is not None and plan.service is not None else None,
        upstream_start=plan.start if plan is not None else b"",
        proxy_s=exchange.proxy_s if proxied else 0.0,
        upstream_s=exchange.upstream_s if proxied else -1.0,
        request_s=now - exchange.started_at,
        attempts=tuple(exchange.attempts),
        version=exchange.version,
        side=exchange.side_name,
    )
