from __future__ import annotations

import asyncio

from control_plane.events.ring import Event, Follower, Kind, Ring

AT = 1_800_000_000.0


def ring(events_max: int = 4) -> Ring:
    return Ring(wall=lambda: AT, events_max=events_max, boot="b")


def told(events: list[Event] | None) -> list[str]:
    assert events is not None
    return [event.id if event.kind is not Kind.GAP else f"gap {event.data['missed']}" for event in events]


async def now(follower: Follower) -> list[str]:
    return told(await follower.next(wait_s=0.001))


async def test_a_follower_begins_behind_the_newest_event_and_gets_each_once() -> None:
    events = ring()
    events.add(Kind.NODE, {})
    follower = events.follow()
    assert await now(follower) == []
    events.add(Kind.VERSION, {"version": 7})
    events.add(Kind.NODE, {})
    assert await now(follower) == ["b-2", "b-3"]
    assert await now(follower) == []


async def test_who_waits_is_woken() -> None:
    events = ring()
    follower = events.follow()
    assert await now(follower) == []
    waiting = asyncio.create_task(follower.next(wait_s=None))
    await asyncio.sleep(0)
    events.add(Kind.NODE, {})
    assert told(await waiting) == ["b-1"]


async def test_a_slow_follower_is_told_how_much_it_missed() -> None:
    events = ring(events_max=2)
    follower = events.follow()
    for _ in range(5):
        events.add(Kind.NODE, {})
    assert await now(follower) == ["gap 3", "b-4", "b-5"]
    assert await now(follower) == []


async def test_where_a_follower_comes_back() -> None:
    events = ring(events_max=3)
    for _ in range(5):
        events.add(Kind.NODE, {})
    assert await now(events.follow(after="b-4")) == ["b-5"]
    assert await now(events.follow(after="b-5")) == []
    assert await now(events.follow(after="b-1")) == ["gap 1", "b-3", "b-4", "b-5"]
    assert await now(events.follow(after="0")) == ["b-3", "b-4", "b-5"]
    for foreign in ("other-3", "b-6", "b-", "-", "nonsense", "b-٣"):
        assert await now(events.follow(after=foreign)) == ["gap None", "b-3", "b-4", "b-5"], foreign


async def test_only_some_kinds() -> None:
    events = ring()
    follower = events.follow(kinds=frozenset({Kind.SWITCH}))
    events.add(Kind.NODE, {})
    events.add(Kind.SWITCH, {})
    assert await now(follower) == ["b-2"]
    for _ in range(9):
        events.add(Kind.NODE, {})
    assert await now(follower) == ["gap 5"]


async def test_the_end_comes_after_the_last_event() -> None:
    events = ring()
    follower, other = events.follow(), events.follow()
    events.add(Kind.NODE, {})
    events.close()
    assert await now(follower) == ["b-1"]
    assert await follower.next(wait_s=None) is None
    other.end()
    assert await other.next(wait_s=None) is None


async def test_one_follower_can_be_ended_while_it_waits() -> None:
    events = ring()
    follower = events.follow()
    assert await now(follower) == []
    waiting = asyncio.create_task(follower.next(wait_s=None))
    await asyncio.sleep(0)
    follower.end()
    assert await waiting is None
    follower.close()
    events.add(Kind.NODE, {})
