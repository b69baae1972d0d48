"""The policies as properties: round-robin is exact, the ring moves no more than it must, all workers agree."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.balancer.endpoint import Endpoint
from data_plane.balancer.latency import UNASKED_AVERAGES, UNASKED_S, WINDOW_S, Latency
from data_plane.balancer.least_connections import LeastConnections
from data_plane.balancer.ring import ConsistentHashing
from data_plane.balancer.round_robin import RoundRobin
from tests.support.examples import examples

weights = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=8)


def endpoints(of: Sequence[int]) -> list[Endpoint]:
    return [
        Endpoint(key=f"10.0.0.{index}:80", ip=f"10.0.0.{index}", port=80, host="", weight=weight)
        for index, weight in enumerate(of)
    ]


def pick(policy: RoundRobin) -> Endpoint:
    endpoint = policy.pick((), b"")
    assert endpoint is not None
    return endpoint


@given(of=weights, skipped=st.integers(min_value=0, max_value=300), seed=st.none() | st.integers())
def test_any_window_of_a_revolution_is_exact(of: list[int], skipped: int, seed: int | None) -> None:
    all_of = endpoints(of)
    policy = RoundRobin(random.Random(seed) if seed is not None else None)
    policy.reconcile(all_of)
    for _ in range(skipped):
        pick(policy)
    divisor = math.gcd(*of)
    counts = Counter(pick(policy) for _ in range(sum(of) // divisor))
    assert counts == {endpoint: endpoint.weight // divisor for endpoint in all_of}


@given(of=weights, seed=st.integers(), data=st.data())
def test_those_left_keep_their_proportions_while_others_are_down(of: list[int], seed: int, data: st.DataObject) -> None:
    all_of = endpoints(of)
    policy = RoundRobin(random.Random(seed))
    policy.reconcile(all_of)
    divisor = math.gcd(*of)
    for _ in range(data.draw(st.integers(min_value=0, max_value=100))):
        pick(policy)
    down = data.draw(st.sets(st.sampled_from(all_of), max_size=len(all_of) - 1))
    for endpoint in down:
        endpoint.available = False
        policy.availability_changed(endpoint)
    live = [endpoint for endpoint in all_of if endpoint.available]
    length = sum(endpoint.weight for endpoint in live) // divisor
    for _ in range(length):  # what is left of the revolution in which they went down
        pick(policy)
    counts = Counter(pick(policy) for _ in range(3 * length))
    assert counts == {endpoint: 3 * (endpoint.weight // divisor) for endpoint in live}
    for endpoint in down:
        endpoint.available = True
        policy.availability_changed(endpoint)
    revolution = sum(of) // divisor
    for _ in range(revolution):
        pick(policy)
    counts = Counter(pick(policy) for _ in range(revolution))
    assert counts == {endpoint: endpoint.weight // divisor for endpoint in all_of}


@settings(max_examples=examples(10), deadline=None)
@given(
    takes_s=st.lists(st.floats(min_value=0.001, max_value=0.4), min_size=2, max_size=4),
    first_s=st.floats(min_value=0.01, max_value=2.0),
    seed=st.integers(),
)
def test_latency_forgets_nobody(takes_s: list[float], first_s: float, seed: int) -> None:
    now = 0.0
    all_of = endpoints([10] * len(takes_s))
    times = dict(zip(all_of, takes_s, strict=True))
    policy = Latency(lambda: now, random.Random(seed))
    policy.reconcile(all_of)
    policy.observed(all_of[0], first_s)
    asked = dict.fromkeys(all_of, 0.0)
    average_at_most = dict(times) | {all_of[0]: first_s}
    while now < 30:
        endpoint = policy.pick((), b"")
        assert endpoint is not None
        now += 0.02
        policy.observed(endpoint, times[endpoint])
        # Who wins a draw keeps a part of what it was slow by; who is measured does not, and is asked sooner.
        kept = math.exp(-(now - asked[endpoint]) / WINDOW_S)
        average_at_most[endpoint] = average_at_most[endpoint] * kept + times[endpoint] * (1 - kept)
        average_at_most[endpoint] = max(average_at_most[endpoint], times[endpoint])
        asked[endpoint] = now
        for other, at in asked.items():
            # One second of draws more: of four, two are drawn at a time.
            assert now - at < max(UNASKED_S, UNASKED_AVERAGES * average_at_most[other]) + 1


@given(of=weights, picks=st.lists(st.booleans(), max_size=120))
def test_turns_out_of_order_are_made_up_for(of: list[int], picks: list[bool]) -> None:
    all_of = endpoints(of)
    policy = RoundRobin()
    policy.reconcile(all_of)
    divisor = math.gcd(*of)
    counts: Counter[Endpoint] = Counter()
    for retried in picks:
        first = pick(policy)
        counts[first] += 1
        if retried and len(all_of) > 1:
            other = policy.pick({first}, b"")
            assert other is not None
            assert other is not first
            counts[other] += 1
    # Go on without failures: at the end of a revolution everybody has had the same multiple of its weight, or is ahead
    # by what was borrowed.
    for _ in range(2 * sum(of) // divisor * (len(picks) + 1)):
        counts[pick(policy)] += 1
    shares = [counts[endpoint] / (endpoint.weight // divisor) for endpoint in all_of]
    assert max(shares) - min(shares) <= 2 + 1e-9


@given(before=weights, after=weights, picks=st.integers(min_value=0, max_value=200))
def test_a_change_of_weights_puts_nobody_far_ahead_and_is_exact_afterwards(
    before: list[int], after: list[int], picks: int
) -> None:
    all_of = endpoints(before)
    policy = RoundRobin()
    policy.reconcile(all_of)
    for _ in range(picks):
        pick(policy)
    changed = endpoints(after)
    kept = [one if index >= len(all_of) else _weighing(all_of[index], one.weight) for index, one in enumerate(changed)]
    policy.reconcile(kept)
    divisor = math.gcd(*after)
    revolution = sum(after) // divisor
    counts = Counter(pick(policy) for _ in range(revolution))
    for endpoint in kept:
        assert abs(counts[endpoint] - endpoint.weight // divisor) <= 3 + len(kept)
    counts = Counter()
    for _ in range(4 * revolution):
        counts[pick(policy)] += 1
    for endpoint in kept:
        assert counts[endpoint] == 4 * (endpoint.weight // divisor)


def _weighing(endpoint: Endpoint, weight: int) -> Endpoint:
    endpoint.weight = weight
    return endpoint


@given(of=weights)
def test_all_workers_without_an_rng_pick_alike(of: list[int]) -> None:
    policies = [RoundRobin(), RoundRobin()]
    sequences = []
    for policy in policies:
        policy.reconcile(endpoints(of))
        sequences.append([pick(policy).key for _ in range(100)])
    assert sequences[0] == sequences[1]


def test_one_of_many_left_costs_no_look_at_the_others() -> None:
    """10,000 endpoints of which one is up: a pick must not walk through the dead."""
    all_of = endpoints([1] * 10_000)
    policy = RoundRobin()
    policy.reconcile(all_of)
    for endpoint in all_of[1:]:
        endpoint.available = False
        policy.availability_changed(endpoint)
    assert {pick(policy).key for _ in range(1000)} == {"10.0.0.0:80"}


ring_weights = st.lists(st.integers(min_value=1, max_value=100), min_size=2, max_size=12)
KEYS = [b"key-%d" % number for number in range(400)]


def homes(policy: ConsistentHashing) -> dict[bytes, str]:
    found = {}
    for key in KEYS:
        endpoint = policy.pick((), key)
        assert endpoint is not None
        found[key] = endpoint.key
    return found


@given(of=ring_weights, data=st.data())
def test_removing_one_moves_its_keys_and_none_between_survivors(of: list[int], data: st.DataObject) -> None:
    of = [100, *of]  # the heaviest stays, so that the scale of the ring does
    all_of = endpoints(of)
    ring = ConsistentHashing()
    ring.reconcile(all_of)
    before = homes(ring)
    gone = data.draw(st.sampled_from(all_of[1:]))
    ring.reconcile([endpoint for endpoint in all_of if endpoint is not gone])
    after = homes(ring)
    for key in KEYS:
        assert (before[key] != after[key]) == (before[key] == gone.key)


@settings(deadline=None, max_examples=examples(25))
@given(of=ring_weights, order=st.randoms(use_true_random=False), history=st.lists(ring_weights, max_size=3))
def test_all_workers_map_keys_alike_whatever_they_went_through(
    of: list[int], order: random.Random, history: list[list[int]]
) -> None:
    first = ConsistentHashing()
    first.reconcile(endpoints(of))
    second = ConsistentHashing()
    live = {endpoint.key: endpoint for endpoint in endpoints([1] * 20)}
    for weights_then in [*history, of]:
        kept = list(live.values())[: len(weights_then)]
        for endpoint, weight in zip(kept, weights_then, strict=True):
            endpoint.weight = weight
        order.shuffle(kept)
        second.reconcile(kept)
    assert homes(first) == homes(second)


def test_a_tenth_of_the_keys_moves_when_one_of_ten_goes() -> None:
    all_of = endpoints([100] * 10)
    ring = ConsistentHashing()
    ring.reconcile(all_of)
    keys = [b"%d" % number for number in range(20_000)]
    before = [ring.pick((), key) for key in keys]
    shares = Counter(before)
    assert all(0.09 < shares[endpoint] / len(keys) < 0.11 for endpoint in all_of)
    ring.reconcile(all_of[1:])
    moved = sum(ring.pick((), key) is not home for key, home in zip(keys, before, strict=True))
    assert moved == shares[all_of[0]]


@given(
    of=st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=6),
    steps=st.lists(st.tuples(st.booleans(), st.integers(min_value=0, max_value=99)), max_size=150),
)
def test_least_connections_always_picks_the_lowest_score(of: list[int], steps: list[tuple[bool, int]]) -> None:
    all_of = endpoints(of)
    policy = LeastConnections(random.Random(0))
    policy.reconcile(all_of)
    held: list[Endpoint] = []
    for flip, number in steps:
        if flip and number % 3 == 0:
            endpoint = all_of[number % len(all_of)]
            endpoint.available = not endpoint.available
            policy.availability_changed(endpoint)
        elif flip and held:
            endpoint = held.pop(number % len(held))
            endpoint.in_flight -= 1
            policy.load_changed(endpoint)
        else:
            live = [endpoint for endpoint in all_of if endpoint.available]
            found = policy.pick((), b"")
            if not live:
                assert found is None
                continue
            assert found is not None
            assert found.available
            assert (found.in_flight + 1) / found.weight == min((e.in_flight + 1) / e.weight for e in live)
            found.in_flight += 1
            policy.load_changed(found)
            held.append(found)


@pytest.mark.parametrize("weights", [[100, 100], [100] * 5, [100, 50], [1, 2, 3, 4], [100] * 64])
def test_shares_of_the_circle_follow_the_weights(weights: list[int]) -> None:
    all_of = endpoints(weights)
    ring = ConsistentHashing()
    ring.reconcile(all_of)
    shares = Counter(ring.pick((), b"%d" % number) for number in range(100_000))
    for endpoint, weight in zip(all_of, weights, strict=True):
        share = shares[endpoint] / 100_000 * sum(weights) / weight
        assert 0.88 < share < 1.12, (endpoint, share)
