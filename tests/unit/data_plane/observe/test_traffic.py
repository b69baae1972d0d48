"""Counting what routes serve: the right bucket, the right series, and never more series than allowed."""

from __future__ import annotations

import pytest

from data_plane.observe.histogram import KONG_BOUNDS_MS, UPSTREAM_BOUNDS_MS, bucket_of, cumulated
from data_plane.observe.traffic import (
    CLIENT_GONE,
    OVERFLOW,
    PROXIED_OK,
    QUICK_KONG_S,
    QUICK_REQUEST_S,
    RouteTraffic,
    TrafficBook,
)


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.001, 0), (0.0011, 1), (0.0050, 2), (6.0, 16), (6.001, 17), (3600.0, 17)]
)
def test_a_duration_is_in_the_first_bucket_that_is_not_below_it(seconds: float, bucket: int) -> None:
    assert bucket_of(KONG_BOUNDS_MS, seconds) == bucket


def test_buckets_are_cumulated_for_showing() -> None:
    assert cumulated([1, 0, 2]) == [1, 1, 3]


def _buckets(traffic: RouteTraffic) -> tuple[list[int], list[int], list[int]]:
    """The three histograms with the quick requests put in."""
    lists = [list(traffic.kong_ms), list(traffic.upstream_ms), list(traffic.request_ms)]
    for counts in lists:
        counts[0] += traffic.quick
    return lists[0], lists[1], lists[2]


@pytest.mark.parametrize(
    ("kong_s", "upstream_s", "request_s"),
    [(0.0, 0.0, 0.0), (0.001, 0.02, 0.025), (0.0011, 0.001, 0.01), (0.0005, 0.0251, 0.0252), (7.0, 61.0, 70.0)],
)
def test_a_request_is_in_one_bucket_of_each_histogram(kong_s: float, upstream_s: float, request_s: float) -> None:
    traffic = TrafficBook().of("s", "r")
    traffic.settled(PROXIED_OK, kong_s, upstream_s, request_s)
    kong, upstream, request = _buckets(traffic)
    assert kong[bucket_of(KONG_BOUNDS_MS, kong_s)] == 1
    assert upstream[bucket_of(UPSTREAM_BOUNDS_MS, upstream_s)] == 1
    assert request[bucket_of(UPSTREAM_BOUNDS_MS, request_s)] == 1
    assert (sum(kong), sum(upstream), sum(request)) == (1, 1, 1)
    assert (traffic.kong_s, traffic.upstream_s, traffic.request_s) == (kong_s, upstream_s, request_s)


def test_what_is_quick_is_in_the_first_bucket_of_all() -> None:
    assert bucket_of(KONG_BOUNDS_MS, QUICK_KONG_S) == 0
    assert bucket_of(UPSTREAM_BOUNDS_MS, QUICK_REQUEST_S) == 0


def test_an_answer_of_ours_is_no_answer_of_an_upstream() -> None:
    traffic = TrafficBook().of("s", "r")
    traffic.settled(CLIENT_GONE, 0.1, 0.2, 0.5)
    traffic.settled(503 * 2, 0.0, 0.0, 0.0)
    assert traffic.codes == {499 * 2 + 1: 1, 503 * 2: 1}
    assert sum(traffic.upstream_ms) == 1
    assert (traffic.kong_s, traffic.upstream_s) == (0.5, 0.0)
    assert traffic.total == 2


def test_a_series_beyond_the_limit_is_counted_in_the_overflows() -> None:
    book = TrafficBook(2)
    one, two, three = book.of("s", "1"), book.of("s", "2"), book.of("s", "3")
    assert three is book.overflow
    assert (three.service, three.route) == (OVERFLOW, OVERFLOW)
    assert book.of("s", "1") is one
    two.settled(404 * 2, 0.0, 0.0, 0.0)  # a third series: of a code
    assert two.codes == {}
    assert book.overflow.codes == {808: 1}
    three.settled(200 * 2, 0.0, 0.0, 0.0)
    three.settled(500 * 2, 0.0, 0.0, 0.0)
    assert book.folded_total == 3
    assert len(book.routes) == 2


def test_only_what_grew_is_told_again() -> None:
    book = TrafficBook(1)
    book.of("s", "quiet")
    one = book.routes["s", "quiet"]
    assert list(book.changed()) == []
    one.settled(200 * 2, 0.0, 0.0, 0.0)
    assert list(book.changed()) == [one]
    assert list(book.changed()) == []
    one.settled(404 * 2, 0.0, 0.0, 0.0)  # folded
    assert list(book.changed()) == [one, book.overflow]
    assert list(book.changed()) == []
