"""The history of a run, joined from what each part wrote down by itself, and what must be true of it.

    the store's versions --------.
    answers of the Admin API ------> one order of commits      \\
    the nodes' logs ---------------> what each ran, from when  --> what may have answered each request
    the load generator's records --> when it was sent, who answered

What is checked:

* versions are dense, in the order of their commits, and a write that was answered before another was asked came first;
* what a node runs was committed, has the same content on every node, and never goes back within an epoch, restarts
  included, unless the node itself said that it could not keep it;
* a request is answered by the side that some version names which the node may have run: none before the one that the
  node had logged when the request was sent, none that was not committed when it was answered;
* in the end every node that can be reached runs the head.

The books of `ledger.py` know only what its switches read back; this knows every version of every writer. Run by hand it
checks a folder that a fleet of tests left behind: `python -m tests.support.history FOLDER`.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import sys
import time
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from tests.support.load import Record
from tests.support.postgres import own_database, psql
from tests.support.processes import Fleet

SERVICE = "example-service"
LOG_S = 0.001
"""Logs have milliseconds, cut off."""
ORPHANS_S = 11.0
"""For so long the workers of a node process that was killed may finish what they have, beside its successor's."""
FOUND_MAX = 20

_COMMITS = (
    "SELECT v.number, v.committed_at, c.collection, c.after FROM version v LEFT JOIN change c ON c.version = v.number"
    " AND c.collection IN ('services', 'upstreams', 'service_settings') ORDER BY v.number, c.position"
)
_LINE = re.compile(
    r"^(\S+Z) INFO \S+: this node runs version .*"
    r"epoch=([0-9a-f]+) version=(\d+) snapshot_hash=([0-9a-f]+) kept=(\w+) restored=(\w+)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """One version: when its writer says that it was made, seconds since 1970, and where the service points then.

    `also` = the upstreams that get some of its requests besides, by a canary or a preview.
    """

    version: int
    at: float
    host: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """A line of a node's log: from then on at the latest, seconds since 1970, it runs this."""

    node: int
    at: float
    epoch: str
    version: int
    content: str
    kept: bool = True
    restored: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """A write as its client saw it; times of `time.monotonic`."""

    version: int
    asked: float
    answered: float


@dataclass(slots=True)
class History:
    """All of it. `mono_to_wall` turns `time.monotonic` into the time of day; `reachable` nodes must end at the head."""

    commits: Sequence[Commit]
    runs: Sequence[Run]
    probes: Sequence[Record] = ()
    writes: Sequence[Write] = ()
    mono_to_wall: float = 0.0
    reachable: frozenset[int] = frozenset()
    clock_doubt_s: float = 0.0
    """By how much the clocks of several writers may differ."""
    spoiled: frozenset[int] = frozenset()
    """Nodes whose last good files were damaged: what they kept they may have lost, and start with an older one."""
    checked: dict[str, int] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """What is not as it must be, at most `FOUND_MAX` of each kind; `checked` says how much was looked at."""
        found: list[str] = []
        for check in (self._versions, self._writes, self._nodes, self._content, self._answers, self._ends):
            found += list(check())[:FOUND_MAX]
        return found

    def _versions(self) -> Iterable[str]:
        self.checked["versions"] = len(self.commits)
        for number, commit in enumerate(self.commits, 1):
            if commit.version != number:
                yield f"version {number} is missing, or {commit.version} is there twice"
                return
        for before, after in zip(self.commits, self.commits[1:], strict=False):
            if after.at < before.at - self.clock_doubt_s:
                yield f"version {after.version} was committed {before.at - after.at:.3f} s before {before.version}"

    def _writes(self) -> Iterable[str]:
        self.checked["writes"] = len(self.writes)
        head = len(self.commits)
        newest, by_answer = 0, sorted(self.writes, key=lambda write: write.answered)
        done = 0
        for write in sorted(self.writes, key=lambda write: write.asked):
            if not 1 <= write.version <= head:
                yield f"version {write.version} was answered and is not in the store"
            while done < len(by_answer) and by_answer[done].answered < write.asked:
                newest = max(newest, by_answer[done].version)
                done += 1
            if write.version <= newest:
                yield f"version {write.version} was asked for after {newest} was answered"

    def _of(self, node: int) -> list[Run]:
        return [run for run in self.runs if run.node == node]

    def _node_numbers(self) -> list[int]:
        return sorted({run.node for run in self.runs})

    def _nodes(self) -> Iterable[str]:
        self.checked["activations"] = len(self.runs)
        for node in self._node_numbers():
            left: set[str] = set()
            before: Run | None = None
            floor = 0
            for run in self._of(node):
                if before is not None and run.epoch != before.epoch:
                    left.add(before.epoch)
                    floor = 0
                if run.restored and node in self.spoiled:
                    floor = 0
                if run.epoch in left:
                    yield f"node {node + 1} went back to an epoch that it had left, at version {run.version}"
                if run.version < floor or (before is not None and not run.restored and run.version < before.version):
                    yield f"node {node + 1} went back from version {max(floor, before.version)} to {run.version}"  # type: ignore[union-attr]  # a floor comes from one before
                if run.kept:
                    floor = max(floor, run.version)
                before = run

    def _content(self) -> Iterable[str]:
        seen: dict[tuple[str, int], Run] = {}
        for run in self.runs:
            first = seen.setdefault((run.epoch, run.version), run)
            if first.content != run.content:
                yield f"version {run.version} is other content on node {run.node + 1} than on node {first.node + 1}"
            committed = run.version <= len(self.commits)
            if not committed:
                yield f"node {run.node + 1} ran version {run.version}, which the store does not have"
            elif self.commits[run.version - 1].at > run.at + LOG_S + self.clock_doubt_s:
                yield f"node {run.node + 1} ran version {run.version} before it was committed"

    def _answers(self) -> Iterable[str]:
        sides = [(commit.host, *commit.also) for commit in self.commits]
        committed = [commit.at - self.clock_doubt_s for commit in self.commits]
        floors = {node: _floors(self._of(node)) for node in self._node_numbers()}
        self.checked["answers"] = 0
        for probe in self.probes:
            if not probe.colour or probe.node not in floors:
                continue
            self.checked["answers"] += 1
            times, versions = floors[probe.node]
            at = bisect_right(times, probe.sent + self.mono_to_wall)
            oldest = versions[at - 1] if at else 1
            newest = bisect_right(committed, probe.answered + self.mono_to_wall)
            allowed = {side for named in sides[oldest - 1 : newest] for side in named}
            if probe.colour not in allowed:
                yield (
                    f"request {probe.id} to node {probe.node + 1} was answered by {probe.colour}; versions {oldest} to"
                    f" {newest} name {sorted(allowed)}"
                )

    def _ends(self) -> Iterable[str]:
        head = len(self.commits)
        for node in sorted(self.reachable):
            runs = self._of(node)
            if not runs or runs[-1].version != head:
                yield f"node {node + 1} ended at version {runs[-1].version if runs else 0}, the head is {head}"


def _floors(runs: Sequence[Run]) -> tuple[list[float], list[int]]:
    """From when on a request can't be answered by an older version than this. A restart says nothing for a while."""
    times, versions = [], []
    unsure_until = 0.0
    for run in runs:
        if run.restored:
            unsure_until = run.at + ORPHANS_S
            times.append(run.at)
            versions.append(1)
        times.append(max(run.at + LOG_S, unsure_until))
        versions.append(run.version)
    # Several lines within the unsure time count from its end, the last of them most.
    order = sorted(range(len(times)), key=lambda at: times[at])
    return [times[at] for at in order], [versions[at] for at in order]


def runs_of(log: str, node: int) -> list[Run]:
    """What a node's log says of what it ran."""
    found = []
    for line in _LINE.finditer(log):
        at = datetime.strptime(line[1], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp()
        found.append(Run(node, at, line[2], int(line[3]), line[4], line[5] == "True", line[6] == "True"))
    return found


def commits_of(rows: Iterable[tuple[int, float, str | None, str | None]], service: str = SERVICE) -> list[Commit]:
    """The versions of a store, with where `service` points at each."""
    commits: list[Commit] = []
    host, service_id = "", ""
    also: tuple[str, ...] = ()
    names: dict[str, str] = {}
    for version, at, collection, after in rows:
        body: Mapping[str, object] = json.loads(after) if after else {}
        if collection == "upstreams" and body:
            names[str(body["id"])] = str(body["name"])
        elif collection == "services" and body.get("name") == service:
            host, service_id = str(body["host"]), str(body["id"])
        elif collection == "service_settings" and body.get("id") == service_id:
            sides = (body.get("split"), body.get("preview"))
            also = tuple(str(side["to"]) for side in sides if isinstance(side, dict))
        if commits and commits[-1].version == version:
            commits.pop()  # several changes at once
        commits.append(Commit(version, at, host, also))
    return [replace(commit, also=tuple(names[each] for each in commit.also)) for commit in commits]


def commits_in(database: str) -> list[Commit]:
    """Those of an SQLite file, or of a PostgreSQL database by its URL."""
    if "://" in database:
        text = psql(database, f"SELECT json_agg(x) FROM ({_COMMITS}) x")
        rows = json.loads(text) or ()
        return commits_of((row["number"], row["committed_at"], row["collection"], row["after"]) for row in rows)
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=5)) as connection:
        return commits_of(connection.execute(_COMMITS).fetchall())


