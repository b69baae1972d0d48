"""Goal: a node never starts from anything but a whole snapshot that was active. Method: real files, each way to spoil
them, and a crash at each step of writing one.
"""

from __future__ import annotations

import os
import random
import stat
from itertools import pairwise
from pathlib import Path

import pytest

from data_plane.node.diff import ahead_messages
from data_plane.node.last_good import Ahead, Generation, LastGood
from data_plane.node.snapshot import NodeSnapshot, entity_key, make_delta
from pointsman.wire.v1 import worker_pb2 as wire
from tests.support.fleet import OTHER_EPOCH, Snap, entities

CURRENT = Generation.CURRENT
PREVIOUS = Generation.PREVIOUS


def snapshot(version: int, *, weight: int = 100) -> NodeSnapshot:
    return Snap(version, entities(3, weight=weight)).as_node_has_it()


def test_nothing_was_saved_yet(tmp_path: Path) -> None:
    store = LastGood(tmp_path / "state")
    assert store.load(CURRENT).snapshot is None
    assert store.load(CURRENT).problems == ()


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    store = LastGood(tmp_path / "state")
    store.save(snapshot(7))
    assert store.load(CURRENT).snapshot == snapshot(7)


def test_the_one_before_is_kept(tmp_path: Path) -> None:
    store = LastGood(tmp_path)
    store.save(snapshot(1, weight=1))
    store.save(snapshot(2, weight=2))
    store.save(snapshot(3, weight=3))
    assert store.load(CURRENT).snapshot == snapshot(3, weight=3)
    assert store.load(PREVIOUS).snapshot == snapshot(2, weight=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT.value, "key", PREVIOUS.value]


def test_the_same_content_under_a_new_version_does_not_push_out_the_way_back(tmp_path: Path) -> None:
    store = LastGood(tmp_path)
    store.save(snapshot(1, weight=1))
    store.save(snapshot(2, weight=2))
    store.save(snapshot(3, weight=2))
    assert store.load(CURRENT).snapshot == snapshot(3, weight=2)
    assert store.load(PREVIOUS).snapshot == snapshot(1, weight=1)


def test_only_the_owner_can_read_it(tmp_path: Path) -> None:
    LastGood(tmp_path / "state").save(snapshot(1))
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / CURRENT.value).stat().st_mode) == 0o600


def test_an_epoch_survives(tmp_path: Path) -> None:
    store = LastGood(tmp_path)
    store.save(Snap(1, entities(1), epoch=OTHER_EPOCH).as_node_has_it())
    loaded = store.load(CURRENT).snapshot
    assert loaded is not None
    assert loaded.epoch == OTHER_EPOCH


def spoiled(tmp_path: Path, content: bytes) -> LastGood:
    store = LastGood(tmp_path)
    (tmp_path / CURRENT.value).write_bytes(content)
    return store


def good_bytes(tmp_path: Path) -> bytes:
    LastGood(tmp_path).save(snapshot(2))
    return (tmp_path / CURRENT.value).read_bytes()


def test_any_flipped_bit_is_found(tmp_path: Path) -> None:
    good = good_bytes(tmp_path)
    rng = random.Random(1)
    for at in rng.sample(range(len(good) * 8), min(1000, len(good) * 8)):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        loaded = spoiled(tmp_path, bytes(bad)).load(CURRENT)
        assert loaded.snapshot is None, f"bit {at}"
        assert "moved to current.bad" in loaded.problems[0]


def test_any_cut_is_found(tmp_path: Path) -> None:
    good = good_bytes(tmp_path)
    for length in range(0, len(good), 7):
        loaded = spoiled(tmp_path, good[:length]).load(CURRENT)
        assert loaded.snapshot is None, f"cut to {length}"


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"pointsman last good 2\n" + b"\0" * 100, b"x" * 5000])
def test_another_file_is_not_one(tmp_path: Path, content: bytes) -> None:
    loaded = spoiled(tmp_path, content).load(CURRENT)
    assert loaded.snapshot is None
    assert (tmp_path / "current.bad").read_bytes() == content


def test_bytes_behind_the_end_are_found(tmp_path: Path) -> None:
    loaded = spoiled(tmp_path, good_bytes(tmp_path) + b"x").load(CURRENT)
    assert loaded.snapshot is None


