"""Goal: both ends of the fleet link agree over real gRPC. Method: real server and links, sinks that mind the rules."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import grpc.aio
import pytest

from control_plane.entities.registry import SCHEMAS
from control_plane.fleet import server
from control_plane.fleet.fleet import Fleet
from control_plane.fleet.nodes import NodeState, SyncStatus
from control_plane.fleet.peers import peer_ip
from control_plane.fleet.session import Lineage
from control_plane.fleet.settings import FleetSettings
from control_plane.fleet.waiting import Outcome, wait_for
from control_plane.store.contract import Origin, Store, Transaction
from control_plane.store.sqlite import open_sqlite
from data_plane.node import messages
from data_plane.node.last_good import LastGood
from data_plane.node.outcomes import Refused
from data_plane.node.snapshot import NodeSnapshot
from pointsman.snapshots import NOTHING, Fault, Stage
from pointsman.wire.v1 import fleet_pb2
from tests.support.fleet import EPOCH, OTHER_EPOCH, Plane, Sink, Snap, entities, introduction, node, plane
from tests.support.patience import PATIENCE_S, last_callers, until


def bad_regex(snapshot: NodeSnapshot) -> Refused | None:
    if snapshot.version == 2:
        return Refused(Stage.BUILD, (Fault("BAD_REGEX", "routes", "id", "r1", "paths", "missing )"),))
    return None


def state(control: Plane, node_id: str) -> NodeState | None:
    return next((view.state for view in control.nodes.views() if view.id == node_id), None)


async def test_a_snapshot_reaches_a_node_and_its_report_comes_back(tmp_path: Path) -> None:
    async with plane() as control:
        control.publish(Snap(1, entities(3)))
        async with node(control.address, tmp_path) as one:
            await until(lambda: state(control, one.id) is NodeState.CURRENT)
            assert one.sink.running is not None
            assert one.sink.running.entities == entities(3)
            (view,) = control.nodes.views()
            assert (view.version, view.offered_version, view.ip, view.labels) == (1, 1, "127.0.0.1", {"zone": "a"})
            assert view.applied_took_s == pytest.approx(0.001)


async def test_a_change_reaches_connected_nodes(tmp_path: Path) -> None:
    async with (
        plane() as control,
        node(control.address, tmp_path, name="a") as a,
        node(control.address, tmp_path, name="b") as b,
    ):
        await until(lambda: len(control.nodes.live()) == 2)
        assert state(control, a.id) is NodeState.CONNECTING
        snapshot = Snap(1, entities(2))
        control.publish(snapshot)
        report = await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)
        assert report.complete
        assert [item.hostname for item in report.nodes] == ["a", "b"]
        assert snapshot.times_packed == 1
        assert a.sink.running is not None
        assert b.sink.running is not None


async def test_a_snapshot_of_several_pieces_arrives_whole(tmp_path: Path) -> None:
    content = entities(50, padding=20_000)
    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(1, content, piece_bytes=100_000))
        await until(lambda: one.sink.running is not None)
        assert one.sink.running is not None
        assert one.sink.running.entities == content


async def test_equal_content_is_adopted_without_a_pull(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(1, entities(2)))
        await until(lambda: len(one.sink.history) == 1)
        same = Snap(2, entities(2))
        control.publish(same)
        assert (await wait_for(control.nodes, 2, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
        assert one.sink.running is not None
        assert one.sink.running.version == 2


async def test_a_node_at_the_head_gets_nothing_but_the_welcome(tmp_path: Path) -> None:
    sink = Sink()
    async with plane() as control:
        control.publish(Snap(1, entities(2)))
        async with node(control.address, tmp_path, sink=sink):
            await until(lambda: sink.running is not None)
    async with plane() as control:
        again = Snap(1, entities(2))
        control.publish(again)
        async with node(control.address, tmp_path, restore=True) as one:
            await until(lambda: state(control, one.id) is NodeState.CURRENT)
            # The first beats are answered; an offer would have come before them.
            await until(lambda: control.nodes.views()[0].beat_age_s is not None)
            assert one.sink.began == 1, "restored from disk, nothing after"
            assert again.times_packed == 0
            assert control.nodes.views()[0].offered_version == 0


async def test_a_rejected_version_is_parked_and_the_next_one_ends_it(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path) as one:
        one.sink.refuse = bad_regex
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.running is not None)
        control.publish(Snap(2, entities(1, weight=5)))
        report = await wait_for(control.nodes, 2, epoch=EPOCH, timeout_s=PATIENCE_S)
        assert report.waited_s < PATIENCE_S
        assert not report.complete
        (progress,) = report.nodes
        assert (progress.outcome, progress.version, progress.stage) == (Outcome.REJECTED, 1, Stage.BUILD)
        assert progress.reason == "routes r1 paths: missing )"
        assert state(control, one.id) is NodeState.REJECTED
        began = one.sink.began
        for _ in range(2):
            beats = control.nodes.get(one.id)
            assert beats is not None
            heard = beats.last_beat
            await until(lambda heard=heard, beats=beats: beats.last_beat != heard)  # type: ignore[misc]  # lambda defaults
        assert one.sink.began == began, "a parked version was offered again"
        control.publish(Snap(3, entities(1, weight=7)))
        await until(lambda: state(control, one.id) is NodeState.CURRENT)
        assert [ref.version for ref in one.sink.history] == [1, 3]
        assert control.nodes.views()[0].faults == ()


async def test_a_node_repeats_its_refusal_to_a_control_plane_that_forgot_it(tmp_path: Path) -> None:
    sink = Sink()
    sink.refuse = bad_regex
    async with plane() as control:
        port = control.server.port
        async with node(control.address, tmp_path, sink=sink) as one:
            control.publish(Snap(1, entities(1)))
            await until(lambda: sink.running is not None)
            control.publish(Snap(2, entities(1, weight=5)))
            await until(lambda: state(control, one.id) is NodeState.REJECTED)
            await control.server.stop()
            async with plane(listen=f"127.0.0.1:{port}") as later:
                forgotten = Snap(2, entities(1, weight=5))
                later.publish(forgotten)
                await until(lambda: state(later, one.id) is NodeState.REJECTED)
                assert sink.began == 2
                assert later.nodes.views()[0].faults[0].code == "BAD_REGEX"


async def test_the_latest_offer_replaces_those_that_waited(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path) as one:
        one.sink.hold.clear()
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.began == 1)
        for version in range(2, 8):
            control.publish(Snap(version, entities(1, weight=version)))
        await until(lambda: control.nodes.views()[0].offered_version == 7)
        one.sink.hold.set()
        await until(lambda: state(control, one.id) is NodeState.CURRENT)
        assert [ref.version for ref in one.sink.history] == [1, 7]


async def test_a_new_epoch_is_taken_even_with_a_lower_version(tmp_path: Path) -> None:
    """Of the history that a restored store goes on from; a foreign one needs the operator's word (`Lineage`)."""
    async with plane() as control:
        control.nodes.lineage = Lineage({EPOCH: 9})
        async with node(control.address, tmp_path) as one:
            control.publish(Snap(9, entities(1)))
            # Until the control plane knows what the node runs it would offer it anything.
            await until(lambda: state(control, one.id) is NodeState.CURRENT)
            control.publish(Snap(2, entities(2), epoch=OTHER_EPOCH))
            await until(lambda: len(one.sink.history) == 2)
            await until(lambda: state(control, one.id) is NodeState.CURRENT)
            assert [(ref.epoch, ref.version) for ref in one.sink.history] == [(EPOCH, 9), (OTHER_EPOCH, 2)]


