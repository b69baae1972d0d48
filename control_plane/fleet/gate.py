"""Who may speak on the fleet link: TLS of its listener, and what a peer's certificate says about it.

TLS itself turns away everybody without a good certificate, before a message is read. The gates here decide about the
rest: which node a certificate stands for, and whether that node may (still) speak.

* `EnrolledGate`: certificates of the cluster's own CA, each for one node that joined with a token.
* `SharedGate`: one certificate that all nodes and control planes have, as Kong's `cluster_mtls = shared`.
* `PkiGate`: certificates of an organisation's own CA, with a node's name in each, as Kong's `cluster_mtls = pki`.
"""

from __future__ import annotations

import abc
import fnmatch
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typing_extensions import override

from control_plane.identity.node_ca import SERVER_LIFE_S, Authorities, Pair
from control_plane.identity.node_certificates import NodeCertificates
from control_plane.identity.refusals import NotLetIn, Refusal, Refusals
from pointsman.rules.node_names import BadName, key_digest, name_of, node_id_of


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a certificate stands for."""

    node_id: str | None  # None = the certificate does not say, so the hello does
    key: str = ""  # digest of the public key
    expires_at: float | None = None  # seconds since the epoch; None = does not matter
    labels: Mapping[str, str] = field(default_factory=dict)  # go before those of the hello


@dataclass(frozen=True, slots=True)
class Trust:
    """What nodes are told during a rotation of the CA."""

    trusted: bytes  # PEM
    renew: bool


ANYBODY = Caller(None)
"""Whoever reaches a link in the clear."""


class Gate(abc.ABC):
    """The door of a fleet link."""

    def __init__(self) -> None:
        self.refusals = Refusals()

    @abc.abstractmethod
    def credentials(self) -> grpc.ServerCredentials:
        """TLS of the listener."""

    @abc.abstractmethod
    def identify(self, certificate: x509.Certificate) -> Caller:
        """Who shows a certificate that TLS found good. Raises NotLetIn."""

    @abc.abstractmethod
    def still(self, caller: Caller) -> None:
        """Whether a caller who was let in may stay. Raises NotLetIn."""

    @abc.abstractmethod
    async def refresh(self) -> None:
        """Learns what other control planes over the same store decided. Raises StoreError."""

    def trust(self) -> Trust | None:
        """Whom nodes shall trust; None where this control plane has no say in it."""
        return None

    def settled(self, node_id: str) -> bool:
        """Whether a node does as `trust` says."""
        return True

    def heard(self, node_id: str, *, trusts: frozenset[str], issuer: str) -> None:
        """A node said whom it trusts, and who signed its certificate."""
        return None  # nobody here asks

    def expires_at(self, node_id: str) -> float | None:
        """When a node's newest certificate ends, where the store knows; seconds since the epoch."""
        return None

    def greet(self, caller: Caller, node_id: str) -> None:
        """Raises NotLetIn when a caller says that it is a node which its certificate does not name."""
        if caller.node_id is not None and caller.node_id != node_id:
            message = f"the certificate is node {caller.node_id}'s, and the hello says {node_id}"
            raise NotLetIn(Refusal.OTHER_NODE, message)


