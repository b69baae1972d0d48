"""The long proofs of two control planes over one database: rollouts of the nodes of both, and coordinators that are
killed, stopped or split from PostgreSQL, again and again.

`make prove ONLY=two_coordinators` prints what docs/benchmarks.md keeps of one run.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from control_plane.store.postgres import PostgresSettings
from tests.support.postgres import PostgresServer
from tests.support.rollouts import delays, to
from tests.support.two_planes import (
    FATES,
    STATES,
    host_at,
    load_on,
    strike,
    two_planes,
    until_each_knows_the_other,
    until_first_has_its_nodes,
    written_in_silence,
)

TRIALS = 20
ROLLOUTS = 100
SILENT_WRITES = 40
APPLY_S = 0.5
"""For a node to apply a change, on a busy machine."""


@pytest.mark.prove
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("state", STATES)
async def test_whatever_strikes_the_coordinator_there_is_one_truth(
    tmp_path: Path, postgres: PostgresServer, fate: str, state: str
) -> None:
    rng = random.Random(4711)
    seen: Counter[tuple[str, str]] = Counter()
    async with two_planes(tmp_path, postgres) as fleet, load_on(fleet, rate=200) as load:
        for delay_s in delays(rng, TRIALS, 0.1):
            trial = await strike(fleet, fate, state, delay_s=delay_s)
            seen[trial.stored, trial.ended] += 1
            await until_first_has_its_nodes(fleet)
    ends = ", ".join(f"{count} x {stored} -> {ended}" for (stored, ended), count in sorted(seen.items()))
    print(f"\n{fate} from {state} on: {ends}; {len(load.records)} requests, none lost or doubled")
    assert seen.total() == TRIALS


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_rollouts_move_the_nodes_of_both_at_one_instant(tmp_path: Path, postgres: PostgresServer) -> None:
    """Given to the one and the other in turn, under load; every node takes part, wherever it is connected."""
    skews_ms: list[float] = []
    took_ms: list[float] = []
    doubts_ms: list[float] = []
    async with two_planes(tmp_path, postgres) as fleet, load_on(fleet, rate=200) as load:
        await until_each_knows_the_other(fleet)
        for turn in range(ROLLOUTS):
            plane = (fleet.first, fleet.second)[turn % 2]
            colour = "green" if await host_at(fleet) == "blue" else "blue"
            answer = await fleet.ask(plane, "POST", "/fleet/rollouts", to(colour, vote_by_s=30), prefer="wait=60")
            assert isinstance(answer.body, dict)
            assert answer.status == 200, answer.body
            assert answer.body["state"] == "confirmed"
            assert answer.body["elsewhere"] == []
            nodes = answer.body["nodes"]
            assert [node["standing"] for node in nodes] == ["activated"] * len(fleet.nodes), nodes
            assert min(late for node in nodes for late in node["late_us"]) >= 0, "activated before the instant"
            skews_ms.append(answer.body["skew_us"] / 1000)
            took_ms.append(answer.body["took_s"] * 1000)
            doubts_ms.append(max(node["clock_error_us"] for node in nodes) / 1000)
    print(
        f"\n{ROLLOUTS} rollouts of {len(fleet.nodes)} nodes at two control planes: confirmed {spread(took_ms)}, "
        f"skew {spread(skews_ms)}, largest doubt of a node's clock {spread(doubts_ms)}; "
        f"{len(load.records)} requests, none lost or doubled"
    )


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_without_any_word_the_others_nodes_are_a_second_behind_at_most(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    async with two_planes(tmp_path, postgres) as fleet, load_on(fleet, rate=200) as load:
        lags_ms = []
        async with fleet.no_words():
            for pause_s in delays(random.Random(4711), SILENT_WRITES, 1.5):
                await asyncio.sleep(pause_s)  # the write comes at any time between two looks
                lags_ms.append(1000 * await written_in_silence(fleet))
        await fleet.settled()
    print(
        f"\n{SILENT_WRITES} plain writes while no notification gets through: the other control plane's node runs them "
        f"later by {spread(lags_ms)}, {max(lags_ms):.1f} ms at most; {len(load.records)} requests, none lost or doubled"
    )
    assert max(lags_ms) <= 1000 * (PostgresSettings().poll_s + APPLY_S)


def spread(values_ms: list[float]) -> str:
    ordered = sorted(values_ms)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {ordered[len(ordered) // 2]:.1f} ms, p99 {p99:.1f} ms"
