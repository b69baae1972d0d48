"""The configuration a worker serves by, as plain values.

Made from the wire by `data_plane/worker/decode.py`, read by the router, the balancer and the proxy. Values here are
immutable and hold no live state: what outlives a swap (round-robin position, in-flight counts, idle connections)
lives in objects keyed by the ids found here. Texts that meet request bytes are bytes already.
"""

from __future__ import annotations

import enum
from dataclasses import field

from data_plane.values import value


@value
class HeaderCondition:
    """One header a route or probe names: `name` as configured, any of `values` may match."""

    name: str
    values: tuple[str, ...]


@value
class PeerCondition:
    """A source or destination of a stream route; None = any."""

    ip: str | None
    port: int | None


@value
class RouteConfig:
    """A route as the operator wrote it, defaults filled in."""

    id: str
    name: str = ""
    protocols: tuple[str, ...] = ("http", "https")
    methods: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    headers: tuple[HeaderCondition, ...] = ()
    snis: tuple[str, ...] = ()
    sources: tuple[PeerCondition, ...] = ()
    destinations: tuple[PeerCondition, ...] = ()
    https_redirect_status_code: int = 426
    regex_priority: int = 0
    strip_path: bool = True
    path_handling: str = "v0"
    preserve_host: bool = False
    request_buffering: bool = True
    response_buffering: bool = True
    service: str = ""
    created_at: int = 0


@value
class ServiceConfig:
    """A service; timeouts in seconds, `retries` = attempts - 1, `path` empty = none."""

    id: str
    name: str = ""
    protocol: str = "http"
    host: str = ""
    port: int = 80
    path: str = ""
    retries: int = 5
    connect_timeout_s: float = 60.0
    write_timeout_s: float = 60.0
    read_timeout_s: float = 60.0
    tls_verify: bool | None = None
    tls_verify_depth: int | None = None
    ca_certificates: tuple[str, ...] = ()
    client_certificate: str = ""


@value
class Thresholds:
    """Half of a health check: consecutive results that flip the verdict; 0 = never."""

    interval_s: float = 0.0
    http_statuses: frozenset[int] = frozenset()
    successes: int = 0
    tcp_failures: int = 0
    timeouts: int = 0
    http_failures: int = 0


@value
class ActiveCheck:
    """Probes sent by the node process; `timeout_s` per probe."""

    type: str = "http"
    timeout_s: float = 1.0
    concurrency: int = 10
    http_path: str = "/"
    https_sni: str = ""
    https_verify_certificate: bool = True
    headers: tuple[HeaderCondition, ...] = ()
    healthy: Thresholds = field(default_factory=Thresholds)
    unhealthy: Thresholds = field(default_factory=Thresholds)


@value
class PassiveCheck:
    """Judgement of proxied traffic."""

    type: str = "http"
    healthy: Thresholds = field(default_factory=Thresholds)
    unhealthy: Thresholds = field(default_factory=Thresholds)


@value
class Healthchecks:
    """`threshold` = percent of the weight that must be available for the upstream to be used."""

    threshold: float = 0.0
    active: ActiveCheck = field(default_factory=ActiveCheck)
    passive: PassiveCheck = field(default_factory=PassiveCheck)


@value
class UpstreamConfig:
    """A named pool of targets and how to choose among them."""

    id: str
    name: str
    algorithm: str = "round-robin"
    hash_on: str = "none"
    hash_fallback: str = "none"
    hash_on_header: str = ""
    hash_fallback_header: str = ""
    hash_on_cookie: str = ""
    hash_on_cookie_path: str = "/"
    hash_on_query_arg: str = ""
    hash_fallback_query_arg: str = ""
    hash_on_uri_capture: str = ""
    hash_fallback_uri_capture: str = ""
    slots: int = 10000
    host_header: str = ""
    client_certificate: str = ""
    use_srv_name: bool = False
    healthchecks: Healthchecks = field(default_factory=Healthchecks)
    sticky_sessions_cookie: str = ""
    sticky_sessions_cookie_path: str = "/"
    slow_start_s: float = 0.0
    """From the upstream's settings: how long a new or recovered endpoint takes to its full share; 0 = at once."""


@value
class TargetConfig:
    """`host` without brackets, `port`, and the weight as written; 0 = kept but given nothing.

    A `failover` target is used only while no regular target of the upstream is available.
    """

    id: str
    upstream: str
    host: str
    port: int
    weight: int = 100
    failover: bool = False


class ProbeSampling(enum.Enum):
    """Who probes the targets of an upstream: `AUTO` leaves it to the control plane, by the size of the fleet."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


@value
class ManualHealth:
    """An operator's word on a target (`ip` empty) or one of its addresses.

    `until` is in seconds since 1970; 0 = until it is lifted.
    """

    target: str
    ip: str
    port: int
    healthy: bool
    until: int


@value
class UpstreamSettings:
    """Our own settings of an upstream, beyond Kong's entity; `id` is the upstream's."""

    id: str
    slow_start_s: float = 0.0
    probe_sampling: ProbeSampling = ProbeSampling.AUTO
    manual_health: tuple[ManualHealth, ...] = ()


@value
class Sticky:
    """What keeps a client on its side of a split: an upstream's kind of hash input (`hash_on`), and its name if any."""

    on: str
    name: str = ""


@value
class Split:
    """`share` ten-thousandths of the requests go to the upstream `to` (its id) instead of the service's host."""

    to: str
    share: int
    sticky: Sticky | None = None


@value
class Preview:
    """Requests with `value` in the header or the cookie of that name go to the upstream `to`; empty = none such."""

    to: str
    header: str
    cookie: str
    value: str


@value
class Mirror:
    """`share` ten-thousandths of the primary side's requests are sent to the upstream `to`, too."""

    to: str
    share: int


@value
class ServiceSettings:
    """Our own settings of a service, beyond Kong's entity; `id` is the service's.

    `fence_after_s` is how long a node serves it without a control plane; None = as long as it likes. After
    `drain_deadline_s` what is open on an upstream that the service has left is closed; None = never.
    """

    id: str
    fence_after_s: float | None = None
    split: Split | None = None
    preview: Preview | None = None
    mirror: Mirror | None = None
    drain_deadline_s: float | None = None

    def upstreams(self) -> tuple[str, ...]:
        """Ids of the upstreams that requests are sent to besides the service's host."""
        return tuple(side.to for side in (self.split, self.preview, self.mirror) if side is not None)


@value
class CertificateConfig:
    """What is shown in a handshake, as PEM; the second pair has a key of another type. Empty = none.

    Keys stay out of the representation, so that no log or traceback can hold one.
    """

    id: str
    cert: str
    key: str = field(repr=False)
    cert_alt: str = ""
    key_alt: str = field(default="", repr=False)


@value
class SniConfig:
    """A name as configured (exact, `*.x`, `x.*` or `*`) and the id of the certificate that is shown for it."""

    id: str
    name: str
    certificate: str


@value
class CaCertificateConfig:
    """An authority whose signatures are believed, as PEM."""

    id: str
    cert: str