def test_a_bad_current_leaves_the_previous(tmp_path: Path) -> None:
    store = LastGood(tmp_path)
    store.save(snapshot(1, weight=1))
    store.save(snapshot(2, weight=2))
    (tmp_path / CURRENT.value).write_bytes(b"rubbish")
    assert store.load(CURRENT).snapshot is None
    assert store.load(PREVIOUS).snapshot == snapshot(1, weight=1)
    store.save(snapshot(3, weight=3))
    assert store.load(PREVIOUS).snapshot == snapshot(1, weight=1)


def journal_of(folder: Path, versions: int) -> tuple[LastGood, list[NodeSnapshot]]:
    """Version 1 whole, and the others as changes."""
    store = LastGood(folder)
    made = [snapshot(version, weight=version) for version in range(1, versions + 1)]
    store.save(made[0])
    for before, after in pairwise(made):
        store.journal.append(make_delta(before, after))
    return store, made


def test_the_journal_leads_on_from_the_file(tmp_path: Path) -> None:
    _, made = journal_of(tmp_path, 4)
    store = LastGood(tmp_path)
    assert store.load(CURRENT).snapshot == made[3]
    assert store.load(PREVIOUS).snapshot == made[2]
    assert store.load(CURRENT).problems == ()


def test_the_whole_takes_the_journal_s_place_and_later_changes_follow_it(tmp_path: Path) -> None:
    store, made = journal_of(tmp_path, 3)
    upto = store.journal.rotate()
    staged = store.stage(made[2])
    later = snapshot(4, weight=4)
    store.journal.append(make_delta(made[2], later))
    assert LastGood(tmp_path).load(CURRENT).snapshot == later, "a crash before the commit costs nothing"
    store.commit(staged, made[2].snapshot_hash, upto=upto)
    assert LastGood(tmp_path).load(CURRENT).snapshot == later
    assert len(list(tmp_path.glob("journal-*"))) == 1


@pytest.mark.parametrize("step", ["stage", "link", "first rename", "second rename", "drop"])
def test_a_kill_at_any_step_of_the_whole_s_writing_costs_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Killed(BaseException):
        pass

    def kill(*_: object, **__: object) -> None:
        raise Killed

    store, made = journal_of(tmp_path, 4)
    upto = store.journal.rotate()
    renames: list[Path] = []
    rename = os.replace

    def replace(source: Path, destination: Path) -> None:
        renames.append(destination)
        if len(renames) == {"first rename": 1, "second rename": 2}.get(step):
            raise Killed
        rename(source, destination)

    monkeypatch.setattr(os, "replace", replace)
    if step == "stage":
        monkeypatch.setattr(os, "fsync", kill)
    if step == "link":
        monkeypatch.setattr(os, "link", kill)
    if step == "drop":
        monkeypatch.setattr(store.journal, "drop", kill)
    with pytest.raises(Killed):
        store.commit(store.stage(made[3]), made[3].snapshot_hash, upto=upto)
    monkeypatch.undo()
    assert LastGood(tmp_path).load(CURRENT).snapshot == made[3]


def test_any_cut_of_the_journal_leaves_a_version_that_was_active(tmp_path: Path) -> None:
    _, made = journal_of(tmp_path, 4)
    (path,) = tmp_path.glob("journal-*")
    good = path.read_bytes()
    seen = set()
    for length in range(0, len(good), 5):
        path.write_bytes(good[:length])
        found = LastGood(tmp_path).load(CURRENT).snapshot
        assert found in made[:3]
        assert found is not None
        seen.add(found.version)
    assert seen == {1, 2, 3}


