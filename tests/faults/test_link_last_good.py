"""Bad days of the last good file: spoiled on disk, refused by the workers, a disk that takes nothing.

Method: a link that restores and saves over real files, with a control plane where one is needed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.fleet.waiting import wait_for
from data_plane.node.crash_guard import CrashGuard
from data_plane.node.last_good import Generation, LastGood
from data_plane.node.outcomes import Refused
from data_plane.node.snapshot import NodeSnapshot, Offer
from pointsman.snapshots import Fault, Stage
from tests.support.fleet import EPOCH, Sink, Snap, entities, node, plane
from tests.support.patience import PATIENCE_S, until

NOWHERE = "127.0.0.1:1"


def prepare(folder: Path) -> None:
    """Version 2 as the current generation and version 1 as the one before."""
    store = LastGood(folder / "node")
    store.save(Snap(1, entities(1)).as_node_has_it())
    store.save(Snap(2, entities(2)).as_node_has_it())


def spoil(folder: Path, generation: Generation) -> None:
    path = folder / "node" / generation.value
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


async def test_a_spoiled_file_is_moved_aside_and_the_previous_one_serves(tmp_path: Path) -> None:
    prepare(tmp_path)
    spoil(tmp_path, Generation.CURRENT)
    async with node(NOWHERE, tmp_path, restore=True) as one:
        assert one.sink.running is not None
        assert one.sink.running.version == 1
        assert "checksum" in one.link.status.last_good
        assert (tmp_path / "node" / "current.bad").exists()


async def test_with_both_spoiled_nothing_is_served_until_the_control_plane_is_there(tmp_path: Path) -> None:
    prepare(tmp_path)
    spoil(tmp_path, Generation.CURRENT)
    spoil(tmp_path, Generation.PREVIOUS)
    async with plane() as control, node(control.address, tmp_path, restore=True) as one:
        assert one.sink.running is None
        control.publish(Snap(3, entities(3)))
        await until(lambda: one.sink.running is not None)
        await until(lambda: one.link.status.last_good == "", "a good file again")
    assert LastGood(tmp_path / "node").load(Generation.CURRENT).snapshot == Snap(3, entities(3)).as_node_has_it()


async def test_a_config_that_the_workers_refuse_now_gives_way_to_the_previous_one(tmp_path: Path) -> None:
    prepare(tmp_path)
    sink = Sink()

    def refuse(snapshot: NodeSnapshot) -> Refused | None:
        return Refused(Stage.BUILD, (Fault("BAD_REGEX", message="no"),)) if snapshot.version == 2 else None

    sink.refuse = refuse
    async with node(NOWHERE, tmp_path, sink=sink, restore=True) as one:
        assert sink.running is not None
        assert sink.running.version == 1
        assert "was refused: BAD_REGEX" in one.link.status.last_good


async def test_a_disk_that_takes_nothing_is_reported_and_serving_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_plane.node.keeping.SAVE_INTERVAL_S", 0.01)
    full = True
    stage = LastGood.stage

    def stage_unless_full(
        self: LastGood, snapshot: NodeSnapshot, packed: tuple[Offer, bytes] | None = None, *, name: str = "fresh.tmp"
    ) -> Path:
        if full:
            raise OSError(28, "No space left on device")
        return stage(self, snapshot, packed, name=name)

    monkeypatch.setattr(LastGood, "stage", stage_unless_full)
    async with plane() as control, node(control.address, tmp_path) as one:
        control.publish(Snap(1, entities(1)))
        await until(lambda: "No space left" in one.link.status.last_good)
        assert one.sink.running is not None
        full = False
        await until(lambda: one.link.status.last_good == "", "the file to be written when the disk has room")
    assert LastGood(tmp_path / "node").load(Generation.CURRENT).snapshot is not None


async def test_what_was_active_at_the_stop_is_on_disk(tmp_path: Path) -> None:
    async with plane() as control, node(control.address, tmp_path) as one:
        for version in range(1, 6):
            control.publish(Snap(version, entities(version)))
            await until(lambda version=version: one.sink.running is not None and one.sink.running.version == version)  # type: ignore[misc]  # lambda defaults
    found = LastGood(tmp_path / "node").load(Generation.CURRENT).snapshot
    assert found is not None
    assert found.version == 5


async def test_what_a_node_reported_is_what_it_starts_with_after_a_kill(tmp_path: Path) -> None:
    """Read the folder as a new process would, the moment the report is in."""
    async with plane() as control, node(control.address, tmp_path):
        await until(lambda: bool(control.nodes.live()))
        for version in range(1, 8):
            control.publish(Snap(version, entities(40, weight=version)))
            assert (await wait_for(control.nodes, version, epoch=EPOCH, timeout_s=PATIENCE_S)).complete
            found = LastGood(tmp_path / "node").load(Generation.CURRENT).snapshot
            assert found is not None
            assert found.version == version


async def test_two_ends_soon_after_an_activation_start_the_node_with_the_version_before(tmp_path: Path) -> None:
    prepare(tmp_path)
    bad = Snap(2, entities(2)).snapshot_hash
    for _ in range(2):
        guard = CrashGuard(tmp_path / "node")
        guard.begin()
        guard.activating(bad, restored=True)
    async with plane() as control:
        control.publish(Snap(2, entities(2)))
        async with node(control.address, tmp_path, restore=True) as one:
            assert one.sink.running is not None
            assert one.sink.running.version == 1
            assert "CRASH_LOOP" in one.link.status.last_good
            await until(lambda: bool(control.nodes.views() and control.nodes.views()[0].faults))
            assert control.nodes.views()[0].faults[0].code == "CRASH_LOOP"
            control.publish(Snap(3, entities(3)))
            await until(lambda: one.sink.running is not None and one.sink.running.version == 3)


async def test_a_good_end_counts_as_none(tmp_path: Path) -> None:
    prepare(tmp_path)
    for _ in range(3):
        async with node(NOWHERE, tmp_path, restore=True) as one:
            assert one.sink.running is not None
            assert one.sink.running.version == 2


async def test_the_only_configuration_there_is_is_tried_again(tmp_path: Path) -> None:
    LastGood(tmp_path / "node").save(Snap(1, entities(1)).as_node_has_it())
    for _ in range(2):
        guard = CrashGuard(tmp_path / "node")
        guard.begin()
        guard.activating(Snap(1, entities(1)).snapshot_hash, restored=True)
    async with node(NOWHERE, tmp_path, restore=True) as one:
        assert one.sink.running is not None


async def test_a_mistake_of_ours_in_applying_is_a_refusal_and_not_silence(tmp_path: Path) -> None:
    sink = Sink()

    def crash(_: NodeSnapshot) -> Refused | None:
        raise ZeroDivisionError("boom")

    sink.refuse = crash
    async with plane() as control, node(control.address, tmp_path, sink=sink):
        control.publish(Snap(1, entities(1)))
        await until(lambda: bool(control.nodes.views() and control.nodes.views()[0].faults))
        assert control.nodes.views()[0].faults[0].message == "ZeroDivisionError: boom"


async def test_a_mistake_of_ours_in_unpacking_is_a_refusal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> NodeSnapshot:
        raise MemoryError

    async with plane() as control, node(control.address, tmp_path) as one:
        with monkeypatch.context() as broken:
            broken.setattr("data_plane.node.pull.unpack", crash)
            control.publish(Snap(1, entities(1)))
            await until(lambda: bool(control.nodes.views() and control.nodes.views()[0].faults))
            assert control.nodes.views()[0].faults[0].code == "INTERNAL"
        control.publish(Snap(2, entities(2)))
        await until(lambda: one.sink.running is not None)
