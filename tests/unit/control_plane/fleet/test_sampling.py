"""In large fleets a few nodes of each zone probe, and the others hear what those see."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest

from control_plane.fleet.health import HealthBook
from control_plane.fleet.sampling import TARGETS_PER_FRAME, Hints, Sampling, probers, sampled
from pointsman.wire.v1 import fleet_pb2
from tests.unit.control_plane.fleet.reports import DOWN, UP, removed, target

NODES = [str(uuid.UUID(int=number)) for number in range(100)]
ZONES = {node: "ab"[number % 2] for number, node in enumerate(NODES)}


def frames(sent: Mapping[str, object], zone: str = "a") -> list[fleet_pb2.FleetHealth]:
    found = sent.get(zone, [])
    assert isinstance(found, list)
    return [fleet_pb2.PlaneMessage.FromString(frame).fleet_health for frame in found]


def hints(book: HealthBook) -> Hints:
    return Hints(book, refresh_s=15.0, per_zone=3, nodes_min=50)


def test_each_zone_has_its_probers() -> None:
    chosen = probers(ZONES, per_zone=3)
    assert {zone: len(nodes) for zone, nodes in chosen.items()} == {"a": 3, "b": 3}
    assert all(ZONES[node] == zone for zone, nodes in chosen.items() for node in nodes)
    assert probers({"x": "", "y": ""}, per_zone=3) == {"": ("x", "y")}


def test_a_node_that_goes_changes_one_prober_at_most() -> None:
    before = set(probers(ZONES, per_zone=3)["a"])
    for gone in NODES:
        rest = {node: zone for node, zone in ZONES.items() if node != gone}
        after = set(probers(rest, per_zone=3)["a"])
        assert len(before - after) == (1 if gone in before else 0)


@pytest.mark.parametrize(
    ("mode", "nodes", "is_sampled"),
    [
        (Sampling.AUTO, 50, False),
        (Sampling.AUTO, 51, True),
        (Sampling.ON, 2, True),
        (Sampling.OFF, 1000, False),
    ],
)
def test_when_probes_are_sampled(mode: Sampling, nodes: int, *, is_sampled: bool) -> None:
    assert sampled(mode, nodes=nodes, nodes_min=50) is is_sampled


def test_a_small_fleet_hears_nothing() -> None:
    book = HealthBook()
    book.report("x", [target(UP)], full=True)
    assert hints(book).due({"x": ""}, {}, now=0.0) == {}


def test_a_large_fleet_hears_its_probers_and_then_what_changes() -> None:
    book = HealthBook()
    chosen = probers(ZONES, per_zone=3)["a"]
    for node in NODES:
        book.report(node, [target(UP, since=5), target(UP, name="t2")], full=True)
    telling = hints(book)
    (first,) = frames(telling.due(ZONES, {}, now=0.0))
    assert tuple(first.probers) == chosen
    assert [each.target for each in first.targets] == ["t", "t2"]
    assert telling.due(ZONES, {}, now=1.0) == {}
    for node in chosen[:2]:
        book.report(node, [target(DOWN, since=9)], full=False)
    (changed,) = frames(telling.due(ZONES, {}, now=2.0))
    (only,) = changed.targets
    (address,) = only.addresses
    assert (only.target, address.state, address.since) == ("t", fleet_pb2.HEALTH_STATE_UNHEALTHY, 9)
    other_zone = next(node for node in NODES if ZONES[node] == "b")
    book.report(other_zone, [removed()], full=False)
    book.report(chosen[0], [removed(name="t2")], full=False)
    assert frames(telling.due(ZONES, {}, now=3.0))
    for node in chosen:
        book.report(node, [removed(name="t2")], full=False)
    (last,) = frames(telling.due(ZONES, {}, now=4.0))
    assert [(each.target, each.removed) for each in last.targets] == [("t2", True)]


def test_everything_is_told_again_before_it_is_too_old_and_in_portions() -> None:
    book = HealthBook()
    for node in NODES:
        book.report(node, [target(UP, name=f"t{number:04}") for number in range(TARGETS_PER_FRAME + 1)], full=True)
    telling = hints(book)
    telling.due(ZONES, {}, now=0.0)
    assert telling.due(ZONES, {}, now=14.9) == {}
    assert [len(frame.targets) for frame in frames(telling.due(ZONES, {}, now=15.0))] == [TARGETS_PER_FRAME, 1]


def test_an_upstream_may_opt_out_or_in() -> None:
    book = HealthBook()
    for node in NODES:
        book.report(node, [target(UP), target(UP, upstream="v")], full=True)
    (large,) = frames(hints(book).due(ZONES, {"v": Sampling.OFF}, now=0.0))
    assert [each.upstream for each in large.targets] == ["u"]
    few = dict.fromkeys(NODES[:4], "")
    (small,) = frames(hints(book).due(few, {"v": Sampling.ON}, now=0.0), "")
    assert [each.upstream for each in small.targets] == ["v"]
    assert len(small.probers) == 3


def test_a_fleet_that_shrinks_probes_by_itself_again() -> None:
    book = HealthBook()
    for node in NODES:
        book.report(node, [target(UP)], full=True)
    telling = hints(book)
    telling.due(ZONES, {}, now=0.0)
    few = dict.fromkeys(NODES[:4], "a")
    (last,) = frames(telling.due(few, {}, now=1.0))
    assert (list(last.probers), list(last.targets)) == ([], [])
    assert telling.due(few, {}, now=2.0) == {}