async def test_a_node_ahead_of_a_restored_store_is_reported_and_left_alone(tmp_path: Path) -> None:
    sink = Sink()
    async with plane() as control, node(control.address, tmp_path, sink=sink):
        control.publish(Snap(9, entities(1)))
        await until(lambda: sink.running is not None)
    async with plane() as control:
        control.publish(Snap(5, entities(2)))
        async with node(control.address, tmp_path, restore=True) as one:
            await until(lambda: state(control, one.id) is NodeState.AHEAD)
            assert one.sink.began == 1
            control.publish(Snap(10, entities(3)))
            await until(lambda: state(control, one.id) is NodeState.CURRENT)


async def test_a_node_serves_its_last_good_snapshot_without_a_control_plane(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(4, entities(3)))
        await until(lambda: one.sink.running is not None)
        address = control.address
    async with node(address, tmp_path, restore=True) as one:
        assert one.sink.running is not None
        assert (one.sink.running.version, one.sink.running.entities) == (4, entities(3))
        await until(lambda: one.link.status.last_loss != "")
        assert not one.link.connected


async def test_a_node_that_loses_the_control_plane_keeps_serving_and_comes_back(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.running is not None)
        port = control.server.port
        await control.server.stop()
        await until(lambda: not one.link.connected)
        assert one.sink.running is not None
        async with plane(listen=f"127.0.0.1:{port}") as later:
            later.publish(Snap(2, entities(2)))
            await until(lambda: state(later, one.id) is NodeState.CURRENT)
            assert one.sink.running.version == 2


