"""The cluster's own certificate authority: made at the first start, kept in the store, shared by all control planes.

It signs two kinds of certificates: short-lived ones that only a node can use, to dial in, and those of the control
planes' fleet links. Keys are P-256 throughout. While it is being changed for another (`ca_rotation.py`) there are two,
and both are trusted.
"""

from __future__ import annotations

import datetime
import ipaddress
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from control_plane.entities.types import EntityBody
from control_plane.store.contract import Origin, Store, Transaction
from pointsman.rules.join_token import fingerprint_of
from pointsman.rules.node_names import SERVER_NAME, node_uri

KIND = "node-ca"
"""How the store calls the authority."""
ISSUING, NEXT, FORMER = "fleet", "next", "former"
"""The store's ids: the one that signs, the one that will, and the one that did; the latter two during a rotation."""
CA_LIFE_S = 10 * 365 * 86_400.0
SERVER_LIFE_S = 90 * 86_400.0
BACKDATED_S = 86_400.0
"""Certificates begin this long before they are made: a node's clock may be behind ours."""
CSR_BYTES_MAX = 8 * 1024


class BadRequest(ValueError):
    """What a node sent is no signing request that can be granted."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A chain and its key, PEM; times are seconds since the epoch."""

    chain: bytes
    key: bytes
    not_after: float


class Authority:
    """Signs. Never gives its key away."""

    def __init__(self, cluster: str, certificate_pem: bytes, key_pem: bytes, *, since: float = 0.0) -> None:
        self.cluster = cluster
        self.pem = certificate_pem
        self.since = since
        """When it took its present place, in seconds since the epoch; 0 = with the cluster."""
        self._certificate = x509.load_pem_x509_certificate(certificate_pem)
        key = load_pem_private_key(key_pem, password=None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key

    @property
    def fingerprint(self) -> str:
        """How join tokens name this authority."""
        return fingerprint_of(self._certificate.public_bytes(Encoding.DER))

    @property
    def not_after(self) -> float:
        """When it ends, in seconds since the epoch."""
        return self._certificate.not_valid_after_utc.timestamp()

    def signed(self, certificate: x509.Certificate) -> bool:
        """Whether this authority signed a certificate."""
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def issue_node(
        self, request: x509.CertificateSigningRequest, *, node_id: str, now: float, life_s: float
    ) -> x509.Certificate:
        """A node's certificate. Of the request only the public key counts: names are given, not asked for."""
        return self._sign(
            request.public_key(),
            name=node_id,
            names=[x509.UniformResourceIdentifier(node_uri(self.cluster, node_id))],
            usage=ExtendedKeyUsageOID.CLIENT_AUTH,
            now=now,
            life_s=life_s,
        )

    def issue_server(self, names: Sequence[str], *, now: float, life_s: float = SERVER_LIFE_S) -> Pair:
        """A certificate for a fleet link, which answers to `names` and to the name that all nodes ask for."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives: list[x509.GeneralName] = [x509.DNSName(SERVER_NAME)]
        for name in dict.fromkeys(names):
            try:
                alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
            except ValueError:
                alternatives.append(x509.DNSName(name))
        certificate = self._sign(
            key.public_key(),
            name=SERVER_NAME,
            names=alternatives,
            usage=ExtendedKeyUsageOID.SERVER_AUTH,
            now=now,
            life_s=life_s,
        )
        chain = certificate.public_bytes(Encoding.PEM) + self.pem
        return Pair(chain, _key_pem(key), now + life_s)

    def _sign(
        self,
        key: object,
        *,
        name: str,
        names: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        now: float,
        life_s: float,
    ) -> x509.Certificate:
        assert isinstance(key, ec.EllipticCurvePublicKey)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(_named(name))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_time(now - BACKDATED_S))
            .not_valid_after(_time(now + life_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(authority_key, critical=False)
            .sign(self._key, hashes.SHA256())
        )


@dataclass(frozen=True, slots=True)
class Authorities:
    """Who signs, and who is trusted beside it."""

    issuing: Authority
    next: Authority | None = None
    former: Authority | None = None

    def __post_init__(self) -> None:
        assert self.next is None or self.former is None, "one step at a time"

    @property
    def all(self) -> tuple[Authority, ...]:
        """Those that are trusted."""
        return tuple(each for each in (self.issuing, self.next, self.former) if each is not None)

    @property
    def trusted(self) -> bytes:
        """Their certificates, PEM, joined."""
        return b"".join(each.pem for each in self.all)

    @property
    def fingerprints(self) -> frozenset[str]:
        """What a node says that it trusts when it has heard of all."""
        return frozenset(each.fingerprint for each in self.all)


async def load_or_make(store: Store, *, now: float) -> Authorities:
    """The cluster's authorities. Of several control planes that start together, one makes the first."""

    def work(tx: Transaction) -> Authorities:
        if tx.identities.get(KIND, ISSUING) is None:
            keep(tx, ISSUING, made(ISSUING, str(uuid.uuid4()), now))
        return load(tx)

    def look(tx: Transaction) -> Authorities | None:
        return None if tx.identities.get(KIND, ISSUING) is None else load(tx)

    found = await store.read(look)
    if found is None:
        found = (await store.write(work, Origin(author="control plane", source="identity", action="node CA"))).result
    return found


def keep(tx: Transaction, place: str, body: EntityBody) -> None:
    """Puts an authority into its place in the store, its key sealed."""
    tx.identities.put(KIND, place, body, secrets=("key",))


def load(tx: Transaction, *, known: Authorities | None = None) -> Authorities:
    """What the store holds, where there is one that signs; the keys of those in `known` are not read again."""
    before = {(each.pem, each.since): each for each in known.all} if known is not None else {}

    def place(name: str) -> Authority | None:
        body = tx.identities.get(KIND, name)
        if body is None:
            return None
        pem, since = str(body["certificate"]).encode(), float(str(body.get("since") or 0.0))
        same = before.get((pem, since))
        return same or Authority(str(body["cluster"]), pem, str(body["key"]).encode(), since=since)

    issuing = place(ISSUING)
    assert issuing is not None, "made at the first start"
    return Authorities(issuing, place(NEXT), place(FORMER))


def made(place: str, cluster: str, now: float) -> EntityBody:
    """A new authority, for the store. Its name is its own, because chains are looked up by the names in them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named(f"pointsman fleet {cluster} {secrets.token_hex(4)}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now - BACKDATED_S))
        .not_valid_after(_time(now + CA_LIFE_S))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return {
        "id": place,
        "cluster": cluster,
        "certificate": certificate.public_bytes(Encoding.PEM).decode(),
        "key": _key_pem(key).decode(),
        "since": now,
    }


def read_request(der: bytes) -> x509.CertificateSigningRequest:
    """A node's signing request, whose signature proves that it has the key. Raises BadRequest."""
    if len(der) > CSR_BYTES_MAX:
        raise BadRequest(f"the signing request has {len(der)} bytes; {CSR_BYTES_MAX} are enough")
    try:
        request = x509.load_der_x509_csr(der)
        proven = request.is_signature_valid
        key = request.public_key()
    except Exception as error:  # the parser's errors are many, and all mean the same
        raise BadRequest("the signing request can't be read") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadRequest("the signing request has no P-256 key")
    if not proven:
        raise BadRequest("the signing request is not signed by its own key")
    return request


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _time(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
