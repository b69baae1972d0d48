"""One endpoint's health: four states, four counters, and what an event makes of them.

    healthy          --failure-->  mostly healthy
    unhealthy        --success-->  mostly unhealthy
    any but healthy    --enough successes-->             healthy
    any but unhealthy  --enough failures of one kind-->  unhealthy

The "mostly" states are where counting goes on; only the outer two follow from a threshold. A success forgets all
failures, a failure forgets the successes, and kinds of failures do not add up. Active and passive results share the
counters, as in Kong; only their thresholds differ.
"""

from __future__ import annotations

import enum

COUNT_MAX = 255
"""Thresholds go up to here, so counting further would change nothing."""


class State(enum.Enum):
    """Where an endpoint stands; the first two are available."""

    HEALTHY = "healthy"
    MOSTLY_HEALTHY = "mostly_healthy"
    MOSTLY_UNHEALTHY = "mostly_unhealthy"
    UNHEALTHY = "unhealthy"


class Event(enum.Enum):
    """What was seen of an endpoint."""

    SUCCESS = "success"
    HTTP = "http"
    TCP = "tcp"
    TIMEOUT = "timeout"


class EndpointHealth:
    """State and counters of one endpoint. Begins healthy: an endpoint is innocent until seen failing."""

    __slots__ = ("http", "state", "success", "tcp", "timeout")

    def __init__(self) -> None:
        self.state = State.HEALTHY
        self.success = 0
        self.http = 0
        self.tcp = 0
        self.timeout = 0

    @property
    def available(self) -> bool:
        return self.state in (State.HEALTHY, State.MOSTLY_HEALTHY)

    def observe(self, event: Event, limit: int) -> bool:
        """Count one event against its source's threshold; True when that changed `available`.

        A limit of 0 switches that kind of event off: it counts nothing and resets nothing.
        """
        if limit == 0:
            return False
        before = self.available
        if event is Event.SUCCESS:
            if self.state is State.HEALTHY:
                return False
            self.success = min(self.success + 1, COUNT_MAX)
            self.http = self.tcp = self.timeout = 0
            if self.success >= limit:
                self.state = State.HEALTHY
            elif self.state is State.UNHEALTHY:
                self.state = State.MOSTLY_UNHEALTHY
        else:
            if self.state is State.UNHEALTHY:
                return False
            count = self._count_failure(event)
            self.success = 0
            if count >= limit:
                self.state = State.UNHEALTHY
            elif self.state is State.HEALTHY:
                self.state = State.MOSTLY_HEALTHY
        return self.available != before

    def put(self, *, available: bool) -> bool:
        """Set the verdict by hand and begin counting anew; True when that changed `available`.

        It freezes nothing: later events count as ever.
        """
        before = self.available
        self.state = State.HEALTHY if available else State.UNHEALTHY
        self.success = self.http = self.tcp = self.timeout = 0
        return available != before

    def _count_failure(self, event: Event) -> int:
        if event is Event.HTTP:
            self.http = min(self.http + 1, COUNT_MAX)
            return self.http
        if event is Event.TCP:
            self.tcp = min(self.tcp + 1, COUNT_MAX)
            return self.tcp
        self.timeout = min(self.timeout + 1, COUNT_MAX)
        return self.timeout
