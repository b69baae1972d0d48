"""What each node says of each target, and what the fleet as a whole makes of it. Pure: no clock, no I/O.

Nodes decide on health, each for itself, and report: everything once asked, transitions at once, and with each beat the
digest of their table. This keeps one table a node and compares digests, so that whatever got lost on the way (a
dropped report, a restart of either side) is noticed at the next beat and mended by one full report:

    report(full)  the node's table is replaced      report(changes)  rows are put or removed
    beat(digest)  equal: fine; different: ask for all of it, then give the node some beats to answer

The verdict on an address is over the nodes that are live; what a dead node said last says nothing about now.
`server.py` feeds reports and beats, `fleet.py` forgets nodes that are gone, the Admin API reads.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum

from pointsman.rules.health_digest import TableDigest, row_digest

PATIENCE_BEATS = 2
"""Beats with a wrong digest that are let pass after asking for a full report, or after its first part."""
ROWS_PER_NODE_MAX = 50_000
ROWS_MAX = 1_000_000
"""Targets kept of one node, and of all nodes. A node that reports more is heard no further, which bounds memory."""

Key = tuple[str, str]
"""(upstream id, target id)"""


class AddressState(IntEnum):
    """A node's verdict on one address; the numbers are the wire's."""

    HEALTHY = 1
    UNHEALTHY = 2
    OFF = 3  # no checks, or weight 0

    @property
    def word(self) -> str:
        """Kong's word for it."""
        return "HEALTHCHECKS_OFF" if self is AddressState.OFF else self.name


@dataclass(frozen=True, slots=True)
class AddressReport:
    """What one node says of one address; `since` is seconds since 1970 by the node's clock."""

    ip: str
    port: int
    weight: int
    state: AddressState
    since: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TargetReport:
    """What one node says of one target. `error` is why its name has no address."""

    upstream: str
    target: str
    error: str = ""
    record_type: str = ""
    addresses: tuple[AddressReport, ...] = ()
    removed: bool = False

    @property
    def key(self) -> Key:
        return self.upstream, self.target

    def digest(self) -> int:
        """Its part of the node's digest."""
        rows = ((each.ip, each.port, each.weight, int(each.state), each.since) for each in self.addresses)
        return row_digest(self.upstream, self.target, error=self.error, record_type=self.record_type, addresses=rows)


class Agreement(Enum):
    """How many of the nodes that know an address call it healthy (or take it unchecked)."""

    ALL = "all"
    MOST = "most"
    SOME = "some"
    NONE = "none"

    @classmethod
    def of(cls, healthy: int, total: int) -> Agreement:
        """Half is not most."""
        if healthy >= total:
            return cls.ALL
        if healthy == 0:
            return cls.NONE
        return cls.MOST if 2 * healthy > total else cls.SOME


@dataclass(frozen=True, slots=True)
class AddressVerdict:
    """The fleet on one address. `said` has each node's word, by node id."""

    ip: str
    port: int
    weight: int
    state: AddressState
    agreement: Agreement
    said: Mapping[str, AddressReport]

    @property
    def dissenting(self) -> tuple[str, ...]:
        """Ids of the nodes whose word is not the fleet's."""
        return tuple(sorted(node for node, report in self.said.items() if report.state is not self.state))


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """The fleet on one target. `nodes` know it; `failing` are those that can't resolve its name, with their errors."""

    upstream: str
    target: str
    record_type: str
    error: str
    addresses: tuple[AddressVerdict, ...]
    nodes: tuple[str, ...]
    failing: Mapping[str, str]
    in_flight: Mapping[str, int]

    @property
    def word(self) -> str:
        """Kong's word for the target."""
        if not self.addresses:
            return "DNS_ERROR"
        states = {address.state for address in self.addresses}
        for state in (AddressState.HEALTHY, AddressState.UNHEALTHY):
            if state in states:
                return state.word
        return AddressState.OFF.word

    @property
    def disagreement(self) -> bool:
        """Whether the nodes differ on some address, or some can't resolve what others can."""
        split = bool(self.failing) and len(self.failing) < len(self.nodes)
        return split or any(address.dissenting for address in self.addresses)


@dataclass(slots=True)
class _Table:
    """One node's targets by upstream, with their digest."""

    upstreams: dict[str, dict[str, TargetReport]] = field(default_factory=dict)
    digest: TableDigest[Key] = field(default_factory=TableDigest)
    rows: int = 0
    patience: int = 0
    overflowed: bool = False
    in_flight: Mapping[Key, int] = field(default_factory=dict)
    counted_at: float | None = None


