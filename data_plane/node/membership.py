"""A node's membership of a cluster: its key, its certificate, joining by a token, renewing in time.

All of it is one file of mode 0600 in the state directory, replaced as a whole: the private key, which is made here and
goes nowhere, the certificate, and the CA that is trusted. The key stays the same for the node's life: the control
plane knows the node by it.

Serving never depends on any of this. A node whose certificate has run out goes on with what it runs and says why it
hears of nothing new.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import grpc.aio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from typing_extensions import override

from data_plane.node.enrolment import NotGranted, enrol, renew
from data_plane.node.fleet_access import BadTrust, FleetAccess, NoAccess, Options, Standing, joined_channel
from pointsman.rules.join_token import JoinToken, fingerprint_of
from pointsman.wire.v1 import fleet_pb2

log = logging.getLogger(__name__)

FILE = "identity.pem"
FILE_BYTES_MAX = 256 * 1024
RENEW_AT = 2 / 3
"""Part of a certificate's life after which it is renewed, give or take a tenth of that."""
RETRY_S_MAX = 60.0
TRUSTED_MAX = 8
"""CAs that a control plane may name; there are two during a rotation."""


class BadIdentity(Exception):
    """The identity file can't be used; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A certificate and whom it is good with, PEM."""

    chain: bytes
    trusted: bytes
    expires_at: float  # seconds since the epoch


