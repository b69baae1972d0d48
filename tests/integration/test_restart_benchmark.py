"""`python -m benchmarks.restart` runs, small: its figures at full size are in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.restart import measure


async def test_starts_are_measured(tmp_path: Path) -> None:
    (start,) = await measure(tmp_path, entities=20, runs=1, workers=1)
    assert start.serves_after_s > 0
    assert start.node_cpu_s > 0
    assert start.workers_cpu_s > 0
    assert start.worker_mib > 0