class HealthBook:
    """The tables of all nodes."""

    def __init__(self, *, rows_max: int = ROWS_MAX, rows_per_node_max: int = ROWS_PER_NODE_MAX) -> None:
        self._nodes: dict[str, _Table] = {}
        self._rows_max = rows_max
        self._rows_per_node_max = rows_per_node_max
        self._rows = 0
        self._changed: set[Key] = set()

    def report(self, node: str, targets: Iterable[TargetReport], *, full: bool) -> None:
        """Take in a report: everything the node knows, or what changed.

        A full report too large for one message comes as one with `full`, and the rest as changes.
        """
        table = self._nodes.setdefault(node, _Table())
        if full:
            self._clear(table)
            table.patience = PATIENCE_BEATS
        for target in targets:
            self._put(table, target)

    def beat(self, node: str, digest: int, in_flight: Mapping[Key, int], *, now: float) -> bool:
        """Take in a beat; True when the node must be asked for a full report. `now` is monotonic seconds."""
        table = self._nodes.setdefault(node, _Table())
        table.in_flight = in_flight
        table.counted_at = now
        if table.digest.value == digest or table.overflowed:
            table.patience = 0
            return False
        if table.patience > 0:
            table.patience -= 1
            return False
        table.patience = PATIENCE_BEATS
        return True

    def keep_only(self, nodes: Collection[str]) -> None:
        """Forget all other nodes."""
        for node in self._nodes.keys() - set(nodes):
            self._clear(self._nodes.pop(node))

    def digest(self, node: str) -> int:
        """The digest of what is known from a node."""
        table = self._nodes.get(node)
        return table.digest.value if table is not None else 0

    def table(self, node: str) -> dict[Key, TargetReport]:
        """All that is known from a node."""
        table = self._nodes.get(node)
        if table is None:
            return {}
        return {report.key: report for targets in table.upstreams.values() for report in targets.values()}

    def take_changed(self) -> set[Key]:
        """The targets of which any node changed its word since the last call."""
        changed, self._changed = self._changed, set()
        return changed

    def knows(self, upstream: str, nodes: Collection[str]) -> bool:
        """Whether any of the nodes has reported on the upstream."""
        return any(upstream in table.upstreams for node in nodes if (table := self._nodes.get(node)) is not None)

    def verdict(self, upstream: str, target: str, nodes: Collection[str]) -> TargetVerdict | None:
        """What these nodes, the live ones, make of a target together; None when none of them knows it."""
        said: dict[str, TargetReport] = {}
        in_flight: dict[str, int] = {}
        for node in sorted(nodes):
            table = self._nodes.get(node)
            if table is None:
                continue
            report = table.upstreams.get(upstream, {}).get(target)
            if report is not None:
                said[node] = report
            if count := table.in_flight.get((upstream, target), 0):
                in_flight[node] = count
        return _verdict(upstream, target, said, in_flight) if said or in_flight else None

    def targets(self, nodes: Collection[str]) -> set[Key]:
        """All targets that these nodes know."""
        return {
            (upstream, target)
            for node in nodes
            if (table := self._nodes.get(node)) is not None
            for upstream, targets in table.upstreams.items()
            for target in targets
        }

    def open_requests(self, node: str, upstream: str) -> tuple[float, int] | None:
        """When a node counted its open requests, and how many were towards an upstream; None when it has not."""
        table = self._nodes.get(node)
        if table is None or table.counted_at is None:
            return None
        return table.counted_at, sum(count for key, count in table.in_flight.items() if key[0] == upstream)

    def counted_at(self, nodes: Collection[str]) -> float | None:
        """When the oldest of these nodes' counts of open requests was made; None when one has made none."""
        times = [table.counted_at if (table := self._nodes.get(node)) is not None else None for node in nodes]
        known = [at for at in times if at is not None]
        return min(known) if known and len(known) == len(times) else None

    def _put(self, table: _Table, report: TargetReport) -> None:
        targets = table.upstreams.get(report.upstream, {})
        known = report.target in targets
        self._changed.add(report.key)
        if report.removed:
            if known:
                del targets[report.target]
                if not targets:
                    del table.upstreams[report.upstream]
                table.digest.remove(report.key)
                table.rows -= 1
                self._rows -= 1
            return
        if not known:
            if table.rows >= self._rows_per_node_max or self._rows >= self._rows_max:
                table.overflowed = True
                return
            table.rows += 1
            self._rows += 1
        # Nodes say the same ids and words over and over: each text is kept once for the whole fleet.
        upstream, target = sys.intern(report.upstream), sys.intern(report.target)
        table.upstreams.setdefault(upstream, {})[target] = report
        table.digest.put((upstream, target), report.digest())

    def _clear(self, table: _Table) -> None:
        for upstream, targets in table.upstreams.items():
            self._changed.update((upstream, target) for target in targets)
        self._rows -= table.rows
        table.upstreams.clear()
        table.digest.clear()
        table.rows = 0
        table.overflowed = False


def _verdict(
    upstream: str, target: str, said: Mapping[str, TargetReport], in_flight: Mapping[str, int]
) -> TargetVerdict:
    by_address: dict[tuple[str, int], dict[str, AddressReport]] = {}
    for node, report in said.items():
        for address in report.addresses:
            by_address.setdefault((address.ip, address.port), {})[node] = address
    failing = {node: report.error or "no address" for node, report in said.items() if not report.addresses}
    first = next((report for report in said.values() if report.addresses), next(iter(said.values()), None))
    return TargetVerdict(
        upstream=upstream,
        target=target,
        record_type=first.record_type if first is not None else "",
        error=first.error if first is not None else "",
        addresses=tuple(_address(ip, port, reports) for (ip, port), reports in sorted(by_address.items())),
        nodes=tuple(said),
        failing=failing,
        in_flight=in_flight,
    )


def _address(ip: str, port: int, said: Mapping[str, AddressReport]) -> AddressVerdict:
    """The state that most nodes say. A tie is healthy: half of the fleet serves by it."""
    count = {state: sum(1 for each in said.values() if each.state is state) for state in AddressState}
    order = (AddressState.HEALTHY, AddressState.UNHEALTHY, AddressState.OFF)
    state = max(order, key=lambda each: (count[each], -order.index(each)))
    usable = count[AddressState.HEALTHY] + count[AddressState.OFF]
    weights = [each.weight for each in said.values()]
    return AddressVerdict(
        ip=ip,
        port=port,
        weight=max(weights, key=weights.count),
        state=state,
        agreement=Agreement.of(usable, len(said)),
        said=said,
    )
