"""Windows of running sums: what is of them, and what a node that starts anew, or is new, does to them."""

from __future__ import annotations

from control_plane.fleet.side_figures import SideFigures
from control_plane.switching.windows import Windows


def counted(requests: int, errors: int = 0, *, since: int = 1) -> SideFigures:
    return SideFigures(requests, errors, since=since)


def test_a_window_begins_with_the_first_report_of_the_step_and_moves_on() -> None:
    windows = Windows(length_s=10)
    for second in range(31):
        windows.note("shop", {"a": {"green": counted(1000 + 10 * second)}}, second)
        expected = 10 * min(max(0, second - 1), 10)
        assert windows.of("shop", "a", "green").requests == expected, second
    assert windows.of("shop", "a", "blue") == SideFigures()
    assert windows.of("shop", "b", "green") == SideFigures()
    assert list(windows.nodes("shop")) == ["a"]
    assert list(windows.nodes("cart")) == []


def test_a_node_that_starts_anew_counts_from_nothing() -> None:
    windows = Windows(length_s=60)
    windows.note("shop", {"a": {"green": counted(900, 5)}}, 0)
    windows.note("shop", {"a": {"green": counted(1000, 5)}}, 0)
    windows.note("shop", {"a": {"green": counted(1100, 6)}}, 1)
    windows.note("shop", {"a": {"green": counted(30, 20, since=2)}}, 2)
    windows.note("shop", {"a": {"green": counted(40, 25, since=2)}}, 3)
    found = windows.of("shop", "a", "green")
    assert (found.requests, found.errors_5xx) == (140, 26)


def test_a_side_that_shows_up_on_a_known_node_is_counted_whole() -> None:
    windows = Windows(length_s=60)
    windows.note("shop", {"a": {"blue": counted(1000)}}, 0)
    windows.note("shop", {"a": {"blue": counted(1050)}}, 0.5)
    windows.note("shop", {"a": {"blue": counted(1100), "green": counted(7, 7)}}, 1)
    assert windows.of("shop", "a", "green").errors_5xx == 7
    windows.note("shop", {"b": {"green": counted(5000)}}, 2)  # how much of it is old nobody knows
    assert windows.of("shop", "b", "green").requests == 0


def test_what_was_counted_before_the_step_is_not_of_it() -> None:
    """Green failed a moment ago, and its node says so only now: that is no reason to stop the release that mends it."""
    windows = Windows(length_s=60)
    windows.note("shop", {"a": {"blue": counted(1000)}}, 0)
    windows.note("shop", {"a": {"blue": counted(1000)}}, 0.5)
    windows.note("shop", {"a": {"blue": counted(1050), "green": counted(90, 80)}}, 1)
    windows.note("shop", {"a": {"blue": counted(1100), "green": counted(100, 80)}}, 2)
    found = windows.of("shop", "a", "green")
    assert (found.requests, found.errors_5xx) == (10, 0)


def test_a_node_that_is_silent_for_the_length_of_the_window_drops_out() -> None:
    windows = Windows(length_s=5)
    windows.note("shop", {"a": {"green": counted(0)}}, 0)
    windows.note("shop", {"a": {"green": counted(1)}}, 0.5)
    windows.note("shop", {"a": {"green": counted(101)}}, 1)
    assert windows.of("shop", "a", "green").requests == 100
    for second in range(2, 9):
        windows.note("shop", {}, second)
    assert windows.of("shop", "a", "green").requests == 0