async def test_an_oversized_snapshot_is_rejected_before_it_is_downloaded(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path, snapshot_bytes_max=10_000) as one:
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.running is not None)
        control.publish(Snap(2, entities(50, padding=5_000)))
        await until(lambda: state(control, one.id) is NodeState.REJECTED)
        (view,) = control.nodes.views()
        assert (view.rejected_stage, view.faults[0].code, view.version) == (Stage.PULL, "TOO_LARGE", 1)


async def test_a_leaving_node_is_shown_as_gone_with_its_reason(tmp_path: Path) -> None:
    async with plane() as control:
        async with node(control.address, tmp_path) as one:
            await until(lambda: one.link.connected)  # who has not been welcomed has nothing to take leave of
        await until(lambda: state(control, one.id) is NodeState.DISCONNECTED)
        assert control.nodes.views()[0].reason == "left: the test ends"


async def test_two_nodes_with_one_id_the_later_start_is_served(tmp_path: Path) -> None:
    same = str(uuid.uuid4())
    async with (
        plane(beat_interval_s=0.5) as control,
        node(control.address, tmp_path, name="early", node_id=same, boot_id=100) as early,
    ):
        await until(lambda: early.link.connected)
        async with node(control.address, tmp_path, name="late", node_id=same, boot_id=200) as late:
            await until(lambda: late.link.connected and "node id" in early.link.status.last_loss)
            assert control.nodes.views()[0].hostname == "late"
            control.publish(Snap(1, entities(1)))
            await until(lambda: late.sink.running is not None)
            assert early.sink.running is None
            assert not early.link.connected


@contextlib.asynccontextmanager
async def _raw(control: Plane):  # type: ignore[no-untyped-def]  # a bare stream, for bytes that no link would send
    async with grpc.aio.insecure_channel(control.address) as channel:
        call = channel.stream_stream(
            "/pointsman.wire.v1.FleetLink/Control",
            request_serializer=None,
            response_deserializer=fleet_pb2.PlaneMessage.FromString,
        )(None)
        yield call
        call.cancel()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"node_id": "not-a-uuid"}, "node_id is not a UUID"),
        ({"protocol_min": 2, "protocol_max": 3}, "upgrade the control plane"),
        ({"schema_level": 0}, "upgrade the node"),
        ({"labels": {str(n): "" for n in range(100)}}, "more than 64 labels"),
    ],
)
async def test_an_unfit_hello_is_refused_for_good(change: dict[str, object], reason: str) -> None:
    hello = messages.hello(introduction("bad"), running=NOTHING, snapshot_bytes_max=1)
    for field, value in change.items():
        if isinstance(value, dict):
            hello.hello.labels.update(value)
        else:
            setattr(hello.hello, field, value)
    async with plane() as control, _raw(control) as call:
        await call.write(hello.SerializeToString())
        answer = await call.read()
        assert answer.goodbye.permanent
        assert reason in answer.goodbye.reason
        assert control.nodes.live() == []


async def test_a_refused_version_shows_in_the_list_of_nodes() -> None:
    hello = messages.hello(introduction("old"), running=NOTHING, snapshot_bytes_max=1)
    hello.hello.protocol_min = hello.hello.protocol_max = 7
    async with plane() as control, _raw(control) as call:
        await call.write(hello.SerializeToString())
        await call.read()
        (record,) = control.nodes.data_planes()
        assert (record["hostname"], record["sync_status"]) == ("old", "kong_version_incompatible")


@pytest.mark.parametrize(
    ("ours", "theirs", "advice"),
    [(1, 2, "upgrade the node"), (2, 1, "upgrade the control plane")],
    ids=["the node is too old", "the node is too new"],
)
async def test_after_an_upgrade_of_one_side_only_the_node_serves_on_and_both_say_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: int, theirs: int, advice: str
) -> None:
    """What each side knows is a range; here they have nothing in common any more, until the other one follows."""
    sink = Sink()
    async with plane() as control:
        control.publish(Snap(1, entities(2)))
        async with node(control.address, tmp_path, sink=sink):
            await until(lambda: sink.running is not None)
    monkeypatch.setattr(messages, "PROTOCOL", ours)
    monkeypatch.setattr(server, "PROTOCOL", theirs)
    async with plane() as control:
        control.publish(Snap(2, entities(3)))
        async with node(control.address, tmp_path, restore=True) as one:
            await until(lambda: advice in one.link.status.refused)
            assert one.sink.running is not None
            assert (one.sink.running.version, one.link.left_behind) == (1, ""), "it serves on and is ready"
            (view,) = control.nodes.views()
            assert (view.version, view.connected) == (1, False)
            assert advice in view.reason
            assert view.sync_status is SyncStatus.INCOMPATIBLE
            monkeypatch.setattr(messages, "PROTOCOL", theirs)
            await until(lambda: one.sink.running is not None and one.sink.running.version == 2)
            assert one.link.status.refused == ""
            (view,) = control.nodes.views()
            assert (view.reason, view.sync_status) == ("", SyncStatus.NORMAL)


