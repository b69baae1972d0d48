"""`python -m benchmarks.stalls` runs, small: its figures at full size are in docs/benchmarks.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.stalls import measure


async def test_one_change_is_a_small_frame(tmp_path: Path) -> None:
    figures = await measure(tmp_path, entities=2_000, changes=2)
    wire = figures["bytes_to_the_node"]
    assert isinstance(wire, dict)
    assert 0 < wire["max"] <= 4096
    assert set(figures) >= {"worker_stall", "node_process_stall", "restart", "published_to_applied_s"}
