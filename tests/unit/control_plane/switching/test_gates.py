"""What breaks a gate and what does not. Figures are made by hand: so many requests, of which so many failed."""

from __future__ import annotations

import pytest

from control_plane.fleet.side_figures import SideFigures
from control_plane.switching.gates import Figure, Gate, Limits, Outcome, Pair, Tally, Verdict, judge
from pointsman.rules.latency_buckets import BUCKETS, bucket_of

ERRORS = Limits(errors=0.01, connect=None, slower=None)
CONNECT = Limits(errors=None, connect=0.01, slower=None)
SLOWER = Limits(errors=None, connect=None, slower=2.0)


def side(
    requests: int, errors: int = 0, *, unconnected: int = 0, slow: int = 0, ms: float = 2, slow_ms: float = 200
) -> SideFigures:
    """A side whose requests took `ms`, but `slow` of them `slow_ms`."""
    counts = [0] * BUCKETS
    counts[bucket_of(ms / 1000)] += requests - slow
    counts[bucket_of(slow_ms / 1000)] += slow
    return SideFigures(requests, errors, unconnected, tuple(counts))


def outcome(limits: Limits, old: SideFigures, new: SideFigures) -> Outcome:
    return judge(limits, (), [Pair("shop", "", old, new)]).outcome


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (side(1000), side(49, 49), Outcome.TOO_FEW),  # fewer than the least number, however bad
        (side(1000), side(50, 50), Outcome.BROKEN),
        (side(1000), side(50), Outcome.GOOD),
        (side(1000), side(50, 1), Outcome.DOUBT),  # 2 %, and it may be chance
        (side(1000), side(5000, 100), Outcome.BROKEN),  # 2 % of many is none
        (side(1000, 500), side(1000, 500), Outcome.GOOD),  # both are equally bad
        (side(1000, 500), side(1000, 505), Outcome.GOOD),
        (side(1000, 500), side(1000, 900), Outcome.BROKEN),
        (side(1000, 500), side(1000), Outcome.GOOD),  # better
        (side(0), side(100, 100), Outcome.BROKEN),  # nobody is on the old side any more: by the limit alone
        (side(3, 3), side(100, 80), Outcome.GOOD),
    ],
)
def test_errors(old: SideFigures, new: SideFigures, expected: Outcome) -> None:
    assert outcome(ERRORS, old, new) is expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (side(1000), side(1000), Outcome.GOOD),
        (side(1000), side(10, unconnected=100), Outcome.BROKEN),  # more attempts in vain than requests that ended
        (side(1000, unconnected=500), side(1000, unconnected=500), Outcome.GOOD),
        (side(1000), side(30, unconnected=30), Outcome.TOO_FEW),
    ],
)
def test_connections(old: SideFigures, new: SideFigures, expected: Outcome) -> None:
    assert outcome(CONNECT, old, new) is expected


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (side(1000), side(1000), Outcome.GOOD),
        (side(1000), side(1000, slow=10), Outcome.GOOD),  # the p99 allows for ten
        (side(1000), side(1000, slow=40), Outcome.BROKEN),
        (side(1000), side(1000, ms=8), Outcome.GOOD),  # four times as slow, by milliseconds that hurt nobody
        (side(1000), side(1000, ms=30), Outcome.BROKEN),
        (side(1000, ms=200), side(1000, ms=200), Outcome.GOOD),
        (side(1000, ms=200), side(1000, ms=300), Outcome.GOOD),  # within a factor of 2
        (side(10, ms=2), side(1000, ms=300), Outcome.GOOD),  # the old side has too few to compare with
        (side(1000), side(49, ms=300), Outcome.TOO_FEW),
        (side(1000), side(50, slow=1), Outcome.GOOD),  # one slow request of fifty is no p99
    ],
)
def test_latencies(old: SideFigures, new: SideFigures, expected: Outcome) -> None:
    assert outcome(SLOWER, old, new) is expected


def test_a_latency_may_have_a_limit_of_its_own() -> None:
    limits = Limits(errors=None, connect=None, slower=None, quantile=0.5, latency_s=0.1)
    assert outcome(limits, side(1000, ms=300), side(1000, ms=300)) is Outcome.BROKEN
    assert outcome(limits, side(0), side(1000, ms=20)) is Outcome.GOOD


def test_one_bad_node_among_many_breaks_the_gate_and_is_named() -> None:
    nodes = [Pair("shop", f"dp-{at}", side(1000), side(100)) for at in range(99)]
    nodes.append(Pair("shop", "dp-bad", side(1000), side(100, 60)))
    verdict = judge(ERRORS, nodes, [Pair("shop", "", side(100_000), side(10_000, 60))])
    assert verdict.outcome is Outcome.BROKEN
    assert verdict.worst is not None
    assert verdict.worst.text() == (
        "shop on node dp-bad: 60 % errors, the old side 0 % over 100 requests; the limit is 1 % more"
    )


def test_a_slight_fault_of_all_shows_in_the_sum_only() -> None:
    nodes = [Pair("shop", f"dp-{at}", side(1000), side(40, 2)) for at in range(20)]
    verdict = judge(ERRORS, nodes, [Pair("shop", "", side(20_000), side(800, 40))])
    assert verdict.outcome is Outcome.BROKEN
    assert verdict.worst is not None
    assert (verdict.worst.node, verdict.worst.gate) == ("", Gate.ERRORS)
    assert "over all nodes" in verdict.worst.text()


def test_the_worst_figure_is_the_one_that_is_told() -> None:
    limits = Limits(slower=2.0)
    pair = Pair("shop", "dp-1", side(1000), side(1000, 300, unconnected=20, slow=500))
    verdict = judge(limits, [pair, Pair("shop", "dp-2", side(1000), side(1000, 900))], [pair])
    assert verdict.worst is not None
    assert (verdict.worst.node, verdict.worst.gate) == ("dp-2", Gate.ERRORS)


def test_without_gates_nothing_is_waited_for() -> None:
    none = Limits(errors=None, connect=None, slower=None)
    assert outcome(none, side(0), side(0)) is Outcome.GOOD


def test_a_verdict_outlives_the_process() -> None:
    pair = Pair("shop", "dp-1", side(1000), side(1000, 900))
    verdict = judge(Limits(), [pair], [pair])
    figures = tuple(Figure.from_json(each.to_json()) for each in verdict.figures)
    tallies = tuple(Tally.from_json(each.to_json()) for each in verdict.tallies)
    assert Verdict(verdict.outcome, figures, tallies) == verdict
