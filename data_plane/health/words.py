"""Kong's words for health, as its Admin API says them of addresses, targets and upstreams."""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Word(enum.Enum):
    """`DNS_ERROR` is said of targets only, and takes precedence over all others."""

    HEALTHY = "HEALTHY"
    UNHEALTHY = "UNHEALTHY"
    HEALTHCHECKS_OFF = "HEALTHCHECKS_OFF"
    DNS_ERROR = "DNS_ERROR"


def target_word(addresses: Sequence[Word]) -> Word:
    """Return a target's word from those of its addresses: one healthy address makes it healthy."""
    if not addresses:
        return Word.DNS_ERROR
    for word in (Word.HEALTHY, Word.UNHEALTHY):
        if word in addresses:
            return word
    return Word.HEALTHCHECKS_OFF


def upstream_word(*, checking: bool, usable: bool) -> Word:
    """Return an upstream's word; `usable` is what the balancer goes by (its `balancer_health`)."""
    if not checking:
        return Word.HEALTHCHECKS_OFF
    return Word.HEALTHY if usable else Word.UNHEALTHY
