"""A change goes to a few nodes at a time, and is never kept from any of them for long."""

from __future__ import annotations

from control_plane.fleet.pace import AT_FIRST, WIDEN_BY, Pace

NODES = [f"node-{number}" for number in range(10)]


def test_a_few_are_told_and_one_more_with_each_answer() -> None:
    pace = Pace(widen_s=1.0)
    assert pace.join(NODES, now=0.0) == NODES[:AT_FIRST]
    assert pace.answered(NODES[1]) == [NODES[AT_FIRST]]
    assert pace.answered(NODES[1]) == [], "it was told once and has answered"
    assert pace.answered(NODES[0]) == [NODES[AT_FIRST + 1]]


def test_nodes_that_do_not_answer_hold_nobody_up() -> None:
    pace = Pace(widen_s=1.0)
    pace.join(map(str, range(20)), now=0.0)
    assert pace.overdue(now=0.9) == []
    assert len(pace.overdue(now=1.0)) == AT_FIRST * WIDEN_BY - AT_FIRST
    assert pace.due == 2.0
    assert pace.overdue(now=2.0)[-1] == "19"
    assert pace.due is None


def test_a_thousand_silent_nodes_are_told_within_five_times() -> None:
    pace = Pace(widen_s=1.0)
    told = list(pace.join(map(str, range(1000)), now=0.0))
    for now in range(1, 6):
        told += pace.overdue(now=float(now))
    assert told == [str(number) for number in range(1000)]


def test_who_waits_keeps_its_place_when_the_next_change_comes() -> None:
    pace = Pace(widen_s=1.0)
    first, *_ = pace.join(NODES[: AT_FIRST + 2], now=0.0)
    assert pace.join(NODES, now=0.5) == []
    assert pace.answered(first) == [NODES[AT_FIRST]]
    assert pace.answered(NODES[1]) == [NODES[AT_FIRST + 1]]
    assert pace.answered(NODES[2]) == [first], "it was told of the change before, and comes after those who were not"


def test_the_next_row_begins_as_narrow_as_the_first() -> None:
    pace = Pace(widen_s=1.0)
    pace.join(NODES, now=0.0)
    pace.overdue(now=1.0)
    assert pace.due is None
    assert pace.join(NODES, now=3.0) == NODES[:AT_FIRST]
    assert pace.due == 4.0
