"""Plain changes of ten real nodes under traffic, at 10 and at 10,000 entities. Prints the figures.

The moment a PATCH with `Prefer: wait` is answered, every node serves the new side: the first request to each says so.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.changes import measure


@pytest.mark.prove
@pytest.mark.timeout(900)
@pytest.mark.parametrize("entities", [10, 10_000])
async def test_a_change_is_everywhere_when_it_is_answered(tmp_path: Path, entities: int) -> None:
    figures = await measure(tmp_path, nodes=10, entities=entities, changes=200, rate=200.0)
    print(f"\n{json.dumps(figures, indent=2)}")
    assert figures["of_these_by_the_new_side"] == figures["first_requests_after_the_answer"] == 2000
    assert figures["requests_lost"] == 0
