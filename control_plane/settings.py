"""What an operator may set about a control plane. Read once, at start, by `pointsman.settings`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from control_plane.admin.limits import Limits
from control_plane.events.addresses import checked
from control_plane.events.ring import Kind
from control_plane.store.opening import refusal
from pointsman.logs import LogFormat, LogLevel
from pointsman.rules.cluster_mtls import ClusterMtls
from pointsman.settings import SettingsError, SocketAddress, setting

_LIMITS = Limits()
ENROLMENT_PORT = 8006


class AdminTokens(StrEnum):
    """Who has to show a token."""

    AUTO = "auto"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of `pointsman control-plane`."""

    database: str = setting(
        "pointsman.db", help="what holds everything: an SQLite file, made when absent, or a postgresql:// URL"
    )
    keyring_file: str = setting(
        "",
        help="file with the keys that secrets in the database are sealed with, one id:base64 a line, the first active;"
        " empty = with SQLite beside the database, as NAME.keyring, made when absent; PostgreSQL needs one",
    )
    keyring: str = setting(
        "",
        help="those lines themselves, commas for line ends: meant for the variable, since others see a process's flags",
    )
    admin_listen: SocketAddress = setting(
        SocketAddress("127.0.0.1", 8001), help="where the Admin API listens; port 0 = chosen by the kernel"
    )
    insecure_admin: bool = setting(
        False, help="let the Admin API listen beyond loopback: whoever reaches it can change everything"
    )
    admin_tls_cert: str = setting(
        "", help="PEM file with the Admin API's certificate chain; with it, it speaks TLS only"
    )
    admin_tls_key: str = setting("", help="PEM file with the private key of admin_tls_cert; read again on SIGHUP")
    admin_tokens: AdminTokens = setting(
        AdminTokens.AUTO,
        help="whether callers of the Admin API need a token: auto = unless it listens on loopback or is insecure_admin",
    )
    admin_token_file: str = setting(
        "",
        help="where the first admin's token is put if one is needed; empty = beside the database, as NAME.admin-token"
        " (with PostgreSQL pointsman.admin-token in the working folder)",
    )
    admin_reads_per_s: float = setting(
        500.0, minimum=0, maximum=1e6, help="reads a second of one token, ten seconds' worth at once; 0 = no limit"
    )
    admin_writes_per_s: float = setting(
        50.0, minimum=0, maximum=1e6, help="writes a second of one token, ten seconds' worth at once; 0 = no limit"
    )
    admin_hosts: tuple[str, ...] = setting(
        (), help="host names the Admin API answers to, beside addresses and localhost"
    )
    admin_origins: tuple[str, ...] = setting(
        (), help="origins like https://ops.example.com whose web pages may use the Admin API"
    )
    fleet_listen: SocketAddress = setting(
        SocketAddress("127.0.0.1", 8005), help="where nodes connect; port 0 = chosen by the kernel"
    )
    cluster_mtls: ClusterMtls = setting(
        ClusterMtls.AUTO,
        help="how nodes prove who they are: enrolled = by join tokens, shared or pki = by files, off = not at all; "
        "auto = enrolled, or off on loopback and with insecure_fleet [cluster_mtls]",
    )
    enroll_listen: str = setting(
        "", help="where nodes with a join token come first; empty = fleet_listen's address, port 8006"
    )
    fleet_names: tuple[str, ...] = setting(
        (), help="more names and addresses in the fleet link's certificate, for proxies that look at them"
    )
    node_certificate_life_s: float = setting(
        86_400.0, minimum=1, maximum=30 * 86_400, help="seconds that a node's certificate is good for, with enrolled"
    )
    cluster_cert: str = setting("", help="PEM file of the fleet link's certificate, with shared or pki [cluster_cert]")
    cluster_cert_key: str = setting("", help="PEM file of its private key [cluster_cert_key]")
    cluster_ca_cert: str = setting("", help="PEM file of the CA of nodes, with pki [cluster_ca_cert]")
    cluster_allowed_names: tuple[str, ...] = setting(
        (), help="patterns like spiffe://example.org/gateway/* that a node's name has to fit, with pki"
    )
    insecure_fleet: bool = setting(
        False,
        help="let the fleet link listen beyond loopback without TLS: whoever reaches it can read the configuration",
    )
    beat_interval_s: float = setting(
        5.0, minimum=0.1, maximum=300, help="seconds between a node's signs of life; three missed = not live"
    )
    canary_wait_s: float = setting(
        1.0,
        minimum=0,
        maximum=60,
        help="seconds that one node has to try a change before it goes to all; 0 = no node goes first",
    )
    accept_rollback: bool = setting(
        False, help="after a restore: take nodes back from later versions than the database holds"
    )
    accept_empty: bool = setting(
        False, help="over a new database: take over nodes that run the configuration of another one"
    )
    body_bytes_max: int = setting(
        _LIMITS.body_bytes_max, minimum=1_024, maximum=1 << 30, help="the largest body of a request, in bytes"
    )
    declarative_bytes_max: int = setting(
        _LIMITS.file_bytes_max, minimum=1_024, maximum=1 << 30, help="the largest declarative file, in bytes"
    )
    wait_s_max: float = setting(
        _LIMITS.wait_s_max, minimum=0, maximum=3_600, help="the longest `Prefer: wait=` of a write, in seconds"
    )
    versions_kept: int = setting(
        0, minimum=0, maximum=1 << 40, help="versions kept in the history, 0 = all; the newest 100 always are"
    )
    versions_kept_days: float = setting(
        0, minimum=0, maximum=36_500, help="days for which versions are kept, 0 = for ever; the newest 100 always are"
    )
    webhooks: tuple[str, ...] = setting((), help="addresses that events are posted to, by commas; see docs/events.md")
    webhook_types: tuple[str, ...] = setting(
        ("switch",), help="which events are posted: version, node, rollout, switch"
    )
    webhook_secret: str = setting(
        "",
        help="signs what is posted, by HMAC-SHA256; better given by the variable than by the flag",
    )
    ports_file: str = setting("", help="file to write the real addresses to, as JSON, once everything listens")
    log_level: LogLevel = setting(LogLevel.INFO, help="the least severity that is logged")
    log_format: LogFormat = setting(LogFormat.TEXT, help="text for eyes, json for machines")

    def check(self) -> None:
        """Raises SettingsError where settings contradict each other or would expose more than was asked for."""
        if (wrong := refusal(self.database)) is not None:
            raise SettingsError(f"setting database: {wrong}")
        if self.keyring and self.keyring_file:
            raise SettingsError("settings keyring and keyring_file: give one of them")
        if bool(self.admin_tls_cert) != bool(self.admin_tls_key):
            raise SettingsError("settings admin_tls_cert and admin_tls_key: give both or neither")
        if not (self.admin_listen.is_loopback or self.insecure_admin or self.admin_tls_cert):
            raise SettingsError(
                f"setting admin_listen: {self.admin_listen} can be reached from other machines, where tokens must not "
                "travel in the clear; give admin_tls_cert and admin_tls_key, listen on 127.0.0.1, or say "
                "--insecure-admin if the network around it is safe"
            )
        self._check_fleet()
        self._check_webhooks()
        for origin in self.admin_origins:
            if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
                raise SettingsError(f"setting admin_origins: '{origin}' is no origin; write it like https://host:port")

    @property
    def node_identity(self) -> ClusterMtls:
        """How nodes prove who they are; never AUTO."""
        if self.cluster_mtls is not ClusterMtls.AUTO:
            return self.cluster_mtls
        return ClusterMtls.OFF if self.fleet_listen.is_loopback or self.insecure_fleet else ClusterMtls.ENROLLED

    @property
    def enrolment_address(self) -> SocketAddress:
        """Where nodes with a join token come first. Raises ValueError."""
        if self.enroll_listen:
            return SocketAddress.parse(self.enroll_listen)
        return SocketAddress(self.fleet_listen.host, ENROLMENT_PORT)

    def _check_fleet(self) -> None:
        mode = self.node_identity
        if mode is ClusterMtls.OFF and not (self.fleet_listen.is_loopback or self.insecure_fleet):
            raise SettingsError(
                f"setting fleet_listen: {self.fleet_listen} can be reached from other machines, and without mutual TLS "
                "it shows the configuration to all; leave cluster_mtls at auto, listen on 127.0.0.1, or say "
                "--insecure-fleet if the network around it is safe"
            )
        if mode in (ClusterMtls.SHARED, ClusterMtls.PKI) and not (self.cluster_cert and self.cluster_cert_key):
            raise SettingsError(f"setting cluster_mtls: {mode} needs cluster_cert and cluster_cert_key")
        if mode is ClusterMtls.PKI and not (self.cluster_ca_cert and self.cluster_allowed_names):
            raise SettingsError("setting cluster_mtls: pki needs cluster_ca_cert and cluster_allowed_names")
        try:
            _ = self.enrolment_address
        except ValueError as error:
            raise SettingsError(f"setting enroll_listen: {error}") from None

    def _check_webhooks(self) -> None:
        for address in self.webhooks:
            try:
                checked(address)
            except ValueError as error:
                raise SettingsError(f"setting webhooks: {error}") from None
        known = [kind.value for kind in Kind if kind is not Kind.GAP]
        unknown = [name for name in self.webhook_types if name not in known]
        if unknown:
            raise SettingsError(
                f"setting webhook_types: '{unknown[0]}' is no type of event; there are {', '.join(known)}"
            )

    @property
    def tokens_required(self) -> bool:
        """Whether every call of the Admin API must bear a token."""
        if self.admin_tokens is AdminTokens.REQUIRED:
            return True
        return not (self.admin_listen.is_loopback or self.insecure_admin)

    def limits(self) -> Limits:
        """The Admin API's limits."""
        return Limits(
            body_bytes_max=self.body_bytes_max,
            file_bytes_max=self.declarative_bytes_max,
            wait_s_max=self.wait_s_max,
        )
