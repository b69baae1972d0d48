"""`GET /metrics` of a node: Kong's metrics by Kong's names, and our own beside them.

Everything is summed over the node's workers, those that ended included. The table below is what there is; the page is
written from it, and so is docs/reference/metrics.md. What Kong has switched off until a plugin is configured is on
here, and bounded instead: `metrics_series_max` for what grows with routes, `TARGET_ADDRESSES_MAX` for targets.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from data_plane.node.fence import Fenced
from data_plane.node.metrics_sum import PlainSums, RouteKey, RouteSums
from data_plane.node.side_sums import SIDES_MAX, SidesSum
from data_plane.node.snapshot import NodeSnapshot
from data_plane.node.workers import WorkerCounters
from data_plane.observe.histogram import KONG_BOUNDS_MS, UPSTREAM_BOUNDS_MS
from data_plane.observe.prometheus import Exposition, Kind, Metric

TARGET_ADDRESSES_MAX = 2500
"""Addresses of targets with series of their own; each has four."""
TARGET_STATES = ("healthchecks_off", "healthy", "unhealthy", "dns_error")
SCRAPE_WITHIN_S = 0.5
"""How long a worker may take to tell its counts; one that is busy is shown as it told them last."""
_LINES_PER_STEP = 2000

_ROUTE = ("service", "route")

HTTP_REQUESTS = Metric(
    "kong_http_requests_total",
    Kind.COUNTER,
    "Requests that matched a route, by the status sent; source is service when the upstream answered, else kong",
    (*_ROUTE, "code", "source", "workspace", "consumer"),
)
KONG_LATENCY = Metric(
    "kong_kong_latency_ms",
    Kind.HISTOGRAM,
    "Time the gateway took before an endpoint was chosen, or to answer by itself, in milliseconds",
    (*_ROUTE, "workspace"),
    KONG_BOUNDS_MS,
)
UPSTREAM_LATENCY = Metric(
    "kong_upstream_latency_ms",
    Kind.HISTOGRAM,
    "Time from the last attempt's start to the head of the upstream's answer, in milliseconds",
    (*_ROUTE, "workspace"),
    UPSTREAM_BOUNDS_MS,
)
REQUEST_LATENCY = Metric(
    "kong_request_latency_ms",
    Kind.HISTOGRAM,
    "Time from the end of the request's head to the end of the answer, in milliseconds",
    (*_ROUTE, "workspace"),
    UPSTREAM_BOUNDS_MS,
)
BANDWIDTH = Metric(
    "kong_bandwidth_bytes",
    Kind.COUNTER,
    "Bytes read of requests (ingress) and sent of answers (egress), heads included",
    (*_ROUTE, "direction", "workspace", "consumer"),
)
TARGET_HEALTH = Metric(
    "kong_upstream_target_health",
    Kind.GAUGE,
    "1 for the state that an address of a target is in, 0 for the others",
    ("upstream", "target", "address", "state", "subsystem"),
)
CONNECTIONS = Metric(
    "kong_nginx_connections_total",
    Kind.GAUGE,
    "Client connections: accepted, handled and total (requests) since the start; active, reading, writing, waiting now",
    ("node_id", "subsystem", "state"),
)
REQUESTS = Metric(
    "kong_nginx_requests_total", Kind.GAUGE, "Requests since the start, unmatched ones too", ("node_id", "subsystem")
)
TIMERS = Metric("kong_nginx_timers", Kind.GAUGE, "Timers of the workers: each has one for its time limits", ("state",))
METRIC_ERRORS = Metric(
    "kong_nginx_metric_errors_total", Kind.COUNTER, "Times that a worker did not tell its counts in time for a scrape"
)
DATASTORE = Metric(
    "kong_datastore_reachable", Kind.GAUGE, "Always 1: a node has no database, it serves from its own snapshot"
)
PLANE_CONNECTED = Metric(
    "kong_control_plane_connected", Kind.GAUGE, "1 while the control plane is there; the node serves without it too"
)
CERTIFICATE_EXPIRY = Metric(
    "kong_data_plane_cluster_cert_expiry_timestamp",
    Kind.GAUGE,
    "When the node's certificate for the fleet link ends, in seconds since 1970; not there without mutual TLS",
)
NODE_INFO = Metric("kong_node_info", Kind.GAUGE, "Always 1; the labels name the node", ("node_id", "version"))
MEMORY_DICT = Metric(
    "kong_memory_lua_shared_dict_bytes",
    Kind.GAUGE,
    "Bytes of the running snapshot; there is no Lua here, the name is kept for dashboards",
    ("node_id", "shared_dict", "kong_subsystem"),
)
MEMORY_DICT_TOTAL = Metric(
    "kong_memory_lua_shared_dict_total_bytes",
    Kind.GAUGE,
    "The largest snapshot that this node accepts, in bytes",
    ("node_id", "shared_dict", "kong_subsystem"),
)
MEMORY_WORKERS = Metric(
    "kong_memory_workers_lua_vms_bytes",
    Kind.GAUGE,
    "Resident memory of each worker process, in bytes",
    ("node_id", "pid", "kong_subsystem"),
)
VERSION = Metric(
    "pointsman_version",
    Kind.GAUGE,
    "Configuration version: running here, and head, the control plane's newest as last heard",
    ("kind",),
)
WORKERS = Metric("pointsman_workers", Kind.GAUGE, "Worker processes: wanted, and ready to serve", ("state",))
WORKER_RESTARTS = Metric(
    "pointsman_worker_restarts_total", Kind.COUNTER, "Worker processes that ended and were replaced"
)
FENCED = Metric(
    "pointsman_services_fenced",
    Kind.GAUGE,
    "Services answered 503 because this node has had no control plane for longer than their settings allow",
)
DRAINING = Metric("pointsman_draining", Kind.GAUGE, "1 while the node takes itself out of service")
MALFORMED = Metric("pointsman_requests_malformed_total", Kind.COUNTER, "Requests refused for their syntax or framing")
ATTEMPTS_FAILED = Metric("pointsman_attempts_failed_total", Kind.COUNTER, "Attempts on an endpoint that failed")
RETRIES = Metric("pointsman_retries_total", Kind.COUNTER, "Attempts after the first of a request")
ERRORS = Metric(
    "pointsman_internal_errors_total", Kind.COUNTER, "Requests answered 500 for a mistake of ours; the log says more"
)
UPSTREAM_OPEN = Metric("pointsman_upstream_connections", Kind.GAUGE, "Connections open to endpoints, idle ones too")
UPSTREAM_OPENED = Metric("pointsman_upstream_connections_opened_total", Kind.COUNTER, "Connections opened to endpoints")
UPSTREAM_REUSED = Metric(
    "pointsman_upstream_connections_reused_total", Kind.COUNTER, "Attempts that found an idle connection"
)
_SIDE = ("service", "upstream")
SIDE_REQUESTS = Metric(
    "pointsman_side_requests_total",
    Kind.COUNTER,
    "Requests of services with more than one side that ended, by the upstream they went to",
    _SIDE,
)
SIDE_ERRORS = Metric(
    "pointsman_side_errors_total", Kind.COUNTER, "Those of them whose client saw the side fail with a 5xx", _SIDE
)
SIDE_CONNECT_ERRORS = Metric(
    "pointsman_side_connect_errors_total", Kind.COUNTER, "Attempts on the side that brought no whole answer", _SIDE
)
SIDE_OPEN = Metric("pointsman_side_open_requests", Kind.GAUGE, "Requests open towards the side now", _SIDE)
SIDE_CLOSED_LATE = Metric(
    "pointsman_side_closed_late_total", Kind.COUNTER, "Requests that the drain deadline of a service closed", _SIDE
)
MIRROR_COPIES = Metric(
    "pointsman_mirror_copies_total",
    Kind.COUNTER,
    "Copies of requests for a mirror: answered, error (answered with a 5xx), failed (no answer), skipped (no room)",
    (*_SIDE, "outcome"),
)
FOLDED = Metric(
    "pointsman_metrics_folded_total",
    Kind.COUNTER,
    "Requests counted in the series _overflow because of the limit on series",
)
OMITTED = Metric("pointsman_metrics_targets_omitted", Kind.GAUGE, "Targets left out because of the limit on series")
LOG_LINES = Metric("pointsman_access_log_lines_total", Kind.COUNTER, "Lines written to the access log")
LOG_DROPPED = Metric(
    "pointsman_access_log_dropped_total",
    Kind.COUNTER,
    "Lines of the access log that were lost: the queue was full or the file could not be written",
)

METRICS: tuple[Metric, ...] = (
    HTTP_REQUESTS,
    KONG_LATENCY,
    UPSTREAM_LATENCY,
    REQUEST_LATENCY,
    BANDWIDTH,
    TARGET_HEALTH,
    CONNECTIONS,
    REQUESTS,
    TIMERS,
    METRIC_ERRORS,
    DATASTORE,
    PLANE_CONNECTED,
    CERTIFICATE_EXPIRY,
    NODE_INFO,
    MEMORY_DICT,
    MEMORY_DICT_TOTAL,
    MEMORY_WORKERS,
    VERSION,
    WORKERS,
    WORKER_RESTARTS,
    FENCED,
    DRAINING,
    MALFORMED,
    ATTEMPTS_FAILED,
    RETRIES,
    ERRORS,
    UPSTREAM_OPEN,
    UPSTREAM_OPENED,
    UPSTREAM_REUSED,
    SIDE_REQUESTS,
    SIDE_ERRORS,
    SIDE_CONNECT_ERRORS,
    SIDE_OPEN,
    SIDE_CLOSED_LATE,
    MIRROR_COPIES,
    FOLDED,
    OMITTED,
    LOG_LINES,
    LOG_DROPPED,
)
"""All metrics of a node, in the order of the page."""

# Kong's names for what there is one of here.
_WORKSPACE = "default"
_SUBSYSTEM = "http"


@dataclass(frozen=True, slots=True)
class TargetState:
    """A target and the state of each of its addresses (`ip:port`, one of `TARGET_STATES`); none = it has no address."""

    upstream: str
    target: str
    addresses: tuple[tuple[str, str], ...]


class MetricFacts(Protocol):
    """What the page is made of; `Node` has it."""

    @property
    def node_id(self) -> str: ...
    @property
    def software(self) -> str: ...
    @property
    def running(self) -> NodeSnapshot | None: ...
    @property
    def head_version(self) -> int: ...
    @property
    def snapshot_bytes_max(self) -> int: ...
    @property
    def worker_count(self) -> int: ...
    @property
    def workers_ready(self) -> int: ...
    @property
    def worker_restarts(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    def fenced(self) -> Sequence[Fenced]: ...
    @property
    def connected(self) -> bool: ...
    @property
    def link_problem(self) -> str: ...
    @property
    def certificate_expires_at(self) -> float | None: ...
    async def counters(self, *, timeout_s: float, traffic: bool = False) -> Sequence[WorkerCounters]: ...
    def plain_sums(self) -> PlainSums: ...
    def side_sums(self) -> SidesSum: ...
    def route_sums(self) -> Iterator[Mapping[RouteKey, RouteSums] | None]: ...
    @property
    def target_count(self) -> int: ...
    def target_states(self) -> Iterable[TargetState]: ...


class NodeMetrics:
    """Makes the page, one at a time: a flood of scrapes costs no more than one after the other."""

    def __init__(self, facts: MetricFacts) -> None:
        self._facts = facts
        self._one_at_a_time = asyncio.Lock()
        self._errors = 0
        self._snapshot: NodeSnapshot | None = None
        self._snapshot_bytes = 0

    async def page(self) -> bytes:
        """Return all metrics of now. Long pages are made in steps, since the fleet link shares this loop."""
        async with self._one_at_a_time:
            facts = self._facts
            wanted = facts.workers_ready
            workers = await facts.counters(timeout_s=SCRAPE_WITHIN_S, traffic=True)
            self._errors += max(wanted - len(workers), 0)
            page = Exposition()
            routes: Mapping[RouteKey, RouteSums] = {}
            for step in facts.route_sums():
                if step is None:
                    await asyncio.sleep(0)
                else:
                    routes = step
            for _ in _write_routes(page, routes):
                await asyncio.sleep(0)
            for _ in self._write_targets(page):
                await asyncio.sleep(0)
            self._write_node(page, workers)
            return page.page()

    def _write_targets(self, page: Exposition) -> Iterator[None]:
        page.begin(TARGET_HEALTH)
        shown = targets = 0
        for target in self._facts.target_states():
            addresses = target.addresses or (("", "dns_error"),)
            if shown + len(addresses) > TARGET_ADDRESSES_MAX:
                break
            targets += 1
            shown += len(addresses)
            for address, state in addresses:
                for each in TARGET_STATES:
                    labels = (target.upstream, target.target, address, each, _SUBSYSTEM)
                    page.sample(TARGET_HEALTH, labels, each == state)
            if targets % 100 == 0:
                yield
        page.single(OMITTED, self._facts.target_count - targets)

    def _write_node(self, page: Exposition, workers: Sequence[WorkerCounters]) -> None:
        facts = self._facts
        node_id = facts.node_id
        sums = facts.plain_sums()
        active = sum(worker.connections_active for worker in workers)
        reading = sum(worker.connections_reading for worker in workers)
        writing = sum(worker.in_flight for worker in workers)
        states = {
            "accepted": sums.connections_accepted,
            "active": active,
            "handled": sums.connections_accepted,
            "reading": reading,
            "total": sums.requests,
            "waiting": max(active - reading - writing, 0),
            "writing": writing,
        }
        page.family(CONNECTIONS, (((node_id, _SUBSYSTEM, state), count) for state, count in states.items()))
        page.family(REQUESTS, [((node_id, _SUBSYSTEM), sums.requests)])
        page.family(TIMERS, [(("pending",), facts.workers_ready), (("running",), 0)])
        page.single(METRIC_ERRORS, self._errors)
        page.single(DATASTORE, 1)
        page.single(PLANE_CONNECTED, facts.connected)
        if facts.certificate_expires_at is not None:
            page.single(CERTIFICATE_EXPIRY, int(facts.certificate_expires_at))
        page.family(NODE_INFO, [((node_id, facts.software), 1)])
        page.family(MEMORY_DICT, [((node_id, "snapshot", _SUBSYSTEM), self._bytes_of(facts.running))])
        page.family(MEMORY_DICT_TOTAL, [((node_id, "snapshot", _SUBSYSTEM), facts.snapshot_bytes_max)])
        page.family(MEMORY_WORKERS, (((node_id, str(worker.pid), _SUBSYSTEM), worker.rss_bytes) for worker in workers))
        running = facts.running
        page.family(
            VERSION,
            [(("running",), running.version if running is not None else 0), (("head",), facts.head_version)],
        )
        page.family(WORKERS, [(("wanted",), facts.worker_count), (("ready",), facts.workers_ready)])
        page.single(WORKER_RESTARTS, facts.worker_restarts)
        page.single(FENCED, len(facts.fenced()))
        page.single(DRAINING, facts.draining)
        page.single(MALFORMED, sums.requests_malformed)
        page.single(ATTEMPTS_FAILED, sums.attempts_failed)
        page.single(RETRIES, sums.retries)
        page.single(ERRORS, sums.errors_internal)
        page.single(UPSTREAM_OPEN, sum(worker.upstream_connections_open for worker in workers))
        page.single(UPSTREAM_OPENED, sums.upstream_connections_opened)
        page.single(UPSTREAM_REUSED, sums.upstream_connections_reused)
        _write_sides(page, facts.side_sums())
        page.single(FOLDED, sums.folded)
        page.single(LOG_LINES, sums.log_lines)
        page.single(LOG_DROPPED, sums.log_lines_dropped)

    def _bytes_of(self, snapshot: NodeSnapshot | None) -> int:
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._snapshot_bytes = sum(map(len, snapshot.entities.values())) if snapshot is not None else 0
        return self._snapshot_bytes


def _write_sides(page: Exposition, sides: SidesSum) -> None:
    """Write what is counted by side, of services that have or had more than their host."""
    shown = sides.several(SIDES_MAX)
    for metric, value in (
        (SIDE_REQUESTS, operator.attrgetter("requests")),
        (SIDE_ERRORS, operator.attrgetter("errors_5xx")),
        (SIDE_CONNECT_ERRORS, operator.attrgetter("connect_errors")),
        (SIDE_OPEN, operator.attrgetter("open")),
        (SIDE_CLOSED_LATE, operator.attrgetter("closed_late")),
    ):
        page.family(metric, [(names, value(sums)) for names, sums in shown])
    page.begin(MIRROR_COPIES)
    for names, sums in shown:
        if sums.mirrored:
            fine = sums.mirror_sent - sums.mirror_errors_5xx
            page.sample(MIRROR_COPIES, (*names, "answered"), fine)
            page.sample(MIRROR_COPIES, (*names, "error"), sums.mirror_errors_5xx)
            page.sample(MIRROR_COPIES, (*names, "failed"), sums.mirror_failed)
            page.sample(MIRROR_COPIES, (*names, "skipped"), sums.mirror_skipped)


def _write_routes(page: Exposition, routes: Mapping[RouteKey, RouteSums]) -> Iterator[None]:
    """Write what is counted by route, metric by metric; yields now and then."""
    written = 0

    def is_time() -> bool:
        nonlocal written
        if len(page) - written < _LINES_PER_STEP:
            return False
        written = len(page)
        return True

    page.begin(HTTP_REQUESTS)
    for (service, route), sums in routes.items():
        for code, count in sorted(sums.codes.items()):
            source = "kong" if code & 1 else "service"
            page.sample(HTTP_REQUESTS, (service, route, str(code >> 1), source, _WORKSPACE, ""), count)
        if is_time():
            yield
    for metric in (KONG_LATENCY, UPSTREAM_LATENCY, REQUEST_LATENCY):
        page.begin(metric)
        for (service, route), sums in routes.items():
            if metric is KONG_LATENCY:
                counts, total = sums.kong_ms, sums.kong_s
            elif metric is UPSTREAM_LATENCY:
                counts, total = sums.upstream_ms, sums.upstream_s
            else:
                counts, total = sums.request_ms, sums.request_s
            page.histogram(metric, (service, route, _WORKSPACE), counts, total * 1000)
            if is_time():
                yield
    page.begin(BANDWIDTH)
    for (service, route), sums in routes.items():
        page.sample(BANDWIDTH, (service, route, "egress", _WORKSPACE, ""), sums.bytes_out)
        page.sample(BANDWIDTH, (service, route, "ingress", _WORKSPACE, ""), sums.bytes_in)
        if is_time():
            yield
