"""A mapping whose copies share what they don't change, small and large."""

from __future__ import annotations

import pytest

from data_plane.sharded import SINGLE_MAX, Sharded

SIZES = [0, 3, SINGLE_MAX, SINGLE_MAX + 1, 5000]


@pytest.mark.parametrize("size", SIZES)
def test_a_copy_is_changed_alone(size: int) -> None:
    first = Sharded({f"k{number}": number for number in range(size)})
    second = first.copy()
    second.put("new", -1)
    for number in range(0, size, 7):
        second.put(f"k{number}", -number)
    if size:
        assert second.drop("k1") == 1
    assert dict(first) == {f"k{number}": number for number in range(size)}
    expected = {f"k{number}": -number if number % 7 == 0 else number for number in range(size)} | {"new": -1}
    expected.pop("k1", None)
    assert dict(second) == expected
    assert len(second) == len(expected)
    assert second.get("k1") is None
    assert "k1" not in second


@pytest.mark.parametrize("size", SIZES)
def test_what_a_successor_shares_outlives_its_predecessor(size: int) -> None:
    first = Sharded({number: str(number) for number in range(size)})
    second = first.copy()
    second.put(1, "one")
    expected = dict(second)
    steps = sum(1 for _ in first.release(second))
    assert dict(second) == expected
    assert steps <= 2 + SINGLE_MAX // 16, "only what is not shared is taken apart"
    for _ in second.release(None):
        pass
    assert not second


def test_an_entry_that_is_not_there_cannot_be_dropped() -> None:
    with pytest.raises(KeyError):
        Sharded({1: 1}).drop(2)
