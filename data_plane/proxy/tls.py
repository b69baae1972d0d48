"""TLS towards clients: which certificate a hello gets, and contexts that change with the tables.

A listener has one context for as long as it lives; the certificate is chosen inside each handshake, from the tables
that are active at that moment. So a rotation is the same single assignment as every other change: handshakes after it
show the new certificate, connections before it go on, and sessions can be resumed across it, because tickets belong to
the listener's context.

What Python's ssl can't set is not pretended: ciphers are those of TLS 1.2 (1.3 has OpenSSL's own), and a session can
be resumed by the worker that it was made with, for as long as OpenSSL keeps it.
"""

from __future__ import annotations

import logging
import ssl
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pointsman.rules.pems import UnusablePem, load_pair

if TYPE_CHECKING:
    from data_plane.model import CertificateConfig
    from data_plane.proxy.settings import ProxySettings
    from data_plane.proxy.tables import Active

logger = logging.getLogger(__name__)

CONTEXTS_MAX = 1024
"""Contexts kept ready, at 25 KiB each; those not used for longest are made again when they are wanted."""

_INTERMEDIATE = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"  # these two with `ssl_dhparam` only
)
CIPHER_SUITES: Mapping[str, str] = MappingProxyType(
    {
        "modern": _INTERMEDIATE,
        "intermediate": _INTERMEDIATE,
        "old": _INTERMEDIATE + ":ECDHE-ECDSA-AES128-SHA256:ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES256-SHA384:"
        "ECDHE-RSA-AES256-SHA384:AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA256",
    }
)
"""Kong's names of cipher lists, for TLS 1.2; `modern` leaves only 1.3 open."""

_VERSIONS: Mapping[str, ssl.TLSVersion] = MappingProxyType(
    {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
)


class BadTlsSetting(ValueError):
    """A protocol or cipher list that can't be had; the text says which."""


class ServerSide(ssl.SSLObject):
    """One handshake and what follows it; `client_name` is the SNI as the client said it, lower-case, empty = none."""

    client_name: str = ""


def server_context(settings: ProxySettings) -> ssl.SSLContext:
    """Return a context without a certificate; raises BadTlsSetting."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    versions = settings.ssl_protocols.split()
    unknown = [name for name in versions if name not in _VERSIONS]
    if unknown or not versions:
        raise BadTlsSetting(f"ssl_protocols: '{' '.join(unknown)}' is none of {', '.join(_VERSIONS)}")
    context.minimum_version = min(_VERSIONS[name] for name in versions)
    context.maximum_version = max(_VERSIONS[name] for name in versions)
    try:
        context.set_ciphers(settings.ssl_ciphers or _INTERMEDIATE)
    except ssl.SSLError:
        raise BadTlsSetting("ssl_ciphers: OpenSSL knows none of these ciphers") from None
    if settings.ssl_dhparam:
        try:
            context.load_dh_params(settings.ssl_dhparam)
        except (OSError, ssl.SSLError):
            raise BadTlsSetting(f"ssl_dhparam: {settings.ssl_dhparam} has no parameters that can be used") from None
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if settings.ssl_prefer_server_ciphers:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    if not settings.ssl_session_tickets:
        context.options |= ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    return context


class ServerContexts:
    """Contexts by certificate, made when they are first wanted and kept over swaps."""

    def __init__(self, settings: ProxySettings, *, contexts_max: int = CONTEXTS_MAX) -> None:
        self._settings = settings
        self._max = contexts_max
        self._ready: OrderedDict[str, tuple[CertificateConfig, ssl.SSLContext]] = OrderedDict()

    def of(self, certificate: CertificateConfig) -> ssl.SSLContext:
        """Return the context that shows the certificate; raises UnusablePem."""
        held = self._ready.get(certificate.id)
        if held is not None and held[0] == certificate:
            self._ready.move_to_end(certificate.id)
            return held[1]
        context = self.make(certificate)
        self._ready[certificate.id] = (certificate, context)
        self._ready.move_to_end(certificate.id)
        if len(self._ready) > self._max:
            self._ready.popitem(last=False)
        return context

    def make(self, certificate: CertificateConfig) -> ssl.SSLContext:
        """Make a context without keeping it, which is also how a certificate is tried; raises UnusablePem."""
        context = server_context(self._settings)
        load_pair(context, certificate.cert, certificate.key)
        if certificate.cert_alt:
            load_pair(context, certificate.cert_alt, certificate.key_alt)
        return context


class ServerNames:
    """The certificates of one version by the names they are shown for. Never changed once it is active."""

    __slots__ = ("_by_name", "_contexts")

    def __init__(self, by_name: Mapping[str, CertificateConfig], contexts: ServerContexts) -> None:
        self._by_name = by_name
        self._contexts = contexts

    def __len__(self) -> int:
        return len(self._by_name)

    def certificate(self, name: str) -> CertificateConfig | None:
        """Return the certificate for a lower-case name, None when only the default is left.

        The name itself, then one leading label as `*` (of names with three or more), then the last label as `*`, then
        the entry for everything (spec/proxy.md §9.1).
        """
        by_name = self._by_name
        found = by_name.get(name)
        if found is not None:
            return found
        first, dot, rest = name.partition(".")
        if dot and "." in rest:
            found = by_name.get("*." + rest)
            if found is not None:
                return found
        head, dot, _ = name.rpartition(".")
        if dot and first:
            found = by_name.get(head + ".*")
            if found is not None:
                return found
        return by_name.get("*")

    def context(self, name: str) -> ssl.SSLContext | None:
        """Return the context for a lower-case name, None for the default; raises UnusablePem."""
        certificate = self.certificate(name)
        return None if certificate is None else self._contexts.of(certificate)


class DefaultPairs:
    """What handshakes show for a name that the configuration has no certificate for, or for none.

    The first pairs are in the listener's own context. That one lives as long as the listener, and a pair once loaded
    into it can't be taken out again, so pairs that replace them get a context of their own, `replaced`.
    """

    def __init__(self, settings: ProxySettings, pairs: Sequence[tuple[str, str]]) -> None:
        """Raises BadTlsSetting and UnusablePem."""
        self._settings = settings
        self.context = self._make(pairs)
        self.replaced: ssl.SSLContext | None = None

    def replace(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Show these from the next handshake on; raises UnusablePem, and then nothing has changed."""
        self.replaced = self._make(pairs)

    def _make(self, pairs: Sequence[tuple[str, str]]) -> ssl.SSLContext:
        context = server_context(self._settings)
        for certificate, key in pairs:
            load_pair(context, certificate, key)
        return context


def listener_context(active: Active, defaults: DefaultPairs) -> ssl.SSLContext:
    """Return the context of TLS listeners: the default pairs, and whatever the active tables have for a name."""
    context = defaults.context
    context.sslobject_class = ServerSide

    def choose(connection: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
        chosen: ssl.SSLContext | None = None
        if name:
            name = name.lower().removesuffix(".")
            if isinstance(connection, ServerSide):
                connection.client_name = name
            tables = active.tables
            if tables is not None and tables.server_names is not None:
                try:
                    chosen = tables.server_names.context(name)
                except UnusablePem as error:
                    logger.error("no certificate for %s: %s", name, error)
                    return ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
        chosen = chosen or defaults.replaced
        if chosen is not None:
            connection.context = chosen
        return None

    context.sni_callback = choose
    return context
