"""Who goes where in a split: counted out exactly, or by what a client brings along. Pure."""

from __future__ import annotations

import random
from typing import final

import xxhash

SHARE_MAX = 10_000
"""All requests; shares are in ten-thousandths."""


@final
class Turn:
    """Counts out a share of requests: of any 10,000 consecutive ones exactly `share` are taken, as evenly as can be.

    The error of one decision is carried to the next. It stays when the share changes, so that a canary which grows in
    small steps is exact over all of them, and no step begins with a burst.
    """

    __slots__ = ("_owed",)

    def __init__(self, rng: random.Random) -> None:
        self._owed = rng.randrange(SHARE_MAX)

    def taken(self, share: int) -> bool:
        """Tell whether the next request belongs to the share."""
        owed = self._owed + share
        if owed >= SHARE_MAX:
            self._owed = owed - SHARE_MAX
            return True
        self._owed = owed
        return False


def in_share(service: str, key: bytes, share: int) -> bool:
    """Tell whether a client with that key belongs to the share; the same on every node, for as long as it exists.

    A key has one place among the 10,000, so a share that grows only takes keys in, and one that shrinks lets go of
    those that it took in last. The service is part of it: who is early in one canary is not in all of them.
    """
    return xxhash.xxh64_intdigest(service.encode() + b"\0" + key) % SHARE_MAX < share
