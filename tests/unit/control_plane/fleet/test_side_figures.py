"""Figures of a service's sides: differences of readings, quantiles, and what of them happened lately."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control_plane.fleet.messages import BadMessage, SideReport, decode
from control_plane.fleet.side_figures import (
    READING_EVERY_S,
    ROWS_MAX,
    WINDOW_S,
    MirrorFigures,
    SideBook,
    SideFigures,
    SideRow,
    together,
)
from pointsman.rules.latency_buckets import BOUNDS_MS, BUCKETS, bucket_of, quantile_ms
from pointsman.wire.v1 import fleet_pb2


def counts(**at: int) -> tuple[int, ...]:
    """Counts by bucket: `counts(b3=5)` has five in bucket 3."""
    made = [0] * BUCKETS
    for name, count in at.items():
        made[int(name[1:])] = count
    return tuple(made)


def row(requests: int, *, upstream: str = "green", service: str = "s", since: int = 1) -> SideRow:
    return SideRow(service, upstream, SideFigures(requests, latency_counts=counts(b0=requests), since=since))


def test_what_happened_in_between_is_the_difference() -> None:
    earlier = SideFigures(10, 1, 2, counts(b0=9), 4, 7)
    later = SideFigures(30, 2, 2, counts(b0=20, b5=9), 1, 7)
    assert later - earlier == SideFigures(20, 1, 0, counts(b0=11, b5=9), 1, 7)


@pytest.mark.parametrize(
    "later",
    [SideFigures(30, since=8), SideFigures(5, since=7), SideFigures(20, latency_counts=counts(b1=3), since=7)],
    ids=["another start", "fewer requests", "a bucket that fell"],
)
def test_a_node_that_started_anew_counts_from_nothing(later: SideFigures) -> None:
    assert later - SideFigures(10, latency_counts=counts(b0=9), since=7) == later


def test_a_side_that_had_counted_nothing_is_all_new() -> None:
    later = SideFigures(3, 1, 0, counts(b0=3), 0, 7)
    assert later - SideFigures() == later


def test_nodes_add_up() -> None:
    total = together([SideFigures(3, 1, 2, counts(b0=3), 1, 7), SideFigures(4, 0, 0, counts(b2=4), 2, 9)])
    assert (total.requests, total.errors_5xx, total.connect_errors, total.open) == (7, 1, 2, 3)
    assert total.latency_counts == counts(b0=3, b2=4)
    assert total.error_ratio == 1 / 7
    assert SideFigures().error_ratio is None


def test_quantiles_lie_in_the_bucket_that_holds_them() -> None:
    figures = SideFigures(100, latency_counts=counts(b4=50, b9=49, b20=1))
    for q, bucket in ((0.01, 4), (0.5, 4), (0.51, 9), (0.99, 9), (0.995, 20), (1.0, 20)):
        found = figures.quantile(q)
        assert found is not None
        assert BOUNDS_MS[bucket - 1] <= found <= BOUNDS_MS[bucket], q
    assert figures.quantile(1.0) == BOUNDS_MS[20]
    assert SideFigures().quantile(0.99) is None
    assert quantile_ms(counts(**{f"b{BUCKETS - 1}": 1}), 0.5) == BOUNDS_MS[-1]


@pytest.mark.parametrize(("given", "q"), [(counts(b0=1), 1.1), (counts(b0=1), -0.1), ((1, 2), 0.5)])
def test_a_quantile_of_nonsense_is_refused(given: tuple[int, ...], q: float) -> None:
    with pytest.raises(ValueError, match=r"quantile|counts"):
        quantile_ms(given, q)


def test_bounds_belong_to_the_bucket_below() -> None:
    assert [bucket_of(ms / 1000) for ms in (0, 1, 1.01, 2, 60000, 60001)] == [0, 0, 1, 1, BUCKETS - 2, BUCKETS - 1]


def test_a_report_tells_what_changed_and_a_full_one_all() -> None:
    book = SideBook()
    book.report("n1", [row(5), row(7, upstream="blue")], full=True, now=0)
    book.report("n1", [row(6)], full=False, now=1)
    book.report("n2", [row(1), row(9, service="other")], full=True, now=1)
    found = book.figures("s")
    assert {node: {side: each.requests for side, each in sides.items()} for node, sides in found.items()} == {
        "n1": {"green": 6, "blue": 7},
        "n2": {"green": 1},
    }
    book.report("n1", [row(1, since=2)], full=True, now=2)
    assert list(book.figures("s")["n1"]) == ["green"]
    book.keep_only({"n2"})
    assert list(book.figures("s")) == ["n2"]


def test_the_first_and_the_last_answer_of_several_sides() -> None:
    book = SideBook()
    rows = [replace(row(1), first_ns=30, last_ns=90), replace(row(1, service="t"), first_ns=20, last_ns=80)]
    book.report("n1", [*rows, row(1, upstream="blue")], full=True, now=0)
    assert (book.first_ns("n1", ["s", "t"], ["green", "blue"]), book.last_ns("n1", ["s", "t"], ["green"])) == (20, 90)
    assert (book.first_ns("n1", ["s"], ["blue"]), book.last_ns("n1", ["s"], ["blue"])) == (0, 0)
    assert (book.first_ns("n2", ["s"], ["green"]), book.last_ns("n2", ["s"], ["green"])) == (0, 0)


def lately(book: SideBook, now: float) -> tuple[float, int]:
    (rate,) = book.rates(now=now)
    return rate.seconds, rate.lately.requests


def test_rates_are_of_the_last_seconds() -> None:
    book = SideBook()
    for second in range(61):
        book.report("n", [row(100 * second)], full=second == 0, now=second)
    seconds, requests = lately(book, 60)
    assert WINDOW_S <= seconds <= WINDOW_S + READING_EVERY_S
    assert requests == 100 * seconds


def test_a_side_that_fell_silent_has_no_rate_and_its_next_request_is_not_spread_over_the_silence() -> None:
    book = SideBook()
    book.report("n", [row(100)], full=True, now=0)
    book.report("n", [row(150)], full=False, now=1)
    assert lately(book, 1) == (1.0, 50)
    assert lately(book, 100) == (WINDOW_S, 0)
    book.report("n", [row(160)], full=False, now=101)
    seconds, requests = lately(book, 101)
    assert seconds == WINDOW_S
    assert requests in (10, 60)  # what was told between two readings may count twice, never not at all


@pytest.mark.parametrize(("omitted", "counted"), [(0, 40), (3, 0)])
def test_a_side_that_comes_up_has_counted_since_the_report_before(omitted: int, counted: int) -> None:
    """Unless the node had no room for it until now: then it is not known since when."""
    book = SideBook()
    book.report("n", [], full=True, now=0, omitted=omitted)
    book.report("n", [row(40)], full=False, now=5)
    assert lately(book, 5) == (1.0, counted)


def test_there_is_a_limit_to_what_is_kept() -> None:
    book = SideBook()
    book.report("n", (row(1, service=f"s{number}") for number in range(ROWS_MAX + 5)), full=True, now=0)
    assert len(book.rates(now=0)) == ROWS_MAX
    book.report("n", [row(1)], full=True, now=1)
    book.report("m", [row(1)], full=True, now=1)
    assert len(book.rates(now=1)) == 2


def test_a_report_off_the_wire() -> None:
    sums = fleet_pb2.SideSums(
        service="s", upstream="green", requests=3, errors_5xx=1, connect_errors=2, latency=counts(b1=3), open=4,
        mirror=fleet_pb2.MirrorSums(sent=5, errors_5xx=1, failed=2, skipped=7), closed_late=6,
        first_answer_ns=10, last_answer_ns=20,
    )  # fmt: skip
    other = fleet_pb2.SideSums(service="s", requests=1, latency=[1, 2])
    report = fleet_pb2.SideReport(since=9, full=True, sides=[sums, other, fleet_pb2.SideSums()], omitted=2)
    assert decode(fleet_pb2.NodeMessage(sides=report).SerializeToString()) == SideReport(
        True,
        (
            SideRow("s", "green", SideFigures(3, 1, 2, counts(b1=3), 4, 9), MirrorFigures(5, 1, 2, 7), 6, 10, 20),
            SideRow("s", "", SideFigures(1, since=9)),
        ),
        2,
    )
    with pytest.raises(BadMessage):
        decode(b"\xff")
