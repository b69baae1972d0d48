"""What a worker counts about its traffic, as plain sums.

The hot path adds to attributes and does nothing else: no locks (one loop), no label look-ups, no formatting. What is
counted for each route is in `traffic`, for each side of a service in `sides`. The worker copies it all for the node
process, which adds up its workers.
"""

from __future__ import annotations

from data_plane.observe.side_counts import SideBook
from data_plane.observe.traffic import SERIES_MAX, TrafficBook


class Counters:
    """Sums since the worker's start; `*_open` and `in_flight` are levels."""

    __slots__ = (
        "answers_own",
        "attempts_failed",
        "connections_accepted",
        "connections_open",
        "errors_internal",
        "in_flight",
        "requests",
        "requests_malformed",
        "retries",
        "sides",
        "traffic",
        "upstream_connections_open",
        "upstream_connections_opened",
        "upstream_connections_reused",
    )

    def __init__(self, *, series_max: int = SERIES_MAX) -> None:
        self.requests: int = 0
        self.requests_malformed: int = 0
        self.in_flight: int = 0
        self.answers_own: int = 0
        self.attempts_failed: int = 0
        self.retries: int = 0
        self.errors_internal: int = 0
        self.connections_accepted: int = 0
        self.connections_open: int = 0
        self.upstream_connections_open: int = 0
        self.upstream_connections_opened: int = 0
        self.upstream_connections_reused: int = 0
        self.traffic = TrafficBook(series_max)
        self.sides = SideBook()
