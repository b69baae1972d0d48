"""Every node that was ever heard of: what it is, what it runs by its own word, and how fresh that word is.

Live facts are in memory and judged against a monotonic clock. The store gets what changed, in batches: heartbeats are
never rows. `server.py` reports events, `waiting.py` listens, the Admin API reads `views` and `data_planes`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from control_plane.entities.types import EntityBody
from control_plane.fleet.canary import Held
from control_plane.fleet.messages import Hello
from control_plane.fleet.session import Ahead, Idle, Lineage, Parked, Rejection, Session, Waiting
from control_plane.store.contract import NodeRecord
from pointsman.snapshots import NOTHING, Fault, SnapshotRef, Stage

NO_CONFIG_HASH = "0" * 32
"""Kong's way of saying that a node has no configuration yet."""
FAULTS_SHARED_MAX = 3
"""Faults of a refusal that other control planes get to know."""
TOLD_S = 10.0
"""What a control plane passed on of a node's is newer than a record that says less, for so long."""
COME_BACK_S = 20.0
"""How long after a start of ours nodes that were connected before it are waited for: the longest time between two dials
of a node is 15 s."""
REFRESH_S = 3600.0
"""A connected node's row is renewed at least this often, so that a crash of ours can't make it look long gone."""


class NodeState(StrEnum):
    """A node in one word, for operators."""

    CONNECTING = "connecting"  # greeted; nothing to run exists yet, and it runs nothing
    SYNCING = "syncing"  # the head is offered and not answered
    CURRENT = "current"  # runs the head
    LAGGING = "lagging"  # has not answered an offer for a lease, or stopped beating
    REJECTED = "rejected"  # refused the head, runs what it ran
    HELD = "held"  # runs what it should; the newest version is held back, the first node refused it
    AHEAD = "ahead"  # runs a later version than the store holds, or one of another history
    ELSEWHERE = "elsewhere"  # connected to another control plane over the same database
    DISCONNECTED = "disconnected"  # its stream ended less than a lease ago
    EXPIRED = "expired"  # gone for longer than a lease


class SyncStatus(StrEnum):
    """Kong's words; only those that can happen here."""

    UNKNOWN = "unknown"
    NORMAL = "normal"
    INCOMPATIBLE = "kong_version_incompatible"


