"""What a matched route answers by itself because the request came by a protocol it does not serve.

Checked after the match and never falling through to another route, as in Kong: an operator who made a route https-only
wants plain requests for it refused, not served by whatever else would take them.
"""

from __future__ import annotations

from dataclasses import dataclass

from data_plane.model import RouteConfig

NEEDS_HTTPS = "Please use HTTPS protocol"
NEEDS_HTTP2 = "Please use HTTP2 protocol"
NOT_GRPC = "Non-gRPC request matched gRPC route"
NEEDS_GRPCS = b"gRPC request matched gRPCs route"


@dataclass(frozen=True, slots=True)
class ProtocolAnswer:
    """The gateway's own answer: `message` goes into the error body; None = no body at all."""

    status: int
    message: str | None
    fields: tuple[tuple[bytes, bytes], ...]


_USE_HTTPS = ProtocolAnswer(426, NEEDS_HTTPS, ((b"Connection", b"Upgrade"), (b"Upgrade", b"TLS/1.2, HTTP/1.1")))
_USE_HTTP2 = ProtocolAnswer(426, NEEDS_HTTP2, ((b"Connection", b"Upgrade"), (b"Upgrade", b"HTTP/2")))
_USE_GRPC = ProtocolAnswer(415, NOT_GRPC, ())
_USE_GRPCS = ProtocolAnswer(
    200,
    None,
    ((b"Content-Type", b"application/grpc"), (b"grpc-status", b"1"), (b"grpc-message", NEEDS_GRPCS)),
)


def protocol_answer(
    route: RouteConfig, proto: bytes, *, http2: bool, content_type: bytes | None, host: bytes, target: bytes
) -> ProtocolAnswer | None:
    """Return the answer for a request that the route does not serve by its protocol, None when it does.

    `proto` is what a trusted peer said in X-Forwarded-Proto, else the connection's scheme. `host` and `target` are only
    for a redirect: the name as `redirect_host` gives it and the raw request target with its query.
    """
    protocols = route.protocols
    if "https" in protocols and "http" not in protocols and proto != b"https":
        if route.https_redirect_status_code == 426:
            return _USE_HTTPS
        location = b"https://" + host + target
        return ProtocolAnswer(route.https_redirect_status_code, None, ((b"Location", location),))
    if "grpc" in protocols or "grpcs" in protocols:
        if content_type is None or not content_type.lower().startswith(b"application/grpc"):
            return _USE_GRPC
        if not http2:
            return _USE_HTTP2
        if "grpc" not in protocols and proto != b"https":
            return _USE_GRPCS
    return None


def redirect_host(host: bytes) -> bytes:
    """Return a request's Host for a redirect: lower case, without its port and the dot at the end of a full name."""
    if host.endswith(b"]"):
        return host.lower()
    name, colon, _ = host.rpartition(b":")
    return (name if colon else host).lower().removesuffix(b".")
