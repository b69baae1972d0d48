"""Goal: single edits go out at once, bursts are gathered within bounds. Method: a table of instants."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.fleet.gather import Gather, GatherSettings


def test_nothing_is_due_before_a_change() -> None:
    gather = Gather()
    gather.hurry(1.0)
    assert gather.due is None


def test_a_change_after_quiet_goes_out_at_once() -> None:
    gather = Gather()
    gather.changed(10.0)
    assert gather.due == 10.0
    gather.taken()
    gather.changed(10.021)
    assert gather.due == 10.021


def test_a_change_close_behind_another_is_gathered_with_those_that_follow() -> None:
    gather = Gather()
    gather.changed(10.0)
    gather.taken()
    for now in (10.005, 10.010, 10.024):
        gather.changed(now)
        assert gather.due == pytest.approx(10.025)


def test_a_waiting_writer_ends_the_gathering() -> None:
    gather = Gather()
    gather.changed(10.0)
    gather.taken()
    gather.changed(10.005)
    gather.hurry(10.007)
    assert gather.due == 10.007


def test_hurry_does_not_put_off_what_is_due_already() -> None:
    gather = Gather()
    gather.changed(10.0)
    gather.hurry(10.5)
    assert gather.due == 10.0


@pytest.mark.parametrize(
    ("per_second", "window_s"),
    [(30, 0.020), (50, 0.020), (100, 0.040), (200, 0.080), (250, 0.100), (5000, 0.100)],
)
def test_the_window_grows_above_the_busy_rate_only(per_second: int, window_s: float) -> None:
    gather = Gather(GatherSettings(quiet_s=0.020, window_s_max=0.100, busy_per_s=50.0))
    now = 0.0
    for _ in range(per_second * 10):
        now += 1 / per_second
        gather.taken()
        gather.changed(now)
    now += 0.0001
    gather.taken()
    gather.changed(now)
    assert gather.due is not None
    assert gather.due - now == pytest.approx(window_s, rel=0.05)


@given(st.lists(st.floats(0, 0.5), min_size=1, max_size=200))
def test_no_change_is_held_back_longer_than_the_largest_window(gaps: list[float]) -> None:
    gather = Gather()
    now = 100.0
    oldest: float | None = None
    for gap in gaps:
        now += gap
        if gather.due is not None and gather.due <= now:
            gather.taken()
            oldest = None
        gather.changed(now)
        oldest = now if oldest is None else oldest
        assert gather.due is not None
        assert gather.due <= oldest + 0.100 + 1e-9
