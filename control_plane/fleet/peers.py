"""What gRPC says about the other end of a call."""

from __future__ import annotations

import urllib.parse

import grpc
import grpc.aio
from cryptography import x509

from control_plane.fleet.gate import ANYBODY, Caller, Gate
from control_plane.identity.refusals import NotLetIn, Refusal


def peer_ip(peer: str) -> str:
    """The address in gRPC's name of a peer: `ipv4:127.0.0.1:4242`, `ipv6:[::1]:4242` (brackets percent-encoded)."""
    family, _, rest = urllib.parse.unquote(peer).partition(":")
    if family not in ("ipv4", "ipv6"):
        return ""
    return rest.rpartition(":")[0].strip("[]")


async def caller_of(context: grpc.aio.ServicerContext[bytes, bytes], gate: Gate | None) -> Caller:
    """Who calls, by the certificate of the connection. Without a gate it is anybody. Raises NotLetIn, StoreError."""
    if gate is None:
        return ANYBODY
    shown = list(context.auth_context().get("x509_pem_cert", []))
    if len(shown) != 1:
        raise NotLetIn(Refusal.BAD_NAME, "the connection has no certificate")
    try:
        certificate = x509.load_pem_x509_certificate(bytes(shown[0]))
    except ValueError:
        raise NotLetIn(Refusal.BAD_NAME, "the connection's certificate can't be read") from None
    try:
        return gate.identify(certificate)
    except NotLetIn as refused:
        if refused.refusal is not Refusal.UNKNOWN_NODE:
            raise
        await gate.refresh()  # it may have joined by another control plane a moment ago
        return gate.identify(certificate)


def metadata_of(context: grpc.aio.ServicerContext[bytes, bytes], key: str) -> str:
    """One entry of a call's metadata; empty when it is not there."""
    for name, value in context.invocation_metadata() or ():
        if name == key and isinstance(value, str):
            return value
    return ""
