"""What an operator may set about a node, read once at start. Flags, `POINTSMAN_*` variables or a YAML file.

Kong's name of a setting is in brackets where Kong has it. Sizes are bytes and times are seconds.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from data_plane.node.snapshot import RAW_BYTES_MAX
from data_plane.node.sockets import ListenError, ListenSpec, parse_listen
from data_plane.proxy.settings import ProxySettings
from pointsman.logs import LogFormat, LogLevel
from pointsman.settings import SettingsError, SocketAddress, setting

WORKERS_MAX = 256


def software_version() -> str:
    """The version of the installed distribution; "0" when run from a checkout that is not installed."""
    try:
        return importlib.metadata.version("pointsman")
    except importlib.metadata.PackageNotFoundError:
        return "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All settings of a data-plane node."""

    control_plane: tuple[SocketAddress, ...] = setting(
        (SocketAddress("127.0.0.1", 8005),),
        help="fleet link of the control plane [cluster_control_plane]; several are tried in turn",
    )
    state_dir: Path = setting(Path("pointsman-node"), help="where the node's id and its last good config are kept")
    proxy_listen: tuple[str, ...] = setting(
        ("0.0.0.0:8000 reuseport backlog=16384",),
        help="where clients connect, each `address:port flag ...` [proxy_listen]",
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
        ("A", "SRV"), help="record types that are asked for: A, AAAA, SRV [resolver_family]"
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
    real_ip_header: str = setting("X-Real-IP", help="where a trusted peer names the client [real_ip_header]")
    real_ip_recursive: bool = setting(
        False,
        help="take the last address that is not trusted [real_ip_recursive]",
    )
    client_max_body_bytes: int = setting(
        0, help="largest request body, 0 = any [nginx_http_client_max_body_size]", minimum=0
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

    log_level: LogLevel = setting(LogLevel.INFO, help="least severity that is logged [log_level]")
    log_format: LogFormat = setting(LogFormat.TEXT, help="how log lines look")

    def listens(self) -> tuple[ListenSpec, ...]:
        """The proxy listeners; raises SettingsError."""
        try:
            specs = tuple(parse_listen(text) for text in self.proxy_listen)
        except ListenError as error:
            raise SettingsError(f"setting proxy_listen: {error}") from None
        if not specs:
            raise SettingsError("setting proxy_listen is empty; a node needs at least one address to serve on")
        return specs

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
        return ProxySettings(
            trusted_ips=trusted,
            real_ip_header=self.real_ip_header,
            real_ip_recursive=self.real_ip_recursive,
            body_bytes_max=self.client_max_body_bytes,
            keepalive_timeout_s=self.keepalive_timeout_s,
            upstream_keepalive_pool_size=self.upstream_keepalive_pool_size,
            upstream_keepalive_idle_timeout_s=self.upstream_keepalive_idle_timeout_s,
            upstream_keepalive_requests_max=self.upstream_keepalive_max_requests,
        )
