"""Goal: nodes that lost their control plane come back spread out, and never hammer it. Method: seeded draws."""

from __future__ import annotations

import random

from typing_extensions import override

from data_plane.node.reconnect import Reconnect, ReconnectSettings

SETTINGS = ReconnectSettings(base_s=0.2, cap_s=30.0, stable_s=60.0, refused_s=300.0)


class Highest(random.Random):
    """Draws the end of every span."""

    @override
    def uniform(self, a: float, b: float) -> float:
        assert a <= b
        return b


def test_the_span_doubles_up_to_its_cap() -> None:
    waits = Reconnect(SETTINGS, Highest())
    spans = [waits.after_loss(connected_s=0.0) for _ in range(10)]
    assert spans == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


def test_a_stable_connection_ends_the_growth_and_a_short_one_does_not() -> None:
    waits = Reconnect(SETTINGS, Highest())
    for _ in range(5):
        waits.after_loss(connected_s=0.0)
    assert waits.after_loss(connected_s=59.0) == 6.4
    assert waits.after_loss(connected_s=60.0) == 0.2


def test_waits_are_drawn_from_the_whole_span() -> None:
    draws = []
    for seed in range(400):
        waits = Reconnect(SETTINGS, random.Random(seed))
        for _ in range(5):
            waits.after_loss(connected_s=0.0)
        draws.append(waits.after_loss(connected_s=0.0) / 6.4)
    for quarter in range(4):
        share = sum(quarter / 4 <= draw < (quarter + 1) / 4 for draw in draws) / len(draws)
        assert 0.15 < share < 0.35


def test_the_window_of_a_goodbye_is_obeyed_within_reason() -> None:
    waits = Reconnect(SETTINGS, random.Random(1))
    for _ in range(100):
        assert 5.0 <= waits.after_goodbye(min_s=5.0, max_s=8.0) <= 8.0
    assert waits.after_goodbye(min_s=1e9, max_s=1e9) == 3600.0
    assert waits.after_goodbye(min_s=-5.0, max_s=-9.0) == 0.0


def test_a_permanent_refusal_is_knocked_at_rarely() -> None:
    waits = Reconnect(SETTINGS, random.Random(1))
    assert all(240.0 <= waits.after_refusal() <= 360.0 for _ in range(100))
