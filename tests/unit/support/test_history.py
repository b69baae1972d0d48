"""The history checker must be able to fail: each promise it checks is broken here once, in a made-up history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.support.history import Commit, History, Run, Write, commits_of, runs_of
from tests.support.load import Record

COMMITS = (Commit(1, 1.0, "blue"), Commit(2, 2.0, "green"), Commit(3, 3.0, "blue"))
RUNS = tuple(
    Run(node, version + 0.1 * (node + 1), "e", version, f"c{version}") for version in (1, 2, 3) for node in (0, 1)
)
WRITES = (Write(1, 0.9, 1.3), Write(2, 1.9, 2.3), Write(3, 2.9, 3.3))


def probe(sent: float, colour: str, *, node: int = 0) -> Record:
    return Record(
        id=7,
        node=node,
        due=sent,
        sent=sent,
        answered=sent + 0.01,
        status=200,
        answers=1,
        colour=colour,
        instance=colour,
    )


def history(
    *,
    commits: Sequence[Commit] = COMMITS,
    runs: Sequence[Run] = RUNS,
    probes: Sequence[Record] = (),
    writes: Sequence[Write] = WRITES,
) -> History:
    return History(commits, runs, probes, writes, reachable=frozenset((0, 1)))


def test_a_true_history_has_no_failures() -> None:
    probes = [
        probe(1.5, "blue"), probe(2.05, "blue"), probe(2.05, "green"), probe(2.15, "green"),
        probe(2.15, "blue", node=1), probe(3.05, "green"), probe(3.5, "blue"),
    ]  # fmt: skip
    true = history(probes=probes)
    assert true.failures() == []
    assert true.checked == {"versions": 3, "writes": 3, "activations": 6, "answers": 7}


def test_a_version_that_is_missing() -> None:
    assert history(commits=(COMMITS[0], COMMITS[2])).failures()[0] == "version 2 is missing, or 3 is there twice"


def test_a_version_that_was_committed_before_the_one_before_it() -> None:
    found = history(commits=(COMMITS[0], replace(COMMITS[1], at=3.5), COMMITS[2])).failures()
    assert "version 3 was committed 0.500 s before 2" in found


def test_a_write_that_was_answered_and_is_not_there() -> None:
    assert "version 4 was answered and is not in the store" in history(writes=(*WRITES, Write(4, 4.0, 4.1))).failures()


def test_a_write_that_was_asked_for_after_a_later_one_was_answered() -> None:
    found = history(writes=(WRITES[0], Write(3, 1.9, 2.3), Write(2, 2.9, 3.3))).failures()
    assert found == ["version 2 was asked for after 3 was answered"]


def test_a_node_that_goes_back() -> None:
    back = [*RUNS, Run(1, 4.0, "e", 2, "c2"), Run(1, 4.1, "e", 3, "c3")]
    assert history(runs=back).failures() == ["node 2 went back from version 3 to 2"]


def test_a_restart_that_goes_back_behind_what_was_kept() -> None:
    kept = [*RUNS, Run(0, 4.0, "e", 2, "c2", restored=True), Run(0, 4.1, "e", 3, "c3")]
    assert history(runs=kept).failures() == ["node 1 went back from version 3 to 2"]
    runs = [replace(run, kept=False) if run.version == 3 else run for run in RUNS]
    unkept = [*runs, Run(0, 4.0, "e", 2, "c2", restored=True), Run(0, 4.1, "e", 3, "c3")]
    assert history(runs=unkept).failures() == [], "it had said so"


def test_an_epoch_that_comes_again() -> None:
    runs = [*RUNS, Run(0, 4.0, "f", 3, "c3"), Run(0, 4.1, "e", 3, "c3")]
    assert history(runs=runs).failures() == ["node 1 went back to an epoch that it had left, at version 3"]


def test_one_version_of_two_contents() -> None:
    runs = [*RUNS[:3], replace(RUNS[3], content="other"), *RUNS[4:]]
    assert history(runs=runs).failures() == ["version 2 is other content on node 2 than on node 1"]


def test_a_version_that_nobody_committed_or_not_yet() -> None:
    assert (
        "node 1 ran version 4, which the store does not have"
        in history(runs=[*RUNS, Run(0, 4.0, "e", 4, "c")]).failures()
    )
    early = [replace(run, at=1.5) if run.version == 2 else run for run in RUNS]
    assert history(runs=early).failures()[0] == "node 1 ran version 2 before it was committed"


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(probe(2.15, "blue"), id="by the old side after the node had logged the new one"),
        pytest.param(probe(1.5, "green"), id="by a side that nobody had committed"),
        pytest.param(probe(3.5, "red"), id="by a side that there never was"),
    ],
)
def test_an_answer_by_the_wrong_side(answer: Record) -> None:
    (found,) = history(probes=[answer]).failures()
    assert found.startswith(f"request 7 to node 1 was answered by {answer.colour}; versions ")


def test_a_node_that_stays_behind() -> None:
    assert history(runs=RUNS[:-1]).failures() == ["node 2 ended at version 2, the head is 3"]


def test_after_a_restart_orphans_may_finish_by_what_they_have() -> None:
    restart = Run(0, 3.5, "e", 3, "c3", restored=True)
    late, later = probe(5.0, "green"), probe(20.0, "green")
    assert history(runs=[*RUNS, restart], probes=[late]).failures() == []
    assert history(runs=[*RUNS, restart], probes=[later]).failures() != []


def test_what_is_written_down_is_read() -> None:
    log = (
        "2026-01-02T03:04:05.678Z INFO data_plane.node.link: this node runs version 9 (ab) took_ms=1.5"
        " epoch=0f version=9 snapshot_hash=ab12 kept=True restored=False\n"
        "2026-01-02T03:04:06.000Z INFO x: something else\n"
    )
    assert runs_of(log, 2) == [Run(2, 1767323045.678, "0f", 9, "ab12", True, False)]
    settings = '{"id": "s", "split": %s, "preview": null}'
    rows = [
        (1, 1.0, "upstreams", '{"id": "g", "name": "green"}'),
        (2, 2.0, "services", '{"id": "s", "name": "example-service", "host": "blue"}'),
        (2, 2.0, "services", '{"id": "o", "name": "other", "host": "red"}'),
        (3, 3.0, None, None),
        (4, 4.0, "service_settings", settings % '{"to": "g", "share": 500}'),
        (5, 5.0, "service_settings", settings % "null"),
    ]
    commits = commits_of(rows)
    assert [commit.host for commit in commits] == ["", "blue", "blue", "blue", "blue"]
    assert [commit.also for commit in commits] == [(), (), (), ("green",), ()]
    may = History(commits, [Run(0, 1.5, "e", 4, "h")], probes=[probe(4.2, "green")])
    may_not = History(commits, [Run(0, 1.5, "e", 3, "h")], probes=[probe(3.2, "green")])
    assert [found for found in may.failures() if "request" in found] == []
    assert [found for found in may_not.failures() if "request" in found] != []
