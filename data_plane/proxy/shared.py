"""What all connections of one worker share: settings, the live reference, counters, clocks and ready-made lines.

Made once by `serving.py` and handed to every connection. The connections register themselves here so that the sweep
(`sweep.py`) and the drain can reach them.
"""

from __future__ import annotations

import asyncio
import os
import time
from email.utils import formatdate
from typing import TYPE_CHECKING

from data_plane.observe.access_log import AccessLog
from data_plane.observe.counters import Counters
from data_plane.proxy.head import RequestScanner
from data_plane.proxy.mirroring import Mirroring
from data_plane.proxy.response_head import ResponseScanner
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Active

if TYPE_CHECKING:
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.upstream import UpstreamConnection

# Latency lines up to this many milliseconds are ready made.
LATENCIES_READY = 512

READ_BYTES_MAX = 65536
"""What one read of an upstream brings at most."""

_IDS_PER_REFILL = 256
_ID_DIGITS = 32


class Shared:
    """See the module. `now` is CLOCK_MONOTONIC as of the last tick of the sweep: old by up to a tick, and free."""

    __slots__ = (
        "_date_line",
        "_date_s",
        "_ids",
        "_ids_at",
        "access_log",
        "active",
        "clients",
        "connecting",
        "counters",
        "draining",
        "gathered_bytes",
        "greetings",
        "idle_ends",
        "loop",
        "mirroring",
        "now",
        "ports",
        "proxy_latency_lines",
        "read_buffer",
        "request_scanner",
        "response_scanner",
        "scheme",
        "server_line",
        "settings",
        "tail_close",
        "tail_keep",
        "upstream_latency_lines",
        "upstreams",
        "usual_latencies",
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
        # Reserved by request bodies that are gathered; see `ClientConnection._gathers`.
        self.gathered_bytes: int = 0
        self.read_buffer = memoryview(bytearray(READ_BYTES_MAX))
        # Connections that are not yet any: when each began, by the id of what it will be. See `ClientFactory.greeted`.
        self.greetings: dict[int, float] = {}
        self.now: float = time.monotonic()
        self.mirroring = Mirroring(self)
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
        # Both latencies and no status, as most want it: one look instead of three.
        self.usual_latencies: bool = (
            settings.upstream_latency and settings.proxy_latency and not settings.upstream_status
        )
        self.upstream_latency_lines: tuple[bytes, ...] = tuple(
            b"X-Kong-Upstream-Latency: %d" % ms for ms in range(LATENCIES_READY)
        )
        self.proxy_latency_lines: tuple[bytes, ...] = tuple(
            b"X-Kong-Proxy-Latency: %d" % ms for ms in range(LATENCIES_READY)
        )
        self._ids = b""
        self._ids_at = 0
        self._date_s = 0
        self._date_line = b""

    def request_id(self) -> bytes:
        """Return 32 lower-case hex digits that nobody can guess, from a pool of random bytes refilled now and then."""
        at = self._ids_at
        if at >= len(self._ids):
            self._ids = os.urandom(_IDS_PER_REFILL * _ID_DIGITS // 2).hex().encode()
            at = 0
        self._ids_at = at + _ID_DIGITS
        return self._ids[at : at + _ID_DIGITS]

    def upstream_latency(self, ms: int) -> bytes:
        """Return `X-Kong-Upstream-Latency` for a time."""
        if ms < LATENCIES_READY:
            return self.upstream_latency_lines[ms]
        return b"X-Kong-Upstream-Latency: %d" % ms

    def proxy_latency(self, ms: int) -> bytes:
        """Return `X-Kong-Proxy-Latency` for a time."""
        if ms < LATENCIES_READY:
            return self.proxy_latency_lines[ms]
        return b"X-Kong-Proxy-Latency: %d" % ms

    def date_line(self) -> bytes:
        """Return the `Date` field of now, made once a second."""
        second = int(time.time())
        if second != self._date_s:
            self._date_s = second
            self._date_line = b"Date: " + formatdate(second, usegmt=True).encode()
        return self._date_line
