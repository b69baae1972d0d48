"""Copies of requests for another side, whose answers nobody sees.

The exchange offers a copy when its own request begins; the copy waits in a lane of its service and side, goes out
beside the traffic, and its answer is read to the end and dropped. Nothing of it can reach the client or hold the main
request up: lanes have few connections of their own, times of their own and bounded queues, and what has no room is
skipped and counted. A copy is sent once. It carries `X-Pointsman-Mirror: 1`, and what carries that is not copied again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from data_plane.balancer.endpoint import NoEndpoint
from data_plane.balancer.upstream import Upstream
from data_plane.proxy import pool
from data_plane.proxy.choosing import Choice
from data_plane.proxy.upstream import CLOSED, IDLE
from data_plane.proxy.upstream_tls import server_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from data_plane.balancer.endpoint import Endpoint
    from data_plane.observe.side_counts import SideCounts
    from data_plane.proxy.client import ClientConnection
    from data_plane.proxy.response_head import ResponseHead
    from data_plane.proxy.shared import Shared
    from data_plane.proxy.tables import Plan, ServiceRuntime
    from data_plane.proxy.upstream import UpstreamConnection
    from data_plane.proxy.upstream_tls import Identity

logger = logging.getLogger(__name__)

MARK_NAME = b"x-pointsman-mirror"
MARK = b"X-Pointsman-Mirror: 1"

BODY_BYTES_MAX = 1 << 20
"""A request with more is not copied."""
WAITING_MAX = 128
"""Copies that wait in one lane."""
WAITING_BYTES_MAX = 16 << 20
"""Of all lanes together, those under way included."""
OPEN_MAX = 32
"""Copies under way in one lane."""
OPEN_TOTAL_MAX = 128
DEADLINE_S = 10.0
"""From the begin of a copy to the end of its answer."""
ANSWER_BYTES_MAX = 16 << 20
"""An answer is read no further than this, and counts as complete."""
IDLE_S = 2.0
"""How long a lane keeps its connections when there is nothing to send."""


class Mirroring:
    """All lanes of a worker."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._lanes: dict[SideCounts, _Lane] = {}
        self.bytes = 0
        self.open = 0

    def offer(self, side: ServiceRuntime, plan: Plan, client: ClientConnection, pieces: list[bytes]) -> None:
        """Copy a request to `side`, or count that there is no room.

        `pieces` are the main request's as they are joined to it: the request line, the Host line, the rest, the body.
        """
        head = client.head
        if head.values(MARK_NAME):
            return
        figures = side.figures
        size = sum(map(len, pieces))
        if head.websocket or len(pieces[-1]) > BODY_BYTES_MAX or self.bytes + size > WAITING_BYTES_MAX:
            figures.mirror_skipped += 1
            return
        lane = self._lanes.get(figures)
        if lane is None:
            lane = self._lanes[figures] = _Lane(self, self._shared)
        key = b""
        balancer = side.balancer
        if isinstance(balancer, Upstream) and not balancer.plain:
            key = Choice(balancer, plan, client).key
        if not lane.take(Copy(lane, side, plan, [pieces[0], b"", MARK, *pieces[2:]], size=size, key=key)):
            figures.mirror_skipped += 1

    def skip(self, side: ServiceRuntime) -> None:
        """Count a request that can't be copied, because its body goes on as it comes."""
        side.figures.mirror_skipped += 1

    def forget(self, lane: _Lane) -> None:
        """The lane has nothing left to do."""
        for figures, each in list(self._lanes.items()):
            if each is lane:
                del self._lanes[figures]

    def stop(self) -> None:
        """Give up what waits and what is under way."""
        for lane in list(self._lanes.values()):
            lane.stop()
        self._lanes.clear()


