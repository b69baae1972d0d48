"""The certificates that TLS listeners show when the configuration has none for a name.

Read from the files that the operator names, or made at start: a self-signed RSA and an ECDSA pair, good for nothing but
encryption, which live in memory only. They reach the workers through an anonymous memory file whose descriptor they
inherit: never by a command line, which everybody on the machine can read, and never by a disk. Files are read again on
SIGHUP; workers that are there by then are told over their channel.
"""

from __future__ import annotations

import datetime
import os
import ssl
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from data_plane.handover import Pair, pairs_to_bytes
from pointsman.rules.pems import UnusablePem, load_pair

VALID_DAYS = 3650


class BadDefaultPair(ValueError):
    """A default certificate that can't be had; the text names the file and says why."""


def read_pairs(certificates: Sequence[Path], keys: Sequence[Path]) -> list[Pair]:
    """Read pairs of files, tried as a worker will use them; raises BadDefaultPair."""
    if len(certificates) != len(keys):
        raise BadDefaultPair("ssl_cert and ssl_cert_key must name the same number of files")
    pairs: list[Pair] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for certificate, key in zip(certificates, keys, strict=True):
        pair = (_read(certificate), _read(key))
        try:
            load_pair(context, *pair)
        except UnusablePem as error:
            raise BadDefaultPair(f"{certificate} with {key}: {error}") from None
        pairs.append(pair)
    return pairs


def self_signed_pairs() -> list[Pair]:
    """Make an RSA and an ECDSA pair for `localhost`."""
    return [_self_signed(rsa.generate_private_key(65537, 2048)), _self_signed(ec.generate_private_key(ec.SECP256R1()))]


class DefaultPairs:
    """The pairs that a node's workers are given. `descriptor` = their memory file, open for workers started later."""

    def __init__(self, certificates: Sequence[Path], keys: Sequence[Path]) -> None:
        """Raises BadDefaultPair."""
        self._files = (tuple(certificates), tuple(keys))
        self.pairs = read_pairs(*self._files) or self_signed_pairs()
        self.descriptor = _in_memory(self.pairs)

    def reread(self) -> bool:
        """Read the files again and tell whether anything changed; raises BadDefaultPair, and then nothing has."""
        pairs = read_pairs(*self._files)
        if not pairs or pairs == self.pairs:
            return False
        before, self.descriptor = self.descriptor, _in_memory(pairs)
        self.pairs = pairs
        os.close(before)
        return True


def _in_memory(pairs: Sequence[Pair]) -> int:
    descriptor = os.memfd_create("default-pairs", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(pairs_to_bytes(pairs))
    return descriptor


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise BadDefaultPair(f"{path}: {error.strerror}") from error
    except ValueError:
        raise BadDefaultPair(f"{path}: it is not a PEM text") from None


def _self_signed(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> Pair:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode(), private.decode()
