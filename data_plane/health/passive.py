"""What of its traffic a worker reports: outcomes that could ever count by an upstream's passive checks, and no others.

With Kong's defaults most answers count for nothing, because successes have no threshold; reporting them would only
cost.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import assert_never

from data_plane.health.verdicts import checking_enabled
from data_plane.model import Healthchecks


class Sighting(enum.Enum):
    """How an attempt ended: with an answer's status, or without one."""

    STATUS = "status"
    TCP_FAILURE = "tcp failure"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class PassiveFilter:
    """Which sightings count for or against an endpoint of an upstream."""

    statuses: frozenset[int]
    tcp_failures: bool
    timeouts: bool

    @classmethod
    def of(cls, checks: Healthchecks) -> PassiveFilter | None:
        """The filter of these checks; None when nothing counts."""
        healthy, unhealthy = checks.passive.healthy, checks.passive.unhealthy
        statuses: frozenset[int] = frozenset()
        if healthy.successes:
            statuses |= healthy.http_statuses
        if unhealthy.http_failures:
            statuses |= unhealthy.http_statuses - healthy.http_statuses
        made = cls(statuses, bool(unhealthy.tcp_failures), bool(unhealthy.timeouts))
        if not checking_enabled(checks) or not (statuses or made.tcp_failures or made.timeouts):
            return None
        return made

    def counts(self, sighting: Sighting, status: int) -> bool:
        """Tell whether it is to be reported."""
        match sighting:
            case Sighting.STATUS:
                return status in self.statuses
            case Sighting.TCP_FAILURE:
                return self.tcp_failures
            case Sighting.TIMEOUT:
                return self.timeouts
            case _:
                assert_never(sighting)
