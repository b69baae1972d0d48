"""How a node gets through to a control plane: in the clear, by a certificate from files, or by one it joined for.

The link asks for a channel before each dial and knows nothing of certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
import grpc.aio
from cryptography import x509
from cryptography.x509.oid import NameOID
from typing_extensions import override

from pointsman.rules.node_names import SERVER_NAME, BadName, name_of, node_id_of

Options = Sequence[tuple[str, int | str]]


class NoAccess(Exception):
    """There is no way through now. `permanent` = only an operator can change that, so there is no hurry."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


class BadTrust(Exception):
    """What the control plane said of CAs can't be followed; the text says why."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Fingerprints of the CAs that are trusted, and of the one that signed the certificate."""

    trusts: frozenset[str]
    issuer: str


class FleetAccess(Protocol):
    """Who makes channels to control planes."""

    async def channel(self, address: str, options: Options) -> grpc.aio.Channel:
        """A channel for one conversation. Raises NoAccess."""

    async def run(self, changed: Callable[[], None]) -> None:
        """Keeps the certificate good, for as long as there is need of that; calls `changed` when `standing` did."""

    def told(self, trusted: bytes, *, renew_within_s: float | None) -> None:
        """The control plane says whom to trust; None = the certificate is good as it is. Raises BadTrust."""

    @property
    def standing(self) -> Standing | None:
        """What to tell the control plane of our trust; None = it has no say in it."""

    @property
    def expires_at(self) -> float | None:
        """When the node's certificate ends, in seconds since the epoch; None = it has none."""

    @property
    def problem(self) -> str:
        """What an operator should know about the certificate; empty when all is well."""


class Untold(FleetAccess):
    """Whose trust is not the control plane's business."""

    @override
    def told(self, trusted: bytes, *, renew_within_s: float | None) -> None:
        return None

    @property
    @override
    def standing(self) -> Standing | None:
        return None


class PlainAccess(Untold):
    """No TLS: for loopback, and for networks whose owner says that they are safe."""

    @override
    async def channel(self, address: str, options: Options) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(address, options=options)

    @override
    async def run(self, changed: Callable[[], None]) -> None:
        return None

    @property
    @override
    def expires_at(self) -> float | None:
        return None

    @property
    @override
    def problem(self) -> str:
        return ""


class BadFiles(ValueError):
    """The certificate files can't be used; the text says which and why."""


class FilesAccess(Untold):
    """A certificate from files, read before each dial, so that whoever renews them has nothing to restart."""

    def __init__(self, certificate: Path, key: Path, authority: Path | None, *, server_name: str) -> None:
        """Without `authority` the certificate itself is the one that is trusted. Raises BadFiles."""
        self._certificate = certificate
        self._key = key
        self._authority = authority or certificate
        self._expires_at: float | None = None
        _, shown, _ = self._read()
        # With one certificate for all, the control plane shows the very same one.
        self._server_name = server_name or ("" if authority is not None else _host_name(shown))

    def node_id(self) -> str:
        """The id that the certificate names. Raises BadFiles."""
        try:
            return node_id_of(name_of(x509.load_pem_x509_certificate(self._certificate.read_bytes())))
        except (OSError, BadName, ValueError) as error:
            raise BadFiles(f"{self._certificate}: {error}") from None

    @override
    async def channel(self, address: str, options: Options) -> grpc.aio.Channel:
        try:
            key, chain, trusted = self._read()
        except BadFiles as error:
            raise NoAccess(str(error)) from None
        credentials = grpc.ssl_channel_credentials(trusted, key, chain)
        named = [("grpc.ssl_target_name_override", self._server_name)] if self._server_name else []
        return grpc.aio.secure_channel(address, credentials, options=[*options, *named])

    @override
    async def run(self, changed: Callable[[], None]) -> None:
        return None  # who wrote the files writes them anew

    @property
    @override
    def expires_at(self) -> float | None:
        return self._expires_at

    @property
    @override
    def problem(self) -> str:
        return ""

    def _read(self) -> tuple[bytes, bytes, bytes]:
        parts: list[bytes] = []
        for path in (self._key, self._certificate, self._authority):
            try:
                parts.append(path.read_bytes())
            except OSError as error:
                raise BadFiles(f"{path} can't be read: {error.strerror}") from None
        try:
            self._expires_at = x509.load_pem_x509_certificate(parts[1]).not_valid_after_utc.timestamp()
        except ValueError:
            raise BadFiles(f"{self._certificate} holds no certificate in PEM") from None
        return parts[0], parts[1], parts[2]


def _host_name(certificate_pem: bytes) -> str:
    """The first name that TLS would take a certificate for; empty when there is none."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(common[0].value) if common else ""
    return next(iter(names.get_values_for_type(x509.DNSName)), "")


def joined_channel(address: str, options: Options, *, trusted: bytes, key: bytes, chain: bytes) -> grpc.aio.Channel:
    """A channel by a certificate of the cluster's own CA."""
    credentials = grpc.ssl_channel_credentials(trusted, key, chain)
    named = ("grpc.ssl_target_name_override", SERVER_NAME)
    return grpc.aio.secure_channel(address, credentials, options=[*options, named])
