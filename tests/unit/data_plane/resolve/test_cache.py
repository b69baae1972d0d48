"""The cache rules as tables of (time, what was stored) -> (answer, when it is asked for again)."""

from __future__ import annotations

import pytest

from data_plane.resolve.answers import NAME_ERROR, SERVER_FAILURE, Answer, Record
from data_plane.resolve.cache import Cache, CacheFull, CacheRules, Found, NotFound

ONE = (Record("10.0.0.1"),)
TWO = (Record("10.0.0.2"),)


def test_an_answer_is_due_when_its_ttl_ends() -> None:
    cache = Cache(CacheRules())
    assert cache.store("a", Found(ONE, 30.0), 100.0)
    assert cache.answer("a") == Answer("a", ONE)
    assert cache.due_at("a") == 130.0


def test_jitter_spreads_by_at_most_a_tenth() -> None:
    cache = Cache(CacheRules())
    cache.store("a", Found(ONE, 30.0), 100.0, jitter=1.0)
    assert cache.due_at("a") == pytest.approx(133.0)


def test_only_a_different_answer_is_a_change() -> None:
    cache = Cache(CacheRules())
    assert cache.store("a", Found(ONE, 1.0), 0.0)
    assert not cache.store("a", Found(ONE, 9.0), 1.0)
    assert cache.store("a", Found(TWO, 1.0), 2.0)


@pytest.mark.parametrize(("ttl", "kept"), [(0.0, 1.0), (5.0, 5.0), (99999.0, 3600.0)])
def test_ttl_is_bounded_on_both_sides(ttl: float, kept: float) -> None:
    cache = Cache(CacheRules())
    cache.store("a", Found(ONE, ttl), 0.0)
    assert cache.due_at("a") == kept


def test_valid_ttl_replaces_the_records_own() -> None:
    cache = Cache(CacheRules(valid_ttl_s=7.0))
    cache.store("a", Found(ONE, 300.0), 0.0)
    assert cache.due_at("a") == 7.0


def test_what_never_expires_is_never_due() -> None:
    cache = Cache(CacheRules())
    cache.store("localhost", Found(ONE, None), 0.0)
    assert cache.due_at("localhost") == float("inf")


def test_a_failed_refresh_leaves_stale_data_alone_until_the_stale_ttl_is_used_up() -> None:
    cache = Cache(CacheRules(stale_ttl_s=100.0))
    cache.store("a", Found(ONE, 10.0), 0.0)
    now, tries = 10.0, 0
    while now < 110.0:
        assert not cache.store("a", NotFound(NAME_ERROR), now)
        assert cache.answer("a") == Answer("a", ONE)
        due = cache.due_at("a")
        assert now < due <= now + 66.0
        now, tries = due, tries + 1
    assert tries >= 5  # asked again soon, then ever less often
    assert cache.store("a", NotFound(NAME_ERROR), now)
    assert cache.answer("a") == Answer("a", (), NAME_ERROR)


def test_a_refresh_that_works_again_ends_the_stale_time() -> None:
    cache = Cache(CacheRules())
    cache.store("a", Found(ONE, 10.0), 0.0)
    cache.store("a", NotFound(SERVER_FAILURE), 10.0)
    assert cache.store("a", Found(TWO, 10.0), 12.0)
    assert cache.due_at("a") == 22.0


def test_a_name_that_never_worked_is_asked_for_ever_less_often() -> None:
    cache = Cache(CacheRules())
    now = 0.0
    waits = []
    for _ in range(8):
        cache.store("a", NotFound(NAME_ERROR), now)
        waits.append(cache.due_at("a") - now)
        now = cache.due_at("a")
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_the_cache_is_bounded_and_can_be_emptied() -> None:
    cache = Cache(CacheRules(names_max=2))
    cache.store("a", Found(ONE, 1.0), 0.0)
    cache.store("b", NotFound(NAME_ERROR), 0.0)
    with pytest.raises(CacheFull):
        cache.store("c", Found(ONE, 1.0), 0.0)
    cache.keep_only({"b"})
    assert cache.answer("a") is None
    cache.store("c", Found(ONE, 1.0), 0.0)
    assert len(cache) == 2


def test_rules_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="TTL"):
        CacheRules(ttl_min_s=5.0, ttl_max_s=1.0)


def test_a_name_is_unsteady_by_its_first_ttl_of_zero_or_by_two_in_a_row() -> None:
    cache = Cache(CacheRules())
    for name, ttls, unsteady in (("a", (0,), True), ("b", (5, 0), False), ("c", (5, 0, 0), True), ("d", (0, 5), False)):
        for ttl in ttls:
            cache.store(name, Found((Record("10.0.0.1"),), float(ttl)), 0.0)
        answer = cache.answer(name)
        assert answer is not None
        assert answer.unsteady is unsteady, name
