"""All time limits of a worker's connections, looked after by one timer.

A timer object for each attempt and each head would cost more than the rest of a request's bookkeeping. Instead
connections note the coarse time of their last activity, and a tick looks at those that are busy ten times a second, at
all others once a second. So a limit strikes late by up to two ticks, never early; and a tick that comes late itself
strikes nothing, because what it missed may be waiting in the sockets.
"""

from __future__ import annotations

import asyncio
import time

from data_plane.proxy import client as clients
from data_plane.proxy.client import ClientConnection
from data_plane.proxy.shared import Shared
from data_plane.proxy.upstream import UpstreamConnection

TICK_S = 0.1
SLOW_TICKS = 10
# The least rate of a body is asked of spans of this length: a radio link may well be silent for some seconds.
BODY_RATE_SPAN_S = 20.0
# A tick this much late says that the loop stood still, not that the peers did.
STALL_S = 3 * TICK_S


class Sweep:
    """The timer; `start` and `stop` belong to the factory's owner."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._timer: asyncio.TimerHandle | None = None
        self._ticks = 0

    def start(self) -> None:
        """Begin to tick."""
        self._shared.now = time.monotonic()
        self._timer = self._shared.loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Tick no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        shared = self._shared
        now = time.monotonic()
        stalled = now - shared.now > STALL_S
        shared.now = now
        self._timer = shared.loop.call_later(TICK_S, self._tick)
        if stalled:
            return
        self.sweep_busy(now)
        self._ticks += 1
        if self._ticks % SLOW_TICKS == 0:
            self.sweep_slow(now)

    def sweep_busy(self, now: float) -> None:
        """Strike at upstreams that keep a request waiting."""
        for upstream in list(self._shared.upstreams):
            self._busy(upstream, now)

    def _busy(self, upstream: UpstreamConnection, now: float) -> None:
        exchange = upstream.exchange
        if exchange is None:
            return
        waiting = upstream.transport.get_write_buffer_size()
        if waiting:
            if waiting != upstream.stalled_bytes:
                upstream.stalled_bytes = waiting
                upstream.active_at = now
                return
            limit = exchange.write_timeout_s
        elif exchange.waits_for_client():
            # Its own limits strike: those of a body that doesn't come, or of an answer that isn't taken.
            upstream.active_at = now
            return
        else:
            limit = exchange.read_timeout_s
        if now - upstream.active_at > limit + TICK_S:
            exchange.timed_out()

    def sweep_slow(self, now: float) -> None:
        """Strike at clients that hold a connection and do nothing, and at idle upstream connections grown old."""
        shared = self._shared
        for connection in list(shared.clients):
            self._client(connection, now)
        idle_s = shared.settings.upstream_keepalive_idle_timeout_s
        for upstream in list(shared.upstreams):
            if upstream.exchange is None and (
                upstream.endpoint.retired or (idle_s and now - upstream.active_at > idle_s)
            ):
                upstream.close()

    def _too_slow(self, connection: ClientConnection, now: float) -> bool:
        """Tell whether a body has come slower than the least rate for as long as that is looked at."""
        rate_min = self._shared.settings.body_rate_min_bytes
        span_s = now - connection.rate_at
        if not rate_min or span_s < BODY_RATE_SPAN_S or connection.may_pause:
            return False
        return connection.measure_body(now) < rate_min * span_s

    def _client(self, connection: ClientConnection, now: float) -> None:
        settings = self._shared.settings
        state = connection.state
        quiet_s = now - connection.active_at - TICK_S
        if connection.write_paused or state == clients.LINGER:
            waiting = connection.transport.get_write_buffer_size()
            if waiting and waiting != connection.stalled_bytes:
                connection.stalled_bytes = waiting
                connection.active_at = now
            elif quiet_s > (settings.send_timeout_s if waiting else settings.drain_timeout_s):
                connection.transport.abort()
        elif state == clients.READY:
            if connection.has_partial_head:
                if quiet_s > settings.head_timeout_s:
                    connection.time_out()
            elif self._shared.idle_ends and quiet_s > SLOW_TICKS * TICK_S:
                connection.close_idle()
            elif connection.requests == 0:
                if quiet_s > settings.head_timeout_s:
                    # Without a word, as nginx does: a client that opens connections in advance would take a 408 for
                    # the answer to the request that it sends a moment later.
                    connection.close_idle()
            elif quiet_s > settings.keepalive_timeout_s:
                connection.close_idle()
        elif state == clients.BODY:
            if connection.held:
                connection.measure_body(now)  # it is the upstream that takes its time
            elif quiet_s > settings.body_idle_timeout_s or self._too_slow(connection, now):
                connection.time_out()
        elif state == clients.DRAIN and quiet_s > settings.drain_timeout_s:
            connection.end()
