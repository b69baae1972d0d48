"""The long ledger: a hundred switches of three nodes at a thousand requests a second. Prints its figures.

`python -m tests.support.ledger --nodes 3 --switches 100 --rate 1000` is the same run by hand; docs/benchmarks.md keeps
the figures of one.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import ledger


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_a_hundred_switches_at_a_thousand_requests_a_second_lose_nothing(tmp_path: Path) -> None:
    result = await ledger.run(tmp_path, nodes=3, workers=1, switches=100, rate=1000, pause_s=0.5)
    print("\n" + ledger.report(result))
    assert result.failures == []
    assert len(result.switches) == 100
    assert result.answered_once == result.sent > 50_000
