"""Which names are needed, and when they are asked for; time is a number and lookups answer when told."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from data_plane.node.diff import Diff
from data_plane.node.names import ENTITIES_PER_STEP, NameIndex, Names
from data_plane.node.snapshot import NodeSnapshot
from data_plane.resolve.answers import NAME_ERROR, Answer, Record
from data_plane.resolve.cache import Cache, CacheRules, Found, NotFound, Outcome
from tests.unit.data_plane.node.entities import route, service, snapshot, target, upstream


def index_of(*snapshots: NodeSnapshot) -> NameIndex:
    index = NameIndex()
    before: NodeSnapshot | None = None
    for after in snapshots:
        diff = Diff.between(before, after)
        index.apply(diff.upserts, diff.deletes)
        before = after
    return index


def test_names_are_hosts_of_targets_and_of_services_without_upstream() -> None:
    index = index_of(
        snapshot(
            1,
            upstream("u", "blue"),
            target("t1", "u", "one.test:80"),
            target("t2", "u", "10.0.0.1:80"),
            target("t3", "u", "[0000:0000:0000:0000:0000:0000:0000:0001]:80"),
            service("s1", "blue"),
            service("s2", "direct.test"),
            service("s3", "10.0.0.2"),
            route("r", "s1"),
        )
    )
    assert index.needed == {"one.test", "direct.test"}


def test_an_upstream_shadows_a_name_and_uncovers_it_when_it_goes() -> None:
    with_upstream = snapshot(2, service("s1", "blue"), upstream("u", "blue"))
    assert index_of(snapshot(1, service("s1", "blue"))).needed == {"blue"}
    assert index_of(snapshot(1, service("s1", "blue")), with_upstream).needed == set()
    assert index_of(with_upstream, snapshot(3, service("s1", "blue"))).needed == {"blue"}


def test_a_name_is_needed_until_its_last_user_goes() -> None:
    both = snapshot(1, target("t1", "u", "one.test:80"), target("t2", "u", "one.test:81"))
    one = snapshot(2, target("t2", "u", "one.test:81"))
    assert index_of(both, one).needed == {"one.test"}
    assert index_of(both, one, snapshot(3)).needed == set()


def test_a_refused_change_can_be_undone() -> None:
    before = snapshot(1, service("s1", "a.test"), target("t1", "u", "b.test:80"))
    after = snapshot(2, service("s1", "c.test"), service("s2", "d.test"), upstream("u", "c.test"))
    index = index_of(before)
    diff = Diff.between(before, after)
    index.apply(diff.upserts, diff.deletes)
    assert index.needed == {"d.test"}
    index.undo(diff)
    assert index.needed == {"a.test", "b.test"}


def test_a_large_change_that_was_broken_off_can_be_undone() -> None:
    before = snapshot(1, service("s1", "a.test"))
    after = snapshot(2, service("s1", "c.test"), *(service(f"more-{n}", f"{n}.test") for n in range(ENTITIES_PER_STEP)))
    index = index_of(before)
    diff = Diff.between(before, after)
    assert next(index.steps(diff.upserts, diff.deletes), "ended") is None
    index.undo(diff)
    assert index.needed == {"a.test"}
    index.apply(diff.upserts, diff.deletes)
    assert len(index.needed) == 1 + ENTITIES_PER_STEP


class World:
    """Names with a nameserver that answers when told and a clock that stands still."""

    def __init__(self, *, lookups_at_once: int = 64) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.pushed: list[Answer] = []
        self.waiting: dict[str, asyncio.Future[Outcome]] = {}
        self.names = Names(
            self.resolve,
            Cache(CacheRules()),
            on_change=self.push,
            clock=lambda: self.now,
            rng=random.Random(1),
            lookups_at_once=lookups_at_once,
        )

    async def resolve(self, name: str) -> Outcome:
        self.asked.append(name)
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.waiting[name] = answer
        return await answer

    def push(self, answers: Sequence[Answer]) -> None:
        self.pushed.extend(answers)

    def answer(self, name: str, *ips: str, ttl: float = 10.0) -> None:
        outcome: Outcome = Found(tuple(Record(ip) for ip in ips), ttl) if ips else NotFound(NAME_ERROR)
        self.waiting.pop(name).set_result(outcome)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        """Move the clock and let whoever waits for it look."""
        self.now += seconds
        self.names.add(())
        await self.settle()


async def test_required_names_are_asked_for_and_pushed_once_known() -> None:
    world = World()
    world.names.start()
    waiting = asyncio.create_task(world.names.require({"a", "b"}, within_s=5.0))
    await world.settle()
    assert sorted(world.asked) == ["a", "b"]
    world.answer("a", "10.0.0.1")
    await world.settle()
    assert not waiting.done()
    world.answer("b")
    assert await waiting
    assert world.pushed == [Answer("a", (Record("10.0.0.1"),)), Answer("b", (), NAME_ERROR)]
    await world.names.stop()


async def test_waiting_ends_in_time_and_the_lookup_goes_on() -> None:
    world = World()
    world.names.start()
    assert not await world.names.require({"slow"}, within_s=0.0)
    await world.settle()
    world.answer("slow", "10.0.0.1")
    await world.settle()
    assert world.names.answers(["slow"]) == [Answer("slow", (Record("10.0.0.1"),))]
    await world.names.stop()


async def test_an_answer_that_expires_is_asked_for_again_and_pushed_only_when_it_differs() -> None:
    world = World()
    world.names.start()
    world.names.add({"a"})
    await world.settle()
    world.answer("a", "10.0.0.1")
    await world.settle()
    await world.pass_time(9.0)
    assert world.asked == ["a"]
    await world.pass_time(2.5)
    assert world.asked == ["a", "a"]
    world.answer("a", "10.0.0.1")
    await world.settle()
    assert len(world.pushed) == 1
    await world.pass_time(12.0)
    world.answer("a", "10.0.0.2")
    await world.settle()
    assert world.pushed[-1] == Answer("a", (Record("10.0.0.2"),))
    await world.names.stop()


async def test_a_name_out_of_use_is_forgotten() -> None:
    world = World()
    world.names.start()
    world.names.add({"a", "b"})
    await world.settle()
    world.answer("a", "10.0.0.1")
    await world.settle()
    world.names.keep_only({"b"})
    world.answer("b", "10.0.0.2")
    await world.settle()
    await world.pass_time(20.0)
    assert world.asked.count("a") == 1
    assert world.names.answers(["a", "b"]) == [Answer("b", (Record("10.0.0.2"),))]
    await world.names.stop()


async def test_lookups_at_once_are_bounded_and_all_names_get_their_turn() -> None:
    world = World(lookups_at_once=2)
    world.names.start()
    world.names.add({"a", "b", "c", "d"})
    await world.settle()
    assert len(world.asked) == 2
    while world.waiting:
        world.answer(next(iter(world.waiting)), "10.0.0.1")
        await world.settle()
        assert len(world.waiting) <= 2
    assert sorted(world.asked) == ["a", "b", "c", "d"]
    await world.names.stop()
