"""One client connection: reads requests one after the other, and owns when it is kept and when it ends.

    READY --head--> BODY --complete--> WAIT --answered--> READY
      |               `--answered early--> DRAIN --complete--> READY
      `--malformed, or not to be kept--> LINGER --end of stream, or time--> closed

Requests are answered in order: while one is under way, what the client sends ahead stays in a bounded buffer and the
socket is not read. The client's half-close is obeyed: a request it sent before is still answered. Time limits are
enforced by the sweep, by `active_at` and `state`.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import re
import termios
import time
from typing import TYPE_CHECKING

from data_plane.proxy import answers
from data_plane.proxy.answer_head import own_answer
from data_plane.proxy.chunks import BadChunk
from data_plane.proxy.connection import Connection
from data_plane.proxy.exchange import Exchange
from data_plane.proxy.forwarding import (
    PeerLines,
    debug_lines,
    fenced_plan,
    last_hop_plan,
    make_plan,
    redirect_location,
    trusted_value,
)
from data_plane.proxy.head import BadRequest, RequestHead
from data_plane.proxy.request_body import RequestBody
from data_plane.proxy.tls import ServerSide

if TYPE_CHECKING:
    from data_plane.proxy.shared import Shared
    from data_plane.proxy.tables import Plan, PlanKey, Tables

logger = logging.getLogger(__name__)

READY = 0
BODY = 1
WAIT = 2
DRAIN = 3
LINGER = 4
TUNNEL = 5
CLOSED = 6

DOING = (
    "between requests",
    "sending a body",
    "waiting for an answer or taking it",
    "sending the rest of a body",
    "ending",
    "in tunnels",
    "closed",
)
"""The states above in words."""

# Reasons not to read from the client, as bits.
_HELD_AHEAD = 1
_HELD_UPSTREAM = 2

# A plan for a trusted peer that says `https` is another plan than that for the listener's own scheme; ports end below.
_SAID_HTTPS = 1 << 16
# Two listeners may have the same port on different addresses, one of them with TLS.
_ENCRYPTED = 1 << 17

# Octets thrown away while a connection ends, so that the client reads the answer rather than a reset. Time ends it
# sooner for all but the fastest.
LINGER_BYTES_MAX = 256 << 20

_CR = 13
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _has_unread(transport: asyncio.Transport) -> bool:
    """Tell whether the kernel holds octets of this connection that the loop has not read."""
    connection = transport.get_extra_info("socket")
    descriptor = connection.fileno() if connection is not None else -1
    if descriptor < 0:
        return False
    count = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, count)
    return count[0] > 0


class ClientConnection(Connection):
    """See the module. `body` is made for the first request that has one."""

    __slots__ = (
        "_advancing",
        "_buffer",
        "_drained",
        "_exchange",
        "_half_closed",
        "_held",
        "_plan",
        "_port_key",
        "_seen",
        "_shared",
        "body",
        "head",
        "keep",
        "peer",
        "port",
        "rate_at",
        "rate_bytes",
        "requests",
        "scheme",
        "sni",
        "speaks_for",
        "state",
        "write_paused",
    )

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self._shared = shared
        self._exchange = Exchange(self, shared)
        self.head = RequestHead()
        self.state: int = READY
        self.active_at = shared.now
        self.requests: int = 0
        self.keep: bool = True
        self.write_paused: bool = False
        self.port: int = 0
        self.rate_at: float = 0.0
        self.rate_bytes: int = 0
        self._port_key: int = 0
        self.scheme: str = shared.scheme
        self.sni: bytes = b""
        self.speaks_for: str = ""
        self.peer: PeerLines
        self._plan: Plan | None = None
        self._buffer: bytes = b""
        self._seen: int = 0
        self._held: int = 0
        self._half_closed: bool = False
        self._advancing: bool = False
        self._drained: int = 0
        self.body: RequestBody | None = None

    @property
    def has_partial_head(self) -> bool:
        """Whether a head has begun and isn't complete."""
        return self._seen > 0

    @property
    def held(self) -> bool:
        """Whether this connection is not read at the moment, for whatever reason."""
        return self._held != 0

    def measure_body(self, now: float) -> int:
        """Return the octets that the request under way has brought since the last measure, and begin the next."""
        brought = self._exchange.bytes_in - self.rate_bytes
        self.rate_at = now
        self.rate_bytes = self._exchange.bytes_in
        return brought

    @property
    def may_pause(self) -> bool:
        """Whether the body under way may be a stream with pauses: its route does not wait for the end of it."""
        return self._plan is not None and not self._plan.buffered

    # What the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        shared = self._shared
        self.begin_on(transport, shared.settings.write_buffer_bytes_max)
        peer = transport.get_extra_info("peername")
        self.peer = PeerLines(peer[0] if peer else "", shared.settings, speaks_for=self.speaks_for)
        local = transport.get_extra_info("sockname")
        port = local[1] if local else 0
        self.port = self._port_key = shared.ports.get(port, port)
        encrypted = transport.get_extra_info("ssl_object")
        if encrypted is not None:
            self.scheme = "https"
            self._port_key |= _ENCRYPTED | _SAID_HTTPS
            self.sni = encrypted.client_name.encode("latin-1", "replace") if isinstance(encrypted, ServerSide) else b""
        if shared.greetings:
            shared.greetings.pop(id(self), None)
        shared.clients.add(self)
        shared.counters.connections_accepted += 1
        shared.counters.connections_open += 1

    def data_received(self, data: bytes) -> None:
        state = self.state
        if state == READY:
            if not self._seen:
                self.active_at = self._shared.now
            self._buffer = self._buffer + data if self._buffer else data
            self._advance()
            return
        if state == LINGER:
            # Its time does not start anew with what comes.
            self._drained += len(data)
            if self._drained > LINGER_BYTES_MAX:
                self.transport.abort()
            return
        if state == DRAIN:
            self._drain(data)
            return
        self.active_at = self._shared.now
        if state == WAIT:
            # The next request, ahead of its time: kept, and no more is read until it is its turn.
            self._buffer += data
            self._hold(_HELD_AHEAD)
        elif state == BODY:
            self._guarded_body(data)
        elif state == TUNNEL:
            self._exchange.bytes_in += len(data)
            self._exchange.send_body([data])

    def eof_received(self) -> bool:
        self._half_closed = True
        state = self.state
        if state == WAIT:
            self.keep = False
            return self.transport.can_write_eof()  # TLS has no half-close here: its end is the end
        if state == BODY:
            # Half a request is none: nothing of it must reach an upstream as if it were whole.
            self._abandon()
        elif state == TUNNEL:
            upstream = self._exchange.upstream
            if upstream is not None and upstream.transport.can_write_eof():
                upstream.transport.write_eof()
                return self.transport.can_write_eof()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._abandon()
        self.state = CLOSED
        self._shared.clients.discard(self)
        self._shared.counters.connections_open -= 1

    def pause_writing(self) -> None:
        self.write_paused = True
        self.active_at = self._shared.now
        self.stalled_bytes = self.transport.get_write_buffer_size()
        upstream = self._exchange.upstream
        if upstream is not None:
            upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        upstream = self._exchange.upstream
        if upstream is not None:
            upstream.active_at = self._shared.now
            upstream.transport.resume_reading()
        elif self.state == READY:
            self._advance()

    # Requests

    def _advance(self) -> None:
        """Begin the requests in the buffer, until one is under way or there is no whole head left."""
        if self._advancing:
            return
        self._advancing = True
        try:
            while self.state == READY and self._buffer and not self.write_paused and self._next_request():
                pass
        except BadRequest as bad:
            self._shared.counters.requests_malformed += 1
            self._refuse(bad.status, bad.message, bad.head)
        except Exception:
            logger.exception("request could not be handled (%s)", self._exchange.describe())
            self._crashed()
        finally:
            self._advancing = False
        if self.state == READY and (self._held or self.write_paused):
            if self.write_paused and self._buffer:
                # Requests whose answers aren't taken: no more of them is read, or the buffer would have no bound.
                self._hold(_HELD_AHEAD)
            elif self._held & _HELD_AHEAD:
                self._release(_HELD_AHEAD)

    def _next_request(self) -> bool:
        """Take one head off the buffer and begin its request; False when it is not complete yet."""
        data = self._buffer
        seen = self._seen
        shared = self._shared
        if data[0] == _CR:
            # Empty lines before a request are forgiven (RFC 9112 §2.2): some clients send one after a body.
            empty = _EMPTY_LINES.match(data)
            if empty is not None:
                self._buffer = data = data[empty.end() :]
                self._seen = seen = 0
        head = self.head
        end = shared.request_scanner.end_of(data, seen, head)
        if end < 0:
            shared.request_scanner.check_incomplete(data, seen)
            # From here on `active_at` stands still: the limit is for the whole head, not for the pauses in it.
            self._seen = len(data)
            return False
        self._buffer = data[end + 4 :]
        self._seen = 0
        exchange = self._exchange
        exchange.started_at = now = time.monotonic()
        exchange.plan = None
        exchange.code = 0
        exchange.bytes_in = end + 4
        exchange.bytes_out = 0
        try:
            shared.request_scanner.scan(data, end, head)
        except BadRequest as bad:
            bad.head = data[:end]
            raise
        exchange.request_id = shared.request_id()
        active = shared.active
        if now >= active.due:
            active.turn()
        tables = active.tables
        assert tables is not None  # no listener is open before the first config is active
        exchange.version = tables.version
        self.requests = requests = self.requests + 1
        counters = shared.counters
        counters.requests += 1
        self.keep = head.keep_alive and requests < shared.keepalive_requests_max and not self._half_closed
        plan = self._match(tables, head)
        fenced = active.fenced
        if fenced and plan.service is not None and plan.service.config.id in fenced:
            plan = fenced_plan(plan)
        if head.last_hop and not plan.status:
            plan = last_hop_plan(plan)
        exchange.plan = plan
        counters.in_flight += 1
        if head.chunked or head.length > 0:
            self._begin_body(plan, head)
        else:
            self.state = WAIT
            if plan.status:
                self._answer_plan(plan)
            else:
                exchange.start(plan, head, b"" if head.length < 0 else b"Content-Length: 0", b"", False)
        return True

    def _match(self, tables: Tables, head: RequestHead) -> Plan:
        if head.trusted is None and not tables.header_names and not self.sni:
            key = (head.method, head.path, head.host, self._port_key)
            return tables.plans.young.get(key) or self._plan_for(tables, head, key, self.scheme)
        return self._match_by_more(tables, head)

    def _match_by_more(self, tables: Tables, head: RequestHead) -> Plan:
        """Find the plan of a request of which more may count than method, path, host and port."""
        port = self._port_key
        proto = self.scheme
        if head.trusted is not None and self.peer.trusted:
            said = trusted_value(head, b"x-forwarded-proto")
            if said:
                proto = said.decode("latin-1")
                port = port | _SAID_HTTPS if proto == "https" else port & ~_SAID_HTTPS
        for name in tables.header_names:
            if head.values(name):
                return self._make_plan(tables, head, proto)
        host = head.host
        if self.sni and tables.router.sni_matters:
            host += b"\0" + self.sni
        return self._plan_for(tables, head, (head.method, head.path, host, port), proto)

    def _plan_for(self, tables: Tables, head: RequestHead, key: PlanKey, proto: str) -> Plan:
        plan = tables.plans.get(key)
        if plan is None:
            plan = self._make_plan(tables, head, proto)
            if plan.remembered:
                tables.plans.put(key, plan)
        return plan

    def _make_plan(self, tables: Tables, head: RequestHead, proto: str) -> Plan:
        shared = self._shared
        plan = make_plan(tables, head, scheme=self.scheme, proto=proto.encode(), port=self.port, sni=self.sni)
        route = plan.route
        if route is not None:
            service = tables.services.get(route.service)
            name = (service.config.name or service.config.host) if service is not None else ""
            plan.traffic = shared.counters.traffic.of(name, route.name or route.id)
            if service is not None:
                service.count_in(shared.counters.sides)
            if shared.settings.allow_debug_header:
                plan.debug = debug_lines(route, service)
        return plan

    # Request bodies

    def _begin_body(self, plan: Plan, head: RequestHead) -> None:
        settings = self._shared.settings
        self.state = BODY
        self._plan = plan
        body = self.body
        if body is None:
            body = self.body = RequestBody(self._shared)
        body.begin(head, buffered=plan.buffered)
        if settings.body_bytes_max and head.length > settings.body_bytes_max:
            self.state = WAIT
            self._shared.counters.requests_malformed += 1
            self._refuse_in_flight(413, "Payload too large")
            return
        self.rate_at = self._shared.now
        self.rate_bytes = self._exchange.bytes_in
        if plan.status:
            if head.expect_continue and not self._buffer:
                # It may or may not send the body now, so what comes next can't be told apart.
                self.keep = False
            self._answer_plan(plan)
            return
        if head.expect_continue and not self._buffer:
            self.transport.write(_CONTINUE)
        data, self._buffer = self._buffer, b""
        self._guarded_body(data)

    def _guarded_body(self, data: bytes) -> None:
        try:
            self._body(data)
        except BadChunk as bad:
            self._shared.counters.requests_malformed += 1
            self._refuse_in_flight(bad.status, bad.message)
        except Exception:
            logger.exception("request body could not be handled (%s)", self._exchange.describe())
            self._crashed()

    def _body(self, data: bytes) -> None:
        exchange = self._exchange
        body = self.body
        plan = self._plan
        assert body is not None
        assert plan is not None
        pieces, complete = body.feed(data)
        if complete:
            # What is in the buffer now belongs to the next request, whose turn comes with `request_done`.
            self._buffer = body.rest
            self.state = WAIT
        exchange.bytes_in += len(data) - len(self._buffer)
        if body.streaming:
            if pieces:
                exchange.send_body(pieces)
            if complete:
                exchange.end_body(body.trailers)
            return
        body.gather(pieces)
        if complete:
            line, content = body.take()
            exchange.start(plan, self.head, line, content, False)
        elif not body.waits():
            body.streaming = True
            exchange.stream_chunked = body.chunked
            line, content = body.take_begun()
            if body.chunked:
                exchange.start(plan, self.head, line, b"", True)
                if content:
                    exchange.send_body([content])
            else:
                exchange.start(plan, self.head, line, content, True)

    # Answers

    def debug_lines(self) -> tuple[bytes, ...]:
        """Return the lines that tell which route and service were matched, if the client asks for them."""
        plan = self._exchange.plan
        return plan.debug if plan is not None and plan.debug and self.head.values(b"kong-debug") else ()

    def will_keep(self, *, close_delimited: bool) -> bool:
        """Decide, when an answer's head is composed, whether the connection goes on after it."""
        if close_delimited or self._shared.draining:
            self.keep = False
        elif self.keep and self.state == BODY and self.body is not None:
            # More than would be drained is still to come: say now that this is the last answer.
            self.keep = self.body.may_be_drained()
        return self.keep

    def _answer_plan(self, plan: Plan) -> None:
        """Answer what the router decided: no route, no service, wrong protocol."""
        if plan.status in (301, 302, 307, 308):
            location = redirect_location(self.head, trusted=self.peer.trusted)
            self._write_answer(
                plan.status,
                answers.redirect_type(plan.status),
                answers.redirect_body(plan.status),
                (b"Location: " + location,),
            )
            self.request_done()
        else:
            self.answer(plan.status, plan.message, engine=False, fields=plan.fields)

    def answer(
        self, status: int, message: str, *, engine: bool, proxied: bool = False, fields: tuple[bytes, ...] = ()
    ) -> None:
        """Answer the request under way by ourselves and be done with it."""
        self._write_message(status, message, engine=engine, proxied=proxied, fields=fields)
        self.request_done()

    def _write_message(
        self, status: int, message: str, *, engine: bool, proxied: bool = False, fields: tuple[bytes, ...] = ()
    ) -> None:
        """Write an answer in the form that the request under way asks for."""
        content_type = answers.answer_type(self.head, engine=engine)
        if content_type == answers.GRPC:
            fields = (*fields, *answers.grpc_fields(status, message))
        body = answers.body(content_type, message, self._exchange.request_id.decode())
        self._write_answer(status, content_type.encode(), body, fields, proxied=proxied)

    def _write_answer(
        self, status: int, content_type: bytes, body: bytes, fields: tuple[bytes, ...], *, proxied: bool = False
    ) -> None:
        shared = self._shared
        exchange = self._exchange
        shared.counters.answers_own += 1
        exchange.code = status << 1 | 1
        lines = own_answer(
            shared,
            exchange,
            status,
            content_type,
            size=len(body),
            fields=fields,
            keep=self.will_keep(close_delimited=False),
            proxied=proxied,
            debug=self.debug_lines() if shared.settings.allow_debug_header else (),
        )
        if shared.access_log is not None:
            exchange.answer_lines = tuple(lines)
        lines.append(b"")
        lines.append(body if self.head.method != b"HEAD" else b"")
        data = b"\r\n".join(lines)
        exchange.bytes_out += len(data)
        self.transport.write(data)

    def _refuse(self, status: int, message: str, head: bytes = b"") -> None:
        """Answer what can't be handled; the connection ends with it, since nobody knows where the next one begins.

        `head` is what came, as far as it may say in which form it wants the answer.
        """
        shared = self._shared
        exchange = self._exchange
        exchange.request_id = shared.request_id()
        exchange.started_at = time.monotonic()
        exchange.plan = None
        exchange.bytes_in = exchange.bytes_out = 0
        self.keep = False
        self.head.method = b""
        self.head.block = head
        self.head.ending = b""
        self._write_message(status, message, engine=True)
        if shared.access_log is not None:
            exchange.log(shared.access_log, time.monotonic())
        self._linger()

    def _refuse_in_flight(self, status: int, message: str) -> None:
        """The request can't go on: answer that, unless an answer has begun, and end the connection."""
        exchange = self._exchange
        body = self.body
        answering = exchange.answering and body is not None and body.streaming
        exchange.abandon()
        if body is not None:
            body.forget()
        self.keep = False
        if answering:
            self.cut()
            return
        self._write_message(status, message, engine=True)
        self._shared.counters.in_flight -= 1
        exchange.settle()
        self._linger()

    def _crashed(self) -> None:
        """Something of ours failed on this request: it alone pays."""
        self._shared.counters.errors_internal += 1
        if self.state in (BODY, WAIT):
            self._refuse_in_flight(500, answers.UNEXPECTED)
        elif self.state == READY:
            self._refuse(500, answers.UNEXPECTED)
        else:
            self.transport.abort()

    def cut(self) -> None:
        """End the connection inside an answer, such that the client can't take it for whole."""
        if self.state in (BODY, WAIT, TUNNEL):
            self._shared.counters.in_flight -= 1
            self._exchange.settle()
        self.state = LINGER
        if self.head.http10:
            # Its end is the end of the connection, so only a reset tells that it isn't.
            self.transport.abort()
        else:
            self.transport.close()

    def request_done(self) -> None:
        """The answer to the request under way has been handed to the transport completely."""
        self._shared.counters.in_flight -= 1
        self._exchange.settle()
        if self.state == BODY:
            self._end_early()
        elif not self.keep:
            if self._buffer or self._held:
                self._linger()
            else:
                self.state = LINGER
                self.transport.close()
        else:
            self.state = READY
            if self._held & _HELD_UPSTREAM:
                self._release(_HELD_UPSTREAM)
            if self._buffer:
                self._advance()

    def _end_early(self) -> None:
        """The answer is out while the body is still coming: read it to its end if that is near, else end."""
        body = self.body
        assert body is not None
        body.drop()
        if self._held & _HELD_UPSTREAM:
            self._release(_HELD_UPSTREAM)
        if not self.keep:
            self._linger()
            return
        self.state = DRAIN
        self.active_at = self._shared.now
        self._drained = 0
        data, self._buffer = self._buffer, b""
        if data:
            self._drain(data)

    def _drain(self, data: bytes) -> None:
        body = self.body
        assert body is not None
        self._drained += len(data)
        try:
            end = body.drained(data)
        except BadChunk:
            self._linger()
            return
        if end >= 0:
            self.state = READY
            self._buffer = data[end:]
            self._advance()
        elif self._drained > self._shared.settings.drain_bytes_max:
            self._linger()

    # The end

    def _linger(self) -> None:
        """Send what there is and the end, then read on for a while: closing at once would make unread octets reset
        the connection, and the reset overtake the answer."""
        self.state = LINGER
        self.active_at = self._shared.now
        self._drained = 0
        self._buffer = b""
        if self.body is not None:
            self.body.forget()
        if self._half_closed or not self.transport.can_write_eof():
            self.transport.close()
            return
        if self._held:
            self._release(self._held)
        self.transport.write_eof()

    def close_idle(self) -> None:
        """End a connection on which no request is under way.

        One that has octets waiting in the socket is not idle, only not read yet: closing it would reset a request that
        its client has sent in good faith. It is left alone and read in a moment.
        """
        if not _has_unread(self.transport):
            self.end()

    def end(self) -> None:
        """Close, whatever the client may still send."""
        self.state = LINGER
        self.transport.close()

    def time_out(self) -> None:
        """Answer 408 to a head or body that doesn't come."""
        self._shared.counters.requests_malformed += 1
        if self.state == READY:
            self._refuse(408, "Request timeout")
        else:
            self._refuse_in_flight(408, "Request timeout")

    def _abandon(self) -> None:
        """The client is gone, or its request can't be completed."""
        if self.state in (BODY, WAIT, TUNNEL):
            self._shared.counters.in_flight -= 1
            self._exchange.abandon()
            self._exchange.settle()
        self.state = LINGER
        self._buffer = b""
        if self.body is not None:
            self.body.forget()

    # Flow

    def upstream_stalled(self) -> None:
        """The upstream takes nothing more: stop reading the body."""
        if self.state in (BODY, TUNNEL):
            self._hold(_HELD_UPSTREAM)

    def upstream_flows(self) -> None:
        """It does again."""
        if self._held & _HELD_UPSTREAM:
            self._release(_HELD_UPSTREAM)

    def _hold(self, reason: int) -> None:
        if not self._held:
            self.transport.pause_reading()
        self._held |= reason

    def _release(self, reason: int) -> None:
        self._held &= ~reason
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    # Tunnels

    def begin_tunnel(self, data: bytes) -> None:
        """Send the 101 and pass on what comes from now on, what came ahead first."""
        self.state = TUNNEL
        self.keep = False
        self._exchange.bytes_out += len(data)
        self.transport.write(data)
        ahead, self._buffer = self._buffer, b""
        if ahead:
            self._exchange.send_body([ahead])
        if self._held:
            self._release(self._held)

    def tunnel_ended(self) -> None:
        """The other end is closed: so is this."""
        self._shared.counters.in_flight -= 1
        self._exchange.settle()
        self.state = LINGER
        self.transport.close()
