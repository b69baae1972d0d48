"""What a name resolved to: the one value that crosses from the resolver to the balancer.

The node process resolves and the workers only read, so that a slow nameserver can never hold up a request. An answer is
complete and immutable; a newer one replaces it as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One address of a name; `port` 0 = use the configured port, `weight` 0 = use the target's.

    `name` is that of the host an SRV record points to, else empty.
    """

    ip: str
    port: int = 0
    weight: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """All addresses of `name` in the nameserver's order, or why there is none.

    `records` is never empty when `error` is: a name without addresses says why in Kong's words
    (`dns server error: 3 name error`), because the proxy shows them. `unsteady` = the nameserver says that it is good
    for this moment only (TTL 0): then the name counts as one place, whose weight its addresses share, as in Kong.
    """

    name: str
    records: tuple[Record, ...] = ()
    error: str = ""
    unsteady: bool = False

    @property
    def not_found(self) -> bool:
        """Whether the nameserver said that there is no such name or no address, rather than failing to say anything."""
        return self.error in (NAME_ERROR, EMPTY_ANSWER)


NAME_ERROR = "dns server error: 3 name error"
SERVER_FAILURE = "dns server error: 2 server failure"
EMPTY_ANSWER = "dns client error: 101 empty record received"
NOT_CACHED = "dns client error: 100 cache only lookup failed"
