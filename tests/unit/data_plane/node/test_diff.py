from __future__ import annotations

from collections.abc import Iterator

from data_plane.node.diff import BATCH_BYTES_MAX, Again, Diff, stage_messages
from pointsman.wire.v1 import worker_pb2 as wire
from tests.unit.data_plane.node.entities import route, service, snapshot


def kinds(diff: Diff) -> list[str]:
    messages = [wire.ToWorker.FromString(message) for message in stage_messages(diff)]
    return [str(message.WhichOneof("kind")) for message in messages]


def test_entities_are_compared_as_bytes() -> None:
    before = snapshot(1, service("s1", "blue"), service("s2", "blue"), route("r1", "s1"))
    after = snapshot(2, service("s1", "green"), service("s2", "blue"), route("r2", "s1"))
    diff = Diff.between(before, after)
    assert set(diff.upserts) == {("services", "s1"), ("routes", "r2")}
    assert diff.deletes == (("routes", "r1"),)


def test_nothing_to_everything_and_back() -> None:
    some = snapshot(1, service("s1", "blue"))
    assert set(Diff.between(None, some).upserts) == {("services", "s1")}
    assert Diff.between(some, None).deletes == (("services", "s1"),)


def test_equal_content_is_staged_without_parts_so_that_the_version_moves() -> None:
    before = snapshot(1, service("s1", "blue"))
    diff = Diff.between(before, snapshot(2, service("s1", "blue")))
    assert not diff
    assert kinds(diff) == ["stage_begin", "stage_end"]
    begin = wire.ToWorker.FromString(next(iter(stage_messages(diff)))).stage_begin
    assert (begin.base_version, begin.snapshot.version) == (1, 2)


def test_parts_stay_below_the_batch_size_and_lose_nothing() -> None:
    many = snapshot(1, *(service(f"s{number}", "x" * 5000) for number in range(200)))
    diff = Diff.between(None, many)
    received = 0
    for message in stage_messages(diff):
        assert len(message) < BATCH_BYTES_MAX + 10_000
        received += len(wire.ToWorker.FromString(message).stage_part.upserts)
    assert received == 200


def test_deletes_are_batched_too() -> None:
    many = snapshot(1, *(service(f"s{number}", "x") for number in range(10_000)))
    diff = Diff.between(many, snapshot(2))
    parts = [wire.ToWorker.FromString(message).stage_part for message in stage_messages(diff)]
    assert sum(len(part.deletes) for part in parts) == 10_000
    assert sum(bool(part.deletes) for part in parts) > 1


def test_an_entity_larger_than_a_batch_travels_alone() -> None:
    one = snapshot(1, service("s1", "a"), service("s2", "x" * (2 * BATCH_BYTES_MAX)), service("s3", "b"))
    messages = [wire.ToWorker.FromString(message) for message in stage_messages(Diff.between(None, one))]
    parts = [[len(data) for data in message.stage_part.upserts] for message in messages]
    assert [len(sizes) for sizes in parts if max(sizes, default=0) > BATCH_BYTES_MAX] == [1]
    assert sum(map(len, parts)) == 3


def test_messages_for_several_workers_are_made_once_and_as_they_are_asked_for() -> None:
    made: list[int] = []

    def source() -> Iterator[bytes]:
        for number in range(3):
            made.append(number)
            yield bytes((number,))

    messages = Again(source())
    one, other = iter(messages), iter(messages)
    assert (next(one), made) == (b"\0", [0])
    assert [next(other), next(other), next(one)] == [b"\0", b"\1", b"\1"]
    assert ([*one], [*other], [*messages]) == ([b"\2"], [b"\2"], [b"\0", b"\1", b"\2"])
    assert made == [0, 1, 2]
