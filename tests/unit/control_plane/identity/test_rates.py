"""Token buckets by a clock of the test's own."""

from __future__ import annotations

import pytest

from control_plane.identity.rates import Rate


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    rate = Rate(2.0, burst=3, clock=clock)
    assert [rate.take("a") for _ in range(3)] == [0.0, 0.0, 0.0]
    assert rate.take("a") == pytest.approx(0.5)
    clock.now += 0.5
    assert rate.take("a") == 0.0
    assert rate.take("a") == pytest.approx(0.5)


def test_refusals_do_not_push_the_next_call_away() -> None:
    clock = Clock()
    rate = Rate(1.0, burst=1, clock=clock)
    rate.take("a")
    for _ in range(100):
        assert rate.take("a") == pytest.approx(1.0)
    clock.now += 1.0
    assert rate.take("a") == 0.0


def test_callers_do_not_share() -> None:
    rate = Rate(1.0, burst=1, clock=Clock())
    assert rate.take("a") == 0.0
    assert rate.take("b") == 0.0
    assert rate.take("a") > 0


def test_a_bucket_is_never_fuller_than_its_burst() -> None:
    clock = Clock()
    rate = Rate(1.0, burst=2, clock=clock)
    rate.take("a")
    clock.now += 1_000
    assert [rate.take("a") for _ in range(2)] == [0.0, 0.0]
    assert rate.take("a") > 0


def test_the_table_is_bounded_and_forgets_the_oldest() -> None:
    rate = Rate(1.0, burst=1, clock=Clock(), callers_max=2)
    for caller in ("a", "b", "c"):
        rate.take(caller)
    assert rate.wait_s("c") > 0
    assert rate.wait_s("b") > 0
    assert rate.wait_s("a") == 0.0
