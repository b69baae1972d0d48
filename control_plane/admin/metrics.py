"""`GET /metrics` of the control plane: Kong's metrics of the fleet, and our own of what is behind the Admin API."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector
from typing_extensions import override

from control_plane.admin.information import Connections, Identity
from control_plane.admin.messages import Answer, Call
from control_plane.admin.operations import TEXT, Operation
from control_plane.admin.table import PathTable
from control_plane.admin.writes import Fleet, Writes
from control_plane.events.webhooks import Webhooks
from control_plane.fleet.nodes import NodeState, SyncStatus
from control_plane.fleet.rollouts import Figures
from control_plane.fleet.timing import Times
from control_plane.store.contract import StoreError
from pointsman.version import software_version

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LAG_LOOK_EVERY_S = 0.25
LAG_WINDOW_S = 15.0


class Kind(StrEnum):
    """What a metric's values mean."""

    COUNTER = "counter"
    GAUGE = "gauge"
    SUMMARY = "summary"


@dataclass(frozen=True, slots=True)
class Declared:
    """One metric of the page; docs/reference/metrics.md is made of these."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()


_NODE = ("node_id", "hostname", "ip")
LAST_SEEN = Declared(
    "kong_data_plane_last_seen", Kind.GAUGE, "When a node was last heard of, in seconds since 1970", _NODE
)
CONFIG_HASH = Declared(
    "kong_data_plane_config_hash", Kind.GAUGE, "The hash of what a node runs, as a number: equal or not, no more", _NODE
)
COMPATIBLE = Declared(
    "kong_data_plane_version_compatible",
    Kind.GAUGE,
    "1 when the node's software can be served by this control plane",
    (*_NODE, "kong_version"),
)
DATASTORE = Declared("kong_datastore_reachable", Kind.GAUGE, "1 when the store answers")
NODE_INFO = Declared("kong_node_info", Kind.GAUGE, "Always 1; the labels name this process", ("node_id", "version"))
CONNECTIONS = Declared(
    "kong_nginx_connections_total",
    Kind.GAUGE,
    "The Admin API's connections: accepted, handled and total (requests) since the start; the others now",
    ("node_id", "subsystem", "state"),
)
REQUESTS = Declared(
    "kong_nginx_requests_total", Kind.GAUGE, "The Admin API's requests since the start", ("node_id", "subsystem")
)
VERSION = Declared(
    "pointsman_version", Kind.GAUGE, "Configuration version: head of the store, and published to nodes", ("kind",)
)
NODES = Declared("pointsman_nodes", Kind.GAUGE, "Nodes by state, as `pointsman nodes` names them", ("state",))
REFUSALS = Declared(
    "pointsman_node_refusals_total", Kind.COUNTER, "Enrolments, hellos and renewals refused, by reason", ("reason",)
)
NODE_VERSION = Declared("pointsman_node_version", Kind.GAUGE, "The version that a node says it runs", _NODE)
WRITES = Declared(
    "pointsman_store_write_seconds", Kind.SUMMARY, "Committed writes and the time they took, queueing included"
)
GATHER = Declared(
    "pointsman_publish_gather_seconds",
    Kind.SUMMARY,
    "Snapshots published, and the time from the first commit in each to its publication",
)
WEBHOOKS = Declared(
    "pointsman_webhook_events_total", Kind.COUNTER, "Events for webhooks, by what became of them", ("outcome",)
)
ROLLOUTS = Declared(
    "pointsman_rollouts_total", Kind.COUNTER, "Rollouts that ended at this control plane, by how", ("state",)
)
ROLLOUTS_OPEN = Declared("pointsman_rollouts_open", Kind.GAUGE, "Rollouts on their way or waiting for their turn")
ROLLOUT_TIMES = Declared(
    "pointsman_rollout_seconds", Kind.SUMMARY, "Rollouts that ended, and the time from their turn to their end"
)
ROLLOUT_LATE = Declared(
    "pointsman_rollout_late_seconds",
    Kind.SUMMARY,
    "Activations of nodes at an instant, and how late the last worker of each was",
)
ROLLOUT_BEHIND = Declared(
    "pointsman_rollout_nodes_left_behind",
    Kind.GAUGE,
    "Nodes that had not said that they run the version of the newest rollout when it ended",
)
LOOP_LAG = Declared(
    "pointsman_loop_lag_seconds", Kind.GAUGE, "How late a timer of this process was at worst in the last 15 s"
)
METRICS: tuple[Declared, ...] = (
    LAST_SEEN,
    CONFIG_HASH,
    COMPATIBLE,
    DATASTORE,
    NODE_INFO,
    CONNECTIONS,
    REQUESTS,
    VERSION,
    NODES,
    NODE_VERSION,
    REFUSALS,
    WRITES,
    GATHER,
    WEBHOOKS,
    ROLLOUTS,
    ROLLOUTS_OPEN,
    ROLLOUT_TIMES,
    ROLLOUT_LATE,
    ROLLOUT_BEHIND,
    LOOP_LAG,
)
"""What this module declares; the `process_*` metrics of the Prometheus client come with them."""


class LoopLag:
    """Watches how late timers are. A late one means that something held the loop, and every answer waited."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[float] = deque(maxlen=int(LAG_WINDOW_S / LAG_LOOK_EVERY_S))
        self._task: asyncio.Task[None] | None = None

    @property
    def worst_s(self) -> float:
        """The worst of the window."""
        return max(self._seen, default=0.0)

    def note(self, late_s: float) -> None:
        """Note one look."""
        self._seen.append(max(late_s, 0.0))

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.create_task(self._watch(), name="loop lag")

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _watch(self) -> None:
        while True:
            due = self._clock() + LAG_LOOK_EVERY_S
            await asyncio.sleep(LAG_LOOK_EVERY_S)
            self.note(self._clock() - due)


