"""What nodes say becomes one table a node and one verdict for the fleet; what got lost is asked for again."""

from __future__ import annotations

import pytest

from control_plane.fleet.health import PATIENCE_BEATS, AddressState, Agreement, HealthBook, TargetReport
from tests.unit.control_plane.fleet.reports import DOWN, OFF, UP, removed, target


def book(**said: AddressState) -> HealthBook:
    """Nodes by name with their word on one address."""
    made = HealthBook()
    for node, state in said.items():
        made.report(node, [target(state)], full=True)
    return made


@pytest.mark.parametrize(
    ("said", "state", "agreement", "dissenting"),
    [
        ({"a": UP, "b": UP, "c": UP}, UP, Agreement.ALL, ()),
        ({"a": UP, "b": UP, "c": DOWN}, UP, Agreement.MOST, ("c",)),
        ({"a": UP, "b": DOWN}, UP, Agreement.SOME, ("b",)),
        ({"a": UP, "b": DOWN, "c": DOWN}, DOWN, Agreement.SOME, ("a",)),
        ({"a": DOWN, "b": DOWN}, DOWN, Agreement.NONE, ()),
        ({"a": OFF, "b": OFF}, OFF, Agreement.ALL, ()),
        ({"a": OFF, "b": UP}, UP, Agreement.ALL, ("a",)),
    ],
)
def test_the_fleet_s_verdict(
    said: dict[str, AddressState], state: AddressState, agreement: Agreement, dissenting: tuple[str, ...]
) -> None:
    verdict = book(**said).verdict("u", "t", said)
    assert verdict is not None
    (address,) = verdict.addresses
    assert (address.state, address.agreement, address.dissenting) == (state, agreement, dissenting)
    assert verdict.disagreement is bool(dissenting)


def test_only_the_nodes_asked_for_count() -> None:
    health = book(a=UP, b=DOWN)
    verdict = health.verdict("u", "t", ["b"])
    assert verdict is not None
    assert verdict.word == "UNHEALTHY"
    assert health.verdict("u", "t", []) is None
    assert health.verdict("u", "other", ["a"]) is None


@pytest.mark.parametrize(
    ("states", "word"),
    [
        ((UP, DOWN), "HEALTHY"),
        ((DOWN, OFF), "UNHEALTHY"),
        ((OFF, OFF), "HEALTHCHECKS_OFF"),
        ((), "DNS_ERROR"),
    ],
)
def test_the_word_for_a_target(states: tuple[AddressState, ...], word: str) -> None:
    health = HealthBook()
    health.report("a", [target(*states)], full=True)
    verdict = health.verdict("u", "t", ["a"])
    assert verdict is not None
    assert verdict.word == word


def test_a_name_that_only_some_nodes_resolve_is_a_disagreement() -> None:
    health = book(a=UP)
    health.report("b", [target(error="3 name error")], full=True)
    verdict = health.verdict("u", "t", ["a", "b"])
    assert verdict is not None
    assert verdict.word == "HEALTHY"
    assert verdict.disagreement
    assert verdict.failing == {"b": "3 name error"}
    nobody = health.verdict("u", "t", ["b"])
    assert nobody is not None
    assert not nobody.disagreement


def test_changes_put_and_remove_rows() -> None:
    health = HealthBook()
    health.report("a", [target(UP), target(UP, name="t2")], full=True)
    health.report("a", [target(DOWN), removed(name="t2"), removed(name="never")], full=False)
    assert health.table("a") == {("u", "t"): target(DOWN)}
    health.report("a", [target(UP, name="t3")], full=True)
    assert set(health.table("a")) == {("u", "t3")}


def digest_of(*targets: TargetReport) -> int:
    other = HealthBook()
    other.report("x", targets, full=True)
    return other.digest("x")


def beat(health: HealthBook, digest: int) -> bool:
    return health.beat("a", digest, {}, now=0.0)


def test_a_node_whose_digest_differs_is_asked_once_and_given_time() -> None:
    health = book(a=UP)
    right, wrong = digest_of(target(UP)), digest_of(target(DOWN))
    health.report("a", [], full=False)
    for _ in range(PATIENCE_BEATS):
        assert not beat(health, wrong)  # the full report may have more parts on their way
    assert beat(health, wrong)
    for _ in range(PATIENCE_BEATS):
        assert not beat(health, wrong)
    assert beat(health, wrong)
    assert not beat(health, right)
    assert beat(health, wrong)


def test_a_node_that_was_never_heard_is_asked_at_its_first_beat() -> None:
    health = HealthBook()
    assert not beat(health, 0)
    assert beat(health, digest_of(target(UP)))


def test_a_node_that_forgot_everything_is_asked_too() -> None:
    health = book(a=UP)
    assert not any(beat(health, 0) for _ in range(PATIENCE_BEATS))
    assert beat(health, 0)
    health.report("a", [], full=True)
    assert not beat(health, 0)


def test_gone_nodes_are_forgotten() -> None:
    health = book(a=UP, b=DOWN)
    health.keep_only({"b"})
    assert health.table("a") == {}
    assert health.digest("a") == 0
    assert health.targets(["a", "b"]) == {("u", "t")}
    health.keep_only(set())
    assert health.targets(["a", "b"]) == set()


def test_memory_is_bounded_and_a_node_beyond_it_is_not_asked_for_ever() -> None:
    health = HealthBook(rows_max=3, rows_per_node_max=2)
    many = [target(UP, name=f"t{number}") for number in range(5)]
    health.report("a", many, full=True)
    assert len(health.table("a")) == 2
    assert not beat(health, digest_of(*many))
    health.report("b", many, full=True)
    assert len(health.table("b")) == 1
    health.keep_only({"b"})
    health.report("b", many[:2], full=True)
    assert len(health.table("b")) == 2


def test_open_requests_are_counted_over_live_nodes() -> None:
    health = book(a=UP, b=UP)
    health.beat("a", 0, {("u", "t"): 3}, now=5.0)
    assert health.counted_at(["a", "b"]) is None
    health.beat("b", 0, {("u", "t"): 1}, now=7.0)
    verdict = health.verdict("u", "t", ["a", "b"])
    assert verdict is not None
    assert verdict.in_flight == {"a": 3, "b": 1}
    assert health.counted_at(["a", "b"]) == 5.0
    assert health.counted_at([]) is None
    health.beat("a", 0, {}, now=9.0)
    verdict = health.verdict("u", "t", ["a"])
    assert verdict is not None
    assert verdict.in_flight == {}


def test_requests_to_a_target_that_nobody_reports_any_longer_still_count() -> None:
    health = HealthBook()
    health.beat("a", 0, {("u", "t"): 3}, now=0.0)
    verdict = health.verdict("u", "t", ["a"])
    assert verdict is not None
    assert (verdict.nodes, verdict.in_flight) == ((), {"a": 3})


def test_what_changed_is_told_once() -> None:
    health = book(a=UP)
    assert health.take_changed() == {("u", "t")}
    assert health.take_changed() == set()
    health.report("a", [removed()], full=False)
    assert health.take_changed() == {("u", "t")}
