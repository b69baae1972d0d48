"""docs/reference/metrics.md says what there is."""

from __future__ import annotations

from pathlib import Path

from tests.support.metrics_reference import reference

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


def test_the_reference_is_current() -> None:
    command = f"python -m tests.support.metrics_reference > docs/reference/{DOCUMENT.name}"
    assert DOCUMENT.read_text() == reference(), f"run `{command}`"
