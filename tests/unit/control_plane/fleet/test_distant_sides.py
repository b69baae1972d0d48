"""Goal: who weighs a service's sides knows what nodes at other control planes have counted, and of which he does not.

Method: two control planes over one store as they are, with a channel between them that can lose words and a clock that
is turned by hand.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from control_plane.fleet import distant_sides, relay_words
from control_plane.fleet.distant_sides import DistantSides, packed, unpacked
from control_plane.fleet.side_figures import NO_COUNTS, SideFigures, SideRow
from control_plane.store.contract import Store
from tests.support.patience import until
from tests.unit.control_plane.fleet.rollout_rig import RigPlane, Talker, Wire, create, started

GREEN = SideFigures(12, 3, 1, (0, 7, *NO_COUNTS[3:], 2), 4, 1_700_000_000_000_000_000)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def planes(store: Store, wire: Wire) -> AsyncIterator[tuple[RigPlane, RigPlane]]:
    """One node at the first, two at the second; the first knows of them."""
    first = RigPlane(store, name="first", sole=False, wire=wire)
    second = RigPlane(store, name="second", sole=False, wire=wire)
    await first.write(create("blue"))
    async with started(first), started(second):
        for plane, names in ((first, "a"), (second, "cd")):
            await until(lambda plane=plane: plane.publisher.published == 1)  # type: ignore[misc]  # lambda defaults
            await plane.join(*(Talker(name) for name in names))
        first.knows(second)
        yield first, second


def test_sums_travel_whole() -> None:
    assert unpacked(packed(GREEN)) == GREEN
    assert unpacked(packed(SideFigures())) == SideFigures()
    assert len(packed(SideFigures())) == 5


async def test_the_others_nodes_are_seen_with_and_without_figures(planes: tuple[RigPlane, RigPlane]) -> None:
    first, second = planes
    busy, idle = second.talkers
    second.server.sides.report(busy.id, [SideRow("s", "green", GREEN)], full=True, now=0.0)
    distant = first.rollouts.distant_sides
    await until(lambda: distant.figures("s").keys() == {busy.id, idle.id})
    assert distant.figures("s") == {busy.id: {"green": GREEN}, idle.id: {}}


async def test_who_is_not_heard_any_more_is_not_seen(planes: tuple[RigPlane, RigPlane], wire: Wire) -> None:
    first, _ = planes
    now = 100.0
    tell = first.rollouts._tell_plane
    distant = DistantSides(first.nodes, first.server.sides, tell=tell, clock=lambda: now)

    def hear(text: str) -> None:
        if (heard := relay_words.parse(text, to="first")) is not None:
            distant.heard(*heard)

    wire.hearers.append(hear)
    await until(lambda: len(distant.figures("s")) == 2)
    asked = len(wire.words("weigh"))
    for _ in range(5):
        distant.figures("s")
    assert len(wire.words("weigh")) == asked, "once a second"
    wire.loses = lambda word: word["word"] == "weighed"
    now += distant_sides.FRESH_S
    assert len(distant.figures("s")) == 2
    now += 0.1
    assert distant.figures("s") == {}
    now += 1.0
    wire.loses = lambda _word: False
    await until(lambda: len(distant.figures("s")) == 2)


async def test_many_nodes_with_many_latencies_fit_into_what_a_word_may_carry(
    planes: tuple[RigPlane, RigPlane], wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = planes
    monkeypatch.setattr(relay_words, "PART_BYTES_MAX", 500)
    full = SideFigures(10**9, 10**9, 10**9, tuple(10**6 for _ in NO_COUNTS), 10**6, 2**63)
    rows = [SideRow("s", upstream, full) for upstream in ("blue", "green")]
    for talker in second.talkers:
        second.server.sides.report(talker.id, rows, full=True, now=0.0)  # the wire refuses what is too long
    distant = first.rollouts.distant_sides
    await until(lambda: len(distant.figures("s")) == 2)
    assert len(wire.words("weighed")) >= 2
    assert set(distant.figures("s")[second.talkers[0].id].values()) == {full}
