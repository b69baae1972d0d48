"""One connection to an endpoint: sends a request, reads the answer, hands it on, and goes back to the pool.

    IDLE --send--> HEAD --head--> FIXED | CHUNKED | UNTIL_CLOSE --end--> IDLE or closed
                     `--101--> TUNNEL

The connection knows one `Exchange` (or a copy, see `Asker`) at a time and writes the answer straight to the exchange's
client, one write for what one read brought. It is used again only after an answer that ended exactly where its framing
said, and after a request that went out completely; anything else, a single octet too many included, ends it. Timeouts
are the sweep's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from typing_extensions import override

from data_plane.proxy.chunks import LAST_CHUNK, BadChunk, ChunkDecoder, last_chunk
from data_plane.proxy.connection import Connection
from data_plane.proxy.fields import without_fields
from data_plane.proxy.response_head import BadAnswer, ResponseHead
from data_plane.proxy.unread import ended_before

if TYPE_CHECKING:
    from data_plane.balancer.endpoint import Endpoint
    from data_plane.observe.side_counts import SideCounts
    from data_plane.proxy.shared import Shared
    from data_plane.proxy.upstream_tls import Identity

logger = logging.getLogger(__name__)

IDLE = 0
HEAD = 1
FIXED = 2
CHUNKED = 3
UNTIL_CLOSE = 4
TUNNEL = 5
CLOSED = 6

# Interim answers one request may bring; more is an upstream gone wild.
INTERIM_ANSWERS_MAX = 32

_CHUNKED_LINE = b"\r\nTransfer-Encoding: chunked"


class Asker(Protocol):
    """Whom a connection works for: a client's `Exchange`, or a copy of its request (`mirroring.py`).

    `side` is where what it does counts as open; None = nowhere. See `Exchange` for the rest.
    """

    http10: bool
    is_head: bool
    te_trailers: bool
    websocket: bool
    request_sent: bool

    @property
    def side(self) -> SideCounts | None: ...
    @property
    def asks_once(self) -> bool: ...
    @property
    def read_timeout_s(self) -> float: ...
    @property
    def write_timeout_s(self) -> float: ...
    def describe(self) -> str: ...
    def waits_for_client(self) -> bool: ...
    def request_bytes(self) -> int: ...
    def connected(self, upstream: UpstreamConnection) -> None: ...
    def connect_failed(self, status: int) -> None: ...
    def attempt_failed(self, status: int, *, stale: bool, unread: bool = False) -> None: ...
    def bad_answer(self, reason: str) -> None: ...
    def timed_out(self) -> None: ...
    def crashed(self) -> None: ...
    def cut(self, reason: str, *, status: int = 502) -> None: ...
    def upstream_stalled(self) -> None: ...
    def upstream_flows(self) -> None: ...
    def begin_answer(self, head: ResponseHead, text: bytes) -> list[bytes]: ...
    def write(self, data: bytes) -> None: ...
    def finished(self, reusable: UpstreamConnection | None) -> None: ...
    def begin_tunnel(self, head: ResponseHead) -> None: ...
    def tunnel_ended(self) -> None: ...
    def close_late(self) -> None: ...


class UpstreamConnection(Connection, asyncio.BufferedProtocol):
    """See the module. `active_at` is the coarse time of the last octet either way; `requests` counts from one."""

    __slots__ = (
        "_buffer",
        "_decoder",
        "_interim",
        "_keep",
        "_left",
        "_shared",
        "_unread",
        "endpoint",
        "exchange",
        "identity",
        "requests",
        "state",
    )

    def __init__(self, shared: Shared, endpoint: Endpoint, identity: Identity | None = None) -> None:
        super().__init__()
        self._shared = shared
        self.endpoint = endpoint
        self.identity = identity
        self.exchange: Asker | None = None
        self.state: int = IDLE
        self.requests: int = 0
        self._buffer: bytes = b""
        self._left: int = 0
        self._interim: int = 0
        self._keep: bool = False
        self._decoder: ChunkDecoder | None = None
        self._unread: bool = False

    # What the loop calls

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.begin_on(transport, self._shared.settings.write_buffer_bytes_max)
        self._shared.upstreams.add(self)
        counters = self._shared.counters
        counters.upstream_connections_open += 1
        counters.upstream_connections_opened += 1

    @override
    def get_buffer(self, sizehint: int) -> memoryview:
        # One buffer for all of a worker: what a read brought is taken out before the next one. The loop's own would
        # bring four times as much at once, which is what each client that does not take its answer would then hold.
        return self._shared.read_buffer

    @override
    def buffer_updated(self, nbytes: int) -> None:
        data = self._shared.read_buffer[:nbytes].tobytes()
        exchange = self.exchange
        if exchange is None:
            # Nothing was asked, so this is nobody's answer; it must never become the next client's.
            self.close()
            return
        self.active_at = self._shared.now
        try:
            state = self.state
            if state == HEAD:
                self._read_head(exchange, data)
            elif state == FIXED:
                self._read_fixed(exchange, data)
            elif state == CHUNKED:
                self._read_chunked(exchange, data, [])
            elif state == UNTIL_CLOSE:
                exchange.write(data if exchange.http10 else b"%x\r\n%b\r\n" % (len(data), data))
            else:
                exchange.write(data)
        except BadAnswer as bad:
            self.detach()
            exchange.bad_answer(str(bad))
        except BadChunk:
            self.detach()
            exchange.cut("its chunks are malformed, or their trailers or extensions too long")
        except Exception:
            logger.exception("answer of %s could not be handled (%s)", self.endpoint.key, exchange.describe())
            self.detach()
            exchange.crashed()

    @override
    def eof_received(self) -> bool:
        # Not left to the transport's own close: that would first wait for what is still to be written.
        exchange = self.exchange
        if exchange is None:
            self.close()
        else:
            # A fresh connection that ends at once is no race with the end of an idle one: no POST is repeated there.
            reused = self.state == HEAD and self.requests > 1 and self.identity is None
            if reused and self._silent() and exchange.asks_once:
                self._unread = ended_before(self.transport, exchange.request_bytes())
            self.transport.abort()
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._uncount()
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        state, self.state = self.state, CLOSED
        self.exchange = None
        if state == HEAD:
            exchange.attempt_failed(502, stale=self.requests > 1 and self._silent(), unread=self._unread)
        elif state == UNTIL_CLOSE and exc is None:
            exchange.write(b"" if exchange.http10 else LAST_CHUNK)
            exchange.finished(None)
        elif state == TUNNEL:
            exchange.tunnel_ended()
        else:
            exchange.cut("the connection ended inside it")

    @override
    def pause_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_stalled()

    @override
    def resume_writing(self) -> None:
        if self.exchange is not None:
            self.exchange.upstream_flows()

    # What exchanges and the pool call

    def send(self, exchange: Asker, data: bytes) -> None:
        """Begin a request; more of its body may follow through `transport.write`."""
        self.exchange = exchange
        self.state = HEAD
        self.requests += 1
        self.active_at = self._shared.now
        self._interim = 0
        self.transport.write(data)

    def detach(self) -> None:
        """Part with the exchange and end the connection: whatever comes now is of no use to anybody."""
        self.exchange = None
        self.state = CLOSED
        self.transport.abort()

    @property
    def tunnels(self) -> bool:
        """Whether octets flow both ways unread."""
        return self.state == TUNNEL

    def part(self) -> None:
        """Part with the exchange and end the connection once what is written has gone out."""
        self.exchange = None
        if self.state == TUNNEL:
            self.transport.close()
        else:
            self.state = CLOSED
            self.transport.abort()

    def forget(self) -> None:
        """Take back a connection that came to nothing while it was being opened."""
        self.state = CLOSED
        if self in self._shared.upstreams:
            self._uncount()
            self.transport.abort()

    def _silent(self) -> bool:
        """Tell whether nothing came for the request under way, when its head is awaited."""
        return not self._buffer and not self._interim

    def _uncount(self) -> None:
        upstreams = self._shared.upstreams
        if self in upstreams:
            upstreams.discard(self)
            self._shared.counters.upstream_connections_open -= 1

    def close(self) -> None:
        """End a connection that carries nothing; from now on it is not in the pool."""
        if self.state == IDLE:
            with contextlib.suppress(ValueError):
                self.endpoint.idle.remove(self)
        self.state = CLOSED
        self.transport.abort()

    # Reading

    def _read_head(self, exchange: Asker, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if data:
                    self._shared.response_scanner.check_incomplete(data)
                    self._buffer = data
                return
            head = self._shared.response_scanner.scan(data[:end])
            if head.status >= 200:
                break
            data = data[end + 4 :]
            if self._interim_answer(exchange, head):
                if data:
                    exchange.write(data)
                return
        start = end + 4
        size = len(data) - start
        length = head.length
        status = head.status
        self._keep = head.keep_alive
        if exchange.is_head or status in (204, 304):
            text = head.text
            if status == 204 and length >= 0:
                # A 204 has no length (RFC 9110 §8.6), and some clients wait for the octets it names.
                text = b"\r\n".join(without_fields(head.segments, {b"content-length"}))
            lines = exchange.begin_answer(head, text)
            lines += (b"", b"")
            exchange.write(b"\r\n".join(lines))
            self._end(exchange, size == 0 and (status != 204 or (not head.chunked and length <= 0)))
        elif head.chunked:
            self._begin_chunked(exchange, head, data, start)
        elif length >= 0:
            lines = exchange.begin_answer(head, head.text)
            if size >= length:
                lines += (b"", data[start : start + length])
                exchange.write(b"\r\n".join(lines))
                self._end(exchange, size == length)
            else:
                lines += (b"", data[start:])
                self._left = length - size
                self.state = FIXED
                exchange.write(b"\r\n".join(lines))
        else:
            self.state = UNTIL_CLOSE
            lines = exchange.begin_answer(head, head.text if exchange.http10 else head.text + _CHUNKED_LINE)
            lines.append(b"")
            rest = data[start:]
            lines.append(b"%x\r\n%b\r\n" % (size, rest) if rest and not exchange.http10 else rest)
            exchange.write(b"\r\n".join(lines))

    def _interim_answer(self, exchange: Asker, head: ResponseHead) -> bool:
        """Handle a 1xx; True when the connection has become a tunnel."""
        self._interim += 1
        if self._interim > INTERIM_ANSWERS_MAX:
            raise BadAnswer("too many interim answers")
        if head.chunked or head.length > 0:
            raise BadAnswer("interim answer with a body")
        if head.status == 101:
            if not exchange.websocket or head.upgrade is None or head.upgrade.lower() != b"websocket":
                raise BadAnswer("101 that was not asked for")
            self.state = TUNNEL
            exchange.begin_tunnel(head)
            return True
        # We answered 100 ourselves when the body was wanted; to repeat it would be read as somebody else's.
        if head.status != 100 and not exchange.http10:
            lines = head.segments if head.length < 0 else without_fields(head.segments, {b"content-length"})
            exchange.write(b"\r\n".join([*lines, b"", b""]))
        return False

    def _read_fixed(self, exchange: Asker, data: bytes) -> None:
        left = self._left - len(data)
        if left > 0:
            self._left = left
            exchange.write(data)
        elif left == 0:
            exchange.write(data)
            self._end(exchange, True)
        else:
            exchange.write(data[: self._left])
            self._end(exchange, False)

    def _begin_chunked(self, exchange: Asker, head: ResponseHead, data: bytes, start: int) -> None:
        settings = self._shared.settings
        self._decoder = ChunkDecoder(
            extension_bytes_max=settings.chunk_extension_bytes_max, trailer_bytes_max=settings.trailer_bytes_max
        )
        self.state = CHUNKED
        lines = exchange.begin_answer(head, head.text if exchange.http10 else head.text + _CHUNKED_LINE)
        lines += (b"", b"")
        pieces = [b"\r\n".join(lines)]
        if start < len(data):
            try:
                self._read_chunked(exchange, data[start:], pieces)
            except BadChunk:
                # The head is right, so it goes out; the fault shows as an answer that never ends.
                exchange.write(pieces[0])
                raise
        else:
            exchange.write(pieces[0])

    def _read_chunked(self, exchange: Asker, data: bytes, out: list[bytes]) -> None:
        """Decode, frame anew and write, `out` first."""
        decoder = self._decoder
        assert decoder is not None
        end = decoder.feed(data)
        pieces = decoder.pieces
        if pieces:
            decoder.pieces = []
            if exchange.http10:
                out.extend(pieces)
            else:
                out.append(b"%x\r\n" % sum(map(len, pieces)))
                out.extend(pieces)
                out.append(b"\r\n")
        if decoder.done:
            if not exchange.http10:
                out.append(last_chunk(decoder.trailers) if exchange.te_trailers else LAST_CHUNK)
            self._decoder = None
            exchange.write(b"".join(out))
            self._end(exchange, end == len(data))
        elif out:
            exchange.write(b"".join(out))

    def _end(self, exchange: Asker, clean: bool) -> None:
        """The answer is complete; `clean` when nothing came after it."""
        self.exchange = None
        if clean and self._keep and exchange.request_sent:
            self.state = IDLE
            exchange.finished(self)
        else:
            self.state = CLOSED
            self.transport.abort()
            exchange.finished(None)
