"""Goal: versions at hand are all of those asked for or none, and never more than the limits."""

from __future__ import annotations

from control_plane.store.contract import Origin, Version
from control_plane.store.recent import Recent


def version(number: int) -> Version:
    return Version(number, 0.0, Origin(), 1)


def filled(*numbers: int, versions_max: int = 10, text_max: int = 100) -> Recent:
    recent = Recent(versions_max=versions_max, text_max=text_max)
    for number in numbers:
        recent.add(version(number), 10)
    return recent


def numbers(recent: Recent, above: int, *, head: int) -> list[int] | None:
    found = recent.above(above, head=head)
    return None if found is None else [each.number for each in found]


def test_all_above_are_given_in_order_or_none_at_all() -> None:
    recent = filled(3, 4, 5)
    assert numbers(recent, 2, head=5) == [3, 4, 5]
    assert numbers(recent, 4, head=5) == [5]
    assert numbers(recent, 5, head=5) == []
    assert numbers(recent, 7, head=5) == []
    assert numbers(recent, 1, head=5) is None  # 2 is not at hand
    assert numbers(recent, 4, head=6) is None  # nor is 6, which another control plane has committed
    assert numbers(filled(), 0, head=1) is None


def test_versions_of_others_between_leave_only_what_came_after_them() -> None:
    recent = filled(3, 4, 8)
    assert numbers(recent, 7, head=8) == [8]
    assert numbers(recent, 3, head=8) is None


def test_what_is_too_much_goes_oldest_first() -> None:
    assert numbers(filled(1, 2, 3, versions_max=2), 1, head=3) == [2, 3]
    assert numbers(filled(1, 2, 3, versions_max=2), 0, head=3) is None
    assert numbers(filled(1, 2, 3, text_max=20), 1, head=3) == [2, 3]
    recent = filled(1, 2)
    recent.add(version(3), 101)
    assert numbers(recent, 2, head=3) is None
    recent.add(version(4), 10)
    assert numbers(recent, 3, head=4) == [4]
