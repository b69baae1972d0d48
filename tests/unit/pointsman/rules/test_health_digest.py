"""The digest depends on what a table holds and on nothing else: not on order, not on how it came about."""

from __future__ import annotations

import random

import pytest

from pointsman.rules.health_digest import AddressRow, TableDigest, clipped, row_digest


def row(upstream: str = "u", target: str = "t", *addresses: AddressRow, error: str = "", record: str = "A") -> int:
    return row_digest(upstream, target, error=error, record_type=record, addresses=addresses)


FIRST: AddressRow = ("10.0.0.1", 80, 100, 1, 1_700_000_000)
SECOND: AddressRow = ("10.0.0.2", 80, 100, 1, 1_700_000_000)


def test_the_order_of_addresses_does_not_matter() -> None:
    assert row("u", "t", FIRST, SECOND) == row("u", "t", SECOND, FIRST)


@pytest.mark.parametrize(
    "changed",
    [
        ("10.0.0.9", 80, 100, 1, 1_700_000_000),
        ("10.0.0.1", 81, 100, 1, 1_700_000_000),
        ("10.0.0.1", 80, 101, 1, 1_700_000_000),
        ("10.0.0.1", 80, 100, 2, 1_700_000_000),
        ("10.0.0.1", 80, 100, 1, 1_700_000_001),
    ],
)
def test_each_fact_of_an_address_matters(changed: AddressRow) -> None:
    assert row("u", "t", changed) != row("u", "t", FIRST)


def test_names_errors_and_record_types_matter() -> None:
    rows = [row(), row("v"), row("u", "s"), row(error="3 name error"), row(record="SRV")]
    assert len(set(rows)) == len(rows)


def test_two_targets_that_trade_places_change_the_sum() -> None:
    for port in range(1, 200):
        table: TableDigest[str] = TableDigest()
        up, down = ("10.0.0.1", port, 100, 1, 5), ("10.0.0.1", port, 100, 2, 5)
        table.put("a", row("u", "a", up))
        table.put("b", row("u", "b", down))
        before = table.value
        table.put("a", row("u", "a", down))
        table.put("b", row("u", "b", up))
        assert table.value != before


def test_a_table_s_digest_does_not_tell_how_it_came_about() -> None:
    rng = random.Random(7)
    table: TableDigest[str] = TableDigest()
    held: dict[str, int] = {}
    for _ in range(500):
        key = str(rng.randrange(20))
        if rng.random() < 0.3:
            table.remove(key)
            held.pop(key, None)
        else:
            held[key] = row("u", key, ("10.0.0.1", rng.randrange(9), 1, 1, 1))
            table.put(key, held[key])
        fresh: TableDigest[str] = TableDigest()
        for name in sorted(held):
            fresh.put(name, held[name])
        assert table.value == fresh.value


def test_only_an_empty_table_is_zero() -> None:
    table: TableDigest[str] = TableDigest()
    assert table.value == 0
    table.put("a", 0)
    assert table.value != 0
    table.clear()
    assert table.value == 0


def test_odd_texts_count_as_they_are_kept() -> None:
    assert clipped("a\nb") == "a?b"
    assert row(error="x" * 300) == row(error="x" * 255)
    assert row(error="a\nb") == row(error="a?b")
