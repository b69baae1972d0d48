"""Certificates for tests, made once a run: authorities, leaves for names, and clients that trust them."""

from __future__ import annotations

import functools
import ssl
import tempfile
from dataclasses import dataclass

import trustme

Pair = tuple[str, str]


@dataclass(frozen=True)
class Issued:
    """A leaf with its chain, and its key."""

    cert: str
    key: str

    @property
    def pair(self) -> Pair:
        return self.cert, self.key


@functools.cache
def authority(name: str = "one") -> trustme.CA:
    """A root of its own for each name."""
    return trustme.CA(organization_name=f"authority {name}")


def authority_pem(name: str = "one") -> str:
    return authority(name).cert_pem.bytes().decode()


@functools.cache
def self_signed_authority(name: str = "one") -> Issued:
    """The root itself with its key, which is right as a certificate and as an authority."""
    root = authority(name)
    return Issued(root.cert_pem.bytes().decode(), root.private_key_pem.bytes().decode())


@functools.cache
def intermediate(name: str = "one", depth: int = 1) -> trustme.CA:
    """An authority below the root, or below another one."""
    parent = authority(name) if depth == 1 else intermediate(name, depth - 1)
    return parent.create_child_ca()


@functools.cache
def issued(*names: str, by: str = "one", ecdsa: bool = True, depth: int = 0, serial: int = 0) -> Issued:
    """A certificate for names; `depth` = intermediates in its chain, `serial` makes another one for the same names."""
    del serial
    parent = intermediate(by, depth) if depth else authority(by)
    kind = trustme.KeyType.ECDSA if ecdsa else trustme.KeyType.RSA
    leaf = parent.issue_cert(*names, key_type=kind)
    chain = "".join(blob.bytes().decode() for blob in leaf.cert_chain_pems)
    return Issued(chain, leaf.private_key_pem.bytes().decode())


def client_context(*, by: str | None = "one", shows: Issued | None = None) -> ssl.SSLContext:
    """A client that trusts one authority, or looks at nothing (`by` None)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if by is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=authority_pem(by))
    if shows is not None:
        _load(context, shows)
    return context


def server_context(shows: Issued, *, wants_client_of: str | None = None) -> ssl.SSLContext:
    """A server; with `wants_client_of` only for clients with a certificate of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, shows)
    if wants_client_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=authority_pem(wants_client_of))
    return context


def _load(context: ssl.SSLContext, shows: Issued) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(shows.key + shows.cert)
        file.flush()
        context.load_cert_chain(file.name)
