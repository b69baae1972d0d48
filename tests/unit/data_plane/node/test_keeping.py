"""Goal: what a node reported is what it starts from. Method: a real folder, read as a node does that was killed."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from typing_extensions import override

from data_plane.node.keeping import Keeper, Ready
from data_plane.node.last_good import Generation, LastGood
from data_plane.node.snapshot import Delta, NodeSnapshot, Offer, make_delta, pack
from tests.support.fleet import Snap, entities
from tests.support.patience import PATIENCE_S


def snapshot(version: int) -> NodeSnapshot:
    return Snap(version, entities(3, weight=version)).as_node_has_it()


def change(to: NodeSnapshot, base: NodeSnapshot) -> Ready:
    return Ready(to, delta=make_delta(base, to))


def version_after_a_kill(folder: Path) -> int:
    kept = LastGood(folder).load(Generation.CURRENT).snapshot
    return kept.version if kept is not None else 0


async def begun(last_good: LastGood) -> tuple[Keeper, NodeSnapshot]:
    first = snapshot(1)
    keeper = Keeper(last_good)
    assert await keeper.keep(Ready(first, packed=pack(first)))
    return keeper, first


async def test_a_change_is_kept_when_keep_returns_and_before_anything_is_flushed(tmp_path: Path) -> None:
    keeper, base = await begun(LastGood(tmp_path))
    for version in (2, 3, 4):
        after = snapshot(version)
        assert await keeper.keep(change(after, base))
        assert version_after_a_kill(tmp_path) == version
        base = after
    await keeper.stop(base)


async def test_a_change_from_an_older_base_is_kept_as_one_from_what_the_files_lead_to(tmp_path: Path) -> None:
    keeper, first = await begun(LastGood(tmp_path))
    assert await keeper.keep(change(snapshot(2), first))
    assert await keeper.keep(change(snapshot(3), first))
    assert version_after_a_kill(tmp_path) == 3
    await keeper.stop(snapshot(3))


class SlowDisk(LastGood):
    """Writes a whole file when it is let."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go_on = threading.Event()

    @override
    def save(self, snapshot: NodeSnapshot, *, packed: tuple[Offer, bytes] | None = None) -> None:
        assert self.go_on.wait(PATIENCE_S)
        super().save(snapshot, packed=packed)


async def test_a_change_waits_for_a_whole_file_that_is_being_written_but_its_report_does_not(tmp_path: Path) -> None:
    disk = SlowDisk(tmp_path)
    first, second = snapshot(1), snapshot(2)
    keeper = Keeper(disk)
    assert not await keeper.keep(Ready(first, packed=pack(first)))
    assert not await keeper.keep(change(second, first))
    assert version_after_a_kill(tmp_path) == 0
    disk.go_on.set()
    await keeper.stop(second)
    assert version_after_a_kill(tmp_path) == 2


async def test_a_change_never_overtakes_one_that_waits_for_the_disk(tmp_path: Path) -> None:
    keeper, first = await begun(LastGood(tmp_path))
    second, third = snapshot(2), snapshot(3)
    async with keeper._disk:
        waiting = asyncio.create_task(keeper.keep(change(second, first)))
        while not keeper._keeping:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
    # The disk is free, and the change that waited has not noticed yet.
    assert await keeper.keep(change(third, second))
    await waiting
    assert version_after_a_kill(tmp_path) == 3
    await keeper.stop(third)


async def test_a_record_that_cannot_be_written_is_reported_and_the_whole_is_written_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_good = LastGood(tmp_path)
    keeper, first = await begun(last_good)

    def full(_delta: Delta) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(last_good.journal, "append", full)
    assert not await keeper.keep(change(snapshot(2), first))
    assert "No space left" in keeper.problem
    monkeypatch.undo()
    async with asyncio.timeout(PATIENCE_S):
        await keeper.stop(snapshot(2))
    assert keeper.problem == ""
    assert version_after_a_kill(tmp_path) == 2
