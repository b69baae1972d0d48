"""The long proof of two coordinators: one of them killed, stopped or split from PostgreSQL, again and again.

`make prove ONLY=two_coordinators` prints what docs/benchmarks.md keeps of one run.
"""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer
from tests.support.rollouts import delays
from tests.support.two_planes import FATES, STATES, load_on, strike, two_planes, until_first_has_its_nodes

TRIALS = 20


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
