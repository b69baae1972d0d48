"""Sticky sessions, failover targets, slow start, and verdicts that come before their endpoints."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from data_plane.balancer import Endpoint, NoEndpoint, Upstream
from data_plane.health import Sighting
from data_plane.model import Healthchecks, PassiveCheck, TargetConfig, Thresholds, UpstreamConfig
from data_plane.resolve.answers import Answer, Record


def target(host: str, weight: int = 100, *, failover: bool = False) -> TargetConfig:
    return TargetConfig(id=f"t-{host}", upstream="u", host=host, port=80, weight=weight, failover=failover)


def config(algorithm: str = "round-robin", *, threshold: float = 0, slow_start_s: float = 0) -> UpstreamConfig:
    return UpstreamConfig(
        id="u",
        name="u",
        algorithm=algorithm,
        sticky_sessions_cookie="sid",
        healthchecks=Healthchecks(threshold=threshold),
        slow_start_s=slow_start_s,
    )


def upstream(settings: UpstreamConfig, targets: Sequence[TargetConfig], *, secret: bytes = b"s") -> Upstream:
    made = Upstream("u", secret=secret)
    made.reconcile(settings, targets, lambda name: None)
    return made


def counts(balancer: Upstream, picks: int, key: bytes = b"") -> dict[str, int]:
    return dict(Counter(balancer.pick((), key).ip for _ in range(picks)))


STICKY = config("sticky-sessions")
ONE, TWO, THREE = target("10.0.0.1"), target("10.0.0.2"), target("10.0.0.3")


def session(balancer: Upstream, ip: str) -> bytes:
    return next(balancer.session_of(endpoint) for endpoint in balancer.endpoints.values() if endpoint.ip == ip)


def test_a_session_goes_on_with_its_endpoint_on_any_node() -> None:
    here, there = upstream(STICKY, [ONE, TWO, THREE]), upstream(STICKY, [THREE, ONE, TWO])
    for ip in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        assert counts(there, 20, session(here, ip)) == {ip: 20}
    assert counts(here, 30) == {"10.0.0.1": 10, "10.0.0.2": 10, "10.0.0.3": 10}
    assert counts(here, 30, b"forged") == {"10.0.0.1": 10, "10.0.0.2": 10, "10.0.0.3": 10}


def test_a_cookie_of_another_history_names_nothing() -> None:
    here, other = upstream(STICKY, [ONE, TWO]), upstream(STICKY, [ONE, TWO], secret=b"other")
    assert session(here, "10.0.0.1") != session(other, "10.0.0.1")
    other.use_secret(b"s")
    assert session(here, "10.0.0.1") == session(other, "10.0.0.1")
    assert b"10.0.0.1" not in session(here, "10.0.0.1")


def test_a_session_leaves_an_endpoint_that_is_down_or_has_just_failed() -> None:
    balancer = upstream(STICKY, [ONE, TWO])
    key = session(balancer, "10.0.0.1")
    failed = balancer.pick((), key)
    assert balancer.pick((failed,), key).ip == "10.0.0.2"
    balancer.set_available("10.0.0.1:80", available=False)
    assert counts(balancer, 5, key) == {"10.0.0.2": 5}
    balancer.set_available("10.0.0.1:80", available=True)
    assert counts(balancer, 5, key) == {"10.0.0.1": 5}


def test_weight_0_serves_only_who_holds_its_cookie_even_when_nothing_else_is_left() -> None:
    balancer = upstream(STICKY, [ONE, TWO])
    key = session(balancer, "10.0.0.1")
    balancer.reconcile(STICKY, [target("10.0.0.1", 0), TWO], lambda name: None)
    assert counts(balancer, 5, key) == {"10.0.0.1": 5}
    assert counts(balancer, 5) == {"10.0.0.2": 5}
    balancer.reconcile(STICKY, [target("10.0.0.1", 0), target("10.0.0.2", 0)], lambda name: None)
    assert counts(balancer, 5, key) == {"10.0.0.1": 5}
    with pytest.raises(NoEndpoint):
        balancer.pick()


def test_a_session_of_a_target_that_is_gone_means_a_new_choice() -> None:
    balancer = upstream(STICKY, [ONE, TWO])
    key = session(balancer, "10.0.0.1")
    balancer.reconcile(STICKY, [TWO], lambda name: None)
    assert counts(balancer, 5, key) == {"10.0.0.2": 5}


SPARE = target("10.0.9.9", failover=True)


@pytest.mark.parametrize("algorithm", ["round-robin", "least-connections", "latency"])
def test_failover_targets_serve_while_no_regular_one_is_available(algorithm: str) -> None:
    balancer = upstream(config(algorithm), [ONE, TWO, SPARE])
    assert "10.0.9.9" not in counts(balancer, 50)
    balancer.set_available("10.0.0.1:80", available=False)
    assert counts(balancer, 10) == {"10.0.0.2": 10}
    balancer.set_available("10.0.0.2:80", available=False)
    assert counts(balancer, 10) == {"10.0.9.9": 10}
    balancer.set_available("10.0.0.1:80", available=True)
    assert counts(balancer, 10) == {"10.0.0.1": 10}


@pytest.mark.parametrize("algorithm", ["consistent-hashing", "sticky-sessions"])
def test_hashed_and_sticky_requests_have_no_stand_in(algorithm: str) -> None:
    balancer = upstream(config(algorithm), [ONE, SPARE])
    assert counts(balancer, 10) == {"10.0.0.1": 10}
    balancer.set_available("10.0.0.1:80", available=False)
    with pytest.raises(NoEndpoint):
        balancer.pick()


def test_the_threshold_is_judged_by_the_group_in_use() -> None:
    spares = [target(f"10.0.9.{number}", failover=True) for number in (1, 2)]
    balancer = upstream(config(threshold=60), [ONE, TWO, *spares])
    balancer.set_available("10.0.0.1:80", available=False)
    with pytest.raises(NoEndpoint):
        balancer.pick()  # half of the regular weight is below the threshold, and not nothing
    balancer.set_available("10.0.0.2:80", available=False)
    assert sum(counts(balancer, 10).values()) == 10
    balancer.set_available("10.0.9.1:80", available=False)
    with pytest.raises(NoEndpoint):
        balancer.pick()


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_new_endpoint_gets_its_share_little_by_little() -> None:
    clock = Clock()
    balancer = Upstream("u", rng=random.Random(7), clock=clock)
    slow = config(slow_start_s=10)
    balancer.reconcile(slow, [ONE], lambda name: None)
    balancer.reconcile(slow, [ONE, TWO], lambda name: None)
    shares = []
    for clock.now in (0.0, 5.0, 9.0, 10.0):
        shares.append(counts(balancer, 2000).get("10.0.0.2", 0) / 2000)
    # As if its weight grew from a tenth to all of it: a weight of w among one other's 1 is a share of w / (1 + w).
    for share, weight in zip(shares, (0.1, 0.5, 0.9, 1.0), strict=True):
        assert share == pytest.approx(weight / (1 + weight), abs=0.03)


def test_the_first_endpoints_of_an_upstream_and_the_only_one_left_are_not_held_back() -> None:
    balancer = Upstream("u", rng=random.Random(7), clock=Clock())
    balancer.reconcile(config(slow_start_s=10), [ONE, TWO], lambda name: None)
    assert counts(balancer, 10) == {"10.0.0.1": 5, "10.0.0.2": 5}
    balancer.set_available("10.0.0.1:80", available=False)
    balancer.set_available("10.0.0.2:80", available=False)
    balancer.set_available("10.0.0.2:80", available=True)
    assert counts(balancer, 10) == {"10.0.0.2": 10}


def test_recovered_endpoints_warm_up_too_and_never_at_nothing() -> None:
    balancer = Upstream("u", rng=random.Random(7), clock=Clock())
    balancer.reconcile(config(slow_start_s=10), [ONE, TWO], lambda name: None)
    balancer.set_available("10.0.0.2:80", available=False)
    balancer.set_available("10.0.0.2:80", available=True)
    assert 0 < counts(balancer, 1000)["10.0.0.2"] < 120


def test_a_verdict_may_come_before_its_endpoint() -> None:
    balancer = upstream(config(), [ONE])
    assert balancer.set_available("10.0.0.2:80", available=False) is False
    balancer.reconcile(config(), [ONE, TWO], lambda name: None)
    assert counts(balancer, 10) == {"10.0.0.1": 10}
    balancer.set_available("10.0.0.2:80", available=True)
    assert set(counts(balancer, 10)) == {"10.0.0.1", "10.0.0.2"}


def test_only_what_counts_is_reported_and_only_by_who_watches() -> None:
    seen: list[tuple[str, Sighting, int]] = []

    def report(endpoint: Endpoint, sighting: Sighting, status: int) -> None:
        seen.append((endpoint.ip, sighting, status))

    balancer = Upstream("u", report=report)
    balancer.reconcile(config(), [ONE], lambda name: None)
    assert balancer.plain
    checks = Healthchecks(
        passive=PassiveCheck(
            healthy=Thresholds(http_statuses=frozenset({200})),
            unhealthy=Thresholds(http_statuses=frozenset({500}), http_failures=3, tcp_failures=1),
        )
    )
    balancer.reconcile(UpstreamConfig(id="u", name="u", healthchecks=checks), [ONE], lambda name: None)
    assert not balancer.plain
    endpoint = balancer.pick()
    for sighting, status in ((Sighting.STATUS, 200), (Sighting.STATUS, 500), (Sighting.TIMEOUT, 0)):
        balancer.saw(endpoint, sighting, status)
    balancer.saw(endpoint, Sighting.TCP_FAILURE)
    assert seen == [("10.0.0.1", Sighting.STATUS, 500), ("10.0.0.1", Sighting.TCP_FAILURE, 0)]


def test_use_srv_name_sends_the_name_the_record_points_to() -> None:
    answer = Answer("a.test", (Record("10.0.0.1", 8001, 1, "one.test"), Record("10.0.0.2", 8002, 1, "two.test")))
    balancer = Upstream("u")
    targets = [TargetConfig(id="t", upstream="u", host="a.test", port=80)]
    balancer.reconcile(config(), targets, lambda name: answer)
    assert {endpoint.host for endpoint in balancer.endpoints.values()} == {"a.test"}
    before = list(balancer.endpoints.values())
    named = UpstreamConfig(id="u", name="u", use_srv_name=True)
    balancer.reconcile(named, targets, lambda name: answer)
    assert {endpoint.host for endpoint in balancer.endpoints.values()} == {"one.test", "two.test"}
    assert all(endpoint.retired for endpoint in before)