class Membership(FleetAccess):
    """One node's certificate of the cluster's own CA.

    `token` gives the join token's text, or an empty one; it is asked only when there is need of it.
    """

    def __init__(
        self,
        state_dir: Path,
        node_id: str,
        *,
        token: Callable[[], str],
        enrol_at: Sequence[str],
        addresses: Sequence[str],
        hostname: str = "",
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Raises BadIdentity."""
        self._path = state_dir / FILE
        self._node_id = node_id
        self._token = token
        self._enrol_at = enrol_at
        self._addresses = addresses
        self._hostname = hostname
        self._rng = rng or random.SystemRandom()
        self._clock = clock
        self._wall = wall
        self._problem = ""
        self._key, self._joined = _load(self._path)
        self._renew_at = self._due(self._joined.expires_at - wall()) if self._joined is not None else 0.0
        self._changed = asyncio.Event()
        self._tell: Callable[[], None] = _to_nobody
        self.renewals = 0

    @staticmethod
    def exists(state_dir: Path) -> bool:
        """Whether a node has joined from this directory, or tried to."""
        return (state_dir / FILE).exists()

    @property
    @override
    def expires_at(self) -> float | None:
        return self._joined.expires_at if self._joined is not None else None

    @property
    @override
    def problem(self) -> str:
        return self._problem

    @override
    async def channel(self, address: str, options: Options) -> grpc.aio.Channel:
        joined = self._joined
        if joined is None or self._wall() >= joined.expires_at:
            joined = await self._join()
        return self._open(address, options, joined)

    @property
    @override
    def standing(self) -> Standing | None:
        joined = self._joined
        if joined is None:
            return None
        leaf = x509.load_pem_x509_certificate(joined.chain)
        issuer, trusts = "", set()
        for authority in x509.load_pem_x509_certificates(joined.trusted):
            fingerprint = fingerprint_of(authority.public_bytes(Encoding.DER))
            trusts.add(fingerprint)
            with contextlib.suppress(ValueError, TypeError, InvalidSignature):
                leaf.verify_directly_issued_by(authority)
                issuer = fingerprint
        return Standing(frozenset(trusts), issuer)

    @override
    def told(self, trusted: bytes, *, renew_within_s: float | None) -> None:
        joined = self._joined
        if joined is None:
            return
        try:
            authorities = x509.load_pem_x509_certificates(trusted)
        except ValueError:
            authorities = []
        if not 0 < len(authorities) <= TRUSTED_MAX:
            raise BadTrust(f"it names {len(authorities)} CAs; 1 to {TRUSTED_MAX} make sense")
        if trusted != joined.trusted:
            fresh = replace(joined, trusted=trusted)
            self._save(fresh)
            self._joined = fresh
            log.info("this node trusts %d CAs of the cluster now", len(authorities))
        if renew_within_s is not None:
            self._renew_at = min(self._renew_at, self._clock() + self._rng.uniform(0.0, renew_within_s))
            self._changed.set()
        self._tell()

    @override
    async def run(self, changed: Callable[[], None]) -> None:
        """Renews the certificate for as long as there is one; runs until it is cancelled."""
        self._tell = changed
        failures = 0
        while True:
            self._changed.clear()
            joined = self._joined
            if joined is None or self._wall() >= joined.expires_at:
                if joined is not None and not self._problem:
                    self._problem = "the certificate has expired; this node serves on, but hears of no change"
                    log.error("%s; start it with a new join token", self._problem)
                await self._changed.wait()  # the link joins, when it has a token
                continue
            if (left_s := self._renew_at - self._clock()) > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._changed.wait()
                continue
            try:
                await self._renew(joined)
                failures = 0
            except (NotGranted, OSError) as error:
                failures += 1
                left_s = max(0.0, joined.expires_at - self._wall())
                pause_s = min(RETRY_S_MAX, max(0.1, left_s / 8)) * self._rng.uniform(0.5, 1.0)
                self._problem = f"the certificate could not be renewed: {error}"
                log.warning("%s; it is good for %.0f s more, next try in %.0f s", self._problem, left_s, pause_s)
                self._renew_at = self._clock() + pause_s

    async def _renew(self, joined: Joined) -> None:
        """Asks the control planes in random order. Raises NotGranted with the last one's reason, and OSError."""
        last = NotGranted("no control plane is configured")
        for address in self._rng.sample(self._addresses, len(self._addresses)):
            channel = self._open(address, (), joined)
            try:
                left_s = joined.expires_at - self._wall()
                self._take(await renew(channel, self._request(), left_s=left_s))
            except NotGranted as error:
                last = error
            else:
                self.renewals += 1
                log.info("the certificate was renewed; it is good until %s", _text(self.expires_at or 0.0))
                return
            finally:
                await channel.close(grace=None)
        raise last

    async def _join(self) -> Joined:
        text = self._token()
        if not text:
            why = "has no certificate" if self._joined is None else "has a certificate that has expired"
            self._problem = f"this node {why} and no join token; start it with one: pointsman join-token create"
            raise NoAccess(self._problem)
        try:
            token = JoinToken.parse(text)
        except ValueError as error:
            raise self._refused(str(error), permanent=True) from None
        address = self._rng.choice(self._enrol_at)
        try:
            self._save(self._joined)  # the key first: it must be the same if the answer is lost
            granted = await enrol(
                address, token, node_id=self._node_id, request_der=self._request(), hostname=self._hostname
            )
            self._take(granted)
        except NotGranted as error:
            raise self._refused(f"joining by {address}: {error}", permanent=error.permanent) from None
        except OSError as error:
            raise self._refused(f"{self._path} can't be written: {error.strerror}", permanent=False) from None
        assert self._joined is not None, "just taken"
        log.info("joined the cluster by %s; the certificate is good until %s", address, _text(self._joined.expires_at))
        return self._joined

    def _refused(self, problem: str, *, permanent: bool) -> NoAccess:
        self._problem = problem
        return NoAccess(problem, permanent=permanent)

    def _take(self, granted: fleet_pb2.NodeCertificate) -> None:
        """A certificate that was granted. Raises NotGranted when it is not ours, OSError when it can't be kept."""
        life_s = granted.life.ToNanoseconds() / 1e9
        try:
            certificate = x509.load_pem_x509_certificate(granted.chain_pem)
            x509.load_pem_x509_certificates(granted.trusted_pem)
        except ValueError:
            raise NotGranted("the control plane sent no certificate") from None
        own = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != own:
            raise NotGranted("the control plane sent a certificate of another key")
        # By the life and our own clock, which may be another one than the control plane's.
        joined = Joined(granted.chain_pem, granted.trusted_pem, self._wall() + life_s)
        self._save(joined)
        self._joined = joined
        self._renew_at = self._due(life_s)
        self._problem = ""
        self._changed.set()
        self._tell()

    def _due(self, life_s: float) -> float:
        return self._clock() + max(0.0, life_s) * RENEW_AT * self._rng.uniform(0.9, 1.1)

    def _open(self, address: str, options: Options, joined: Joined) -> grpc.aio.Channel:
        return joined_channel(address, options, trusted=joined.trusted, key=self._key_pem(), chain=joined.chain)

    def _request(self) -> bytes:
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.DER)

    def _key_pem(self) -> bytes:
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def _save(self, joined: Joined | None) -> None:
        """Whole or not at all, on disk when it returns, and never readable for others for an instant."""
        text = self._key_pem() + (joined.chain + joined.trusted if joined is not None else b"")
        fresh = self._path.with_suffix(".tmp")
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _load(path: Path) -> tuple[ec.EllipticCurvePrivateKey, Joined | None]:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX)
        key = load_pem_private_key(text, password=None)
        certificates = x509.load_pem_x509_certificates(text) if b"BEGIN CERTIFICATE" in text else []
    except FileNotFoundError:
        return ec.generate_private_key(ec.SECP256R1()), None
    except OSError as error:
        raise BadIdentity(f"{path} can't be read: {error.strerror}; check --state-dir") from None
    except ValueError:
        raise BadIdentity(f"{path} holds no key; remove it, and the node joins anew with a join token") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise BadIdentity(f"{path} holds a key of another kind; remove it, and the node joins anew with a join token")
    if len(certificates) < 2:
        return key, None
    chain, *trusted = (certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    return key, Joined(chain, b"".join(trusted), certificates[0].not_valid_after_utc.timestamp())


def _to_nobody() -> None:
    """Nobody listens yet."""


def _text(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))
