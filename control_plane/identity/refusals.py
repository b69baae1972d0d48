"""Who was not let in as a node, and why: what an operator looks for when a node does not appear.

The list is of this process, and bounded: whoever can reach the fleet link can add to it.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from control_plane.entities.types import EntityBody

log = logging.getLogger(__name__)

KEPT_MAX = 256
"""Refused callers that are kept, by node id, address and reason; those heard of last."""
TEXT_CHARS_MAX = 256


class Refusal(StrEnum):
    """Why somebody is not let in; also the `reason` of the counter."""

    UNKNOWN_TOKEN = "unknown_token"  # noqa: S105 - a reason, no password
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason, no password
    TOKEN_USED_UP = "token_used_up"  # noqa: S105 - a reason, no password
    TOKEN_REVOKED = "token_revoked"  # noqa: S105 - a reason, no password
    WRONG_CLUSTER = "wrong_cluster"
    NODE_REVOKED = "node_revoked"
    UNKNOWN_NODE = "unknown_node"
    ID_TAKEN = "id_taken"
    OTHER_NODE = "other_node"
    EXPIRED = "certificate_expired"
    BAD_NAME = "bad_name"
    NOT_PINNED = "not_pinned"
    BAD_REQUEST = "bad_request"
    TOO_MANY = "too_many"
    NODE_TOO_OLD = "node_too_old"
    NODE_TOO_NEW = "node_too_new"
    BAD_HELLO = "bad_hello"


class NotLetIn(Exception):
    """Somebody is refused; the text says why and what to do."""

    def __init__(self, refusal: Refusal, message: str) -> None:
        super().__init__(message)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class RefusedCaller:
    """One caller that was refused for one reason. Texts are the caller's own and prove nothing; times as in `wall`."""

    node_id: str  # as it called itself; empty = it did not get that far
    address: str
    hostname: str
    software: str
    refusal: Refusal
    message: str
    times: int
    first_at: float
    last_at: float

    def to_json(self) -> EntityBody:
        """For operators."""
        return {
            "node_id": self.node_id,
            "address": self.address,
            "hostname": self.hostname,
            "software": self.software,
            "reason": self.refusal.value,
            "message": self.message,
            "times": self.times,
            "first_at": self.first_at,
            "last_at": self.last_at,
        }


class Refusals:
    """Counts refusals, logs them and keeps the last ones. `wall` is seconds since the epoch."""

    def __init__(self, *, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._kept: OrderedDict[tuple[str, str, Refusal], RefusedCaller] = OrderedDict()
        self.counts: Counter[Refusal] = Counter()

    def note(
        self,
        refused: NotLetIn,
        what: str,
        *,
        node_id: str = "",
        address: str = "",
        hostname: str = "",
        software: str = "",
    ) -> None:
        """Somebody was refused. `what` names the attempt for the log; the other texts are what the caller said."""
        self.counts[refused.refusal] += 1
        log.warning("%s is refused: %s", what, refused, extra={"reason": refused.refusal.value})
        now = self._wall()
        node_id = node_id[:TEXT_CHARS_MAX]
        key = (node_id, address, refused.refusal)
        known = self._kept.pop(key, None)
        self._kept[key] = (
            RefusedCaller(
                node_id,
                address,
                hostname[:TEXT_CHARS_MAX],
                software[:TEXT_CHARS_MAX],
                refused.refusal,
                str(refused),
                times=1,
                first_at=now,
                last_at=now,
            )
            if known is None
            else replace(known, message=str(refused), times=known.times + 1, last_at=now)
        )
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def forget(self, node_id: str) -> None:
        """This node was let in: what kept it out is over."""
        for key in [key for key in self._kept if key[0] == node_id]:
            del self._kept[key]

    def newest_first(self) -> Sequence[RefusedCaller]:
        """All that are kept."""
        return tuple(reversed(self._kept.values()))
