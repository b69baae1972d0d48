"""An endpoint: a resolved socket address of a target, with its live state; and why there may be none."""

from __future__ import annotations

import enum
from collections import deque
from typing import Any

from typing_extensions import override

RING_BALANCER = "failure to get a peer from the ring-balancer"
NAME_RESOLUTION = "name resolution failed"


class Endpoint:
    """One address that requests can be sent to.

    `key` identifies it within its balancer for as long as target and address stay: weight and entity ids are not part
    of it, so editing them loses nothing. `host` is the name as the operator wrote it (without brackets), or, with
    `use_srv_name`, the name an SRV record points to; it goes upstream as Host. `weight`, `target_id` and `failover`
    follow the configuration. `upstream` is the id of the upstream it belongs to, empty for a direct host. `available`
    is written by `Upstream` only. `in_flight` counts attempts of this worker between `take` and `release`. `idle`
    belongs to the proxy, which keeps its idle connections there. A `retired` endpoint is picked no more and never comes
    back: an address that returns is a new endpoint.
    """

    __slots__ = (
        "address",
        "available",
        "failover",
        "host",
        "idle",
        "in_flight",
        "ip",
        "key",
        "port",
        "retired",
        "target_id",
        "upstream",
        "weight",
    )

    def __init__(
        self, *, key: str, ip: str, port: int, host: str, weight: int, target_id: str = "", upstream: str = ""
    ) -> None:
        self.key = key
        self.ip = ip
        self.port = port
        self.host = host
        self.weight = weight
        self.target_id = target_id
        self.upstream = upstream
        self.failover = False
        self.address: tuple[str, int] = (ip, port)
        self.available = True
        self.in_flight = 0
        self.idle: deque[Any] = deque()  # of a kind that this package does not know
        self.retired = False

    @override
    def __repr__(self) -> str:
        return f"<Endpoint {self.key} weight={self.weight} available={self.available}>"


def endpoint_key(host: str, target_port: int, ip: str, port: int) -> str:
    """Return what identifies an address of a target: both planes and all workers make the same one.

    The target's name is part of it, because two names on one address are two endpoints with a verdict and a Host each.
    """
    written = f"[{host}]:{target_port}" if ":" in host else f"{host}:{target_port}"
    resolved = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
    return written if written == resolved else f"{written}/{resolved}"


class Reason(enum.Enum):
    """Why no endpoint can be picked."""

    NAME_FAILED = "the nameserver knows no address of the name"
    NAME_UNKNOWN = "the name could not be resolved"
    NO_TARGETS = "the upstream has no target with an address and a weight"
    ALL_UNAVAILABLE = "too much of the upstream's weight is unavailable"


class NoEndpoint(Exception):
    """Nothing to send the request to; `status` and `message` answer a request that was not sent anywhere yet."""

    def __init__(self, reason: Reason, *, host: str = "", error: str = "") -> None:
        self.reason = reason
        match reason:
            case Reason.NAME_FAILED:
                self.status = 503
                self.message = NAME_RESOLUTION
            case Reason.NAME_UNKNOWN:
                self.status = 500
                self.message = f"failed the initial dns/balancer resolve for '{host}' with: {error}"
            case Reason.NO_TARGETS | Reason.ALL_UNAVAILABLE:
                self.status = 503
                self.message = RING_BALANCER
        super().__init__(f"{reason.value}: {self.message}")
