"""One node tries a change before the others get it."""

from __future__ import annotations

from control_plane.fleet.canary import Canary
from pointsman.snapshots import SnapshotRef

EPOCH = bytes(16)


def ref(version: int, *, epoch: bytes = EPOCH) -> SnapshotRef:
    return SnapshotRef(epoch, version, version.to_bytes(32, "big"))


def test_the_others_wait_until_the_first_runs_it() -> None:
    canary = Canary(wait_s=1.0)
    assert canary.published(ref(2), ["a", "b"], now=0.0) == "a"
    assert not canary.applied("b", ref(2), now=0.1)
    assert canary.applied("a", ref(2), now=0.1)
    assert canary.due is None


def test_a_refusal_holds_the_version_and_the_next_one_ends_that() -> None:
    canary = Canary(wait_s=1.0)
    canary.published(ref(2), ["a", "b"], now=0.0)
    assert canary.rejected("a", ref(2), "BAD_REGEX")
    assert canary.held is not None
    assert (canary.held.ref, canary.held.node, canary.due) == (ref(2), "a", None)
    assert canary.published(ref(3), ["a", "b"], now=1.0) == "a"
    assert canary.held is None
    assert canary.applied("a", ref(3), now=1.0)


def test_a_slow_node_holds_nothing_up() -> None:
    canary = Canary(wait_s=1.0)
    canary.published(ref(2), ["a", "b"], now=0.0)
    assert not canary.overdue(now=0.9)
    assert canary.overdue(now=1.0)
    assert canary.node == ""
    assert canary.held is None


def test_steady_writes_do_not_put_the_release_off() -> None:
    canary = Canary(wait_s=1.0)
    canary.published(ref(2), ["a", "b"], now=0.0)
    canary.published(ref(3), ["a", "b"], now=0.9)
    assert canary.overdue(now=1.0)


def test_an_earlier_version_that_runs_there_is_released_while_a_later_one_is_tried() -> None:
    canary = Canary(wait_s=1.0)
    canary.published(ref(2), ["a", "b"], now=0.0)
    assert canary.published(ref(3), ["b", "c"], now=0.1) == "a", "it is at work, and so not at rest"
    assert canary.applied("a", ref(2), now=0.2)
    assert canary.node == "a"
    assert canary.applied("a", ref(3), now=0.3)
    assert canary.node == ""


def test_two_nodes_lost_over_one_change_count_as_a_refusal() -> None:
    canary = Canary(wait_s=1.0)
    canary.published(ref(2), ["a", "b", "c"], now=0.0)
    assert canary.lost("c", ["a", "b"], now=0.1) == ""
    assert canary.lost("a", ["b", "c"], now=0.1) == "b"
    assert canary.lost("b", ["c"], now=0.2) == ""
    assert canary.held is not None
    assert "2 nodes were lost" in canary.held.reason


def test_nobody_left_to_try_it_releases_it() -> None:
    canary = Canary(wait_s=1.0)
    canary.published(ref(2), ["a", "b"], now=0.0)
    assert canary.lost("a", [], now=0.1) == ""
    assert canary.overdue(now=0.1)


def test_a_single_node_and_a_switched_off_canary_try_nothing() -> None:
    assert Canary(wait_s=1.0).published(ref(2), ["a"], now=0.0) == ""
    assert Canary(wait_s=1.0, enabled=False).published(ref(2), ["a", "b"], now=0.0) == ""
