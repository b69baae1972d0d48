"""Goal: the node's estimate of the plane's clock is never further off than it says, whatever the network does.

Method: two simulated clocks with any offset and a drift within the bound, exchanges with any delay each way.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import example, given
from hypothesis import strategies as st

from pointsman.rules.plane_clock import DRIFT_PPM_MAX, SAMPLES_MAX, PlaneClock

HOUR_NS = 3_600_000_000_000


@dataclass(frozen=True)
class World:
    """True time is the node's own clock; the plane's is `offset_ns` ahead at zero and drifts."""

    offset_ns: int
    drift_ppm: int

    def plane(self, true_ns: int) -> int:
        return true_ns + self.offset_ns + true_ns * self.drift_ppm // 1_000_000


exchanges = st.lists(
    st.tuples(
        st.integers(0, 10_000_000_000),  # pause before it
        st.integers(0, 200_000_000),  # there
        st.integers(0, 50_000_000),  # inside the plane
        st.integers(0, 200_000_000),  # back
    ),
    min_size=1,
    max_size=3 * SAMPLES_MAX,
)
worlds = st.builds(World, st.integers(-1000 * HOUR_NS, 1000 * HOUR_NS), st.integers(-DRIFT_PPM_MAX, DRIFT_PPM_MAX))


def run(world: World, steps: list[tuple[int, int, int, int]], clock: PlaneClock) -> int:
    now = 0
    for pause, there, inside, back in steps:
        now += pause
        sent = now
        received_there = sent + there
        answered = received_there + inside
        now = answered + back
        clock.sample(
            sent_ns=sent,
            plane_received_ns=world.plane(received_there),
            plane_sent_ns=world.plane(answered),
            received_ns=now,
        )
    return now


@given(worlds, exchanges, st.integers(0, 60_000_000_000))
@example(World(0, 38), [(0, 0, 26_316, 0)], 0)  # no time on the way, and the plane's clock is fast
def test_the_truth_lies_within_the_error_that_is_told(
    world: World, steps: list[tuple[int, int, int, int]], later_ns: int
) -> None:
    clock = PlaneClock()
    now = run(world, steps, clock) + later_ns
    error = clock.error_ns(now)
    estimate = clock.to_plane(now, now)
    assert error is not None
    assert estimate is not None
    rounding_and_drift_inside_the_exchange = 100_000
    assert abs(estimate - world.plane(now)) <= error + rounding_and_drift_inside_the_exchange
    assert clock.to_monotonic(estimate, now) == now


@given(worlds, exchanges)
def test_a_quick_exchange_among_slow_ones_counts(world: World, steps: list[tuple[int, int, int, int]]) -> None:
    clock = PlaneClock()
    now = run(world, [*steps, (0, 100_000, 0, 100_000)], clock)
    error = clock.error_ns(now)
    assert error is not None
    assert error <= 200_000


def test_without_an_exchange_there_is_no_estimate() -> None:
    clock = PlaneClock()
    assert clock.error_ns(5) is clock.to_plane(5, 5) is clock.to_monotonic(5, 5) is clock.newest_age_ns(5) is None
    run(World(7, 0), [(0, 1, 1, 1)], clock)
    assert clock.samples == 1
    clock.reset()
    assert clock.to_plane(5, 5) is None


def test_times_that_cannot_be_true_are_left_out() -> None:
    clock = PlaneClock()
    clock.sample(sent_ns=10, plane_received_ns=100, plane_sent_ns=90, received_ns=20)
    clock.sample(sent_ns=20, plane_received_ns=90, plane_sent_ns=100, received_ns=10)
    clock.sample(sent_ns=10, plane_received_ns=0, plane_sent_ns=100, received_ns=20)
    assert clock.samples == 0