async def test_a_node_that_was_away_while_the_fleet_was_switched_is_ready_when_it_has_caught_up(
    tmp_path: Path,
) -> None:
    sink = Sink()
    async with plane() as control:
        control.publish(Snap(1, entities(2)))
        async with node(control.address, tmp_path, sink=sink):
            await until(lambda: sink.running is not None)
    async with plane() as control:
        control.publish(Snap(3, entities(3)))
        control.server.min_ready_version = 2
        async with node(control.address, tmp_path, restore=True) as one:
            assert one.link.left_behind == "", "it knows of nothing yet, and may serve for hours"
            one.sink.hold.clear()
            await until(lambda: one.link.left_behind != "")
            assert one.link.left_behind == ("the fleet was switched to version 2 while this node was away, it runs 1")
            one.sink.hold.set()
            await until(lambda: one.link.left_behind == "")
            assert one.sink.running is not None
            assert one.sink.running.version == 3


async def test_garbage_instead_of_a_hello_is_refused() -> None:
    async with plane() as control, _raw(control) as call:
        await call.write(b"\xff\xff\xff")
        answer = await call.read()
        assert answer.goodbye.reason == "the message does not decode"


async def test_a_flood_of_messages_ends_the_stream() -> None:
    hello = messages.hello(introduction("flood"), running=NOTHING, snapshot_bytes_max=1)
    beat = messages.beat(1, running=NOTHING, in_flight=0).SerializeToString()
    async with plane() as control, _raw(control) as call:
        await call.write(hello.SerializeToString())
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            for _ in range(2000):
                await call.write(beat)
        await until(lambda: control.nodes.live() == [])
        assert "messages a second" in control.nodes.views()[0].reason


async def test_a_pull_needs_an_accepted_hello() -> None:
    async with plane() as control, grpc.aio.insecure_channel(control.address) as channel:
        snapshot = Snap(1, entities(1))
        control.publish(snapshot)
        pull = channel.unary_stream(
            "/pointsman.wire.v1.FleetLink/Pull", request_serializer=None, response_deserializer=None
        )
        request = messages.pull_request(snapshot.ref, from_piece=0).SerializeToString()
        with pytest.raises(grpc.aio.AioRpcError) as unnamed:
            await pull(request).read()
        assert unnamed.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await pull(request, metadata=(("pointsman-node-id", str(uuid.uuid4())),)).read()
        assert unknown.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_nobody_to_wait_for_is_not_complete() -> None:
    async with plane() as control:
        report = await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)
        assert (report.total, report.complete) == (0, False)


async def test_a_slow_node_is_named_when_the_wait_ends(tmp_path: Path) -> None:
    async with (
        plane() as control,
        node(control.address, tmp_path, name="fast") as fast,
        node(control.address, tmp_path, name="slow") as slow,
    ):
        await until(lambda: len(control.nodes.live()) == 2)
        slow.sink.hold.clear()
        control.publish(Snap(1, entities(1)))
        await until(lambda: fast.sink.running is not None)
        report = await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=0.5)
        slow.sink.hold.set()
        outcomes = {item.hostname: item.outcome for item in report.nodes}
        assert outcomes == {"fast": Outcome.APPLIED, "slow": Outcome.LAGGING}
        assert "not answered" in report.nodes[1].reason


async def test_a_second_control_plane_on_the_port_fails_to_start() -> None:
    async with plane() as control:
        with pytest.raises(OSError, match="can't listen"):
            async with plane(listen=control.address):
                pass


