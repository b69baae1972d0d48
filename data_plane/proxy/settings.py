"""Limits and names of the traffic port, read once at start.

Defaults are Kong's where Kong has the setting (its key is named in brackets). All times are seconds, all sizes bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

STREAM_BYTES = 65536
"""What is held of a body that streams while nobody takes it; bodies up to this size are always gathered."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """What an operator may set about the traffic port."""

    product: str = "kong/3.10.0"
    """Token in `Via` and `Server`. Kong's, because tools and tests of Kong users look for it."""

    trusted_ips: tuple[IPv4Network | IPv6Network, ...] = ()
    """Peers whose `X-Forwarded-*` and real-IP headers are believed [trusted_ips]. Default: nobody."""
    real_ip_header: str = "X-Real-IP"
    """Where a trusted peer names the client [real_ip_header]."""
    real_ip_recursive: bool = False
    """Take the last address that is not trusted, rather than the last one [real_ip_recursive]."""

    port_maps: tuple[tuple[int, int], ...] = ()
    """Ports of listeners that clients know by another number: (inside, outside) [port_maps]. Matching, what is
    forwarded and the log go by the one outside."""

    server: bool = True
    """Send `Server` with own answers, and with an upstream's that has none [headers]."""
    via: bool = True
    """Send `Via` to clients [headers]."""
    upstream_latency: bool = True
    """Send `X-Kong-Upstream-Latency` [headers]."""
    proxy_latency: bool = True
    """Send `X-Kong-Proxy-Latency` [headers]."""
    response_latency: bool = True
    """Send `X-Kong-Response-Latency` with answers that no upstream had a part in [headers]."""
    upstream_status: bool = False
    """Send `X-Kong-Upstream-Status` with an upstream's answers [headers]."""
    request_id_downstream: bool = True
    """Send `X-Kong-Request-Id` to clients [headers]."""
    allow_debug_header: bool = False
    """Tell a request with `Kong-Debug` which route and service it got [allow_debug_header]."""
    request_id_upstream: bool = True
    """Send `X-Kong-Request-Id` to upstreams [headers_upstream]."""

    request_line_bytes_max: int = 8192
    """Longer request lines are answered 414 [nginx_http_large_client_header_buffers]."""
    header_line_bytes_max: int = 8192
    """One field; beyond it 400 with Kong's text for 494 [nginx_http_large_client_header_buffers]."""
    head_bytes_max: int = 32768
    """Request line and fields together; beyond it as above."""
    header_count_max: int = 1000
    """Fields of a request; beyond it 431. nginx has the limit from 1.29.8 on."""
    body_bytes_max: int = 0
    """Request bodies; 0 = unlimited [nginx_http_client_max_body_size]. Beyond it 413."""
    chunk_extension_bytes_max: int = 16384
    """All chunk extensions of one body together; they are dropped, and bounded so that they can't hide a flood."""
    trailer_bytes_max: int = 8192
    """All trailer fields of one body together."""
    replay_bytes_max: int = 1 << 20
    """A body up to this size is gathered before the first attempt when the route buffers requests, so that attempts
    can be repeated; larger ones stream and are sent once (Kong spills them to disk instead)."""
    replay_total_bytes_max: int = 64 << 20
    """Memory of a worker for gathered bodies above `STREAM_BYTES`; what finds none left streams."""

    response_head_bytes_max: int = 65536
    """Head of an upstream's answer; beyond it 502."""
    write_buffer_bytes_max: int = 65536
    """Bytes waiting for a slow reader, either side, above which the other side is no longer read."""

    head_timeout_s: float = 60.0
    """From the first byte of a request head to its end; beyond it 408 [client_header_timeout]."""
    body_idle_timeout_s: float = 60.0
    """Silence inside a request body; beyond it 408 or, once an attempt has begun, the end [client_body_timeout]."""
    body_rate_min_bytes: int = 50
    """Octets a second that a request body must bring, over any 20 s; slower ones are answered 408. 0 = any. Not asked
    where the route doesn't buffer requests, since those may be streams with pauses."""
    keepalive_timeout_s: float = 75.0
    """Silence between two requests; beyond it the connection is closed [keepalive_timeout]."""
    keepalive_requests_max: int = 10000
    """Requests on one client connection; the last answer carries `Connection: close` [keepalive_requests]; 0 = any."""
    send_timeout_s: float = 60.0
    """A client that takes nothing of a waiting answer for this long is cut off [send_timeout]."""
    drain_bytes_max: int = 65536
    """Body of a request answered early that is read and dropped to keep the connection; beyond it: closed."""
    drain_timeout_s: float = 1.0
    """Time for the same."""

    upstream_keepalive_pool_size: int = 512
    """Idle connections kept per endpoint and worker; 0 = one connection per attempt."""
    upstream_keepalive_idle_timeout_s: float = 60.0
    """Idle connections older than this are closed; 0 = never."""
    upstream_keepalive_requests_max: int = 10000
    """Requests on one upstream connection; 0 = any."""

    ssl_protocols: str = "TLSv1.2 TLSv1.3"
    """TLS versions that clients may use [ssl_protocols]."""
    ssl_ciphers: str = ""
    """Ciphers of TLS 1.2 in OpenSSL's syntax; empty = Mozilla's intermediate list [ssl_ciphers]."""
    ssl_prefer_server_ciphers: bool = True
    """Our order of ciphers goes before the client's [ssl_prefer_server_ciphers]."""
    ssl_dhparam: str = ""
    """File of parameters for ciphers with DHE; empty = such ciphers can't be agreed on [ssl_dhparam]."""
    ssl_session_tickets: bool = True
    """Clients keep their sessions themselves; off = this worker keeps them [ssl_session_tickets]."""
    upstream_tls_verify: bool = False
    """Verify upstream servers where the service does not say [nginx_proxy_proxy_ssl_verify]."""
    upstream_tls_verify_depth: int = 1
    """Intermediate certificates that a chain may have where the service does not say [proxy_ssl_verify_depth]."""
    upstream_tls_trusted_certificate: str = ""
    """PEM file of the authorities that are believed where the service names none; empty = none, and verification fails
    [nginx_proxy_proxy_ssl_trusted_certificate]."""