def test_any_flipped_bit_of_the_journal_leaves_a_version_that_was_active(tmp_path: Path) -> None:
    _, made = journal_of(tmp_path, 4)
    (path,) = tmp_path.glob("journal-*")
    good = path.read_bytes()
    rng = random.Random(2)
    for at in rng.sample(range(len(good) * 8), 300):
        bad = bytearray(good)
        bad[at // 8] ^= 1 << at % 8
        path.write_bytes(bad)
        loaded = LastGood(tmp_path).load(CURRENT)
        assert loaded.snapshot in made[:3]
        assert loaded.problems


def test_another_node_s_file_does_not_open(tmp_path: Path) -> None:
    one, other = LastGood(tmp_path / "one"), LastGood(tmp_path / "other")
    one.save(snapshot(1))
    other.save(snapshot(2))
    (tmp_path / "other" / CURRENT.value).replace(tmp_path / "one" / CURRENT.value)
    loaded = LastGood(tmp_path / "one").load(CURRENT)
    assert loaded.snapshot is None
    assert "another node" in loaded.problems[0]


def test_what_is_kept_can_not_be_read_without_the_key(tmp_path: Path) -> None:
    store, _ = journal_of(tmp_path, 2)
    assert store.load(CURRENT).snapshot is not None
    for path in (tmp_path / CURRENT.value, *tmp_path.glob("journal-*")):
        assert b"10.0.0.1" not in path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_larger_snapshot_than_this_node_takes_is_not_unpacked(tmp_path: Path) -> None:
    LastGood(tmp_path).save(snapshot(1))
    loaded = LastGood(tmp_path, raw_bytes_max=10).load(CURRENT)
    assert loaded.snapshot is None
    assert "raise its snapshot limit" in loaded.problems[0]


@pytest.mark.parametrize("step", ["write", "fsync", "first rename", "second rename"])
def test_a_crash_while_saving_leaves_a_whole_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    class Crash(BaseException):
        pass

    store = LastGood(tmp_path)
    store.save(snapshot(1, weight=1))
    store.save(snapshot(2, weight=2))
    renames: list[Path] = []
    rename = os.replace

    def replace(source: Path, destination: Path) -> None:
        renames.append(destination)
        if len(renames) == {"first rename": 1, "second rename": 2}.get(step):
            raise Crash
        rename(source, destination)

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(os, "replace", replace)
    if step == "fsync":
        monkeypatch.setattr(os, "fsync", crash)
    if step == "write":
        monkeypatch.setattr(os, "fdopen", crash)
    with pytest.raises(Crash):
        store.save(snapshot(3, weight=3))
    monkeypatch.undo()
    found = store.load(CURRENT).snapshot or store.load(PREVIOUS).snapshot
    assert found == snapshot(2, weight=2)
    store.save(snapshot(4, weight=4))
    assert store.load(CURRENT).snapshot == snapshot(4, weight=4)


def test_a_folder_that_can_not_be_written_is_the_caller_s_to_report(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file in the way")
    with pytest.raises(OSError, match="state"):
        LastGood(tmp_path / "state").save(snapshot(1))


def staged(ahead: Ahead) -> dict[tuple[str, str], bytes]:
    """What a worker has in the end of the conversation that stages it."""
    held: dict[tuple[str, str], bytes] = {}
    for message in map(wire.ToWorker.FromString, ahead_messages(ahead)):
        for key in message.stage_part.deletes:
            held.pop((key.collection, key.id), None)
        held.update((entity_key(body), body) for body in message.stage_part.upserts)
    return held


@pytest.mark.parametrize("versions", [1, 4])
def test_what_is_told_ahead_is_what_is_loaded(tmp_path: Path, versions: int) -> None:
    journal_of(tmp_path, versions)
    told: list[Ahead] = []
    loaded = LastGood(tmp_path).load(CURRENT, ahead=told.append).snapshot
    assert loaded is not None
    assert [ahead.ref for ahead in told] == [loaded.ref]
    assert staged(told[0]) == dict(loaded.entities)


def test_what_a_change_takes_out_is_out_ahead(tmp_path: Path) -> None:
    store = LastGood(tmp_path)
    before, after = Snap(1, entities(3)).as_node_has_it(), Snap(2, entities(2)).as_node_has_it()
    store.save(before)
    store.journal.append(make_delta(before, after))
    told: list[Ahead] = []
    assert LastGood(tmp_path).load(CURRENT, ahead=told.append).snapshot == after
    assert staged(told[0]) == dict(after.entities)


def test_a_sealed_file_with_another_hash_is_told_ahead_and_refused(tmp_path: Path) -> None:
    """The one kind of damage that only the snapshot's own hash finds: what was written was wrong already."""
    good = snapshot(2)
    LastGood(tmp_path).save(NodeSnapshot(good.epoch, good.version, bytes(32), good.entities))
    told: list[Ahead] = []
    loaded = LastGood(tmp_path).load(CURRENT, ahead=told.append)
    assert [ahead.ref.version for ahead in told] == [2]
    assert loaded.snapshot is None
    assert "do not have the offered snapshot hash" in loaded.problems[0]


def test_nothing_of_a_file_whose_seal_is_broken_is_told_ahead(tmp_path: Path) -> None:
    bad = bytearray(good_bytes(tmp_path))
    bad[-1] ^= 1
    told: list[Ahead] = []
    assert spoiled(tmp_path, bytes(bad)).load(CURRENT, ahead=told.append).snapshot is None
    assert told == []


def test_the_previous_generation_is_not_told_ahead(tmp_path: Path) -> None:
    store, _ = journal_of(tmp_path, 3)
    told: list[Ahead] = []
    assert store.load(PREVIOUS, ahead=told.append).snapshot is not None
    assert told == []
