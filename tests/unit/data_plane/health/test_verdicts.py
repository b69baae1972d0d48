"""The state machine on Kong's own cases, then what the verdicts of a node survive."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from data_plane.health import (
    Event,
    Source,
    State,
    Transition,
    Verdicts,
    Word,
    checking_enabled,
    target_word,
    upstream_word,
)
from data_plane.model import ActiveCheck, Healthchecks, PassiveCheck, Thresholds

U, K = "u", "10.0.0.1:80"


def checks(
    *,
    successes: int = 0,
    http: int = 0,
    tcp: int = 0,
    timeouts: int = 0,
    active_http: int = 0,
    active_successes: int = 0,
    interval_s: float = 0.0,
) -> Healthchecks:
    return Healthchecks(
        active=ActiveCheck(
            healthy=Thresholds(interval_s=interval_s, http_statuses=frozenset({200, 302}), successes=active_successes),
            unhealthy=Thresholds(http_statuses=frozenset({404, 500}), http_failures=active_http),
        ),
        passive=PassiveCheck(
            healthy=Thresholds(http_statuses=frozenset({200, 201}), successes=successes),
            unhealthy=Thresholds(
                http_statuses=frozenset({429, 500, 503}), http_failures=http, tcp_failures=tcp, timeouts=timeouts
            ),
        ),
    )


def tracking(config: Healthchecks, *keys: str) -> Verdicts:
    verdicts = Verdicts()
    verdicts.reconcile(U, config, keys or (K,), now=0.0)
    return verdicts


def state(verdicts: Verdicts) -> State | None:
    return verdicts.verdict(U, K).state


def see(verdicts: Verdicts, events: Sequence[Event | int], source: Source = Source.PASSIVE) -> list[bool]:
    """Feed events or statuses; returns the verdicts told to workers."""
    told = []
    for event in events:
        if isinstance(event, int):
            transition = verdicts.observe_status(U, K, source, event)
        else:
            transition = verdicts.observe(U, K, source, event)
        if transition is not None:
            told.append(transition.available)
    return told


def test_the_last_of_enough_failures_flips_once() -> None:
    verdicts = tracking(checks(http=3))
    assert see(verdicts, [500, 500]) == []
    assert state(verdicts) is State.MOSTLY_HEALTHY
    assert see(verdicts, [500, 500, 500]) == [False]
    assert state(verdicts) is State.UNHEALTHY
    assert verdicts.unavailable(U) == [K]


def test_kinds_of_failures_do_not_add_up() -> None:
    verdicts = tracking(checks(http=3, tcp=3, timeouts=3))
    assert see(verdicts, [Event.HTTP, Event.TCP, Event.TIMEOUT] * 2) == []
    assert see(verdicts, [Event.TIMEOUT]) == [False]


def test_a_success_forgets_failures_only_when_successes_count() -> None:
    counted = tracking(checks(http=2, successes=3))
    assert see(counted, [500, 200, 500, 200, 500, 200]) == []
    uncounted = tracking(checks(http=2))
    assert see(uncounted, [500, 200, 201, 404, 500]) == [False]


def test_statuses_in_neither_list_change_nothing_and_zero_is_a_failure() -> None:
    verdicts = tracking(checks(http=2))
    assert see(verdicts, [500, 418, 0]) == [False]


def test_recovery_needs_successes_without_a_failure_between() -> None:
    verdicts = tracking(checks(http=1, successes=3))
    see(verdicts, [500])
    assert see(verdicts, [200, 200]) == []
    assert state(verdicts) is State.MOSTLY_UNHEALTHY
    assert see(verdicts, [500, 200, 200]) == []
    assert see(verdicts, [200]) == [True]
    assert state(verdicts) is State.HEALTHY


def test_probes_and_traffic_share_the_counters() -> None:
    verdicts = tracking(checks(http=3, active_http=3, interval_s=1))
    assert see(verdicts, [500, 500], Source.ACTIVE) == []
    assert see(verdicts, [500], Source.PASSIVE) == [False]


def test_a_verdict_put_by_hand_begins_anew_and_freezes_nothing() -> None:
    verdicts = tracking(checks(http=3))
    see(verdicts, [500, 500])
    assert verdicts.put(U, K, available=True) is None
    assert see(verdicts, [500, 500]) == []
    assert see(verdicts, [500]) == [False]
    assert verdicts.put(U, K, available=True) == Transition(U, K, available=True)
    assert verdicts.put(U, K, available=False) == Transition(U, K, available=False)
    assert verdicts.put(U, "other:80", available=False) is None
    assert not verdicts.tracks(U, "other:80")


@pytest.mark.parametrize(
    ("config", "enabled"),
    [
        (checks(), False),
        (checks(successes=5), False),
        (checks(active_http=5, active_successes=5), False),
        (checks(http=1), True),
        (checks(tcp=1), True),
        (checks(timeouts=1), True),
        (checks(interval_s=0.5), True),
    ],
)
def test_what_switches_checking_on(config: Healthchecks, *, enabled: bool) -> None:
    assert checking_enabled(config) is enabled
    assert tracking(config).tracks(U, K) is enabled


def test_switching_checks_off_makes_all_available() -> None:
    verdicts = tracking(checks(tcp=1), K, "b:80")
    see(verdicts, [Event.TCP])
    assert verdicts.reconcile(U, checks(), [K, "b:80"], now=1.0) == [Transition(U, K, available=True)]
    assert verdicts.verdict(U, K).available
    assert state(verdicts) is None


def test_editing_checks_or_other_endpoints_keeps_verdicts() -> None:
    verdicts = tracking(checks(tcp=1), K, "b:80")
    see(verdicts, [Event.TCP])
    assert verdicts.reconcile(U, checks(tcp=5), [K, "c:80"], now=1.0) == []
    assert not verdicts.verdict(U, K).available
    assert verdicts.to_probe(U, available=False) == [K]
    assert verdicts.to_probe(U, available=True) == ["c:80"]


@pytest.mark.parametrize(("after_s", "available"), [(299.0, False), (301.0, True)])
def test_what_comes_back_soon_has_its_verdict_still(after_s: float, *, available: bool) -> None:
    verdicts = tracking(checks(tcp=1))
    see(verdicts, [Event.TCP])
    verdicts.forget(U, now=10.0)
    assert see(verdicts, [Event.TCP]) == []
    verdicts.purge(now=10.0 + min(after_s, 299.0))
    told = verdicts.reconcile(U, checks(tcp=1), [K], now=10.0 + after_s)
    assert verdicts.verdict(U, K).available is available
    assert told == ([] if available else [Transition(U, K, available=False)])


def test_purging_leaves_nothing() -> None:
    verdicts = tracking(checks(tcp=1))
    verdicts.forget(U, now=0.0)
    verdicts.purge(now=1000.0)
    assert verdicts.to_probe(U, available=True) == []
    assert verdicts._upstreams == {}


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ((), Word.DNS_ERROR),
        ((Word.UNHEALTHY, Word.HEALTHY), Word.HEALTHY),
        ((Word.UNHEALTHY, Word.HEALTHCHECKS_OFF), Word.UNHEALTHY),
        ((Word.HEALTHCHECKS_OFF,), Word.HEALTHCHECKS_OFF),
    ],
)
def test_target_words(addresses: tuple[Word, ...], expected: Word) -> None:
    assert target_word(addresses) is expected


def test_upstream_words() -> None:
    assert upstream_word(checking=False, usable=False) is Word.HEALTHCHECKS_OFF
    assert upstream_word(checking=True, usable=True) is Word.HEALTHY
    assert upstream_word(checking=True, usable=False) is Word.UNHEALTHY
