"""The other policies behind `Upstream.pick`, on Kong's tables: consistent hashing, least connections, latency."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from data_plane.balancer import Endpoint, Upstream
from data_plane.model import TargetConfig, UpstreamConfig
from data_plane.resolve.answers import Answer, Record


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def upstream(
    algorithm: str,
    *targets: tuple[str, int],
    clock: Callable[[], float] | None = None,
    answers: Callable[[str], Answer | None] = lambda _: None,
) -> Upstream:
    made = Upstream("u", rng=random.Random(1), clock=clock or Clock())
    reconcile(made, algorithm, targets, answers)
    return made


def reconcile(
    balancer: Upstream,
    algorithm: str,
    targets: Sequence[tuple[str, int]],
    answers: Callable[[str], Answer | None] = lambda _: None,
) -> None:
    configs = [
        TargetConfig(
            id=address,
            upstream="u",
            host=address.rpartition(":")[0],
            port=int(address.rpartition(":")[2]),
            weight=weight,
        )
        for address, weight in targets
    ]
    balancer.reconcile(UpstreamConfig(id="u", name="u", algorithm=algorithm), configs, answers)


def keys(count: int, pattern: str = "{}") -> list[bytes]:
    return [pattern.format(number).encode() for number in range(1, count + 1)]


def mapping(balancer: Upstream, of: Sequence[bytes]) -> dict[bytes, str]:
    return {key: balancer.pick((), key).key for key in of}


def hold(balancer: Upstream, count: int) -> list[str]:
    picked = []
    for _ in range(count):
        endpoint = balancer.pick()
        balancer.take(endpoint)
        picked.append(endpoint.key)
    return picked


# Consistent hashing


def test_hashing_keeps_kongs_published_tolerances() -> None:
    records = {"mashape.test": Record("1.2.3.4"), "getkong.test": Record("5.6.7.8")}
    balancer = upstream(
        "consistent-hashing",
        ("mashape.test:123", 10),
        ("getkong.test:321", 5),
        answers=lambda name: Answer(name, (records[name],)),
    )
    counts = Counter(mapping(balancer, keys(1500)).values())
    assert 900 <= counts["mashape.test:123/1.2.3.4:123"] <= 1100
    assert 400 <= counts["getkong.test:321/5.6.7.8:321"] <= 600


def test_growing_moves_what_it_must() -> None:
    balancer = upstream("consistent-hashing")
    seen = {}
    for size in (5, 6, 8):
        reconcile(balancer, "consistent-hashing", [(f"10.0.0.{n}:{n}", 100) for n in range(1, size + 1)])
        seen[size] = mapping(balancer, keys(10_000))
    for before, after, percent_max in ((5, 6, 20), (5, 8, 40), (6, 8, 26)):
        moved = [key for key in seen[before] if seen[before][key] != seen[after][key]]
        assert len(moved) <= 100 * percent_max
        assert all(seen[after][key] not in seen[before].values() for key in moved), "moved between survivors"


def test_the_mapping_depends_on_no_history() -> None:
    targets = [(f"10.0.0.{n}:80", 10 * n) for n in range(1, 7)]
    straight = upstream("consistent-hashing", *targets)
    winding = upstream("consistent-hashing", ("10.0.9.9:80", 1000), *targets[::-1])
    reconcile(winding, "consistent-hashing", targets[3:])
    reconcile(winding, "consistent-hashing", targets[::-1])
    assert mapping(straight, keys(500, "k{}")) == mapping(winding, keys(500, "k{}"))


def test_more_targets_than_kong_can_hold() -> None:
    balancer = upstream("consistent-hashing", *((f"10.0.{n // 250}.{n % 250}:80", 100) for n in range(1000)))
    assert len(set(mapping(balancer, keys(20_000)).values())) > 900


def test_only_the_keys_of_one_that_is_down_move_and_they_come_back() -> None:
    balancer = upstream("consistent-hashing", *((f"10.0.0.{n}:80", 100) for n in range(5)))
    before = mapping(balancer, keys(1000))
    balancer.set_available("10.0.0.3:80", available=False)
    during = mapping(balancer, keys(1000))
    assert all((before[key] == during[key]) == (before[key] != "10.0.0.3:80") for key in before)
    assert len({during[key] for key in before if before[key] == "10.0.0.3:80"}) == 4
    balancer.set_available("10.0.0.3:80", available=True)
    assert mapping(balancer, keys(1000)) == before


def test_a_retry_of_a_key_goes_elsewhere_and_always_to_the_same() -> None:
    balancer = upstream("consistent-hashing", *((f"10.0.0.{n}:80", 100) for n in range(3)))
    first = balancer.pick((), b"k")
    second = balancer.pick([first], b"k")
    third = balancer.pick([first, second], b"k")
    assert len({first, second, third}) == 3
    assert balancer.pick([first], b"k") is second
    assert balancer.pick([first, second, third], b"k") is first


# Least connections


def test_held_requests_follow_the_weights() -> None:
    balancer = upstream("least-connections", ("20.20.20.20:80", 20), ("50.50.50.50:80", 50))
    picked = hold(balancer, 70)
    assert picked[:3] == ["50.50.50.50:80", "50.50.50.50:80", "20.20.20.20:80"]
    assert Counter(picked) == {"20.20.20.20:80": 20, "50.50.50.50:80": 50}


def test_one_at_a_time_the_heaviest_has_all_and_equals_take_turns() -> None:
    balancer = upstream("least-connections", ("20.20.20.20:80", 20), ("50.50.50.50:80", 50))
    for _ in range(70):
        endpoint = balancer.pick()
        balancer.take(endpoint)
        balancer.release(endpoint)
        assert endpoint.key == "50.50.50.50:80"
    equal = upstream("least-connections", *((f"10.0.0.{n}:80", 7) for n in range(4)))
    counts: Counter[str] = Counter()
    for _ in range(40):
        endpoint = equal.pick()
        equal.take(endpoint)
        equal.release(endpoint)
        counts[endpoint.key] += 1
    assert set(counts.values()) == {10}


def test_counts_survive_being_down() -> None:
    balancer = upstream("least-connections", ("20.20.20.20:80", 20), ("50.50.50.50:80", 50))
    balancer.set_available("20.20.20.20:80", available=False)
    assert Counter(hold(balancer, 70)) == {"50.50.50.50:80": 70}
    balancer.set_available("20.20.20.20:80", available=True)
    assert Counter(hold(balancer, 70)) == {"20.20.20.20:80": 40, "50.50.50.50:80": 30}


def test_a_change_of_algorithm_or_targets_keeps_the_counts() -> None:
    targets = [("20.20.20.20:80", 20), ("50.50.50.50:80", 50)]
    balancer = upstream("round-robin", *targets)
    for _ in range(10):
        balancer.take(balancer.endpoints["50.50.50.50:80"])
    reconcile(balancer, "least-connections", [*targets, ("9.9.9.9:80", 0)])
    assert balancer.pick().key == "20.20.20.20:80"
    assert not balancer.measures


def test_a_retired_endpoint_may_still_be_released() -> None:
    balancer = upstream("least-connections", ("1.1.1.1:80", 1), ("2.2.2.2:80", 1))
    endpoint = balancer.endpoints["1.1.1.1:80"]
    balancer.take(endpoint)
    reconcile(balancer, "least-connections", [("2.2.2.2:80", 1)])
    balancer.release(endpoint)
    assert hold(balancer, 100) == ["2.2.2.2:80"] * 100


# Latency


@pytest.fixture
def clock() -> Clock:
    return Clock()


def sample(balancer: Upstream, clock: Clock, at: float, address: str, seconds: float) -> None:
    clock.now = at
    balancer.observe(balancer.endpoints[address], seconds)


A, B = "20.20.20.20:80", "50.50.50.50:80"


def test_the_faster_has_all_of_two(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    assert balancer.measures
    for at in (0.01, 0.02):
        sample(balancer, clock, at, A, 0.2)
        sample(balancer, clock, at, B, 0.4)
    assert hold(balancer, 70) == [A] * 70


def test_one_slow_answer_moves_the_next_request(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    first = balancer.pick()
    clock.now = 0.01
    balancer.observe(first, 20)
    assert balancer.pick() is not first


def test_old_times_are_forgotten(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    sample(balancer, clock, 20, A, 1.0)
    sample(balancer, clock, 60, B, 0.1)
    assert hold(balancer, 5) == [A] * 5


def test_whoever_comes_back_begins_in_the_middle(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    balancer.set_available(A, available=False)
    sample(balancer, clock, 10, B, 0.4)
    balancer.set_available(A, available=True)
    clock.now = 10.1
    assert balancer.pick().key == A
    sample(balancer, clock, 10.1, A, 0.3)  # more than the mean it began with, still faster than the other
    assert balancer.pick().key == A


def test_a_refused_connection_is_not_a_fast_answer(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    sample(balancer, clock, 1, B, 0.5)
    balancer.observe(balancer.endpoints[A], 0.0001, failed=True)
    assert hold(balancer, 5) == [B] * 5


def test_one_slow_first_answer_does_not_keep_a_target_out(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    sample(balancer, clock, 0.01, A, 1.5)  # it had just started
    asked: list[float] = []
    while clock.now < 30:
        endpoint = balancer.pick()
        clock.now += 0.01
        balancer.observe(endpoint, 0.005 if endpoint.key == A else 0.006)
        if endpoint.key == A:
            asked.append(clock.now)
    assert 15 < asked[0] < 15.1
    assert len(asked) > 1000


def test_a_target_that_stays_slow_costs_a_tenth_of_a_connection(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    sample(balancer, clock, 0.01, A, 0.3)
    slow = 0
    while clock.now < 100:
        endpoint = balancer.pick()
        clock.now += 0.01
        balancer.observe(endpoint, 0.3 if endpoint.key == A else 0.005)
        slow += endpoint.key == A
    assert 30 < slow * 1.0 < 34


def test_a_measuring_request_that_is_never_reported_is_followed_by_another(clock: Clock) -> None:
    balancer = upstream("latency", (A, 20), (B, 20), clock=clock)
    sample(balancer, clock, 0.0, A, 0.2)
    sample(balancer, clock, 2.5, B, 0.01)
    assert hold(balancer, 5) == [A, B, B, B, B]
    sample(balancer, clock, 5, B, 0.01)
    assert hold(balancer, 5) == [A, B, B, B, B]
    assert balancer.pick([balancer.endpoints[B]]).key == A


def test_weights_divide_and_all_get_some(clock: Clock) -> None:
    balancer = upstream("latency", *((f"10.0.0.{n}:80", 100) for n in range(10)), clock=clock)
    counts = Counter(balancer.pick().key for _ in range(5000))
    assert len(counts) == 10
    heavy = upstream("latency", (A, 100), (B, 10), clock=clock)
    sample(heavy, clock, 1, A, 0.5)
    sample(heavy, clock, 1, B, 0.1)
    assert heavy.pick().key == A


@pytest.mark.parametrize("algorithm", ["least-connections", "latency", "consistent-hashing", "round-robin"])
def test_retries_go_round_in_every_algorithm(algorithm: str) -> None:
    balancer = upstream(algorithm, ("20.20.20.20:80", 20), ("50.50.50.50:80", 50), ("70.70.70.70:80", 70))
    tried: list[Endpoint] = []
    for _ in range(7):
        endpoint = balancer.pick(tried, b"k")
        balancer.take(endpoint)
        balancer.release(endpoint)
        tried.append(endpoint)
    assert len(set(tried[:3])) == 3
    assert len(set(tried[3:6])) == 3
    zero = upstream(algorithm, ("1.1.1.1:80", 5), ("2.2.2.2:80", 0))
    assert {zero.pick(()).key for _ in range(20)} == {"1.1.1.1:80"}