def mount(
    table: PathTable,
    writes: Writes,
    fleet: Fleet,
    identity: Identity,
    connections: Callable[[], Connections],
    *,
    lag: LoopLag,
    webhooks: Webhooks,
) -> None:
    """Adds `/metrics`."""
    about = Operation(
        summary="Show the metrics in Prometheus' text", answers={200: {"type": "string"}}, answer_type=TEXT
    )
    table.add(
        "/metrics", {"GET": _Metrics(writes, fleet, identity, connections, lag, webhooks).page}, about={"GET": about}
    )


class _Page(Collector):
    """Metrics that were collected already."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    @override
    def collect(self) -> Iterator[Metric]:
        return iter(self._metrics)


@dataclass(frozen=True, slots=True)
class _Metrics:
    writes: Writes
    fleet: Fleet
    identity: Identity
    connections: Callable[[], Connections]
    lag: LoopLag
    webhooks: Webhooks

    async def page(self, _call: Call, _path: tuple[str, ...]) -> Answer:
        try:
            head: int | None = await self.writes.store.head()
        except StoreError:
            head = None
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(_Page([*self._nodes(), *self._own(head)]))
        return Answer(200, generate_latest(registry), content_type=CONTENT_TYPE)

    def _nodes(self) -> Iterator[Metric]:
        seen, hashes, compatible = _gauge(LAST_SEEN), _gauge(CONFIG_HASH), _gauge(COMPATIBLE)
        states: Counter[NodeState] = Counter()
        versions = _gauge(NODE_VERSION)
        for view in self.fleet.nodes():
            node = (view.id, view.hostname, view.ip)
            seen.add_metric(node, view.last_seen)
            hashes.add_metric(node, float(int(view.snapshot_hash[:32] or "0", 16)))
            compatible.add_metric((*node, view.software), float(view.sync_status is SyncStatus.NORMAL))
            versions.add_metric(node, view.version)
            states[view.state] += 1
        nodes = _gauge(NODES)
        for state in NodeState:
            nodes.add_metric((state.value,), states[state])
        refusals = CounterMetricFamily(REFUSALS.name, REFUSALS.help, labels=REFUSALS.labels)
        for reason, times in self.fleet.refusals().items():
            refusals.add_metric((reason,), times)
        yield from (seen, hashes, compatible, nodes, versions, refusals)

    def _own(self, head: int | None) -> Iterator[Metric]:
        node_id = self.identity.node_id
        yield _single(DATASTORE, float(head is not None))
        info = _gauge(NODE_INFO)
        info.add_metric((node_id, software_version()), 1)
        yield info
        seen = self.connections()
        connections = _gauge(CONNECTIONS)
        for state, number in (
            ("accepted", seen.accepted),
            ("active", seen.active),
            ("handled", seen.accepted),
            ("reading", 0),
            ("total", seen.requests),
            ("waiting", max(seen.active - seen.writing, 0)),
            ("writing", seen.writing),
        ):
            connections.add_metric((node_id, "http", state), number)
        yield connections
        requests = _gauge(REQUESTS)
        requests.add_metric((node_id, "http"), seen.requests)
        yield requests
        version = _gauge(VERSION)
        if head is not None:
            version.add_metric(("head",), head)
        version.add_metric(("published",), self.fleet.published)
        yield version
        yield _summary(WRITES, self.writes.times)
        yield _summary(GATHER, self.fleet.gather_times)
        webhooks = CounterMetricFamily(WEBHOOKS.name, WEBHOOKS.help, labels=WEBHOOKS.labels)
        for outcome, events in self.webhooks.totals().items():
            webhooks.add_metric((outcome,), events)
        yield webhooks
        yield from self._rollouts()
        yield _single(LOOP_LAG, self.lag.worst_s)

    def _rollouts(self) -> Iterator[Metric]:
        rollouts = self.fleet.rollouts
        figures = rollouts.figures if rollouts is not None else Figures()
        ended = CounterMetricFamily(ROLLOUTS.name, ROLLOUTS.help, labels=ROLLOUTS.labels)
        for state, times in figures.ended.items():
            ended.add_metric((state,), times)
        yield ended
        yield _single(ROLLOUTS_OPEN, rollouts.open if rollouts is not None else 0)
        yield _summary(ROLLOUT_TIMES, figures.took)
        yield _summary(ROLLOUT_LATE, figures.late)
        yield _single(ROLLOUT_BEHIND, figures.left_behind)


def _gauge(declared: Declared) -> GaugeMetricFamily:
    return GaugeMetricFamily(declared.name, declared.help, labels=declared.labels)


def _single(declared: Declared, value: float) -> Metric:
    if declared.kind is Kind.COUNTER:
        return CounterMetricFamily(declared.name, declared.help, value=value)
    return GaugeMetricFamily(declared.name, declared.help, value=value)


def _summary(declared: Declared, times: Times) -> Metric:
    return SummaryMetricFamily(declared.name, declared.help, count_value=times.count, sum_value=times.total_s)