class _Lane:
    """The copies for one side of one service."""

    __slots__ = ("_idle", "_mirroring", "_open", "_shared", "_timer", "_waiting", "_woken")

    def __init__(self, mirroring: Mirroring, shared: Shared) -> None:
        self._mirroring = mirroring
        self._shared = shared
        self._waiting: deque[Copy] = deque()
        self._open: set[Copy] = set()
        self._idle: list[UpstreamConnection] = []
        self._timer: asyncio.TimerHandle | None = None
        self._woken = False

    def take(self, copy: Copy) -> bool:
        """Queue a copy; False when the queue is full."""
        if len(self._waiting) >= WAITING_MAX:
            return False
        self._mirroring.bytes += copy.size
        self._waiting.append(copy)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._woken:
            # The main request first, and whatever else has come with it.
            self._woken = True
            self._shared.loop.call_soon(self._go)
        return True

    def _go(self) -> None:
        self._woken = False
        mirroring = self._mirroring
        while self._waiting and len(self._open) < OPEN_MAX and mirroring.open < OPEN_TOTAL_MAX:
            copy = self._waiting.popleft()
            self._open.add(copy)
            mirroring.open += 1
            copy.begin(self._shared)
        if not self._open and not self._waiting:
            self._rest()
        elif not self._open:
            # All the room is taken by other lanes; nothing of ours will end and call again.
            self._timer = self._shared.loop.call_later(0.05, self._go)

    def ended(self, copy: Copy) -> None:
        """A copy is done, whatever way."""
        if copy not in self._open:
            return
        self._open.discard(copy)
        self._mirroring.open -= 1
        self._mirroring.bytes -= copy.size
        if not self._woken:
            self._woken = True
            self._shared.loop.call_soon(self._go)

    def idle(self, endpoint: Endpoint, identity: Identity | None) -> UpstreamConnection | None:
        """Return a connection that can be used again, or None."""
        fresh_at = self._shared.now - IDLE_S
        found: UpstreamConnection | None = None
        kept: list[UpstreamConnection] = []
        for connection in self._idle:
            if connection.state != IDLE:
                continue
            if connection.active_at < fresh_at:
                connection.close()
            elif found is None and connection.endpoint is endpoint and connection.identity == identity:
                found = connection
            else:
                kept.append(connection)
        self._idle = kept
        return found

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep a connection for the next copy."""
        if len(self._idle) >= OPEN_MAX or connection.endpoint.retired:
            connection.close()
        else:
            self._idle.append(connection)

    def _rest(self) -> None:
        if self._timer is None:
            self._timer = self._shared.loop.call_later(IDLE_S, self._end)

    def _end(self) -> None:
        self._timer = None
        if not self._open and not self._waiting:
            self.stop()
            self._mirroring.forget(self)

    def stop(self) -> None:
        """End everything."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            self._mirroring.bytes -= self._waiting.popleft().size
        for copy in list(self._open):
            copy.give_up()
        for connection in self._idle:
            if connection.state == IDLE:
                connection.close()
        self._idle = []


