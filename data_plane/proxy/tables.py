"""What one request is served by: the router, the services and their live balancers, of one version.

`Active` is the only live reference of a worker. A request reads it once, at its head, and keeps the `Tables` it got
until its answer is out; so a swap is one assignment, and no request ever sees parts of two versions. The tables are
made by the worker beside the live ones and never change once they are active, but for the plan cache, which only
remembers what the router would say again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from data_plane.router import host_with_port

if TYPE_CHECKING:
    from data_plane.balancer.endpoint import Endpoint
    from data_plane.model import RouteConfig, ServiceConfig
    from data_plane.observe.side_counts import SideBook, SideCounts
    from data_plane.observe.traffic import RouteTraffic
    from data_plane.proxy.sides import Sides
    from data_plane.proxy.tls import ServerNames
    from data_plane.proxy.upstream_tls import UpstreamTls
    from data_plane.router import Router

# Plans kept per generation (two generations live at a time) and the longest path worth a place. Together they bound
# the cache at about 8 MiB of keys and values, whatever clients ask for.
PLANS_PER_GENERATION_MAX = 4096
PLANNED_PATH_BYTES_MAX = 512

# The Host lines a service remembers; endpoints come and go with DNS, so the memory is dropped when it is full.
HOST_LINES_MAX = 1024


class Balancer(Protocol):
    """What the proxy asks of `Upstream` and `DirectHost` (data_plane/balancer).

    Where `plain` is false it is an `Upstream`, which wants to know more (data_plane/proxy/choosing.py).
    """

    @property
    def plain(self) -> bool: ...

    def pick(self, tried: Sequence[Endpoint], key: bytes = b"") -> Endpoint:
        """Choose an endpoint for the next attempt, other than `tried` while there are others; raises `NoEndpoint`.

        `key` is what the request is hashed by, or its session.
        """
        ...

    def take(self, endpoint: Endpoint) -> None:
        """Count an attempt that begins on the endpoint."""
        ...

    def release(self, endpoint: Endpoint) -> None:
        """Count the end of an attempt begun with `take`, once."""
        ...


class ServiceRuntime:
    """A service ready to be proxied to: its settings as the hot path wants them, and its live balancer.

    `host_header` is the upstream entity's `host_header`, or the service's own host when no upstream carries that name;
    empty means that the name of the chosen endpoint is sent (spec/proxy.md §3). `tls` is the identity its connections
    are opened with; None = in the clear.

    It is one side of the service: the upstream with the id `side`, called `side_name`, both empty when the host is no
    upstream. Other sides have runtimes of their own, in the `sides` of the one that the tables hold; most services have
    none. `figures` are there once a plan was made (`count_in`).
    """

    __slots__ = (
        "attempts_max",
        "balancer",
        "base_path",
        "config",
        "connect_timeout_s",
        "counted_in",
        "figures",
        "host_header",
        "host_lines",
        "read_timeout_s",
        "side",
        "side_name",
        "sides",
        "tls",
        "write_timeout_s",
    )

    def __init__(
        self,
        config: ServiceConfig,
        balancer: Balancer,
        *,
        host_header: str = "",
        tls: UpstreamTls | None = None,
        side: str = "",
        side_name: str = "",
        sides: Sides | None = None,
    ) -> None:
        self.tls = tls
        self.side = side
        self.side_name = side_name
        self.sides = sides
        self.counted_in = False
        self.figures: SideCounts
        self.config = config
        self.balancer = balancer
        self.base_path: bytes = config.path.encode("utf-8", "surrogateescape") or b"/"
        self.host_header = host_header
        self.attempts_max: int = config.retries + 1
        self.connect_timeout_s: float = config.connect_timeout_s
        self.write_timeout_s: float = config.write_timeout_s
        self.read_timeout_s: float = config.read_timeout_s
        self.host_lines: dict[Endpoint, bytes] = {}

    def count_in(self, book: SideBook) -> None:
        """Find the figures of this side and the others, before the first request."""
        if self.counted_in:
            return
        self.counted_in = True
        self.figures = book.of(self.config.id, self.side)
        self.figures.service_name = self.config.name or self.config.host
        self.figures.upstream_name = self.side_name
        if self.sides is not None:
            self.sides.count_in(book)

    def host_line(self, endpoint: Endpoint) -> bytes:
        """Return the `Host` line that goes to the endpoint when the route does not preserve the client's.

        It is remembered in `host_lines`, where whoever is in a hurry looks first.
        """
        line = self.host_lines.get(endpoint)
        if line is None:
            name = host_with_port(self.host_header or endpoint.host, endpoint.port, self.config.protocol)
            line = b"Host: " + name.encode("latin-1", "replace")
            if len(self.host_lines) >= HOST_LINES_MAX:
                self.host_lines.clear()
            self.host_lines[endpoint] = line
        return line


class Plan:
    """What to do with one method, host and path under one set of tables: the router's answer, made ready to send.

    With `status` 0 the request is proxied, and its head is `start`, the query, ` HTTP/1.1` (`line` is all that for a
    request without a query), the Host line (`host_line`, or the service's for the chosen endpoint when that is empty),
    `forwarded`, then what belongs to the connection and the request. Otherwise the gateway answers by itself, with
    `status`, `message` and the additional `fields`. No piece has a line end at its end. A plan that depends on more
    than its key is not `remembered`. `traffic` is where its requests are counted; None without a route. `debug` are the
    lines for a client that asks which route it got.
    """

    __slots__ = (
        "buffered",
        "captures",
        "debug",
        "fields",
        "forwarded",
        "host_line",
        "is_head",
        "line",
        "message",
        "prefix",
        "remembered",
        "replayable",
        "route",
        "service",
        "start",
        "status",
        "traffic",
    )

    def __init__(self, *, route: RouteConfig | None, service: ServiceRuntime | None) -> None:
        self.route = route
        self.service = service
        self.traffic: RouteTraffic | None = None
        self.debug: tuple[bytes, ...] = ()
        self.status: int = 0
        self.message: str = ""
        self.fields: tuple[bytes, ...] = ()
        self.start: bytes = b""
        self.line: bytes = b""
        self.host_line: bytes = b""
        self.forwarded: bytes = b""
        self.prefix: bytes = b""
        self.captures: Mapping[str, str] | None = None
        self.is_head: bool = False
        self.replayable: bool = False
        self.buffered: bool = True
        self.remembered: bool = True


PlanKey = tuple[bytes, bytes, bytes, int]
"""Method, path, host (with the name asked for in TLS where that matters) and port."""


class PlanCache:
    """Plans by key, bounded by two generations.

    A full young generation becomes the old one and the old one is forgotten; a plan asked for again in the old one
    moves to the young. That keeps what is in use at the price of two look-ups and needs no order of use, and a client
    that walks through a million paths only costs itself. Whoever is in a hurry looks in `young` first.
    """

    __slots__ = ("_max", "_old", "young")

    def __init__(self, generation_max: int = PLANS_PER_GENERATION_MAX) -> None:
        self.young: dict[PlanKey, Plan] = {}
        self._old: dict[PlanKey, Plan] = {}
        self._max = generation_max

    def get(self, key: PlanKey) -> Plan | None:
        plan = self.young.get(key)
        if plan is None:
            plan = self._old.get(key)
            if plan is not None:
                self.put(key, plan)
        return plan

    def put(self, key: PlanKey, plan: Plan) -> None:
        if len(key[1]) > PLANNED_PATH_BYTES_MAX or len(key[2]) > PLANNED_PATH_BYTES_MAX:
            return
        if len(self.young) >= self._max:
            self._old = self.young
            self.young = {}
        self.young[key] = plan

    def __len__(self) -> int:
        return len(self.young) + len(self._old)


class Tables:
    """One version, ready to serve. `services` by id; a route whose service is not there is answered 503.

    `header_names` are the fields any route looks at, in a fixed order: requests that carry one of them are matched
    each time, all others by the plan cache. `server_names` are the certificates of TLS listeners; None without such.
    """

    __slots__ = ("header_names", "plans", "router", "server_names", "services", "version")

    def __init__(
        self,
        version: int,
        router: Router,
        services: Mapping[str, ServiceRuntime],
        server_names: ServerNames | None = None,
    ) -> None:
        self.version = version
        self.server_names = server_names
        self.router = router
        self.services = services
        self.header_names: tuple[bytes, ...] = tuple(name.encode("latin-1") for name in sorted(router.header_names))
        self.plans = PlanCache()


class Active:
    """The one live reference of a worker; None until the first config is active (no listener is open before that).

    `fenced` are the ids of services that are answered 503 while this node has no control plane. It is no part of a
    version: a node that lost its control plane gets no other one, and a fence must hold for every version it may run.

    `due` is when the tables that are armed become active, in seconds of `time.monotonic`; a request that finds it
    passed calls `turn` first. A loop with a hundred requests in its hands at that instant would serve all of them by
    the old tables before it looks at its timer; so none is, however late the timer.
    """

    __slots__ = ("due", "fenced", "tables", "turn")

    def __init__(self, tables: Tables | None = None) -> None:
        self.tables = tables
        self.fenced: frozenset[str] = frozenset()
        self.due = math.inf
        self.turn: Callable[[], None] = _nothing_armed

    def arm(self, at_ns: int, turn: Callable[[], None]) -> None:
        """From `at_ns` of CLOCK_MONOTONIC on, requests call `turn` before they read the tables, until `disarm`."""
        self.due, self.turn = at_ns / 1e9, turn

    def disarm(self) -> None:
        """Nothing is to become active at an instant any more."""
        self.due, self.turn = math.inf, _nothing_armed


def _nothing_armed() -> None:
    """There is no instant to come."""
