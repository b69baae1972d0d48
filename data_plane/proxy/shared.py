"""What all connections of one worker share: settings, the live reference, counters, clocks and ready-made lines.

Made once by `serving.py` and handed to every connection. The connections register themselves here so that the sweep
(`sweep.py`) and the drain can reach them.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from typing import TYPE_CHECKING

from data_plane.observe.access_log import AccessLog
from data_plane.observe.counters import Counters
from data_plane.proxy.head import RequestScanner
from data_plane.proxy.response_head import ResponseScanner
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Active

if TYPE_CHECKING:
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.mirroring import Mirroring
    from data_plane.proxy.upstream import UpstreamConnection

LATENCIES_READY = 512
"""Lines of latencies below so many milliseconds are ready made."""
LEAST_LATENCY_S = 0.001
"""A shorter time is sent as 0 milliseconds."""

READ_BYTES_MAX = 65536
"""What one read of an upstream brings at most."""

_IDS_PER_REFILL = 256
_ID_DIGITS = 32


class Shared:
    """See the module. `now` is CLOCK_MONOTONIC as of the last tick of the sweep: old by up to a tick, and free."""

    __slots__ = (
        "_date_line",
        "_date_s",
        "access_log",
        "active",
        "allow_debug_header",
        "clients",
        "complained_at",
        "connecting",
        "counters",
        "draining",
        "gathered_bytes",
        "greetings",
        "idle_ends",
        "keepalive_requests_max",
        "latency_lines",
        "loop",
        "mirroring",
        "now",
        "ports",
        "read_buffer",
        "request_id",
        "request_id_upstream",
        "request_scanner",
        "response_scanner",
        "scheme",
        "server_line",
        "settings",
        "tail_close",
        "tail_keep",
        "upstream_idle_max",
        "upstream_requests_max",
        "upstreams",
        "usual",
        "via_token",
    )

    def __init__(
        self,
        active: Active,
        settings: ProxySettings,
        loop: asyncio.AbstractEventLoop,
        counters: Counters,
        *,
        scheme: str,
        access_log: AccessLog | None = None,
    ) -> None:
        self.access_log = access_log
        self.active = active
        self.settings = settings
        self.loop = loop
        self.counters = counters
        self.scheme = scheme
        self.ports: dict[int, int] = dict(settings.port_maps)
        self.draining: bool = False
        self.idle_ends: bool = False
        # When it was last logged that there is no descriptor left, by the loop's time.
        self.complained_at: float = 0.0
        # Reserved by request bodies that are gathered; see `RequestBody.waits`.
        self.gathered_bytes: int = 0
        self.read_buffer = memoryview(bytearray(READ_BYTES_MAX))
        # Connections that are not yet any: when each began, by the id of what it will be. See `ClientFactory.greeted`.
        self.greetings: dict[int, float] = {}
        self.now: float = time.monotonic()
        self.mirroring: Mirroring  # made by `serving.py`, for it works with these
        self.request_scanner = RequestScanner(settings)
        self.response_scanner = ResponseScanner(settings)
        self.clients: set[ClientConnection] = set()
        self.upstreams: set[UpstreamConnection] = set()
        self.connecting: set[asyncio.Task[None]] = set()
        product = settings.product.encode("latin-1")
        self.server_line: bytes = b"Server: " + product
        self.via_token: bytes = product
        # What an answer gets in the common case: the upstream said Server and Date, and nothing of Via.
        via = b"\r\nVia: 1.1 " + product if settings.via else b""
        self.tail_keep: bytes = b"Connection: keep-alive" + via
        self.tail_close: bytes = b"Connection: close" + via
        # What most answers get where nobody changed what is sent: by the upstream's milliseconds, ours being none, and
        # ready for the id to be put at the end.
        self.usual: bool = (
            settings.upstream_latency
            and settings.proxy_latency
            and not settings.upstream_status
            and settings.request_id_downstream
        )
        self.latency_lines: tuple[bytes, ...] = tuple(
            b"X-Kong-Upstream-Latency: %d\r\nX-Kong-Proxy-Latency: 0\r\nX-Kong-Request-Id: " % ms
            for ms in range(LATENCIES_READY)
        )
        self.keepalive_requests_max: float = settings.keepalive_requests_max or math.inf
        self.upstream_idle_max: int = settings.upstream_keepalive_pool_size
        self.upstream_requests_max: float = settings.upstream_keepalive_requests_max or math.inf
        self.allow_debug_header: bool = settings.allow_debug_header
        self.request_id_upstream: bool = settings.request_id_upstream
        self.request_id: Callable[[], bytes] = _request_ids().__next__
        self._date_s = 0
        self._date_line = b""

    def date_line(self) -> bytes:
        """Return the `Date` field of now, made once a second."""
        second = int(time.time())
        if second != self._date_s:
            self._date_s = second
            self._date_line = b"Date: " + formatdate(second, usegmt=True).encode()
        return self._date_line


def _request_ids() -> Iterator[bytes]:
    """Yield 32 lower-case hex digits that nobody can guess, from a pool of random bytes refilled now and then."""
    while True:
        pool = os.urandom(_IDS_PER_REFILL * _ID_DIGITS // 2).hex().encode()
        for at in range(0, len(pool), _ID_DIGITS):
            yield pool[at : at + _ID_DIGITS]