@dataclass(frozen=True, slots=True)
class Plane:
    """A control plane, to which a node is connected."""

    id: str
    hostname: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node at one moment. Ages and durations are seconds, `*_seen` seconds since 1970."""

    id: str
    hostname: str
    ip: str
    software: str
    labels: Mapping[str, str]
    state: NodeState
    connected: bool
    version: int  # running by its own word; 0 = nothing
    snapshot_hash: str  # hex; empty = nothing
    offered_version: int  # last sent over the present stream; 0 = none
    in_flight: int
    beat_age_s: float | None  # None = not heard since our start
    applied_took_s: float | None
    rejected_version: int | None
    rejected_stage: Stage | None
    faults: tuple[Fault, ...]
    reason: str  # why it is not connected or was refused; empty when all is well
    first_seen: float
    last_seen: float
    workers: int
    proxy_addresses: tuple[str, ...]
    status_address: str
    sync_status: SyncStatus
    held_version: int | None = None  # kept from this node because another one refused it
    certificate_expires_at: float | None = None  # seconds since 1970; None = it needs none, or is not known
    plane: Plane | None = None  # that it is connected to


@dataclass(slots=True)
class Node:
    """What is known of one node. `session` exists exactly while its stream does."""

    id: str
    first_seen: float
    last_seen: float
    hostname: str = ""
    ip: str = ""
    software: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    boot_id: int = 0
    workers: int = 0
    proxy_addresses: tuple[str, ...] = ()
    status_address: str = ""
    session: Session | None = None
    config_hash: str = NO_CONFIG_HASH  # survives our restart, where `running` starts as nothing
    running: SnapshotRef = NOTHING
    rejection: Rejection | None = None
    offered: SnapshotRef | None = None
    waiting_since: float | None = None  # monotonic: no progress since then, while an offer is open
    last_beat: float | None = None  # monotonic
    gone_at: float | None = None  # monotonic; None while connected or not heard since our start
    in_flight: int = 0
    clock_error_us: int = 0  # of its estimate of our clock, by its own word; 0 = none yet
    applied_took_s: float | None = None
    reason: str = ""
    leaving: bool = False
    sync_status: SyncStatus = SyncStatus.UNKNOWN
    saved_at: float = 0.0
    elsewhere: Plane | None = None  # connected to this other control plane, by its record
    told_at: float | None = None  # monotonic: when that control plane passed on what it runs
    certificate_expires_at: float | None = None  # of the certificate that its stream began with

    @property
    def connected(self) -> bool:
        return self.session is not None


class Nodes:
    """The registry. `clock` is monotonic, `wall` is seconds since 1970."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        lease_s: float,
        purge_after_s: float,
        nodes_max: int = 10_000,
        plane: Plane = Plane("", ""),
    ) -> None:
        self._plane = plane
        self._others: frozenset[str] = frozenset()
        self.lineage = Lineage()
        """Set before the first node is accepted."""
        self._clock = clock
        self._wall = wall
        self._lease_s = lease_s
        self._purge_after_s = purge_after_s
        self._nodes_max = nodes_max
        self._nodes: dict[str, Node] = {}
        self._dirty: set[str] = set()
        self._awaited: dict[str, str] = {}  # host names by id: connected before our start, and not heard since
        self._awaited_until = 0.0
        self.certificate_expires_at: Callable[[str], float | None] = _not_known
        """When a node's newest certificate ends, where that is known without a stream of the node."""
        self._listeners: list[Callable[[Node], None]] = []
        self.held: Held | None = None
        """The version that is kept from the nodes because the first one refused it."""

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: str) -> Node | None:
        return self._nodes.get(node_id)

    def listen(self, listener: Callable[[Node], None]) -> Callable[[], None]:
        """Calls `listener` on each change of what a node runs, refused, or of its stream; returns how to stop that."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def load(self, records: Iterable[NodeRecord]) -> None:
        """Nodes that an earlier process of the control plane knew."""
        oldest = self._wall() - self._purge_after_s
        newest_first = sorted(records, key=lambda record: record.last_seen, reverse=True)
        for record in newest_first[: self._nodes_max]:
            if record.last_seen < oldest or record.id in self._nodes:
                continue
            self._nodes[record.id] = Node(
                id=record.id,
                first_seen=record.first_seen,
                last_seen=record.last_seen,
                hostname=record.hostname,
                ip=record.ip,
                software=record.software,
                labels=record.labels,
                config_hash=record.config_hash or NO_CONFIG_HASH,
                # Of no epoch: it tells operators what the node last said, and satisfies nobody who waits.
                running=SnapshotRef(b"", record.version, b""),
                sync_status=_sync_status(record.sync_status),
                reason="not seen since the control plane started",
                saved_at=record.last_seen,
            )

    def await_return(self, records: Sequence[NodeRecord]) -> None:
        """Expects the nodes of these records that were connected when the control plane before us ended.

        One that was killed leaves them connected by their records. One that stopped had seen all of them go, at its
        end: whoever was seen last in that moment was there.
        """
        ended = max((record.last_seen for record in records), default=0.0)
        self._awaited = {
            record.id: record.hostname
            for record in records
            if record.id in self._nodes and (record.plane or record.last_seen >= ended - self._lease_s)
        }
        self._awaited_until = self._clock() + COME_BACK_S

    def returning(self) -> list[str]:
        """Host names of the nodes that are expected back in these first seconds and have not come yet.

        What is asked of the fleet in this time is better asked a moment later: they serve, and would be passed over.
        """
        if not self._awaited or self._clock() >= self._awaited_until:
            return []
        return sorted(host for node_id, host in self._awaited.items() if self._may_come(node_id))

    def _may_come(self, node_id: str) -> bool:
        node = self._nodes.get(node_id)
        return node is not None and node.elsewhere is None

    def merge(self, records: Iterable[NodeRecord], planes: Mapping[str, str]) -> None:
        """What other control planes have saved of the nodes that are not connected here.

        `planes` are those that live, host names by id.
        """
        self._others = frozenset(planes) - {self._plane.id}
        for record in records:
            node = self._nodes.get(record.id)
            if node is None:
                self.load([record])
                node = self._nodes.get(record.id)
            if node is None or node.connected:
                continue
            elsewhere = None
            if record.plane in planes and record.plane != self._plane.id:
                elsewhere = Plane(record.plane, planes[record.plane])
            before = node.running, node.rejection, node.elsewhere
            if record.last_seen >= node.last_seen:
                self._take_over(node, record)
                node.reason = "connected to another control plane" if elsewhere is not None else "not connected"
            node.elsewhere = elsewhere
            if before != (node.running, node.rejection, node.elsewhere):
                for listener in tuple(self._listeners):
                    listener(node)

    def runs_elsewhere(self, node_id: str, running: SnapshotRef) -> None:
        """Its control plane passed on what a node said that it runs, which the record will say some moments later."""
        node = self._nodes.get(node_id)
        if node is None or node.elsewhere is None or node.running.epoch not in (running.epoch, NOTHING.epoch):
            return
        if node.running.version < running.version:
            node.running = SnapshotRef(running.epoch, running.version, b"")
            node.config_hash = _config_hash(running)
            node.told_at = self._clock()
            for listener in tuple(self._listeners):
                listener(node)

    def _take_over(self, node: Node, record: NodeRecord) -> None:
        told = node.told_at is not None and self._clock() - node.told_at < TOLD_S
        node.last_seen = record.last_seen
        node.hostname, node.ip = record.hostname, record.ip
        node.software, node.labels = record.software, record.labels
        node.sync_status = _sync_status(record.sync_status)
        running = SnapshotRef(bytes.fromhex(record.epoch), record.version, b"")
        beyond = running == NOTHING or node.running.reached(running.version, epoch=running.epoch)
        if not (told and beyond):
            node.config_hash = record.config_hash or NO_CONFIG_HASH
            node.running = running
        node.rejection = _rejection(record.refused)
        node.applied_took_s = None

    def accepted(
        self, hello: Hello, *, ip: str, head: SnapshotRef, certificate_expires_at: float | None = None
    ) -> Node:
        """A hello was found fit. What this process of the node refused before is carried over to the new stream."""
        node = self._known(hello, ip=ip)
        same_process = node.boot_id == hello.boot_id
        node.boot_id = hello.boot_id
        node.certificate_expires_at = certificate_expires_at
        node.session = Session(
            running=hello.running,
            head=head,
            rejection=node.rejection if same_process else None,
            lineage=self.lineage,
        )
        node.offered = None
        node.elsewhere = None
        node.gone_at = None
        node.reason = ""
        node.leaving = False
        node.sync_status = SyncStatus.NORMAL
        if not same_process:
            node.applied_took_s = None
        self._heard(node)
        self._runs(node)
        self._changed(node)
        return node

    def refused(self, hello: Hello, *, ip: str, reason: str) -> None:
        """A hello was not fit for us: an operator must see the node all the same."""
        node = self._known(hello, ip=ip)
        node.running = hello.running
        node.config_hash = _config_hash(hello.running)
        node.reason = reason
        node.gone_at = self._clock()
        node.sync_status = SyncStatus.INCOMPATIBLE
        self._changed(node)

    def beat(self, node: Node, running: SnapshotRef, *, in_flight: int) -> bool:
        """A sign of life; returns whether the head must be offered again."""
        assert node.session is not None
        self._heard(node)
        node.in_flight = in_flight
        if self._wall() - node.saved_at > REFRESH_S:
            self._dirty.add(node.id)
        if running == node.session.running:
            return False
        again = node.session.applied(running)
        self._runs(node)
        self._changed(node)
        return again

    def applied(self, node: Node, ref: SnapshotRef, *, took_s: float) -> bool:
        """The node runs `ref`; returns whether the head must be offered again."""
        assert node.session is not None
        self._heard(node)
        node.applied_took_s = took_s
        again = node.session.applied(ref)
        self._runs(node)
        self._changed(node)
        return again

    def rejected(self, node: Node, rejection: Rejection, *, running: SnapshotRef) -> bool:
        """The node refused a snapshot; returns whether the head must be offered again."""
        assert node.session is not None
        self._heard(node)
        again = node.session.rejected(rejection, running=running)
        self._runs(node)
        self._changed(node)
        return again

    def unusable(self, node: Node, ref: SnapshotRef, *, running: SnapshotRef) -> bool:
        """The node could not use a delta; returns whether the head must be offered again, as a whole."""
        assert node.session is not None
        self._heard(node)
        again = node.session.unusable(ref, running=running)
        self._runs(node)
        return again

    def head_moved(self, node: Node, head: SnapshotRef) -> bool:
        """A newer snapshot exists; returns whether it must be offered to this node."""
        assert node.session is not None
        offer = node.session.head_moved(head)
        self._settled(node)
        return offer

    def offered(self, node: Node, ref: SnapshotRef) -> None:
        """The offer of `ref` was sent."""
        node.offered = ref

    def leaving(self, node: Node, reason: str) -> None:
        """The node stops in good order; its stream ends next."""
        node.leaving = True
        node.reason = f"left: {reason}" if reason else "left"
        self._changed(node)

    def disconnected(self, node: Node, reason: str) -> None:
        """The stream is over."""
        if node.session is not None:
            node.rejection = node.session.rejection
        node.session = None
        node.gone_at = self._clock()
        node.in_flight = 0
        node.offered = None
        node.reason = node.reason if node.leaving else reason
        self._changed(node)

    def live(self) -> list[Node]:
        """Nodes with an accepted hello whose last beat is younger than the lease."""
        now = self._clock()
        return [
            node
            for node in self._nodes.values()
            if node.connected and not node.leaving and node.last_beat is not None
            if now - node.last_beat < self._lease_s
        ]

    @property
    def other_planes(self) -> frozenset[str]:
        """Ids of the other control planes over the same database that live, as far as is known."""
        return self._others

    def elsewhere(self) -> list[Node]:
        """Nodes that are connected to other control planes which live, by what these saved last."""
        return [node for node in self._nodes.values() if node.elsewhere is not None]

    def present(self) -> set[str]:
        """Ids of the nodes that are connected, or whose stream ended less than a lease ago."""
        now = self._clock()
        return {
            node.id
            for node in self._nodes.values()
            if node.connected or (node.gone_at is not None and now - node.gone_at < self._lease_s)
        }

    def silent_s(self, node: Node) -> float:
        """How long ago the node was last heard."""
        return self._clock() - node.last_beat if node.last_beat is not None else 0.0

    def take_dirty(self) -> Sequence[NodeRecord]:
        """What must be saved since the last call."""
        records = [self._record(self._nodes[node_id]) for node_id in self._dirty if node_id in self._nodes]
        self._dirty.clear()
        return records

    def put_back(self, records: Iterable[NodeRecord]) -> None:
        """Saving `records` failed: they stay to be saved."""
        self._dirty.update(record.id for record in records)

    def purge(self) -> None:
        """Forgets nodes that were not seen for the purge time."""
        oldest = self._wall() - self._purge_after_s
        for node in [n for n in self._nodes.values() if not n.connected and n.last_seen < oldest]:
            del self._nodes[node.id]

    def views(self) -> list[NodeView]:
        """All nodes by hostname and id."""
        return sorted((self._view(node) for node in self._nodes.values()), key=lambda view: (view.hostname, view.id))

    def data_planes(self) -> list[EntityBody]:
        """All nodes by id, in the shape of Kong's `/clustering/data-planes`."""
        wall = self._wall()
        return [self._kong(node, wall) for _, node in sorted(self._nodes.items())]

    def _known(self, hello: Hello, *, ip: str) -> Node:
        now = self._wall()
        node = self._nodes.get(hello.node_id)
        self._awaited.pop(hello.node_id, None)
        if node is None:
            self._make_room()
            node = self._nodes[hello.node_id] = Node(id=hello.node_id, first_seen=now, last_seen=now)
        node.last_seen = now
        node.hostname = hello.hostname
        node.ip = ip
        node.software = hello.software
        node.labels = hello.labels
        node.workers = hello.workers
        node.proxy_addresses = hello.proxy_addresses
        node.status_address = hello.status_address
        return node

    def _make_room(self) -> None:
        """Forgets the node gone longest when there are too many: made-up ids must not fill memory."""
        if len(self._nodes) >= self._nodes_max:
            gone = [node for node in self._nodes.values() if not node.connected]
            if gone:
                del self._nodes[min(gone, key=lambda node: node.last_seen).id]

    def _heard(self, node: Node) -> None:
        node.last_beat = self._clock()
        node.last_seen = self._wall()

    def _runs(self, node: Node) -> None:
        """Takes over what the session made of the node's word."""
        assert node.session is not None
        node.running = node.session.running
        node.rejection = node.session.rejection
        node.config_hash = _config_hash(node.running)
        node.waiting_since = None
        self._settled(node)

    def _settled(self, node: Node) -> None:
        """Keeps since when an offer is open without progress; newer heads alone are none."""
        assert node.session is not None
        if not isinstance(node.session.phase, Waiting):
            node.waiting_since = None
        elif node.waiting_since is None:
            node.waiting_since = self._clock()

    def _changed(self, node: Node) -> None:
        self._dirty.add(node.id)
        for listener in tuple(self._listeners):
            listener(node)

    def _record(self, node: Node) -> NodeRecord:
        node.saved_at = self._wall()
        return NodeRecord(
            id=node.id,
            hostname=node.hostname,
            ip=node.ip,
            software=node.software,
            labels=dict(node.labels),
            config_hash=node.config_hash,
            version=node.running.version,
            last_seen=node.last_seen,
            first_seen=node.first_seen,
            sync_status=node.sync_status.value,
            plane=self._plane.id if node.connected else "",
            epoch=node.running.epoch.hex(),
            refused=_refusal(node.rejection),
        )

    def _state(self, node: Node) -> NodeState:
        now = self._clock()
        if node.session is None:
            if node.elsewhere is not None:
                return NodeState.ELSEWHERE
            recent = node.gone_at is not None and now - node.gone_at < self._lease_s
            return NodeState.DISCONNECTED if recent else NodeState.EXPIRED
        if node.last_beat is not None and now - node.last_beat >= self._lease_s:
            return NodeState.LAGGING
        match node.session.phase:
            case Idle():
                if node.running == NOTHING:
                    return NodeState.CONNECTING
                return NodeState.HELD if self.held is not None else NodeState.CURRENT
            case Waiting():
                late = node.waiting_since is not None and now - node.waiting_since >= self._lease_s
                return NodeState.LAGGING if late else NodeState.SYNCING
            case Parked():
                return NodeState.REJECTED
            case Ahead():
                return NodeState.AHEAD

    def _view(self, node: Node) -> NodeView:
        rejection = node.rejection
        return NodeView(
            id=node.id,
            hostname=node.hostname,
            ip=node.ip,
            software=node.software,
            labels=node.labels,
            state=self._state(node),
            connected=node.connected,
            version=node.running.version,
            snapshot_hash=node.running.snapshot_hash.hex(),
            offered_version=node.offered.version if node.offered is not None else 0,
            in_flight=node.in_flight,
            beat_age_s=self._clock() - node.last_beat if node.last_beat is not None else None,
            applied_took_s=node.applied_took_s,
            rejected_version=rejection.ref.version if rejection is not None else None,
            rejected_stage=rejection.stage if rejection is not None else None,
            faults=rejection.faults if rejection is not None else (),
            reason=node.reason or self._why_held(node),
            plane=self._plane if node.connected else node.elsewhere,
            held_version=self.held.ref.version if self.held is not None and node.connected else None,
            first_seen=node.first_seen,
            last_seen=node.last_seen,
            workers=node.workers,
            proxy_addresses=node.proxy_addresses,
            status_address=node.status_address,
            sync_status=node.sync_status,
            certificate_expires_at=self._expires_at(node),
        )

    def _expires_at(self, node: Node) -> float | None:
        newest = self.certificate_expires_at(node.id)
        return node.certificate_expires_at if newest is None else newest

    def _why_held(self, node: Node) -> str:
        held = self.held
        if held is None or not node.connected:
            return ""
        refuser = self._nodes.get(held.node)
        name = refuser.hostname if refuser is not None else held.node
        return f"version {held.ref.version} is held, {name} refused it: {held.reason}"

    def _kong(self, node: Node, wall: float) -> EntityBody:
        expires_at = self._expires_at(node)
        return {
            "id": node.id,
            "ip": node.ip,
            "hostname": node.hostname,
            "version": node.software,
            "config_hash": node.config_hash,
            "last_seen": int(node.last_seen),
            "updated_at": int(node.last_seen),
            "sync_status": node.sync_status.value,
            "labels": dict(node.labels) or None,
            "cert_details": None if expires_at is None else {"expiry_timestamp": int(expires_at)},
            "rpc_capabilities": [],
            "ttl": max(0, int(node.last_seen + self._purge_after_s - wall)),
        }


def _not_known(_node_id: str) -> float | None:
    return None


def _refusal(rejection: Rejection | None) -> str:
    """A refusal as text for the record; the first faults stand for all."""
    if rejection is None:
        return ""
    return json.dumps(
        {
            "epoch": rejection.ref.epoch.hex(),
            "version": rejection.ref.version,
            "stage": rejection.stage.value,
            "faults": [asdict(fault) for fault in rejection.faults[:FAULTS_SHARED_MAX]],
        }
    )


def _rejection(text: str) -> Rejection | None:
    """The refusal of a record."""
    if not text:
        return None
    told = json.loads(text)
    ref = SnapshotRef(bytes.fromhex(told["epoch"]), told["version"], b"")
    return Rejection(ref, Stage(told["stage"]), tuple(Fault(**fault) for fault in told["faults"]))


def _config_hash(ref: SnapshotRef) -> str:
    return ref.snapshot_hash.hex()[:32] or NO_CONFIG_HASH


def _sync_status(word: str) -> SyncStatus:
    """A later version of ours may have saved a word that is not known here yet."""
    return next((status for status in SyncStatus if status.value == word), SyncStatus.UNKNOWN)
