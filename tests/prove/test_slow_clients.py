"""2,000 slow connections of four kinds beside 500 good requests a second for a minute. Prints its figures."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from tests.support import slow_and_good

SLOW = 2000
RATE = 500
SECONDS = 60
NODE_MIB_MAX = 300
FILES_NEEDED = 6000


@pytest.mark.prove
@pytest.mark.timeout(300)
async def test_two_thousand_slow_connections_cost_good_requests_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES_NEEDED:
        pytest.skip(f"needs {FILES_NEEDED} open files; this machine allows {hard}")
    if soft != resource.RLIM_INFINITY and soft < FILES_NEEDED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES_NEEDED, hard))
    outcome = await slow_and_good.run(tmp_path, slow=SLOW, rate=RATE, seconds=SECONDS)
    print(
        f"\nsent {outcome.sent}, lost {len(outcome.problems)}, p99 {outcome.p99_ms:.1f} ms "
        f"({outcome.p99_settled_ms:.1f} after the first seconds), slow connections open "
        f"{outcome.slow_open}, node {outcome.node_mib:.0f} MiB, worker {outcome.worker_mib:.0f} MiB"
    )
    assert outcome.problems == []
    assert outcome.sent >= RATE * SECONDS * 0.95
    assert outcome.slow_open >= SLOW * 0.9
    assert outcome.node_mib < NODE_MIB_MAX
