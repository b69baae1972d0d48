"""Canaries as the Admin API shows them, made by the control plane's own machine: what the command line is shown."""

from __future__ import annotations

from control_plane.entities.types import EntityBody
from control_plane.fleet.rollout import Policy
from control_plane.fleet.side_figures import SideFigures
from control_plane.store.contract import Origin
from control_plane.switching.acts import Act, Verb, proof_of
from control_plane.switching.canary import Canary, Course
from control_plane.switching.canary_record import Asked, view_of
from control_plane.switching.gates import Limits, Pair, Verdict, judge
from control_plane.switching.preflight import Move
from pointsman.rules.latency_buckets import BUCKETS, bucket_of

BEGAN = 1_700_000_000.0
LIMITS = Limits()
PLAN: EntityBody = {
    "ready": True,
    "capacity_percent": 133.3,
    "new_side": {"healthy": 2, "targets": [{}, {}]},
    "nodes": [{"healthy": 2}, {"healthy": 2}],
}
ASKED = Asked(
    7,
    Act(Verb.CANARY, (Move("1", "example-service", "blue", "green"),), "green", plan=PLAN),
    Origin(author="ann", reason="2.7.1"),
    Policy(),
    None,
    BEGAN,
    8,
)


def side(requests: int, errors: int = 0) -> SideFigures:
    """A side that takes about 2 ms."""
    counts = [0] * BUCKETS
    counts[bucket_of(0.002)] = requests
    return SideFigures(requests, errors, latency_counts=tuple(counts))


def verdict(*, errors: int = 0, requests: int = 100) -> Verdict:
    """Of two nodes, the second of which sees the new side fail."""
    good, bad = (
        Pair("example-service", "dp-1", side(1900), side(requests)),
        Pair("example-service", "dp-2", side(1900), side(requests, errors)),
    )
    whole = Pair("example-service", "", good.old + bad.old, good.new + bad.new)
    return judge(LIMITS, [good, bad], [whole])


def begun(*, every_s: float | None = 30.0) -> Canary:
    """On its first step of three."""
    canary = Canary.of(Course((500, 2500, 10_000), every_s, LIMITS))
    canary.written(8, 9, BEGAN + 0.1)
    return canary


def on_second_step(*, every_s: float | None = 30.0) -> Canary:
    """The first step has passed."""
    canary = begun(every_s=every_s)
    canary.judged(verdict(), BEGAN + 31)
    if every_s is None:
        canary.promote("ann", BEGAN + 31)
    canary.written(9, 10, BEGAN + 31.1)
    canary.judged(verdict(requests=600), BEGAN + 40)
    return canary


def confirmed() -> Canary:
    """All three steps."""
    canary = on_second_step()
    canary.judged(verdict(requests=600), BEGAN + 62)
    canary.written(10, 11, BEGAN + 62.1)
    canary.settled(True, "", BEGAN + 62.3)
    return canary


def undone() -> Canary:
    """A gate broke on the second step, and everything went back."""
    canary = on_second_step()
    canary.judged(verdict(requests=600, errors=300), BEGAN + 42)
    canary.written(10, 11, BEGAN + 42.2)
    canary.settled(True, "", BEGAN + 42.4)
    return canary


def shown(canary: Canary, **facts: object) -> EntityBody:
    """The view that the Admin API answers."""
    view = {**view_of(ASKED, canary, undone_by=None), **proof_of({}, ASKED.act.moves)}
    return {**view, **facts}  # type: ignore[dict-item]  # JSON values that a test is about
