"""An upstream's endpoints over its life: what targets and names come to, who may be picked, what survives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import pytest

from data_plane.balancer import Endpoint, NoEndpoint, Reason, Upstream
from data_plane.model import Healthchecks, TargetConfig, UpstreamConfig
from data_plane.resolve.answers import NAME_ERROR, Answer, Record

CONFIG = UpstreamConfig(id="u", name="u")


def target(host: str, weight: int = 100, port: int = 80) -> TargetConfig:
    return TargetConfig(id=f"t-{host}-{port}", upstream="u", host=host, port=port, weight=weight)


def names(answers: Mapping[str, Answer] | None = None) -> Callable[[str], Answer | None]:
    return (answers or {}).get


def upstream(*targets: TargetConfig, answers: Mapping[str, Answer] | None = None, threshold: float = 0) -> Upstream:
    made = Upstream("u")
    made.reconcile(
        UpstreamConfig(id="u", name="u", healthchecks=Healthchecks(threshold=threshold)), targets, names(answers)
    )
    return made


def counts(balancer: Upstream, picks: int) -> dict[str, int]:
    return dict(Counter(balancer.pick().key for _ in range(picks)))


def reason(balancer: Upstream) -> Reason:
    with pytest.raises(NoEndpoint) as caught:
        balancer.pick()
    assert caught.value.status == 503
    assert caught.value.message == "failure to get a peer from the ring-balancer"
    return caught.value.reason


def test_each_address_of_a_name_has_the_full_weight() -> None:
    answer = Answer("a.test", (Record("1.2.3.4"), Record("1.2.3.5")))
    balancer = upstream(target("a.test", 5), target("::1", 10, 8080), answers={"a.test": answer})
    assert counts(balancer, 40) == {
        "a.test:80/1.2.3.4:80": 10,
        "a.test:80/1.2.3.5:80": 10,
        "[::1]:8080": 20,
    }
    assert {endpoint.host for endpoint in balancer.endpoints.values()} == {"a.test", "::1"}


def test_srv_records_bring_port_and_weight() -> None:
    answer = Answer("s.test", (Record("1.2.3.6", 8001, 5), Record("1.2.3.6", 0, 15)))
    balancer = upstream(target("s.test", 100, 90), answers={"s.test": answer})
    assert {e.address: e.weight for e in balancer.endpoints.values()} == {("1.2.3.6", 8001): 5, ("1.2.3.6", 90): 15}


def test_a_name_that_failed_adds_no_weight() -> None:
    balancer = upstream(
        target("1.1.1.1", 10), target("gone.test", 90), answers={"gone.test": Answer("gone.test", (), NAME_ERROR)}
    )
    assert balancer.total_weight == 10
    assert counts(balancer, 3) == {"1.1.1.1:80": 3}


def test_a_name_without_an_answer_yet_keeps_what_it_had() -> None:
    answer = Answer("a.test", (Record("1.2.3.4"),))
    balancer = upstream(target("a.test"), answers={"a.test": answer})
    before = balancer.pick()
    balancer.reconcile(CONFIG, [target("a.test")], names())
    assert balancer.pick() is before
    balancer.reconcile(CONFIG, [target("a.test")], names({"a.test": Answer("a.test", (), NAME_ERROR)}))
    assert before.retired
    assert reason(balancer) is Reason.NO_TARGETS


def test_two_names_on_one_address_are_two_endpoints() -> None:
    answers = {name: Answer(name, (Record("127.0.0.1"),)) for name in ("a.test", "b.test")}
    balancer = upstream(target("a.test"), target("b.test"), answers=answers)
    assert balancer.set_available("a.test:80/127.0.0.1:80", available=False)
    assert counts(balancer, 4) == {"b.test:80/127.0.0.1:80": 4}


def test_weight_zero_is_never_picked_but_stays_known() -> None:
    balancer = upstream(target("1.1.1.1", 10), target("2.2.2.2", 0))
    assert counts(balancer, 10) == {"1.1.1.1:80": 10}
    assert set(balancer.endpoints) == {"1.1.1.1:80", "2.2.2.2:80"}
    only = balancer.pick()
    assert balancer.pick([only]) is only
    assert reason(upstream(target("1.1.1.1", 0))) is Reason.NO_TARGETS
    assert reason(upstream()) is Reason.NO_TARGETS


@pytest.mark.parametrize(
    ("threshold", "down", "usable"),
    [
        (0, 0, True),
        (0, 2, True),
        (0, 3, False),
        (50, 1, True),
        (50, 2, False),
        (67, 1, False),
        (100, 0, True),
        (100, 1, False),
    ],
)
def test_the_threshold_is_of_weight_and_strict(threshold: float, down: int, *, usable: bool) -> None:
    balancer = upstream(*(target(f"1.1.1.{n}") for n in range(3)), threshold=threshold)
    for number in range(down):
        balancer.set_available(f"1.1.1.{number}:80", available=False)
    if usable:
        balancer.pick()
    else:
        assert reason(balancer) is Reason.ALL_UNAVAILABLE


def test_retries_go_round_all_endpoints_before_any_is_tried_again() -> None:
    balancer = upstream(target("1.1.1.1", 1000), target("2.2.2.2", 1), target("3.3.3.3", 1), target("4.4.4.4", 0))
    tried: list[Endpoint] = []
    for _ in range(9):
        tried.append(balancer.pick(tried))
    for start in (0, 3, 6):
        assert len(set(tried[start : start + 3])) == 3


def test_a_retry_finds_the_one_left_when_others_went_down_meanwhile() -> None:
    balancer = upstream(*(target(f"1.1.1.{n}") for n in range(4)))
    tried = [balancer.pick() for _ in range(3)]
    for endpoint in tried[:2]:
        balancer.set_available(endpoint.key, available=False)
    assert balancer.pick(tried) not in tried


def test_an_endpoint_survives_new_weights_ids_and_order_with_all_it_has() -> None:
    balancer = upstream(target("1.1.1.1"), target("2.2.2.2"))
    endpoint = balancer.endpoints["1.1.1.1:80"]
    balancer.take(endpoint)
    endpoint.idle.append(object())
    balancer.set_available("2.2.2.2:80", available=False)
    again = TargetConfig(id="new", upstream="u", host="1.1.1.1", port=80, weight=7)
    balancer.reconcile(CONFIG, [target("3.3.3.3"), again, target("2.2.2.2")], names())
    assert balancer.endpoints["1.1.1.1:80"] is endpoint
    assert (endpoint.in_flight, len(endpoint.idle), endpoint.weight, endpoint.target_id) == (1, 1, 7, "new")
    assert not balancer.endpoints["2.2.2.2:80"].available
    balancer.release(endpoint)
    assert endpoint.in_flight == 0


def test_what_is_gone_is_retired_and_told_of() -> None:
    retired: list[str] = []
    balancer = Upstream("u", on_retire=lambda endpoint: retired.append(endpoint.key))
    balancer.reconcile(CONFIG, [target("1.1.1.1"), target("2.2.2.2")], names())
    balancer.reconcile(CONFIG, [target("2.2.2.2")], names())
    assert retired == ["1.1.1.1:80"]
    balancer.retire()
    assert retired == ["1.1.1.1:80", "2.2.2.2:80"]
    assert reason(balancer) is Reason.NO_TARGETS
    assert not balancer.set_available("2.2.2.2:80", available=True)


def test_reconciling_with_the_same_goes_on_where_it_was() -> None:
    targets = [target("1.1.1.1", 2), target("2.2.2.2", 1)]
    balancer = upstream(*targets)
    twin = upstream(*targets)
    for _ in range(10):
        assert balancer.pick().key == twin.pick().key
        balancer.reconcile(CONFIG, targets, names())


def test_a_new_target_gets_its_share_from_the_next_pick_on() -> None:
    balancer = upstream(target("1.1.1.1", 10), target("2.2.2.2", 10))
    assert counts(balancer, 20) == {"1.1.1.1:80": 10, "2.2.2.2:80": 10}
    balancer.reconcile(CONFIG, [target("1.1.1.1", 10), target("2.2.2.2", 10), target("3.3.3.3", 5)], names())
    assert counts(balancer, 20) == {"1.1.1.1:80": 8, "2.2.2.2:80": 8, "3.3.3.3:80": 4}
