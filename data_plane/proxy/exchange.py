"""One request on its way: attempts, what is sent to whom, and the answer's head.

An exchange belongs to a client connection and is used again for each of its requests. It picks endpoints, repeats what
may be repeated (spec/retries-timeouts.md §2-§4), and composes both heads; `upstream.py` moves the answer's bytes,
`client.py` the request's. The endpoint picked is held from `take` to exactly one `release`, whatever happens: only
`_release` and `finished` end that, and every way out goes through one of them.

What may be repeated: an attempt of which nothing was sent, always; after that only if the method is not POST, LOCK or
PATCH, or if it is proved that none of it arrived (`unread.py`), and only while the body is all here (none, or
gathered). An answer begun is never repeated.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from data_plane.balancer.endpoint import NoEndpoint
from data_plane.balancer.upstream import Upstream
from data_plane.observe.access_log import AccessLog, Attempt
from data_plane.observe.side_counts import QUICK_MS, SideCounts
from data_plane.observe.traffic import CLIENT_GONE, PROXIED_OK, QUICK_KONG_S, QUICK_REQUEST_S
from data_plane.proxy import pool
from data_plane.proxy.answer_head import CLOSE, KEEP_ALIVE, UPGRADE, add_tail
from data_plane.proxy.answers import ENGINE_MESSAGES
from data_plane.proxy.choosing import Choice
from data_plane.proxy.chunks import LAST_CHUNK, last_chunk
from data_plane.proxy.forwarding import forwarded_by_trusted
from data_plane.proxy.logged import record_of
from data_plane.proxy.settings import STREAM_BYTES
from data_plane.proxy.shared import LATENCIES_READY, LEAST_LATENCY_S
from data_plane.proxy.upstream import CLOSED
from data_plane.proxy.upstream_tls import server_name

if TYPE_CHECKING:
    from data_plane.balancer.endpoint import Endpoint
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.head import RequestHead
    from data_plane.proxy.response_head import ResponseHead
    from data_plane.proxy.shared import Shared
    from data_plane.proxy.tables import Balancer, Plan, ServiceRuntime
    from data_plane.proxy.upstream import UpstreamConnection
    from data_plane.proxy.upstream_tls import Identity

logger = logging.getLogger(__name__)

_NOTHING: list[bytes] = []

# Where the Host line stands among the pieces of a request head.
_HOST_AT = 1


class Exchange:
    """See the module. `streaming` = the body goes on as it comes; else it is none or all among `_pieces`.

    For what is counted and logged about the request under way: its `plan`; the `code` sent, status * 2 and + 1 when the
    answer is our own, 0 = nothing yet; `proxy_s` and `upstream_s`, once an upstream answered; the octets of the request
    read (`bytes_in`) and of the answer handed to the transport (`bytes_out`). `attempts` and `answer_lines` are kept
    for the access log only.
    """

    __slots__ = (
        "_attempts",
        "_body_flowed",
        "_choice",
        "_client",
        "_connecting",
        "_endpoint",
        "_last_chunk",
        "_pending",
        "_pending_bytes",
        "_pieces",
        "_sent",
        "_service",
        "_shared",
        "_stale_retry",
        "_status",
        "_tried",
        "_unbuffered_body",
        "answer_lines",
        "answering",
        "attempts",
        "balanced_at",
        "bytes_in",
        "bytes_out",
        "code",
        "http10",
        "is_head",
        "plan",
        "proxy_s",
        "request_id",
        "request_sent",
        "started_at",
        "stream_chunked",
        "streaming",
        "te_trailers",
        "upstream",
        "upstream_s",
        "version",
        "websocket",
    )

    def __init__(self, client: ClientConnection, shared: Shared) -> None:
        self._client = client
        self._shared = shared
        self._service: ServiceRuntime
        self._endpoint: Endpoint | None = None
        self._choice: Choice | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._pieces: list[bytes] = []
        self._last_chunk: bytes = LAST_CHUNK
        self._pending: list[bytes] = []
        self._pending_bytes: int = 0
        self._tried: list[Endpoint] = []
        self._attempts: int = 0
        self._sent: bool = False
        self._stale_retry: bool = False
        self._body_flowed: bool = False
        self._unbuffered_body: bool = False
        self._status: int = 0
        self.balanced_at: float = 0.0
        self.upstream: UpstreamConnection | None = None
        self.answering: bool = False
        self.request_sent: bool = False
        self.streaming: bool = False
        self.stream_chunked: bool = False
        self.is_head: bool = False
        self.http10: bool = False
        self.te_trailers: bool = False
        self.websocket: bool = False
        self.request_id: bytes = b""
        self.started_at: float = 0.0
        self.version: int = 0
        self.plan: Plan | None = None
        self.code: int = 0
        self.proxy_s: float = 0.0
        self.upstream_s: float = 0.0
        self.bytes_in: int = 0
        self.bytes_out: int = 0
        self.answer_lines: tuple[bytes, ...] = ()
        self.attempts: list[Attempt] = []

    @property
    def side(self) -> SideCounts | None:
        """Where the request under way is counted."""
        return self._service.figures

    @property
    def side_name(self) -> str:
        """The upstream that the request was sent to; empty when it was sent to none, or kept for no access log."""
        return self._service.side_name if self.attempts else ""

    def describe(self) -> str:
        """Say for the log which route and version this request is served by."""
        plan = self.plan
        route = plan.route if plan is not None else None
        return f"route {(route.name or route.id) if route is not None else '-'}, version {self.version}"

    @property
    def read_timeout_s(self) -> float:
        """How long the upstream may be silent."""
        return self._service.read_timeout_s

    @property
    def write_timeout_s(self) -> float:
        """How long the upstream may take nothing."""
        return self._service.write_timeout_s

    def waits_for_client(self) -> bool:
        """Whether it is the client's turn: its body is not complete, or it does not take the answer."""
        return self._client.write_paused or (not self.request_sent and not self.answering)

    # Beginning

    def start(self, plan: Plan, head: RequestHead, body_line: bytes, content: bytes, streaming: bool) -> None:
        """Send the request on; `body_line` frames its body, `content` is what is here of it (all, unless streaming)."""
        service = plan.service
        assert service is not None
        client = self._client
        mirror: ServiceRuntime | None = None
        if service.sides is not None:
            sides = service.sides
            other = sides.other(plan, client)
            if other is not None:
                service = other
            else:
                mirror = sides.mirrored_to()
        self._service = service
        self.is_head = plan.is_head
        self.http10 = head.http10
        self.te_trailers = head.te_trailers
        self.websocket = head.websocket
        self.streaming = streaming
        self.request_sent = not streaming
        self._attempts = 0
        balancer = service.balancer
        self._choice = None if balancer.plain else self._choose(balancer, plan)
        self._body_flowed = False
        self._unbuffered_body = not plan.buffered and bool(content)
        self._stale_retry = False
        if self._tried:
            self._tried = []
        peer = client.peer
        if head.usual and not peer.asks_requests:
            forwarded, said = plan.forwarded, peer.common
        else:
            forwarded, said = plan.forwarded, peer.lines(head)
            if head.trusted is not None and peer.trusted:
                forwarded = forwarded_by_trusted(plan, head.trusted)
        query = head.query
        pieces = [
            plan.start + query + b" HTTP/1.1" if query else plan.line,
            plan.host_line,
            forwarded,
            said,
            *head.segments,
        ]
        if self._shared.request_id_upstream:
            pieces.append(b"X-Kong-Request-Id: " + self.request_id)
        if body_line:
            pieces.append(body_line)
        if streaming and content:
            self._pending.append(content)
            self._pending_bytes = len(content)
            content = b""
        pieces += (b"", content)
        self._pieces = pieces
        if mirror is not None:
            if streaming:
                self._shared.mirroring.skip(mirror)
            else:
                self._shared.mirroring.offer(mirror, plan, client, pieces)
        self._attempt()

    def _choose(self, balancer: Balancer, plan: Plan) -> Choice:
        assert isinstance(balancer, Upstream), "only upstreams look at more than whose turn it is"
        return Choice(balancer, plan, self._client)

    # Attempts

    def _attempt(self) -> None:
        service = self._service
        balancer = service.balancer
        choice = self._choice
        try:
            endpoint = balancer.pick(self._tried) if choice is None else balancer.pick(self._tried, choice.key)
        except NoEndpoint as none:
            self._no_endpoint(none)
            return
        balancer.take(endpoint)
        self._endpoint = endpoint
        self._attempts += 1
        self.balanced_at = now = time.monotonic()
        if self._shared.access_log is not None:
            self.attempts.append(Attempt(endpoint.ip, endpoint.port, now))
        self._sent = False
        identity = None if service.tls is None else self._identity(endpoint)
        upstream = pool.take_idle(self._shared, endpoint, identity)
        if upstream is not None:
            self._send(upstream)
        else:
            self._connect(endpoint)

    def _connect(self, endpoint: Endpoint) -> None:
        timeout_s = self._service.connect_timeout_s
        self._connecting = pool.connect(self._shared, self, endpoint, timeout_s, self._identity(endpoint))

    def _identity(self, endpoint: Endpoint) -> Identity | None:
        """The TLS identity of a connection to the endpoint, None for a service in the clear."""
        tls = self._service.tls
        if tls is None:
            return None
        plan = self.plan
        assert plan is not None
        line = plan.host_line or self._service.host_line(endpoint)
        return tls, server_name(line[len(b"Host: ") :])

    def connected(self, upstream: UpstreamConnection) -> None:
        """The connection asked for is there, or was: it may have been lost again before it could be used."""
        self._connecting = None
        if upstream.state == CLOSED:
            self.attempt_failed(502, stale=False)
            return
        self._send(upstream)

    def connect_failed(self, status: int) -> None:
        """It will not come: refused, unreachable (502), too slow (504), or nothing is left to make it with (503)."""
        self._connecting = None
        if status == 503:
            # No other endpoint could be asked either, and none is to be thought ill of for it, nor is its side.
            self._shared.counters.attempts_failed += 1
            self._release()
            self._forget()
            self._client.answer(503, ENGINE_MESSAGES[503], engine=True, proxied=True)
            return
        self.attempt_failed(status, stale=False)

    def _send(self, upstream: UpstreamConnection) -> None:
        self.upstream = upstream
        self._sent = True
        pieces = self._pieces
        plan = self.plan
        assert plan is not None
        if plan.host_line:
            pieces[_HOST_AT] = plan.host_line
        else:
            service = self._service
            endpoint = upstream.endpoint
            pieces[_HOST_AT] = service.host_lines.get(endpoint) or service.host_line(endpoint)
        data = b"\r\n".join(pieces)
        if self._pending:
            self._body_flowed = True
            data += self._framed(self._pending)
            self._pending = []
            self._pending_bytes = 0
            if self.request_sent and self.stream_chunked:
                data += self._last_chunk
        elif self.streaming and self.request_sent and self.stream_chunked:
            data += self._last_chunk
        upstream.send(self, data)
        client = self._client
        if client.write_paused:
            upstream.transport.pause_reading()
        if self.streaming:
            client.upstream_flows()

    def _framed(self, pieces: list[bytes]) -> bytes:
        if not self.stream_chunked:
            return b"".join(pieces)
        return b"".join([b"%x\r\n" % sum(map(len, pieces)), *pieces, b"\r\n"])

    @property
    def asks_once(self) -> bool:
        """Whether the method forbids to send the request again after it may have been read."""
        return self.plan is not None and not self.plan.replayable

    def request_bytes(self) -> int:
        """How many octets the attempt under way wrote, if they can be written again; else 0."""
        if not self._sent or self._body_flowed or not self._pieces:
            return 0
        return len(b"\r\n".join(self._pieces))

    def attempt_failed(self, status: int, *, stale: bool, unread: bool = False) -> None:
        """An attempt ended before its answer began. Repeat it if that is allowed, else answer `status`.

        `stale`: a reused connection died without an octet of answer, so the endpoint had most likely closed it while it
        was idle. That says nothing about the endpoint: once a request, the same one is asked again on a new
        connection, without counting as an attempt. `unread`: it is proved that nothing of the request arrived.
        """
        self.upstream = None
        self._shared.counters.attempts_failed += 1
        plan = self.plan
        assert plan is not None
        endpoint = self._endpoint
        assert endpoint is not None
        # The body of an unbuffered route is for the first endpoint that takes it, even one that happens to be here
        # still: or what becomes of a request would depend on how its body was cut into packets.
        once = self._unbuffered_body and not stale
        repeatable = not self._sent or (not self._body_flowed and (unread or (plan.replayable and not once)))
        if repeatable and stale and not self._stale_retry and not endpoint.retired:
            self._stale_retry = True
            self._shared.counters.retries += 1
            self._sent = False
            self._connect(endpoint)
            return
        self._service.figures.connect_errors += 1
        if self._choice is not None:
            self._choice.failed(endpoint, status, self.balanced_at)
        self._release()
        if repeatable and self._attempts < self._service.attempts_max:
            self._shared.counters.retries += 1
            self._tried.append(endpoint)
            self._attempt()
            return
        self._fail(status)

    def bad_answer(self, reason: str) -> None:
        """The upstream sent something that is no answer: 502 at once, and never again for this request."""
        logger.warning(
            "bad answer from %s: %s (%s)", self._endpoint.key if self._endpoint else "-", reason, self.describe()
        )
        self.upstream = None
        self._shared.counters.attempts_failed += 1
        self._broke_off(502)
        self._release()
        if self.answering:
            self._service.figures.broke_off(self.code >> 1)
            self._client.cut()
        else:
            self._service.figures.connect_errors += 1
            self._fail(502)

    def timed_out(self) -> None:
        """The sweep found the endpoint silent, or taking nothing, for too long."""
        upstream = self.upstream
        assert upstream is not None
        upstream.detach()
        if self.answering:
            self.cut("nothing more came in time", status=504)
        else:
            self.attempt_failed(504, stale=False)

    def crashed(self) -> None:
        """An error of ours; it was logged by who caught it."""
        self._shared.counters.errors_internal += 1
        self.upstream = None
        self._release()
        if self.answering:
            self._client.cut()
        else:
            self._fail(500)

    def cut(self, reason: str, *, status: int = 502) -> None:
        """The answer broke off after its head was out: the client must see that it is not whole.

        `status` is what the failure would have been answered with before that.
        """
        logger.warning(
            "answer from %s cut: %s (%s)", self._endpoint.key if self._endpoint else "-", reason, self.describe()
        )
        self.upstream = None
        self._service.figures.broke_off(self.code >> 1)
        self._broke_off(status)
        self._release()
        self._client.cut()

    def close_late(self) -> None:
        """End what is still open on a side that the service has left: its drain deadline is over.

        What has been handed to a transport still goes out. A tunnel ends in good order; of an answer the client must
        see that it is not whole; a request that has no answer yet gets ours.
        """
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        upstream = self.upstream
        self.upstream = None
        if upstream is not None:
            upstream.part()
        self._service.figures.closed_late += 1
        self._release()
        if not self.answering:
            self._forget()
            self._client.answer(504, ENGINE_MESSAGES[504], engine=True, proxied=True)
        elif upstream is not None and upstream.tunnels:
            self._forget()
            self._client.tunnel_ended()
        else:
            self._forget()
            self._client.cut()

    def abandon(self) -> None:
        """The client is gone, or its request can't be completed: stop everything."""
        if not self.code and self.request_sent and self._endpoint is not None:
            self._service.figures.left(time.monotonic() - self.balanced_at)
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        upstream = self.upstream
        if upstream is not None:
            self.upstream = None
            upstream.detach()
        self._release()
        self._forget()

    def _no_endpoint(self, none: NoEndpoint) -> None:
        self._service.figures.connect_errors += 1
        if self._attempts == 0:
            self._service.figures.failed()
            self._forget()
            self._client.answer(none.status, none.message, engine=False)
        else:
            # Found out while repeating: the general text, and the headers of a proxied request.
            self._fail(none.status)

    def _fail(self, status: int) -> None:
        if status != 500:  # which is no fault of the side
            self._service.figures.failed()
        self._forget()
        self._client.answer(status, ENGINE_MESSAGES[status], engine=True, proxied=True)

    def _broke_off(self, status: int) -> None:
        if self._choice is not None and self._endpoint is not None:
            self._choice.failed(self._endpoint, status, self.balanced_at)

    def _release(self) -> None:
        endpoint = self._endpoint
        if endpoint is not None:
            self._endpoint = None
            self._service.balancer.release(endpoint)

    def _forget(self) -> None:
        self._pieces = _NOTHING
        if self._pending:
            self._pending = []
            self._pending_bytes = 0

    # The request's body

    def send_body(self, pieces: list[bytes]) -> None:
        """Pass on a piece of a streaming body."""
        upstream = self.upstream
        if upstream is None:
            self._pending += pieces
            self._pending_bytes += sum(map(len, pieces))
            if self._pending_bytes >= STREAM_BYTES:
                self._client.upstream_stalled()
            return
        self._body_flowed = True
        upstream.active_at = self._shared.now
        upstream.transport.write(self._framed(pieces))

    def end_body(self, trailers: list[bytes]) -> None:
        """The streaming body is complete; `trailers` are those of its fields that may go on."""
        self.request_sent = True
        self._last_chunk = last_chunk(trailers)
        upstream = self.upstream
        if upstream is not None:
            upstream.active_at = self._shared.now
            if self.stream_chunked:
                upstream.transport.write(self._last_chunk)

    def upstream_stalled(self) -> None:
        """The upstream takes nothing more for now."""
        self._client.upstream_stalled()

    def upstream_flows(self) -> None:
        """It does again."""
        self._client.upstream_flows()

    # The answer

    def begin_answer(self, head: ResponseHead, text: bytes) -> list[bytes]:
        """Return the lines of the answer's head: `text`, which is `head` as it goes on, and ours."""
        shared = self._shared
        client = self._client
        status = head.status
        self.answering = True
        balanced_at = self.balanced_at
        self.code = status << 1
        now = time.monotonic()
        self.upstream_s = upstream_s = now - balanced_at
        self.proxy_s = proxy_s = balanced_at - self.started_at
        ms = int(upstream_s * 1000)
        figures = self._service.figures
        figures.last_at = now
        if not figures.first_at:
            figures.first_at = now
        if ms < QUICK_MS and status < 500:
            figures.quick_ms[ms] += 1
        else:
            figures.answered(status, upstream_s)
        if self.request_sent and not self.http10 and not shared.draining:
            keep = client.keep
        else:
            keep = client.will_keep(close_delimited=self.http10 and self._close_delimits(head))
        if head.usual and shared.usual and ms < LATENCIES_READY and proxy_s < LEAST_LATENCY_S:
            lines = [
                text,
                shared.tail_keep if keep else shared.tail_close,
                shared.latency_lines[ms] + self.request_id,
            ]
        else:
            lines = [text]
            add_tail(self, shared, head, lines, KEEP_ALIVE if keep else CLOSE)
        if self._choice is not None and self._endpoint is not None:
            self._status = status
            self._choice.answering(self._endpoint, lines)
        if shared.allow_debug_header:
            lines += client.debug_lines()
        if shared.access_log is not None:
            self.answer_lines = tuple(lines)
        return lines

    def _close_delimits(self, head: ResponseHead) -> bool:
        """Tell whether for HTTP/1.0 only the end of the connection can end this answer: no length, and no chunks."""
        return not self.is_head and head.length < 0 and head.status not in (204, 304)

    def write(self, data: bytes) -> None:
        """Pass a piece of the answer to the client."""
        self.bytes_out += len(data)
        self._client.transport.write(data)

    def finished(self, reusable: UpstreamConnection | None) -> None:
        """The answer is out completely; the connection goes back to the pool before the next request may want it."""
        self.upstream = None
        if reusable is not None:
            if self._client.write_paused:
                # It was the client's slowness that stopped it, and the next one may be quick.
                reusable.transport.resume_reading()
            pool.give_back(self._shared, reusable)
        endpoint = self._endpoint
        assert endpoint is not None
        self._endpoint = None
        if self._choice is not None:
            self._choice.answered(endpoint, self._status, self.balanced_at)
        self._service.balancer.release(endpoint)
        self._pieces = _NOTHING
        if self._pending:
            self._forget()
        self._client.request_done()

    def settle(self) -> None:
        """Count the request under way, which ends here, whatever way it took. Called once for each."""
        now = time.monotonic()
        self.answering = False
        body = self._client.body
        if body is not None and body.reserved:
            body.free()
        plan = self.plan
        assert plan is not None
        traffic = plan.traffic
        if traffic is not None:
            code = self.code or CLIENT_GONE
            request_s = now - self.started_at
            traffic.bytes_in += self.bytes_in
            traffic.bytes_out += self.bytes_out
            if code == PROXIED_OK and request_s <= QUICK_REQUEST_S and self.proxy_s <= QUICK_KONG_S:
                traffic.quick += 1
                traffic.kong_s += self.proxy_s
                traffic.upstream_s += self.upstream_s
                traffic.request_s += request_s
            else:
                traffic.settled(code, self.proxy_s, self.upstream_s, request_s)
        shared = self._shared
        if shared.access_log is not None:
            self.log(shared.access_log, now)

    def log(self, access_log: AccessLog, now: float) -> None:
        """Put the request into the access log."""
        access_log.put(record_of(self, self._client, now))
        self.answer_lines = ()
        self.attempts = []

    # Tunnels

    def begin_tunnel(self, head: ResponseHead) -> None:
        """Both sides have agreed on WebSocket: from here on octets flow both ways unread."""
        lines = self.begin_answer(head, head.text + b"\r\nUpgrade: websocket")
        text = b"\r\n".join([*lines, b"", b""])
        self._client.begin_tunnel(text.replace(KEEP_ALIVE, UPGRADE, 1).replace(CLOSE, UPGRADE, 1))

    def tunnel_ended(self) -> None:
        """The upstream's end of a tunnel is closed."""
        self.upstream = None
        self._release()
        self._forget()
        self._client.tunnel_ended()
