"""Certificates and private keys in PEM form: what can be said about them before anyone uses them.

The texts that come from here name what is wrong and never what was given: a key must not travel in an error, and the
parser's own words are left out because they may quote their input.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

BYTES_MAX = 128 * 1024
"""Of one PEM text. A chain of five large certificates takes a tenth of it."""

_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----")
_ANY_KEY = re.compile(r"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----")
_VAULT = "{vault://"


class BadPem(ValueError):
    """The text is not what it should be; the message says why without quoting it."""


def certificate_chain(text: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text, the leaf first; raises BadPem."""
    _refuse_unreadable(text)
    if not _CERTIFICATE.search(text):
        raise BadPem("there is no PEM block 'CERTIFICATE' in it")
    try:
        return x509.load_pem_x509_certificates(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadPem("the PEM block can't be read") from None


def public_key_of(text: str) -> bytes:
    """Return the public half of a PEM private key, as DER, by which it is compared; raises BadPem."""
    _refuse_unreadable(text)
    if not _ANY_KEY.search(text):
        raise BadPem("there is no PEM block 'PRIVATE KEY' in it")
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise BadPem("it is encrypted; give the key without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise BadPem("the PEM block can't be read") from None
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certificate_problem(text: str) -> str | None:
    """Return what is wrong with a PEM certificate or chain, in Kong's form."""
    try:
        certificate_chain(text)
    except BadPem as error:
        return f"invalid certificate: {error}"
    return None


def key_problem(text: str) -> str | None:
    """Return what is wrong with a PEM private key, in Kong's form."""
    try:
        public_key_of(text)
    except BadPem as error:
        return f"invalid key: {error}"
    return None


def matches(certificate: str, key: str) -> bool:
    """Tell whether the key is that of the first certificate; both must be readable."""
    leaf = certificate_chain(certificate)[0]
    try:
        public = leaf.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == public_key_of(key)


def key_type(certificate: str) -> str:
    """Return the family of a readable certificate's key: a server offers one certificate of each."""
    try:
        public = certificate_chain(certificate)[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "unknown"
    for name, kind in (
        ("RSA", rsa.RSAPublicKey),
        ("ECDSA", ec.EllipticCurvePublicKey),
        ("DSA", dsa.DSAPublicKey),
        ("EdDSA", ed25519.Ed25519PublicKey | ed448.Ed448PublicKey),
    ):
        if isinstance(public, kind):
            return name
    return "unknown"


def is_expired(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate's time is over."""
    return certificate.not_valid_after_utc < datetime.now(UTC)


def is_authority(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate may sign others: basicConstraints says CA."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (x509.ExtensionNotFound, ValueError):
        return False


def digest(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate's DER form, in lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def _refuse_unreadable(text: str) -> None:
    if text.startswith(_VAULT):
        raise BadPem("vault references are not supported; give the PEM text itself")
    if len(text) > BYTES_MAX:
        raise BadPem(f"it is longer than {BYTES_MAX} characters")
