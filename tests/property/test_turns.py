"""Counting out a split: exact in any window, even, the same for a key everywhere, and one way when it grows."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.balancer.turns import SHARE_MAX, Turn, in_share

SHARES = st.integers(0, SHARE_MAX)
KEYS = st.binary(max_size=24)


def takes(share: int, count: int, seed: int) -> list[bool]:
    turn = Turn(random.Random(seed))
    return [turn.taken(share) for _ in range(count)]


@given(SHARES, st.integers(0, 2**32), st.integers(0, 5_000))
def test_any_ten_thousand_consecutive_requests_hold_exactly_the_share(share: int, seed: int, begin: int) -> None:
    taken = takes(share, begin + SHARE_MAX, seed)
    assert sum(taken[begin:]) == share


@given(SHARES, st.integers(0, 2**32), st.integers(1, 3_000))
def test_requests_are_spread_evenly(share: int, seed: int, count: int) -> None:
    """However few there are, no window is off by a whole request."""
    taken = sum(takes(share, count, seed))
    assert abs(taken - count * share / SHARE_MAX) < 1


@given(st.lists(st.tuples(SHARES, st.integers(1, 500)), max_size=8), st.integers(0, 2**32))
def test_a_share_that_changes_is_exact_over_all_its_steps(steps: list[tuple[int, int]], seed: int) -> None:
    turn = Turn(random.Random(seed))
    taken = sum(turn.taken(share) for share, count in steps for _ in range(count))
    assert abs(taken - sum(share * count for share, count in steps) / SHARE_MAX) < 1


@given(KEYS, SHARES)
def test_a_key_never_flips_while_the_share_stays(key: bytes, share: int) -> None:
    assert len({in_share("service", key, share) for _ in range(3)}) == 1


@given(KEYS, SHARES, SHARES)
def test_growing_takes_keys_in_and_lets_none_go(key: bytes, one: int, other: int) -> None:
    small, large = sorted((one, other))
    assert not in_share("service", key, small) or in_share("service", key, large)


@given(KEYS)
def test_all_and_nothing(key: bytes) -> None:
    assert in_share("service", key, SHARE_MAX)
    assert not in_share("service", key, 0)


@pytest.mark.parametrize(("key", "place"), [(b"", 5885), (b"alice", 9455), (b"bob", 9310), (b"carol", 8400)])
def test_keys_are_where_they_have_always_been(key: bytes, place: int) -> None:
    """Nodes of two versions of the software serve one canary: the place of a key is part of the contract."""
    assert not in_share("s", key, place)
    assert in_share("s", key, place + 1)


@pytest.mark.parametrize("share", [100, 500, 5_000])
def test_keys_fall_to_the_share_as_chance_would_have_it(share: int) -> None:
    """Of 20,000 keys, within what a binomial distribution allows in 999 of 1,000 cases; the keys are fixed."""
    count = 20_000
    taken = sum(in_share("service", b"user-%d" % number, share) for number in range(count))
    p = share / SHARE_MAX
    assert abs(taken - count * p) < 3.3 * math.sqrt(count * p * (1 - p))


def test_services_choose_their_keys_apart() -> None:
    """Who is early in one canary is not early in all of them."""
    early = [key for key in (b"user-%d" % number for number in range(10_000)) if in_share("one", key, 500)]
    both = sum(in_share("other", key, 500) for key in early)
    assert both < len(early) * 0.15


@pytest.mark.parametrize("workers", [1, 2, 16])
def test_a_canary_of_five_percent_over_all_workers(workers: int) -> None:
    """10,000 requests that fall to workers at random: within binomial 99 % bounds in all, and each worker exact."""
    rng = random.Random(workers)
    turns = [Turn(random.Random(number)) for number in range(workers)]
    seen, taken = [0] * workers, [0] * workers
    for _ in range(SHARE_MAX):
        worker = rng.randrange(workers)
        seen[worker] += 1
        taken[worker] += turns[worker].taken(500)
    for requests, green in zip(seen, taken, strict=True):
        assert abs(green - requests * 0.05) < 1
    assert abs(sum(taken) - 500) < 2.576 * math.sqrt(SHARE_MAX * 0.05 * 0.95)
