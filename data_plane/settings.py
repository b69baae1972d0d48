"""What an operator may set about a node, read once at start. Flags, `POINTSMAN_*` variables or a YAML file.

Kong's name of a setting is in brackets where Kong has it. Sizes are bytes and times are seconds. A node starts its
workers as soon as it has read these, so this module imports nothing that takes long to load.
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_plane.flavours import RouterFlavour
from data_plane.node.sockets import ListenError, ListenSpec, parse_listen
from data_plane.observe.access_log import OFF, QUEUE_MAX, AccessLogFormat, AccessLogSettings
from data_plane.observe.traffic import SERIES_MAX
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tls import CIPHER_SUITES, BadTlsSetting, server_context
from pointsman.logs import LogFormat, LogLevel
from pointsman.rules.cluster_mtls import ClusterMtls
from pointsman.rules.pems import load_authorities
from pointsman.settings import SettingsError, SocketAddress, setting
from pointsman.snapshots import RAW_BYTES_MAX

if TYPE_CHECKING:
    from data_plane.node.default_pairs import DefaultPairs

WORKERS_MAX = 256
ENROLMENT_PORT = 8006
PORT_MAX = 65535
JOIN_FILE_BYTES_MAX = 4096

_PORT_MAP = re.compile(r"([0-9]{1,5}):([0-9]{1,5})")


ANSWER_HEADERS = {
    "server": {"server"},
    "via": {"via"},
    "x-kong-upstream-latency": {"x-kong-upstream-latency"},
    "x-kong-proxy-latency": {"x-kong-proxy-latency"},
    "x-kong-response-latency": {"x-kong-response-latency"},
    "x-kong-admin-latency": set[str](),  # of the Admin API, which is not here
    "x-kong-upstream-status": {"x-kong-upstream-status"},
    "x-kong-request-id": {"x-kong-request-id"},
    "server_tokens": {"server", "via"},
    "latency_tokens": {"x-kong-upstream-latency", "x-kong-proxy-latency", "x-kong-response-latency"},
}
"""What `headers` may name, in lower case, and which headers that means."""


def _tokens(name: str, values: tuple[str, ...], known: Collection[str]) -> set[str]:
    """The words of a list of headers, in lower case; raises SettingsError."""
    words = {value.lower() for value in values}
    if words == {"off"}:
        return set()
    unknown = words - set(known) - {"off"}
    if unknown:
        raise SettingsError(
            f"setting {name}: '{unknown.pop()}' can't be had by itself; known are {', '.join(sorted(known))} and off"
        )
    return words


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All settings of a data-plane node."""

    control_plane: tuple[SocketAddress, ...] = setting(
        (SocketAddress("127.0.0.1", 8005),),
        help="fleet link of the control plane [cluster_control_plane]; several are tried in turn",
    )
    join: str = setting("", help="join token of the control plane; better given as variable or by join_file")
    join_file: str = setting("", help="file that holds the join token; read when the node needs it")
    enroll_at: tuple[SocketAddress, ...] = setting(
        (), help="where nodes with a join token come first; empty = the control plane's addresses, port 8006"
    )
    cluster_mtls: ClusterMtls = setting(
        ClusterMtls.AUTO,
        help="how this node proves who it is: enrolled = by a join token, shared or pki = by files, off = not at all; "
        "auto = enrolled once it has a join token, else off [cluster_mtls]",
    )
    cluster_cert: str = setting("", help="PEM file of this node's certificate, with shared or pki [cluster_cert]")
    cluster_cert_key: str = setting("", help="PEM file of its private key [cluster_cert_key]")
    cluster_ca_cert: str = setting("", help="PEM file of the control plane's CA, with pki [cluster_ca_cert]")
    cluster_server_name: str = setting(
        "", help="name in the control plane's certificate, with pki; empty = the address dialled [cluster_server_name]"
    )
    insecure_fleet: bool = setting(
        False, help="dial control planes on other machines without TLS: who is on the way can read and change all"
    )
    state_dir: Path = setting(Path("pointsman-node"), help="where the node's id and its last good config are kept")
    proxy_listen: tuple[str, ...] = setting(
        ("0.0.0.0:8000 reuseport backlog=16384", "0.0.0.0:8443 ssl reuseport backlog=16384"),
        help="where clients connect, each `address:port flag ...` [proxy_listen]",
    )
    port_maps: tuple[str, ...] = setting(
        (),
        help="ports by which clients know those of proxy_listen, each `outside:inside` like 80:8000; routes, "
        "X-Forwarded-Port and logs go by the one outside [port_maps]",
    )
    status_listen: SocketAddress = setting(
        SocketAddress("127.0.0.1", 8007), help="where the status API listens [status_listen]"
    )
    workers: int = setting(
        0, help="serving processes, 0 = one a core [nginx_worker_processes]", minimum=0, maximum=WORKERS_MAX
    )
    worker_affinity: bool = setting(
        False,
        help="pin each worker to a core of its own [nginx_worker_cpu_affinity]",
    )
    labels: tuple[tuple[str, str], ...] = setting(
        (), help="shown for this node by the control plane [cluster_dp_labels]"
    )
    ports_file: str = setting("", help="JSON file that gets the addresses in use once the node listens")
    drain_delay_s: float = setting(
        5.0, help="after SIGTERM, seconds to go on accepting while load balancers notice", minimum=0, maximum=3600
    )
    drain_timeout_s: float = setting(
        30.0, help="after that, seconds for requests in flight before they are cut", minimum=0, maximum=86400
    )

    resolver: tuple[SocketAddress, ...] = setting(
        (), help="nameservers instead of those of resolv.conf [resolver_address]"
    )
    resolver_hosts_file: Path = setting(Path("/etc/hosts"), help="read once at start [resolver_hosts_file]")
    resolver_family: tuple[str, ...] = setting(
        ("SRV", "A"),
        help="record types that are asked for, in this order: SRV, A, AAAA; SRV after A = for names like "
        "_service._proto.name only [dns_order, resolver_family]",
    )
    resolver_valid_ttl_s: float = setting(
        0.0, help="use answers for this long instead of their own TTL, 0 = their own [resolver_valid_ttl]", minimum=0
    )
    resolver_ttl_min_s: float = setting(1.0, help="the shortest TTL that is followed", minimum=0.05, maximum=86400)
    resolver_ttl_max_s: float = setting(3600.0, help="the longest TTL that is followed", minimum=0.05)
    resolver_stale_ttl_s: float = setting(
        3600.0,
        help="go on using an expired answer for this long while nameservers fail [resolver_stale_ttl]",
        minimum=0,
    )
    resolver_error_ttl_s: float = setting(
        1.0, help="time before a name that failed is asked for again; doubles to 30 [resolver_error_ttl]", minimum=0.05
    )

    names_wait_s: float = setting(
        2.0, help="how long a new config waits for the names it needs before it goes on", minimum=0, maximum=60
    )
    prepare_timeout_s: float = setting(
        60.0, help="how long workers may take to build a new config before it is refused", minimum=1, maximum=3600
    )
    activate_timeout_s: float = setting(
        10.0, help="how long a worker may take to activate before it is replaced", minimum=1, maximum=600
    )
    snapshot_bytes_max: int = setting(RAW_BYTES_MAX, help="a larger config is refused", minimum=1 << 20)

    trusted_ips: tuple[str, ...] = setting((), help="peers whose forwarding headers are believed [trusted_ips]")
    real_ip_header: str = setting(
        "X-Real-IP", help="where a trusted peer names the client, a header or proxy_protocol [real_ip_header]"
    )
    real_ip_recursive: bool = setting(
        False,
        help="take the last address that is not trusted [real_ip_recursive]",
    )
    client_max_body_bytes: int = setting(
        0, help="largest request body, 0 = any [nginx_http_client_max_body_size]", minimum=0
    )
    client_header_timeout_s: float = setting(
        60.0,
        help="for a whole request head, and for a handshake; beyond it 408 [nginx_http_client_header_timeout]",
        minimum=0.1,
    )
    client_body_timeout_s: float = setting(
        60.0, help="silence inside a request body; beyond it 408 [nginx_http_client_body_timeout]", minimum=0.1
    )
    client_body_rate_min: int = setting(
        50, help="bytes a second that a body must bring over any 20 s, 0 = any; not on unbuffered routes", minimum=0
    )
    send_timeout_s: float = setting(
        60.0, help="a client that takes nothing of its answer is cut off [nginx_http_send_timeout]", minimum=0.1
    )
    keepalive_requests: int = setting(
        10000, help="requests on one client connection, 0 = any [nginx_http_keepalive_requests]", minimum=0
    )
    request_line_bytes_max: int = setting(
        8192,
        help="a longer request line is answered 414 [nginx_http_large_client_header_buffers]",
        minimum=256,
        maximum=1 << 20,
    )
    header_line_bytes_max: int = setting(
        8192,
        help="a longer header is answered 400 [nginx_http_large_client_header_buffers]",
        minimum=256,
        maximum=1 << 20,
    )
    head_bytes_max: int = setting(
        32768,
        help="a larger request head is answered 400 [nginx_http_large_client_header_buffers]",
        minimum=1024,
        maximum=1 << 22,
    )
    header_count_max: int = setting(
        1000, help="more headers in a request are answered 431 [nginx_http_max_headers]", minimum=10, maximum=100_000
    )
    keepalive_timeout_s: float = setting(
        75.0, help="silence between two requests of a client [nginx_http_keepalive_timeout]", minimum=0.1
    )
    upstream_keepalive_pool_size: int = setting(
        512, help="idle connections kept per endpoint and worker [upstream_keepalive_pool_size]", minimum=0
    )
    upstream_keepalive_idle_timeout_s: float = setting(
        60.0, help="age at which idle ones are closed [upstream_keepalive_idle_timeout]", minimum=0
    )
    upstream_keepalive_max_requests: int = setting(
        10000, help="requests on one upstream connection, 0 = any [upstream_keepalive_max_requests]", minimum=0
    )

    router_flavor: RouterFlavour = setting(
        RouterFlavour.TRADITIONAL_COMPATIBLE, help="in which order routes are tried [router_flavor]"
    )
    headers: tuple[str, ...] = setting(
        ("server_tokens", "latency_tokens", "X-Kong-Request-Id"),
        help="what is added to answers: Server, Via, X-Kong-Upstream-Latency, X-Kong-Proxy-Latency, "
        "X-Kong-Response-Latency, X-Kong-Upstream-Status, X-Kong-Request-Id, the groups server_tokens and "
        "latency_tokens; `off` for nothing [headers]",
    )
    headers_upstream: tuple[str, ...] = setting(
        ("X-Kong-Request-Id",), help="what is added to requests, `off` for nothing [headers_upstream]"
    )
    allow_debug_header: bool = setting(
        False, help="tell requests with Kong-Debug which route and service they got [allow_debug_header]"
    )
    access_log: str = setting(
        OFF, help="off, /dev/stdout, /dev/stderr or a file; reopened on SIGHUP [proxy_access_log]"
    )
    access_log_format: AccessLogFormat = setting(
        AccessLogFormat.JSON,
        help="json has the field names of Kong's file-log, combined is nginx's and Kong's request id",
    )
    access_log_queue_max: int = setting(
        QUEUE_MAX, help="lines that may wait in a worker before more are dropped and counted", minimum=1
    )
    metrics_series_max: int = setting(
        SERIES_MAX,
        help="series of service, route, code and source; what is beyond them is counted in one more",
        minimum=1,
        maximum=1_000_000,
    )

    ssl_cert: tuple[str, ...] = setting(
        (), help="PEM files for names without a certificate, read again on SIGHUP; without, a pair is made [ssl_cert]"
    )
    ssl_cert_key: tuple[str, ...] = setting((), help="their private keys, in the same order [ssl_cert_key]")
    ssl_cipher_suite: str = setting(
        "intermediate", help="modern, intermediate, old, or custom for ssl_ciphers [ssl_cipher_suite]"
    )
    ssl_ciphers: str = setting("", help="ciphers of TLS 1.2 in OpenSSL's syntax, with custom [ssl_ciphers]")
    ssl_protocols: str = setting("TLSv1.2 TLSv1.3", help="TLS versions for clients [ssl_protocols]")
    ssl_prefer_server_ciphers: bool = setting(
        True, help="our order of ciphers goes before the client's [ssl_prefer_server_ciphers]"
    )
    ssl_dhparam: str = setting(
        "", help="PEM file of parameters for ciphers with DHE; without, they are not used [ssl_dhparam]"
    )
    ssl_session_timeout: str = setting("", help="refused: it is OpenSSL's own [ssl_session_timeout]")
    ssl_session_cache_size: str = setting("", help="refused: it is OpenSSL's own [ssl_session_cache_size]")
    ssl_session_tickets: bool = setting(True, help="clients keep their sessions themselves [ssl_session_tickets]")
    upstream_tls_verify: bool = setting(
        False, help="verify upstream servers of services that don't say [nginx_proxy_proxy_ssl_verify]"
    )
    upstream_tls_verify_depth: int = setting(
        1, help="intermediate certificates allowed, where the service does not say", minimum=0, maximum=64
    )
    upstream_tls_trusted_certificate: str = setting(
        "", help="PEM file of authorities for services that name none [nginx_proxy_proxy_ssl_trusted_certificate]"
    )

    log_level: LogLevel = setting(LogLevel.INFO, help="least severity that is logged [log_level]")
    log_format: LogFormat = setting(LogFormat.TEXT, help="how log lines look")

    def identity_mode(self, *, joined: bool) -> ClusterMtls:
        """How this node proves who it is; never AUTO. `joined` = it has a certificate already. Raises SettingsError."""
        mode = self.cluster_mtls
        if mode is ClusterMtls.AUTO:
            mode = ClusterMtls.ENROLLED if joined or self.join or self.join_file else ClusterMtls.OFF
        if mode is ClusterMtls.OFF and not self.insecure_fleet:
            for address in self.control_plane:
                if not address.is_loopback:
                    raise SettingsError(
                        f"setting control_plane: {address} is on another machine, and this node has no certificate; "
                        "give it a join token (pointsman join-token create), or say --insecure-fleet if the network "
                        "on the way is safe"
                    )
        if mode in (ClusterMtls.SHARED, ClusterMtls.PKI) and not (self.cluster_cert and self.cluster_cert_key):
            raise SettingsError(f"setting cluster_mtls: {mode} needs cluster_cert and cluster_cert_key")
        if mode is ClusterMtls.PKI and not self.cluster_ca_cert:
            raise SettingsError("setting cluster_mtls: pki needs cluster_ca_cert")
        return mode

    def join_token(self) -> str:
        """The join token's text; empty when there is none to be had now."""
        if self.join:
            return self.join
        if not self.join_file:
            return ""
        try:
            with Path(self.join_file).open("rb") as file:
                return file.read(JOIN_FILE_BYTES_MAX).decode("ascii", "replace").strip()
        except OSError:
            return ""

    def enrolment_addresses(self) -> tuple[str, ...]:
        """Where a join token is good."""
        given = self.enroll_at or tuple(SocketAddress(at.host, ENROLMENT_PORT) for at in self.control_plane)
        return tuple(str(address) for address in given)

    def listens(self) -> tuple[ListenSpec, ...]:
        """The proxy listeners; raises SettingsError."""
        try:
            specs = tuple(parse_listen(text) for text in self.proxy_listen)
        except ListenError as error:
            raise SettingsError(f"setting proxy_listen: {error}") from None
        if not specs:
            raise SettingsError("setting proxy_listen is empty; a node needs at least one address to serve on")
        return specs

    def access_log_settings(self) -> AccessLogSettings:
        """What workers need to know about the access log; raises SettingsError."""
        path = self.access_log
        if path != OFF and not path.startswith("/"):
            raise SettingsError(f"setting access_log: '{path}' is neither `off` nor an absolute path")
        return AccessLogSettings(path, self.access_log_format, self.access_log_queue_max)

    def worker_count(self) -> int:
        """How many workers to start: as set, else one for each core this process may use."""
        if self.workers:
            return self.workers
        return min(len(os.sched_getaffinity(0)), WORKERS_MAX)

    def proxy(self) -> ProxySettings:
        """What the workers' proxy is told; raises SettingsError."""
        try:
            trusted = tuple(ipaddress.ip_network(text, strict=False) for text in self.trusted_ips)
        except ValueError as error:
            raise SettingsError(f"setting trusted_ips: {error}; write addresses or ranges like 10.0.0.0/8") from None
        for name in ("ssl_session_timeout", "ssl_session_cache_size"):
            if getattr(self, name):
                raise SettingsError(
                    f"setting {name}: Python's ssl has no way to set it; leave it out, and sessions are kept for as "
                    "long as OpenSSL keeps them by default"
                )
        words = _tokens("headers", self.headers, ANSWER_HEADERS)
        headers = set[str]().union(*(ANSWER_HEADERS[word] for word in words - {"off"}))
        headers_upstream = _tokens("headers_upstream", self.headers_upstream, {"x-kong-request-id"})
        proxy = ProxySettings(
            trusted_ips=trusted,
            real_ip_header=self.real_ip_header,
            real_ip_recursive=self.real_ip_recursive,
            port_maps=self._port_maps(),
            body_bytes_max=self.client_max_body_bytes,
            head_timeout_s=self.client_header_timeout_s,
            body_idle_timeout_s=self.client_body_timeout_s,
            body_rate_min_bytes=self.client_body_rate_min,
            send_timeout_s=self.send_timeout_s,
            keepalive_requests_max=self.keepalive_requests,
            request_line_bytes_max=self.request_line_bytes_max,
            header_line_bytes_max=self.header_line_bytes_max,
            head_bytes_max=self.head_bytes_max,
            header_count_max=self.header_count_max,
            server="server" in headers,
            via="via" in headers,
            upstream_latency="x-kong-upstream-latency" in headers,
            proxy_latency="x-kong-proxy-latency" in headers,
            response_latency="x-kong-response-latency" in headers,
            upstream_status="x-kong-upstream-status" in headers,
            request_id_downstream="x-kong-request-id" in headers,
            request_id_upstream="x-kong-request-id" in headers_upstream,
            keepalive_timeout_s=self.keepalive_timeout_s,
            upstream_keepalive_pool_size=self.upstream_keepalive_pool_size,
            upstream_keepalive_idle_timeout_s=self.upstream_keepalive_idle_timeout_s,
            upstream_keepalive_requests_max=self.upstream_keepalive_max_requests,
            allow_debug_header=self.allow_debug_header,
            ssl_protocols="TLSv1.3" if self.ssl_cipher_suite == "modern" else self.ssl_protocols,
            ssl_ciphers=self._ciphers(),
            ssl_prefer_server_ciphers=self.ssl_prefer_server_ciphers,
            ssl_dhparam=self.ssl_dhparam,
            ssl_session_tickets=self.ssl_session_tickets,
            upstream_tls_verify=self.upstream_tls_verify,
            upstream_tls_verify_depth=self.upstream_tls_verify_depth,
            upstream_tls_trusted_certificate=self.upstream_tls_trusted_certificate,
        )
        try:
            server_context(proxy)
        except BadTlsSetting as error:
            raise SettingsError(f"setting {error}") from None
        self._check_trusted()
        return proxy

    def _port_maps(self) -> tuple[tuple[int, int], ...]:
        by_inside: dict[int, int] = {}
        for text in self.port_maps:
            found = _PORT_MAP.fullmatch(text)
            outside, inside = (int(found[1]), int(found[2])) if found is not None else (0, 0)
            if not (1 <= outside <= PORT_MAX and 1 <= inside <= PORT_MAX):
                raise SettingsError(f"setting port_maps: '{text}' is not two ports like 80:8000")
            if inside in by_inside:
                raise SettingsError(f"setting port_maps: port {inside} is given two ports outside")
            by_inside[inside] = outside
        return tuple(by_inside.items())

    def default_pairs(self) -> DefaultPairs:
        """The certificates of TLS listeners, made if there are no files; raises SettingsError."""
        # See the module's head. A node without TLS listeners never loads what makes certificates.
        from data_plane.node.default_pairs import BadDefaultPair, DefaultPairs  # noqa: PLC0415

        try:
            return DefaultPairs([Path(name) for name in self.ssl_cert], [Path(name) for name in self.ssl_cert_key])
        except BadDefaultPair as error:
            raise SettingsError(f"setting ssl_cert: {error}") from None

    def _ciphers(self) -> str:
        if self.ssl_cipher_suite == "custom":
            return self.ssl_ciphers
        if self.ssl_cipher_suite == "intermediate":
            return ""  # the proxy's own default: command lines of workers stay short
        if self.ssl_cipher_suite not in CIPHER_SUITES:
            known = ", ".join([*CIPHER_SUITES, "custom"])
            raise SettingsError(f"setting ssl_cipher_suite: '{self.ssl_cipher_suite}' is none of {known}")
        return CIPHER_SUITES[self.ssl_cipher_suite]

    def _check_trusted(self) -> None:
        name = self.upstream_tls_trusted_certificate
        if not name:
            return
        try:
            load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), Path(name).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no PEM text with certificates"
            raise SettingsError(f"setting upstream_tls_trusted_certificate: {name}: {why}") from None
