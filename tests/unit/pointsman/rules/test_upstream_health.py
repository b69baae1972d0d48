"""The matrix of Kong's upstream threshold (four addresses of weight 25)."""

from __future__ import annotations

import pytest

from pointsman.rules.upstream_health import is_usable

THRESHOLDS = (0, 25, 75, 99, 100)


@pytest.mark.parametrize(
    ("available", "usable"),
    [(100, "HHHHH"), (75, "HHUUU"), (50, "HHUUU"), (25, "HUUUU"), (0, "UUUUU")],
)
def test_the_matrix(available: int, usable: str) -> None:
    assert "".join("H" if is_usable(available, 100, threshold) else "U" for threshold in THRESHOLDS) == usable


def test_no_weight_is_no_use() -> None:
    assert not is_usable(0, 0, 0)
