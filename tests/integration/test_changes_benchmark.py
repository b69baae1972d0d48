"""`python -m benchmarks.changes` runs, small: its figures at full size are in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.changes import measure


async def test_the_first_request_after_the_answer_is_served_by_the_new_side(tmp_path: Path) -> None:
    figures = await measure(tmp_path, nodes=2, entities=10, changes=3, rate=50.0, beside_s=0.5)
    assert figures["first_requests_after_the_answer"] == figures["of_these_by_the_new_side"] == 6
    assert figures["requests_lost"] == 0
    spent = figures["spent_per_change"]
    assert isinstance(spent, dict)
    assert spent.keys() == {"control plane", "node processes", "workers"}