class ServerPair:
    """The certificate of a listener, made anew at two thirds of its life, and when the authorities change.

    Thread-safe: gRPC asks from its own, before each handshake.
    """

    def __init__(
        self,
        issue: Callable[[], Pair],
        authorities: Callable[[], Authorities],
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._issue = issue
        self._authorities = authorities
        self._wall = wall
        self._lock = threading.Lock()
        self._of = authorities()
        self._pair = issue()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration(
            [(self._pair.key, self._pair.chain)], root_certificates=self._of.trusted
        )

    def fetcher(self) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """What one listener asks before each handshake: its new configuration, or None when it has that already.

        None is not only cheaper. gRPC frees what it had when it is given another, and a handshake that begins in
        another thread at that moment may still use it (grpc/grpc#36693): given the same anew each time, a control
        plane died of a segmentation fault when a thousand nodes dialled it at once.
        """
        told = self._pair, self._of.trusted

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            with self._lock:
                self._renew()
                if (self._pair, self._of.trusted) == told:
                    return None
                told = self._pair, self._of.trusted
                return self._configuration()

        return fetch

    def _renew(self) -> None:
        self._of, before = self._authorities(), self._of
        signed_anew = self._of.issuing is not before.issuing
        if signed_anew or self._pair.not_after - self._wall() <= SERVER_LIFE_S / 3:
            self._pair = self._issue()

    def credentials(self, *, ask_for_certificate: bool) -> grpc.ServerCredentials:
        """TLS by this certificate; the peer has to show one too, or is not asked for any."""
        with self._lock:
            return grpc.dynamic_ssl_server_credentials(
                self._configuration(),
                self.fetcher(),  # type: ignore[arg-type]  # the stubs do not know that None is an answer
                require_client_authentication=ask_for_certificate,
            )


class EnrolledGate(Gate):
    """Nodes that joined with a token."""

    def __init__(self, nodes: NodeCertificates, names: Sequence[str], *, wall: Callable[[], float] = time.time) -> None:
        super().__init__()
        self.nodes = nodes
        self.refusals = nodes.refusals
        self._wall = wall
        self._pair = ServerPair(lambda: nodes.server_pair(names), lambda: nodes.authorities, wall=wall)

    @override
    def credentials(self) -> grpc.ServerCredentials:
        return self._pair.credentials(ask_for_certificate=True)

    def enrolment_credentials(self) -> grpc.ServerCredentials:
        """TLS for those who have no certificate yet."""
        return self._pair.credentials(ask_for_certificate=False)

    @override
    def identify(self, certificate: x509.Certificate) -> Caller:
        name = _name(certificate)
        prefix = f"pointsman://{self.nodes.cluster}/node/"
        if not name.startswith(prefix):
            raise NotLetIn(Refusal.WRONG_CLUSTER, f"the certificate's name is {name!r}, and not one of {prefix}...")
        node_id, key = node_id_of(name), key_digest(certificate)
        record = self.nodes.checked(self.nodes.node(node_id), node_id, key)
        return Caller(node_id, key, certificate.not_valid_after_utc.timestamp(), record.labels)

    @override
    def still(self, caller: Caller) -> None:
        assert caller.node_id is not None, "identified"
        record = self.nodes.checked(self.nodes.node(caller.node_id), caller.node_id, caller.key)
        # A stream outlives the certificate that it began with if the node has got a newer one meanwhile.
        if self._wall() >= max(record.expires_at, caller.expires_at or 0.0):
            raise NotLetIn(Refusal.EXPIRED, "the node's certificate has expired; give the node a new join token")

    @override
    async def refresh(self) -> None:
        await self.nodes.refresh()

    @override
    def trust(self) -> Trust:
        return Trust(self.nodes.trusted, self.nodes.renewing)

    @override
    def settled(self, node_id: str) -> bool:
        return self.nodes.settled(node_id)

    @override
    def heard(self, node_id: str, *, trusts: frozenset[str], issuer: str) -> None:
        self.nodes.heard(node_id, trusts=trusts, issuer=issuer)

    @override
    def expires_at(self, node_id: str) -> float | None:
        record = self.nodes.node(node_id)
        return None if record is None else record.expires_at


class _FilesGate(Gate):
    """Certificates from files of the operator's."""

    def __init__(self, certificate: bytes, key: bytes, trusted: bytes) -> None:
        """Raises ValueError when it is no PEM text, or the key is another certificate's."""
        super().__init__()
        self._pair = (key, certificate)
        self._trusted = trusted
        own = x509.load_pem_x509_certificate(certificate)
        x509.load_pem_x509_certificates(trusted)
        if load_pem_private_key(key, password=None).public_key() != own.public_key():
            raise ValueError("the private key belongs to another certificate")
        self._own = own

    @override
    def credentials(self) -> grpc.ServerCredentials:
        return grpc.ssl_server_credentials([self._pair], root_certificates=self._trusted, require_client_auth=True)

    @override
    async def refresh(self) -> None:
        return None  # files say all


class SharedGate(_FilesGate):
    """One certificate for all; what it proves is only that its bearer belongs to the cluster."""

    def __init__(self, certificate: bytes, key: bytes) -> None:
        super().__init__(certificate, key, certificate)
        self._pinned = self._own.fingerprint(hashes.SHA256())

    @override
    def identify(self, certificate: x509.Certificate) -> Caller:
        if certificate.fingerprint(hashes.SHA256()) != self._pinned:
            raise NotLetIn(Refusal.NOT_PINNED, "the certificate is not the cluster_cert that all nodes share")
        return Caller(None)

    @override
    def still(self, caller: Caller) -> None:
        return None  # one certificate for all can't shut one out


class PkiGate(_FilesGate):
    """Certificates of somebody's CA whose names fit a pattern; a node's id comes from its name."""

    def __init__(
        self,
        certificate: bytes,
        key: bytes,
        trusted: bytes,
        *,
        names: Sequence[str],
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(certificate, key, trusted)
        self._names = names
        self._wall = wall

    @override
    def identify(self, certificate: x509.Certificate) -> Caller:
        name = _name(certificate)
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in self._names):
            raise NotLetIn(Refusal.BAD_NAME, f"the certificate's name {name!r} fits none of cluster_allowed_names")
        return Caller(node_id_of(name), key_digest(certificate), certificate.not_valid_after_utc.timestamp())

    @override
    def still(self, caller: Caller) -> None:
        if caller.expires_at is not None and self._wall() >= caller.expires_at:
            raise NotLetIn(Refusal.EXPIRED, "the node's certificate has expired; put a new one into its files")


def _name(certificate: x509.Certificate) -> str:
    try:
        return name_of(certificate)
    except BadName as error:
        raise NotLetIn(Refusal.BAD_NAME, str(error)) from None
