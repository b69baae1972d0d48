"""Bad days of the fleet link: cut, stalled and slow connections, one node's trouble staying its own.

Method: real links over real gRPC with a fault proxy between one of the nodes and the control plane.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest

from control_plane.fleet.nodes import NodeState
from control_plane.fleet.waiting import wait_for
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import EPOCH, Plane, Snap, entities, node, plane
from tests.support.patience import PATIENCE_S, until

PIECE_BYTES = 64 * 1024
NODE_ID = "6f1f8a4e-2f0c-4f0e-9a55-0d6c1c1f0d01"


def big(version: int, *, weight: int = 100) -> Snap:
    """About 2 MB that do not compress, in pieces of 64 KiB."""
    return Snap(version, entities(100, weight=weight, padding=40_000), piece_bytes=PIECE_BYTES)


def state(control: Plane, node_id: str) -> NodeState | None:
    return next((view.state for view in control.nodes.views() if view.id == node_id), None)


async def test_a_pull_that_is_cut_goes_on_where_it_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="data_plane.node.pull")
    snapshot = big(1)
    async with (
        plane(beat_interval_s=0.5) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path) as one,
    ):
        await until(lambda: one.link.connected)
        proxy.bytes_per_s = 4_000_000  # so that the node has read what it was sent when the cut comes
        proxy.cut_after_bytes = snapshot.packed().packed_bytes * 2 // 3
        control.publish(snapshot)
        await until(lambda: one.sink.running is not None)
        assert one.sink.history == [snapshot.ref]
    (resumed,) = [record for record in caplog.records if "resuming the pull" in record.message]
    piece = resumed.args[1] if isinstance(resumed.args, tuple) else 0
    assert isinstance(piece, int)
    assert piece > 10, "of about 20 that had come"


@pytest.mark.parametrize("cuts", [5])
async def test_many_cuts_do_not_keep_a_node_from_the_head(tmp_path: Path, cuts: int) -> None:
    async with plane(beat_interval_s=0.5) as control, FaultProxy(control.server.port) as proxy:
        control.publish(big(1))
        proxy.cut_after_bytes = 600_000
        async with node(proxy.address, tmp_path) as one:
            for _ in range(cuts):
                await until(lambda: proxy.cut_after_bytes is None or one.sink.running is not None)
                if one.sink.running is not None:
                    break
                proxy.cut_after_bytes = 600_000
            proxy.cut_after_bytes = None
            await until(lambda: state(control, one.id) is NodeState.CURRENT)


async def test_the_packing_changed_between_two_halves_of_a_pull(tmp_path: Path) -> None:
    """An upgraded control plane may pack the same snapshot differently: halves of both must not be joined."""
    async with plane(beat_interval_s=0.5) as control, FaultProxy(control.server.port) as proxy:
        control.publish(big(1))
        async with node(proxy.address, tmp_path) as one:
            proxy.refuse_after_cut = True
            proxy.cut_after_bytes = 700_000
            await until(lambda: proxy.refuse)
            async with plane(beat_interval_s=0.5) as upgraded:
                upgraded.publish(
                    Snap(1, dict(reversed(entities(100, padding=40_000).items())), piece_bytes=PIECE_BYTES)
                )
                proxy.target_port = upgraded.server.port
                proxy.refuse = False
                await until(lambda: state(upgraded, one.id) is NodeState.CURRENT)
                assert one.sink.began == 1


async def test_a_stalled_link_is_found_within_a_lease_and_heals(tmp_path: Path) -> None:
    async with (
        plane(beat_interval_s=0.2) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path) as one,
    ):
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.running is not None)
        proxy.stall()
        await until(lambda: "silent" in control.nodes.views()[0].reason and not one.link.connected)
        assert control.nodes.live() == []
        proxy.resume()
        control.publish(Snap(2, entities(2)))
        await until(lambda: state(control, one.id) is NodeState.CURRENT)


@pytest.mark.parametrize("to_client", [True, False])
async def test_a_link_that_is_dead_one_way_is_found_by_both_ends_and_heals(tmp_path: Path, to_client: bool) -> None:
    async with (
        plane(beat_interval_s=0.2) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path) as one,
    ):
        control.publish(Snap(1, entities(1)))
        await until(lambda: state(control, one.id) is NodeState.CURRENT)
        proxy.stall_one_way(to_client=to_client)
        await until(lambda: not one.link.connected and not control.nodes.views()[0].connected)
        control.publish(Snap(2, entities(2)))
        assert one.sink.running is not None
        assert one.sink.running.version == 1, "it goes on serving what it has"
        proxy.resume()
        await until(lambda: state(control, one.id) is NodeState.CURRENT)
        assert one.sink.history == [Snap(1, entities(1)).ref, Snap(2, entities(2)).ref]


async def test_a_dead_link_is_found_without_a_beat(tmp_path: Path) -> None:
    """Beats are too rare here to tell. The cut comes while gRPC's own ping for the bandwidth is out, which used to
    keep its keep-alive from asking for a minute: longer than the patience below."""
    async with (
        plane(beat_interval_s=120.0) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path) as one,
    ):
        control.publish(Snap(1, entities(1)))
        await until(lambda: state(control, one.id) is NodeState.CURRENT)
        proxy.stall_one_way(to_client=False)
        await until(lambda: not one.link.connected and not control.nodes.views()[0].connected, patience_s=40.0)


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_node_whose_clock_is_off_by_an_hour_follows_like_any_other(tmp_path: Path, hours: int) -> None:
    boot_id = time.time_ns() + hours * 3600 * 10**9
    async with plane(beat_interval_s=0.2) as control:
        control.publish(Snap(1, entities(1)))
        async with node(control.address, tmp_path, name="n", node_id=NODE_ID):
            await until(lambda: state(control, NODE_ID) is NodeState.CURRENT)
        control.publish(Snap(2, entities(2)))
        async with node(control.address, tmp_path, name="n", node_id=NODE_ID, boot_id=boot_id, restore=True) as one:
            await until(lambda: state(control, NODE_ID) is NodeState.CURRENT)
            assert [ref.version for ref in one.sink.history] == [1, 2]


async def test_a_slow_node_does_not_delay_another(tmp_path: Path) -> None:
    async with (
        plane(beat_interval_s=0.5) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path, name="slow") as slow,
        node(control.address, tmp_path, name="fast"),
    ):
        await until(lambda: len(control.nodes.live()) == 2)
        proxy.bytes_per_s = 200_000
        control.publish(big(1))
        report = await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=2.0)
        assert {item.hostname: item.version for item in report.nodes} == {"fast": 1, "slow": 0}
        # The slow one is in the middle of its pull; small changes still reach the other one at once.
        for version in range(2, 6):
            control.publish(big(version, weight=version))
            fast = next(one for one in control.nodes.live() if one.hostname == "fast")
            await until(lambda fast=fast, version=version: fast.running.version == version)  # type: ignore[misc]  # lambda defaults
            assert slow.sink.running is None
        proxy.bytes_per_s = None
        await until(lambda: state(control, slow.id) is NodeState.CURRENT)
        assert slow.sink.running is not None
        assert slow.sink.running.version == 5


async def test_pulls_beyond_the_limit_wait_for_their_turn(tmp_path: Path) -> None:
    async with (
        plane(beat_interval_s=0.5, pulls_max=1) as control,
        node(control.address, tmp_path, name="a") as a,
        node(control.address, tmp_path, name="b") as b,
        node(control.address, tmp_path, name="c") as c,
    ):
        await until(lambda: len(control.nodes.live()) == 3)
        control.publish(big(1))
        assert (await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
        assert all(one.sink.began == 1 for one in (a, b, c))


async def test_a_reader_that_takes_nothing_loses_its_turn(tmp_path: Path) -> None:
    async with (
        plane(beat_interval_s=1.0, pulls_max=1, piece_timeout_s=0.5) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path, name="stuck") as stuck,
        node(control.address, tmp_path, name="well") as well,
    ):
        await until(lambda: len(control.nodes.live()) == 2)
        proxy.bytes_per_s = 10_000
        well.sink.hold.clear()
        control.publish(big(1))
        await until(lambda: proxy.bytes_to_client > 50_000, "the stuck node to begin its pull")
        well.sink.hold.set()
        await until(lambda: well.sink.running is not None)
        assert stuck.sink.running is None
        proxy.bytes_per_s = None
        await until(lambda: stuck.sink.running is not None)


async def test_a_wait_survives_a_reconnect_of_the_node(tmp_path: Path) -> None:
    async with (
        plane(beat_interval_s=0.5) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path) as one,
    ):
        await until(lambda: len(control.nodes.live()) == 1)
        one.sink.hold.clear()
        control.publish(Snap(1, entities(1)))
        await until(lambda: one.sink.began == 1)
        waiting = asyncio.create_task(wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S))
        await asyncio.sleep(0)  # the wait begins
        proxy.cut()
        await until(lambda: not one.link.connected)
        one.sink.hold.set()
        assert (await waiting).complete
        assert one.sink.began == 1
