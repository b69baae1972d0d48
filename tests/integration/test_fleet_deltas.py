"""Goal: a node that is near gets a delta, one that is far gets only what differs, and a bad delta never runs.
Method: real links over real gRPC; what travelled is counted at a proxy or in the server.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.fleet import messages
from control_plane.fleet.messages import Changes
from control_plane.fleet.nodes import NodeState
from control_plane.fleet.waiting import wait_for
from pointsman.snapshots import SnapshotRef
from tests.support.fault_proxy import FaultProxy
from tests.support.fleet import EPOCH, Snap, entities, node, plane, target
from tests.support.patience import PATIENCE_S, until


async def test_a_small_change_of_a_large_configuration_is_one_small_frame(tmp_path: Path) -> None:
    content = entities(2000, padding=200)
    async with (
        plane(beat_interval_s=2.0) as control,
        FaultProxy(control.server.port) as proxy,
        node(proxy.address, tmp_path, name="a") as a,
        node(control.address, tmp_path, name="b") as b,
    ):
        await until(lambda: len(control.nodes.live()) == 2)
        control.publish(Snap(1, content))
        assert (await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
        before = proxy.bytes_to_client
        key = next(iter(content))
        second = Snap(2, {**content, key: target(1, weight=7, padding=200)})
        control.publish(second)
        assert (await wait_for(control.nodes, 2, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
        assert proxy.bytes_to_client - before < 4096
        assert second.times_packed == 0
        for one in (a, b):
            assert one.sink.running is not None
            assert one.sink.running.entities[key] == target(1, weight=7, padding=200)


async def test_a_node_that_was_away_gets_one_delta_over_all_that_it_missed(tmp_path: Path) -> None:
    async with plane() as control, FaultProxy(control.server.port) as proxy, node(proxy.address, tmp_path) as one:
        control.publish(Snap(1, entities(50)))
        await until(lambda: bool(control.nodes.views()) and control.nodes.views()[0].version == 1)
        proxy.refuse = True
        proxy.cut()
        await until(lambda: not one.link.connected)
        last = [Snap(version, entities(50 + version, weight=version)) for version in range(2, 6)][-1]
        for version in range(2, 5):
            control.publish(Snap(version, entities(50 + version, weight=version)))
        control.publish(last)
        proxy.refuse = False
        await until(lambda: one.sink.running is not None and one.sink.running.version == 5)
        assert last.times_packed == 0
        assert [ref.version for ref in one.sink.history] == [1, 5]


async def test_a_delta_that_leads_elsewhere_is_not_applied_and_the_whole_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = messages.delta

    def spoiled(base: SnapshotRef, ref: SnapshotRef, changes: Changes, *, entities: int) -> bytes | None:
        class Less:
            upserts = changes.upserts[:-1]
            deletes = changes.deletes
            entity_bytes = 0

        return make(base, ref, Less(), entities=entities)

    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(1, entities(3)))
        await until(lambda: one.sink.running is not None)
        monkeypatch.setattr(messages, "delta", spoiled)
        second = Snap(2, entities(3, weight=9))
        control.publish(second)
        await until(lambda: one.sink.running is not None and one.sink.running.version == 2)
        assert second.times_packed == 1
        assert one.sink.running is not None
        assert dict(one.sink.running.entities) == entities(3, weight=9)


async def test_a_node_of_another_history_pulls_only_the_buckets_that_differ(tmp_path: Path) -> None:
    content = entities(400, padding=2000)
    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(1, content))
        await until(lambda: one.sink.running is not None)
    async with plane() as other, FaultProxy(other.server.port) as proxy:
        key = next(iter(content))
        changed = Snap(3, {**content, key: target(1, weight=7)})
        other.publish(changed)
        async with node(proxy.address, tmp_path, restore=True) as one:
            await until(lambda: other.nodes.views()[0].state is NodeState.CURRENT if other.nodes.views() else False)
            assert one.sink.running is not None
            assert one.sink.running.version == 3
            assert proxy.bytes_to_client < changed.packed().packed_bytes / 4
