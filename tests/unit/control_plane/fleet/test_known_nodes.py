"""Goal: what operators read of a node is what it said and how fresh that is. Method: events on a fake clock."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from control_plane.fleet.messages import Hello
from control_plane.fleet.nodes import COME_BACK_S, NO_CONFIG_HASH, Node, Nodes, NodeState, NodeView, SyncStatus
from control_plane.fleet.session import Lineage, Rejection
from control_plane.store.contract import NodeRecord
from pointsman.snapshots import NOTHING, Fault, SnapshotRef, Stage

EPOCH = b"e" * 16
LEASE_S = 15.0
DAY_S = 24 * 3600.0
ID = "11111111-1111-1111-1111-111111111111"


def ref(version: int, *, epoch: bytes = EPOCH) -> SnapshotRef:
    return SnapshotRef(epoch, version, version.to_bytes(32, "big"))


def hello(*, running: SnapshotRef = NOTHING, boot_id: int = 1, node_id: str = ID) -> Hello:
    return Hello(
        node_id=node_id,
        hostname="edge-1",
        software="0.1.0",
        protocol_min=1,
        protocol_max=1,
        schema_level=1,
        labels={"zone": "a"},
        running=running,
        boot_id=boot_id,
        snapshot_bytes_max=0,
        workers=2,
        proxy_addresses=("127.0.0.1:8000",),
        status_address="127.0.0.1:8007",
    )


def rejection(version: int) -> Rejection:
    return Rejection(ref(version), Stage.BUILD, (Fault("BAD_REGEX", "routes", message="no"),))


@dataclass
class Times:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


class World:
    def __init__(self) -> None:
        self.clock = Times()
        self.wall = Times(1_700_000_000.0)
        self.nodes = Nodes(clock=self.clock, wall=self.wall, lease_s=LEASE_S, purge_after_s=14 * DAY_S)

    def pass_s(self, seconds: float) -> None:
        self.clock.now += seconds
        self.wall.now += seconds

    def join(self, *, running: SnapshotRef = NOTHING, head: SnapshotRef = NOTHING, boot_id: int = 1) -> Node:
        return self.nodes.accepted(hello(running=running, boot_id=boot_id), ip="10.0.0.1", head=head)

    def view(self) -> NodeView:
        (view,) = self.nodes.views()
        return view


@pytest.fixture
def world() -> World:
    return World()


def test_without_anything_to_run_a_node_is_connecting(world: World) -> None:
    world.join()
    assert world.view().state is NodeState.CONNECTING


def test_a_node_that_runs_the_head_is_current(world: World) -> None:
    world.join(running=ref(3), head=ref(3))
    assert (world.view().state, world.view().version) == (NodeState.CURRENT, 3)


def test_a_node_behind_syncs_and_then_lags_if_it_never_answers(world: World) -> None:
    node = world.join(running=ref(2), head=ref(3))
    assert world.view().state is NodeState.SYNCING
    for _ in range(4):
        world.pass_s(LEASE_S / 3)
        world.nodes.beat(node, ref(2), in_flight=1)
    assert world.view().state is NodeState.LAGGING


def test_newer_heads_are_no_progress_but_applying_one_is(world: World) -> None:
    node = world.join(running=ref(2), head=ref(3))
    for version in range(4, 9):
        world.pass_s(LEASE_S / 3)
        world.nodes.head_moved(node, ref(version))
        world.nodes.beat(node, ref(2), in_flight=0)
    assert world.view().state is NodeState.LAGGING
    world.nodes.applied(node, ref(5), took_s=0.1)
    assert world.view().state is NodeState.SYNCING


def test_a_silent_node_lags_though_its_stream_is_open(world: World) -> None:
    world.join(running=ref(3), head=ref(3))
    world.pass_s(LEASE_S)
    assert (world.view().state, world.view().connected) == (NodeState.LAGGING, True)
    assert world.nodes.live() == []


def test_a_rejection_shows_its_faults_until_a_later_version_runs(world: World) -> None:
    node = world.join(running=ref(2), head=ref(3))
    assert not world.nodes.rejected(node, rejection(3), running=ref(2))
    assert (world.view().state, world.view().rejected_version) == (NodeState.REJECTED, 3)
    assert world.view().faults[0].code == "BAD_REGEX"
    assert world.nodes.head_moved(node, ref(4))
    world.nodes.applied(node, ref(4), took_s=0.1)
    assert (world.view().state, world.view().faults) == (NodeState.CURRENT, ())


def test_a_parked_version_stays_parked_over_a_reconnect_of_the_same_process(world: World) -> None:
    node = world.join(running=ref(2), head=ref(3))
    world.nodes.rejected(node, rejection(3), running=ref(2))
    world.nodes.disconnected(node, "cut")
    world.join(running=ref(2), head=ref(3))
    assert world.view().state is NodeState.REJECTED


def test_a_restarted_node_gets_a_new_chance(world: World) -> None:
    node = world.join(running=ref(2), head=ref(3))
    world.nodes.rejected(node, rejection(3), running=ref(2))
    world.nodes.disconnected(node, "cut")
    world.join(running=ref(2), head=ref(3), boot_id=2)
    assert world.view().state is NodeState.SYNCING


def test_a_node_ahead_is_shown_as_such(world: World) -> None:
    node = world.join(running=ref(9), head=ref(3))
    assert world.view().state is NodeState.AHEAD
    assert not world.nodes.head_moved(node, ref(4))
    assert world.nodes.head_moved(node, ref(10))


def test_a_node_of_another_history_is_ahead_unless_it_may_be_taken_over(world: World) -> None:
    node = world.join(running=ref(9, epoch=b"f" * 16), head=ref(3))
    assert world.view().state is NodeState.AHEAD
    world.nodes.disconnected(node, "restart")
    world.nodes.lineage = Lineage(accept_empty=True)
    world.join(running=ref(9, epoch=b"f" * 16), head=ref(3), boot_id=2)
    assert world.view().state is NodeState.SYNCING


def test_a_beat_that_tells_of_another_version_makes_the_head_be_offered_again(world: World) -> None:
    node = world.join(running=ref(3), head=ref(3))
    assert not world.nodes.beat(node, ref(3), in_flight=7)
    assert world.view().in_flight == 7
    assert world.nodes.beat(node, ref(2), in_flight=0)


def test_a_lost_node_is_disconnected_then_expired_then_forgotten(world: World) -> None:
    node = world.join(running=ref(3), head=ref(3))
    world.nodes.disconnected(node, "the stream broke")
    assert (world.view().state, world.view().reason) == (NodeState.DISCONNECTED, "the stream broke")
    world.pass_s(LEASE_S)
    assert (world.view().state, world.view().version) == (NodeState.EXPIRED, 3)
    world.pass_s(13 * DAY_S)
    world.nodes.purge()
    assert len(world.nodes) == 1
    world.pass_s(DAY_S)
    world.nodes.purge()
    assert len(world.nodes) == 0


def test_a_connected_node_is_never_forgotten(world: World) -> None:
    world.join()
    world.pass_s(20 * DAY_S)
    world.nodes.purge()
    assert len(world.nodes) == 1


def test_live_means_greeted_and_heard_within_a_lease(world: World) -> None:
    node = world.join()
    world.pass_s(LEASE_S - 0.1)
    assert world.nodes.live() == [node]
    world.nodes.leaving(node, "bye")
    assert world.nodes.live() == []


def test_records_are_saved_when_something_changed_and_not_for_beats(world: World) -> None:
    node = world.join(running=ref(3), head=ref(3))
    (record,) = world.nodes.take_dirty()
    assert record == NodeRecord(
        id=ID,
        hostname="edge-1",
        ip="10.0.0.1",
        software="0.1.0",
        labels={"zone": "a"},
        config_hash=ref(3).snapshot_hash.hex()[:32],
        version=3,
        last_seen=1_700_000_000.0,
        first_seen=1_700_000_000.0,
        sync_status="normal",
        epoch=EPOCH.hex(),
    )
    for _ in range(10):
        world.pass_s(5)
        world.nodes.beat(node, ref(3), in_flight=0)
    assert world.nodes.take_dirty() == []
    world.pass_s(3600)
    world.nodes.beat(node, ref(3), in_flight=0)
    assert len(world.nodes.take_dirty()) == 1


def test_records_that_could_not_be_saved_are_tried_again(world: World) -> None:
    world.join()
    records = world.nodes.take_dirty()
    world.nodes.put_back(records)
    assert world.nodes.take_dirty() == records


def test_nodes_of_an_earlier_process_are_known_and_run_nothing_that_counts(world: World) -> None:
    record = NodeRecord(
        id=ID,
        hostname="edge-1",
        ip="10.0.0.1",
        software="0.1.0",
        config_hash="ab" * 16,
        version=9,
        last_seen=world.wall.now - 60,
        first_seen=1.0,
        sync_status="normal",
    )
    old = replace(record, id="2" * 36, last_seen=world.wall.now - 15 * DAY_S)
    world.nodes.load([record, old])
    assert (world.view().state, world.view().version, world.view().first_seen) == (NodeState.EXPIRED, 9, 1.0)
    node = world.nodes.get(ID)
    assert node is not None
    assert not node.running.reached(1, epoch=EPOCH)
    (shape,) = world.nodes.data_planes()
    assert shape["config_hash"] == "ab" * 16
    world.join()
    assert world.view().first_seen == 1.0


def test_nodes_that_were_there_when_the_plane_before_us_ended_are_expected_back(world: World) -> None:
    """It was killed, so its record of one says connected; or it stopped, and saw all that were there go at its end."""
    now = world.wall.now
    there = NodeRecord(ID, "edge-1", "10.0.0.1", "0.1.0", last_seen=now - 60, first_seen=1.0)
    gone = replace(there, id="2" * 36, hostname="gone", last_seen=now - 600)
    killed = replace(gone, id="3" * 36, hostname="killed", plane="the one before")
    world.nodes.load([there, gone, killed])
    world.nodes.await_return([there, gone, killed])
    assert world.nodes.returning() == ["edge-1", "killed"]
    world.join()
    assert world.nodes.returning() == ["killed"]
    world.nodes.merge([replace(killed, plane="other", last_seen=now)], {"other": "cp-2"})
    assert world.nodes.returning() == [], "it went to another control plane"

    late = World()
    late.nodes.load([there])
    late.nodes.await_return([there])
    late.pass_s(COME_BACK_S)
    assert late.nodes.returning() == []


def test_kong_s_shape(world: World) -> None:
    world.join()
    world.pass_s(100)
    (shape,) = world.nodes.data_planes()
    assert shape == {
        "id": ID,
        "ip": "10.0.0.1",
        "hostname": "edge-1",
        "version": "0.1.0",
        "config_hash": NO_CONFIG_HASH,
        "last_seen": 1_700_000_000,
        "updated_at": 1_700_000_000,
        "sync_status": "normal",
        "labels": {"zone": "a"},
        "cert_details": None,
        "rpc_capabilities": [],
        "ttl": 14 * 86400 - 100,
    }


def test_a_refused_node_is_shown_with_the_reason(world: World) -> None:
    world.nodes.refused(hello(running=ref(2)), ip="10.0.0.1", reason="upgrade the node")
    assert (world.view().reason, world.view().sync_status) == ("upgrade the node", SyncStatus.INCOMPATIBLE)
    assert world.view().state is NodeState.DISCONNECTED


def test_listeners_hear_of_changes_until_they_stop(world: World) -> None:
    heard: list[str] = []
    stop = world.nodes.listen(lambda node: heard.append(node.id))
    node = world.join()
    world.nodes.beat(node, NOTHING, in_flight=0)
    assert heard == [ID]
    stop()
    world.nodes.disconnected(node, "")
    assert heard == [ID]


def test_made_up_ids_push_out_the_node_gone_longest_and_never_a_connected_one() -> None:
    nodes = Nodes(clock=Times(), wall=Times(), lease_s=LEASE_S, purge_after_s=DAY_S, nodes_max=3)
    kept = nodes.accepted(hello(), ip="", head=NOTHING)
    for number in range(50):
        node = nodes.accepted(hello(node_id=f"{number:08}-0000-0000-0000-000000000000"), ip="", head=NOTHING)
        nodes.disconnected(node, "")
    assert len(nodes) == 3
    assert nodes.get(kept.id) is kept
