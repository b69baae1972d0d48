"""The vectors of balancing, health and names, as the command runs them: in a network namespace of their own."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conformance.balancer import ACCEPTED, read_accepted
from tests.conformance.balancer_vectors import (
    CASE_VALUES,
    CHECKS,
    Answered,
    Received,
    Seen,
    Tree,
    Vector,
    differences,
    peer_name,
    read_vectors,
)
from tests.support import netns

VECTORS = Path(__file__).parent / "vectors" / "balancer.json"


PARTS = 3
"""At once, each on a gateway of its own: nearly all of a run's time is spent waiting."""


@pytest.mark.timeout(900)
def test_all_vectors_pass() -> None:
    if not netns.must_work():
        try:
            netns.check()
        except netns.NamespaceError as error:
            pytest.skip(f"the vectors need a network namespace, which this machine does not give: {error}")

    def run(part: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "tests.conformance", "balancer", str(VECTORS), "--part", f"{part}/{PARTS}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(PARTS) as threads:
        runs = list(threads.map(run, range(1, PARTS + 1)))
    told = ("not built", "accepted ", "passed ")
    failing = [line for done in runs for line in done.stdout.splitlines() if not line.startswith(told)]
    assert failing == [], [done.stderr[-2000:] for done in runs]
    assert all(done.returncode == 0 for done in runs)


def test_the_accepted_list_names_vectors() -> None:
    assert set(read_accepted(ACCEPTED)) <= {vector.id for vector in read_vectors(VECTORS)}


def test_every_member_of_an_expectation_can_be_checked() -> None:
    known = set(CHECKS) | CASE_VALUES | {"present_per_case", "absent_per_case", "identical_mapping_across_variants"}
    for vector in read_vectors(VECTORS):
        for step in vector.steps:
            for expected in vector.expectations(step.name):
                assert set(expected) <= known, vector.id


def seen(*peers: str, statuses: tuple[int, ...] = ()) -> Seen:
    return Seen(
        peers=[peer_name(peer) for peer in peers],
        answers=[Answered(status, {}, "text", "") for status in statuses],
        received=[Received(peer, "GET", "/", "h:1", 0, probe=False) for peer in peers],
        attempts=Counter(peers),
    )


def test_peers_are_compared_by_address() -> None:
    expected: Tree = {"per_peer": {"[0:0:0:0:0:0:0:1]:80": 2}}
    assert differences(expected, seen("[::1]:80", "[::1]:80"), {}) == []
    assert differences(expected, seen("[::1]:80"), {})
    assert differences({"per_peer": {}}, seen(), {}) == []


def test_statuses_must_be_just_these() -> None:
    assert differences({"statuses": {"200": 1, "503": 1}}, seen(statuses=(503, 200)), {}) == []
    assert differences({"statuses": {"200": 1}}, seen(statuses=(503, 200)), {})


def test_what_is_not_known_is_not_passed() -> None:
    assert differences({"unheard_of": 1}, seen(), {}) == ["cannot check 'unheard_of'"]


def test_the_recommended_answer_is_as_good() -> None:
    vector = Vector("id", "title", {}, {"s1": {"statuses": {"502": 5}, "distinct_peers": 0}},
                    {"s1": {"statuses": {"502": 1, "503": 4}}})  # fmt: skip
    first, better = vector.expectations("s1")
    assert first["statuses"] == {"502": 5}
    assert better == {"statuses": {"502": 1, "503": 4}, "distinct_peers": 0}
