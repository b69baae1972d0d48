"""TLS towards upstream servers: who is believed, what is shown, and which connections may be shared.

A connection belongs to one identity: an `UpstreamTls` and a server name. It is used again for that identity only, so no
service ever speaks over a connection that was verified by another's rules or opened with another's certificate
(spec/proxy.md §5). Equal settings give the same `UpstreamTls`, in every version of the configuration: connections stay
warm over a swap that does not concern them.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast
from weakref import WeakValueDictionary

from data_plane.model import CertificateConfig
from data_plane.router import redirect_host
from pointsman.rules.pems import load_authorities, load_pair

if TYPE_CHECKING:
    from data_plane.proxy.settings import ProxySettings


class ChainTooLong(ssl.SSLError):
    """The server's verified chain has more intermediates than `tls_verify_depth` allows."""


class UpstreamTls:
    """How TLS connections of one or more services are made. `depth_max` counts intermediate certificates."""

    __slots__ = ("__weakref__", "context", "depth_max", "verify")

    def __init__(self, context: ssl.SSLContext, *, verify: bool, depth_max: int) -> None:
        self.context = context
        self.verify = verify
        self.depth_max = depth_max

    def check(self, connection: ssl.SSLObject) -> None:
        """Refuse a chain that is too long; raises ChainTooLong.

        OpenSSL could be told beforehand, but Python's ssl has no way to; so it is checked after the handshake and
        before a single octet is sent.
        """
        if not self.verify:
            return
        between = len(_verified_chain(connection)) - 2  # neither the server's own nor the one that is trusted
        if between > self.depth_max:
            raise ChainTooLong(1, f"the chain has {between} intermediate certificates, {self.depth_max} are allowed")


def _verified_chain(connection: ssl.SSLObject) -> Sequence[object]:
    public: Callable[[], Sequence[object]] | None = getattr(connection, "get_verified_chain", None)
    if public is None:  # before Python 3.13 only the object underneath has it
        public = cast(Callable[[], Sequence[object]], connection._sslobj.get_verified_chain)  # type: ignore[attr-defined]  # see above
    return public()


def server_name(host: bytes) -> str:
    """Return the name that is asked for and verified: the Host that goes upstream, without its port or brackets."""
    return redirect_host(host).decode("latin-1").removeprefix("[").removesuffix("]")


Identity = tuple[UpstreamTls, str]
"""What a connection may be used for: how it was opened, and the server name it was opened for."""


class UpstreamContexts:
    """The identities in use in one worker, by everything that makes them differ."""

    def __init__(self, settings: ProxySettings, *, trusted: str = "") -> None:
        self._settings = settings
        self._trusted = trusted
        self._known: WeakValueDictionary[bytes, UpstreamTls] = WeakValueDictionary()

    def of(
        self,
        *,
        verify: bool | None,
        depth: int | None,
        authorities: Sequence[str] | None,
        certificate: CertificateConfig | None,
    ) -> UpstreamTls:
        """Return the identity for a service's settings; None leaves one to the node's own setting.

        `authorities` are PEM texts, and all that is trusted; with verification on and none given or set, nothing is.
        Raises UnusablePem.
        """
        settings = self._settings
        verified = settings.upstream_tls_verify if verify is None else verify
        depth_max = settings.upstream_tls_verify_depth if depth is None else depth
        trusted = "\n".join(sorted(authorities)) if authorities is not None else self._trusted
        digest = hashlib.sha256(f"{verified} {depth_max}\0{trusted if verified else ''}\0".encode())
        if certificate is not None:
            digest.update(f"{certificate.cert}\0{certificate.key}".encode())
        key = digest.digest()
        known = self._known.get(key)
        if known is None:
            context = _client_context(trusted if verified else "", certificate, verify=verified)
            known = self._known[key] = UpstreamTls(context, verify=verified, depth_max=depth_max)
        return known


def _client_context(trusted: str, certificate: CertificateConfig | None, *, verify: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    elif trusted:
        load_authorities(context, trusted)
    if certificate is not None:
        load_pair(context, certificate.cert, certificate.key)
        if certificate.cert_alt:
            load_pair(context, certificate.cert_alt, certificate.key_alt)
    return context
