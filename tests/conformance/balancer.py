"""Runs vectors of balancing, names, health and retries, and says what differs.

    python -m tests.conformance balancer FILE [--ids rr-*,hc-01*] [--accepted FILE] [--part 1/3]

Vectors that feed events or samples run on the pure cores with a fake clock. The rest run on a real control plane and a
real node, in a network namespace of their own where every address of a vector exists; where no namespace can be had
they are skipped with the reason, but never in CI. What a vector needs and the gateway has not is counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from tests.conformance.balancer_cores import hash_inputs, run_cores
from tests.conformance.balancer_node import NotBuilt, Rig, run_calls, run_inputs, run_node, run_read_only
from tests.conformance.balancer_vectors import Seen, Tree, Vector, differences, differences_over_cases, read_vectors
from tests.support import netns

ACCEPTED = Path(__file__).with_name("accepted-balancer.yaml")


@dataclass(slots=True)
class Score:
    """How a run ends; prints as it goes."""

    passed: int = 0
    total: int = 0
    failing: list[str] = field(default_factory=list)
    not_built: int = 0

    def result(self, vector: Vector, found: Sequence[str], accepted: Mapping[str, Accepted]) -> None:
        """Takes in one vector's differences."""
        self.total += 1
        row = accepted.get(vector.id)
        if found and row is not None and all(row.differs in text for text in found):
            print(f"accepted {vector.id}: {row.reason}")
        elif found:
            self.failing.append(vector.id)
            print(f"{vector.id}: {vector.title}: {'; '.join(found)}", flush=True)
            return
        self.passed += 1


@dataclass(frozen=True, slots=True)
class Accepted:
    """A difference that is meant; `differs` is found in each line that says what differs."""

    reason: str
    differs: str


def read_accepted(path: Path) -> dict[str, Accepted]:
    """The accepted list: a mapping from the vector's id."""
    return {name: Accepted(**row) for name, row in (yaml.safe_load(path.read_text()) or {}).items()}


def check_steps(vector: Vector, seen: Mapping[str, Seen]) -> list[str]:
    """What differs over all steps."""
    found = []
    for step in vector.expect:
        answers = [differences(expected, seen[step], seen) for expected in vector.expectations(step)]
        if all(answers):
            found += [f"{step}: {text}" for text in answers[0]]
    return found


def check_cases(vector: Vector, cases: Sequence[Mapping[str, Seen]]) -> list[str]:
    """What differs over a vector's cases or variants."""
    (step,) = vector.expect
    expected = vector.expectations(step)[0]
    if "identical_mapping_across_variants" in expected:
        first, *others = [case[step].mapping() for case in cases]
        return [] if first and all(other == first for other in others) else ["the variants map keys differently"]
    return differences_over_cases(expected, [case[step] for case in cases])


def check_values(expected: Tree, told: Tree) -> list[str]:
    """What differs of an expectation without steps."""
    return [f"{key}: {value} expected, {told.get(key)} came" for key, value in expected.items() if told[key] != value]


def run_pure(vector: Vector) -> list[str] | None:
    """What differs on the cores; None = the vector is about a node."""
    if vector.pure:
        return check_steps(vector, run_cores(vector))
    if "requests" in vector.given:
        return check_values(vector.expect, {"hash_input": list(hash_inputs(vector.given))})
    return None


async def run_real(rig: Rig, vector: Vector, number: int) -> list[str]:
    """What differs on a node."""
    if "inputs" in vector.given:
        return check_values(vector.expect, await run_inputs(rig, vector))
    if "nodes" in vector.given:
        return check_values(vector.expect, await run_read_only(rig))
    if "calls" in vector.given:
        return check_values(vector.expect, await run_calls(rig, vector))
    cases = await run_node(rig, vector, number)
    return check_steps(vector, cases[0]) if len(cases) == 1 else check_cases(vector, cases)


async def _run_all_real(vectors: Sequence[Vector], score: Score, accepted: Mapping[str, Accepted]) -> None:
    netns.open_loopback()
    with tempfile.TemporaryDirectory(prefix="pointsman-conformance-") as folder:
        async with Rig.up(Path(folder)) as rig:
            for number, vector in enumerate(vectors, 1):
                try:
                    found = await run_real(rig, vector, number)
                except NotBuilt as missing:
                    score.not_built += 1
                    print(f"not built, counted apart: {vector.id}: {missing}")
                except (AssertionError, OSError, TimeoutError, ValueError, KeyError, EOFError) as error:
                    score.result(vector, [f"{type(error).__name__}: {error}"], accepted)
                else:
                    score.result(vector, found, accepted)


def _part(text: str) -> tuple[int, int]:
    part, parts = (int(number) for number in text.split("/"))
    if not 1 <= part <= parts:
        raise ValueError(text)
    return part, parts


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance balancer", description=__doc__)
    parser.add_argument("file", type=Path, help="vectors of the form of vectors/balancer.json")
    parser.add_argument("--ids", default="*", help="vectors to run, like rr-*,hc-01*")
    parser.add_argument("--part", type=_part, default=(1, 1), help="run one part of so many, like 1/3")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="the list of accepted differences")
    options = parser.parse_args(arguments)
    real_too = True
    if not netns.inside():
        try:
            command = [sys.executable, "-m", "tests.conformance", "balancer", *arguments]
            netns.continue_inside(command)
        except netns.NamespaceError as error:
            if netns.must_work():
                raise
            print(f"skipped: all vectors that need a node: no network namespace here: {error}")
            real_too = False
    patterns = options.ids.split(",")
    part, parts = options.part
    chosen = [
        vector
        for vector in read_vectors(options.file)
        if any(fnmatch.fnmatchcase(vector.id, pattern) for pattern in patterns)
    ][part - 1 :: parts]
    score, accepted = Score(), read_accepted(options.accepted)
    real = []
    for vector in chosen:
        found = run_pure(vector)
        if found is None:
            real.append(vector)
        else:
            score.result(vector, found, accepted)
    if real and real_too:
        asyncio.run(_run_all_real(real, score, accepted))
    print(f"not built: {score.not_built}")
    print(f"passed {score.passed} of {score.total}")
    return 0 if score.passed == score.total else 1
