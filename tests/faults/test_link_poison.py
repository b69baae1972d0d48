"""Goal: a change that nodes refuse stops at the first of them. Method: real links, sinks that refuse."""

from __future__ import annotations

from pathlib import Path

from control_plane.fleet.nodes import NodeState
from control_plane.fleet.waiting import Outcome, wait_for
from data_plane.node.outcomes import Refused
from data_plane.node.snapshot import NodeSnapshot
from pointsman.snapshots import Fault, Stage
from tests.support.fleet import EPOCH, Plane, Sink, Snap, entities, node, plane
from tests.support.patience import PATIENCE_S, until


def poison(snapshot: NodeSnapshot) -> Refused | None:
    if snapshot.version == 2:
        return Refused(Stage.BUILD, (Fault("BAD_REGEX", "routes", "id", "r1", "paths", "missing )"),))
    return None


def states(control: Plane) -> list[NodeState]:
    return sorted(view.state for view in control.nodes.views())


async def test_poison_stops_at_the_first_node_and_the_next_version_goes_on(tmp_path: Path) -> None:
    sinks = [Sink(), Sink(), Sink()]
    for sink in sinks:
        sink.refuse = poison
    async with (
        plane(beat_interval_s=0.5) as control,
        node(control.address, tmp_path, name="a", sink=sinks[0]),
        node(control.address, tmp_path, name="b", sink=sinks[1]),
        node(control.address, tmp_path, name="c", sink=sinks[2]),
    ):
        await until(lambda: len(control.nodes.live()) == 3)
        control.publish(Snap(1, entities(3)))
        assert (await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
        control.publish(Snap(2, entities(3, weight=2)))
        report = await wait_for(control.nodes, 2, epoch=EPOCH, timeout_s=PATIENCE_S)
        assert sum(sink.began for sink in sinks) == 4, "one node tried it"
        assert report.count(Outcome.REJECTED) == 1
        assert sum("held back" in item.reason for item in report.nodes) == 2
        assert states(control) == [NodeState.HELD, NodeState.HELD, NodeState.REJECTED]
        held = [view for view in control.nodes.views() if view.state is NodeState.HELD]
        assert all(view.held_version == 2 and "BAD_REGEX" in view.reason for view in held)
        async with node(control.address, tmp_path, name="late"):
            await until(lambda: len(control.nodes.live()) == 4)
            await until(lambda: [view.version for view in control.nodes.views()] == [1, 1, 1, 1])
        control.publish(Snap(3, entities(3, weight=3)))
        await until(lambda: all(view.version == 3 for view in control.nodes.views() if view.connected))
        assert control.nodes.held is None


async def test_a_first_node_that_hangs_does_not_hold_the_fleet_up(tmp_path: Path) -> None:
    sinks = [Sink(), Sink()]
    async with (
        plane(beat_interval_s=0.5, canary_wait_s=0.2) as control,
        node(control.address, tmp_path, name="a", sink=sinks[0]) as a,
        node(control.address, tmp_path, name="b", sink=sinks[1]),
    ):
        await until(lambda: len(control.nodes.live()) == 2)
        control.publish(Snap(1, entities(3)))
        assert (await wait_for(control.nodes, 1, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
        first = sinks[0] if control.nodes.live()[0].id == a.id else sinks[1]
        other = sinks[1] if first is sinks[0] else sinks[0]
        first.hold.clear()
        control.publish(Snap(2, entities(3, weight=2)))
        await until(lambda: other.running is not None and other.running.version == 2)
        first.hold.set()
        assert (await wait_for(control.nodes, 2, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