async def test_many_nodes_get_one_packing(tmp_path: Path) -> None:
    async with plane(pulls_max=4) as control, contextlib.AsyncExitStack() as stack:
        fleet = [
            await stack.enter_async_context(node(control.address, tmp_path, name=f"n{number}")) for number in range(20)
        ]
        await until(lambda: len(control.nodes.live()) == 20)
        began = time.monotonic()
        snapshot = Snap(1, entities(100))
        control.publish(snapshot)
        report = await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)
        assert report.complete, time.monotonic() - began
        assert snapshot.times_packed == 1
        assert all(one.sink.running is not None for one in fleet)


@pytest.mark.parametrize(
    ("peer", "ip"),
    [("ipv4:127.0.0.1:4242", "127.0.0.1"), ("ipv6:%5B::1%5D:4242", "::1"), ("unix:/run/x", ""), ("", "")],
)
def test_the_peer_address_is_read_from_grpc_words(peer: str, ip: str) -> None:
    assert peer_ip(peer) == ip


async def test_a_node_refused_for_good_says_so_serves_on_and_returns_after_the_upgrade(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    LastGood(tmp_path / "node").save(Snap(1, entities(1)).as_node_has_it())
    monkeypatch.setattr("control_plane.fleet.server.SCHEMA_LEVEL", 2)
    async with plane() as control, node(control.address, tmp_path, restore=True) as one:
        await until(lambda: "upgrade the node" in one.link.status.refused)
        assert one.sink.running is not None
        assert not one.link.connected
        monkeypatch.setattr("control_plane.fleet.server.SCHEMA_LEVEL", 1)
        await until(lambda: one.link.connected)
        assert one.link.status.refused == ""


async def test_a_node_finds_the_control_plane_that_lives_among_several_addresses(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path, more_addresses=("127.0.0.1:1",)) as one:
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.running is not None)
        assert one.link.status.address == control.address


async def test_stopping_does_not_wait_for_a_control_plane_that_says_nothing(tmp_path: Path) -> None:
    callers: list[asyncio.Task[None]] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            writer.transport.abort()

    def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(asyncio.get_running_loop().create_task(listen(reader, writer)))

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with asyncio.timeout(PATIENCE_S), node(address, tmp_path) as one:
        await asyncio.sleep(0)
        assert not one.link.connected
    server.close()
    await last_callers()
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await last_callers()


@contextlib.asynccontextmanager
async def _fleet(database: Path, *, listen: str = "127.0.0.1:0") -> AsyncIterator[tuple[Store, Fleet]]:
    store = await open_sqlite(database)
    fleet = Fleet(store, FleetSettings(listen=listen, beat_interval_s=0.2, save_interval_s=0.05))
    try:
        await fleet.start()
        yield store, fleet
    finally:
        await fleet.stop()
        await store.close()


def _create(name: str) -> Callable[[Transaction], None]:
    body = SCHEMAS["upstreams"].on_insert({"name": name}, now=time.time(), resolve=lambda *_: None)
    return lambda tx: tx.insert("upstreams", body)


async def test_a_commit_reaches_every_node_and_the_writer_hears_of_it(tmp_path: Path) -> None:
    async with _fleet(tmp_path / "db") as (store, fleet):
        address = f"127.0.0.1:{fleet.port}"
        async with node(address, tmp_path, name="a") as a, node(address, tmp_path, name="b"):
            await until(lambda: sum(view.connected for view in fleet.nodes()) == 2)
            for number in range(1, 4):
                written = await store.write(_create(f"u{number}"), Origin())
                report = await fleet.wait_for(written.version, 10.0)
                assert report.complete
                assert {item.version for item in report.nodes} == {number}
            assert a.sink.running is not None
            assert len(a.sink.running.entities) == 3
            assert [record["version"] for record in fleet.data_planes()] == ["0.1.0", "0.1.0"]


async def test_a_restarted_control_plane_knows_its_nodes_and_sends_them_nothing_new(tmp_path: Path) -> None:
    async with _fleet(tmp_path / "db") as (store, fleet):
        listen = f"127.0.0.1:{fleet.port}"
        async with node(listen, tmp_path) as one:
            written = await store.write(_create("u"), Origin())
            await until(lambda: [view.version for view in fleet.nodes()] == [written.version])
            await fleet.stop()
            await store.close()
            async with _fleet(tmp_path / "db", listen=listen) as (_, later):
                first_seen = later.nodes()[0].first_seen
                assert (later.nodes()[0].id, later.nodes()[0].version) == (one.id, written.version)
                await until(lambda: later.nodes()[0].state is NodeState.CURRENT)
                assert one.sink.began == 1
                assert later.nodes()[0].first_seen == first_seen