class Copy:
    """One copy on its way: what `Exchange` is for the main request (`upstream.Asker`), for nobody to see.

    Its answer is taken as for an HTTP/1.0 client, so that nothing is framed anew; none of it is kept.
    """

    __slots__ = (
        "_answer_bytes",
        "_connecting",
        "_deadline",
        "_endpoint",
        "_key",
        "_lane",
        "_over",
        "_pieces",
        "_plan",
        "_service",
        "_status",
        "_upstream",
        "http10",
        "is_head",
        "request_sent",
        "size",
        "te_trailers",
        "websocket",
    )

    def __init__(
        self, lane: _Lane, service: ServiceRuntime, plan: Plan, pieces: Sequence[bytes], *, size: int, key: bytes
    ) -> None:
        self.size = size
        self._lane = lane
        self._service = service
        self._plan = plan
        self._pieces = list(pieces)
        self._key = key
        self._endpoint: Endpoint | None = None
        self._upstream: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._status = 0
        self._answer_bytes = 0
        self._over = False
        self.http10 = True
        self.is_head: bool = plan.is_head
        self.te_trailers = False
        self.websocket = False
        self.request_sent = True

    @property
    def side(self) -> SideCounts | None:
        """Nowhere: nobody waits for it."""
        return None

    @property
    def asks_once(self) -> bool:
        """It is never sent again, whatever becomes of it."""
        return False

    @property
    def read_timeout_s(self) -> float:
        """The deadline is shorter."""
        return DEADLINE_S * 2

    @property
    def write_timeout_s(self) -> float:
        """The deadline is shorter."""
        return DEADLINE_S * 2

    def describe(self) -> str:
        """Say for the log what this is."""
        return f"copy for upstream {self._service.side_name}"

    def waits_for_client(self) -> bool:
        """There is none."""
        return False

    def request_bytes(self) -> int:
        """Nothing is sent again."""
        return 0

    def begin(self, shared: Shared) -> None:
        """Choose an endpoint and send, on a connection of the lane's own."""
        balancer = self._service.balancer
        try:
            endpoint = balancer.pick((), self._key)
        except NoEndpoint:
            self._failed()
            return
        balancer.take(endpoint)
        self._endpoint = endpoint
        self._deadline = shared.loop.call_later(DEADLINE_S, self.timed_out)
        host_line = self._plan.host_line or self._service.host_line(endpoint)
        self._pieces[1] = host_line
        tls = self._service.tls
        identity = None if tls is None else (tls, server_name(host_line[len(b"Host: ") :]))
        upstream = self._lane.idle(endpoint, identity)
        if upstream is not None:
            self.connected(upstream)
        else:
            self._connecting = pool.connect(shared, self, endpoint, DEADLINE_S, identity)

    def connected(self, upstream: UpstreamConnection) -> None:
        """Send it."""
        self._connecting = None
        if self._over or upstream.state == CLOSED:
            upstream.forget()
            self._failed()
            return
        self._upstream = upstream
        upstream.send(self, b"\r\n".join(self._pieces))
        self._pieces = []

    def connect_failed(self, status: int) -> None:
        """No connection."""
        self._connecting = None
        self._failed()

    def attempt_failed(self, status: int, *, stale: bool, unread: bool = False) -> None:
        """No answer."""
        self._upstream = None
        self._failed()

    def bad_answer(self, reason: str) -> None:
        """What came is none."""
        self._upstream = None
        self._failed()

    def cut(self, reason: str, *, status: int = 502) -> None:
        """The answer broke off."""
        self._upstream = None
        self._failed()

    def crashed(self) -> None:
        """An error of ours; it was logged by who caught it."""
        self._upstream = None
        self._failed()

    def timed_out(self) -> None:
        """The deadline has come."""
        self._part()
        self._failed()

    def give_up(self) -> None:
        """The worker ends, or the lane does."""
        self._part()
        self._end()

    def close_late(self) -> None:
        """Never: it is open nowhere."""
        raise AssertionError("copies have a deadline of their own")

    def upstream_stalled(self) -> None:
        """It is all in the transport already, and bounded."""

    def upstream_flows(self) -> None:
        """See `upstream_stalled`."""

    def begin_answer(self, head: ResponseHead, text: bytes) -> list[bytes]:
        """Note the status; there is nobody to write a head to."""
        self._status = head.status
        return []

    def write(self, data: bytes) -> None:
        """Drop it."""
        self._answer_bytes += len(data)
        if self._answer_bytes > ANSWER_BYTES_MAX:
            self._part()
            self._answered()

    def finished(self, reusable: UpstreamConnection | None) -> None:
        """The answer is here, and forgotten."""
        self._upstream = None
        if reusable is not None:
            if self._over:
                reusable.close()
            else:
                self._lane.give_back(reusable)
        self._answered()

    def begin_tunnel(self, head: ResponseHead) -> None:
        """Never: no copy asks for one."""
        raise AssertionError("copies ask for no tunnels")

    def tunnel_ended(self) -> None:
        """Never: see `begin_tunnel`."""
        raise AssertionError("copies ask for no tunnels")

    def _part(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.detach()

    def _answered(self) -> None:
        if not self._over:
            figures = self._service.figures
            figures.mirror_sent += 1
            if self._status >= 500:
                figures.mirror_errors_5xx += 1
        self._end()

    def _failed(self) -> None:
        if not self._over:
            self._service.figures.mirror_failed += 1
        self._end()

    def _end(self) -> None:
        if self._over:
            return
        self._over = True
        self._pieces = []
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        endpoint = self._endpoint
        if endpoint is not None:
            self._endpoint = None
            self._service.balancer.release(endpoint)
        self._lane.ended(self)