def of_fleet(
    fleet: Fleet,
    probes: Sequence[Record] = (),
    writes: Sequence[Write] = (),
    *,
    commits: Sequence[Commit] = (),
    clock_doubt_s: float = 0.0,
) -> History:
    """What a fleet that has come to rest has written down. `commits` are read from its database unless given."""
    logs = [node.log.read_text(errors="replace") for node in fleet.nodes]
    runs = [run for index, log in enumerate(logs) for run in runs_of(log, index)]
    return History(
        commits or commits_in(fleet.control_plane.database),
        runs,
        probes,
        writes,
        mono_to_wall=time.time() - time.monotonic(),
        reachable=frozenset(index for index, node in enumerate(fleet.nodes) if node.running),
        clock_doubt_s=clock_doubt_s,
        spoiled=frozenset(fleet.spoiled),
    )


def main(arguments: Sequence[str]) -> None:
    """Checks a folder with a store and nodes' logs: everything but the answers."""
    folder = Path(arguments[0])
    runs = [run for node, log in enumerate(sorted(folder.glob("node-*.log"))) for run in runs_of(log.read_text(), node)]
    history = History(
        commits_in(own_database(f"{folder.name}-control-plane") or str(folder / "control-plane.db")), runs
    )
    failures = history.failures()
    print(", ".join(f"{count} {what}" for what, count in history.checked.items()))
    if failures:
        sys.exit("FAILED: " + "; ".join(failures))


if __name__ == "__main__":
    main(sys.argv[1:])
