"""How often something happened and how long it took in all: what a summary in `/metrics` is made of."""

from __future__ import annotations


class Times:
    """`count` durations of `total_s` together."""

    __slots__ = ("count", "total_s")

    def __init__(self) -> None:
        self.count = 0
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Note one duration."""
        self.count += 1
        self.total_s += seconds
