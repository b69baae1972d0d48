"""Asking a control plane for a certificate: the first one with a join token, later ones with the one before.

A node that joins has nothing but the token. It holds the fingerprint of the CA, so the node fetches the chain that the
server shows, believes the CA only if its fingerprint is the token's, and sends the token's secret only over a second
connection on which that CA has proved the server. A stranger on the way gets to see that somebody wants to join.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import cast

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pointsman.rules.join_token import JoinToken, fingerprint_of
from pointsman.rules.node_names import SERVER_NAME
from pointsman.settings import SocketAddress
from pointsman.wire.v1 import fleet_pb2

TIMEOUT_S = 10.0
RENEW_S_MIN = 1.0
_ENROLL = "/pointsman.wire.v1.Enrolment/Enroll"
_RENEW = "/pointsman.wire.v1.FleetLink/Renew"
_DER = 2  # what `_ssl` calls it
_PERMANENT = frozenset({grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT})


class NotGranted(Exception):
    """There is no certificate. `permanent` = asking again can't help."""

    def __init__(self, reason: str, *, permanent: bool = False) -> None:
        super().__init__(reason)
        self.permanent = permanent


async def enrol(
    address: str, token: JoinToken, *, node_id: str, request_der: bytes, hostname: str
) -> fleet_pb2.NodeCertificate:
    """The first certificate. Raises NotGranted."""
    try:
        chain = await asyncio.to_thread(_shown_chain, SocketAddress.parse(address))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise NotGranted(f"can't connect: {error}") from None
    authority = next((der for der in chain if fingerprint_of(der) == token.fingerprint), None)
    if authority is None:
        reason = (
            "the CA of this control plane is not the one that the join token names; check where the token is from, and "
            "make a new one if the CA was rotated"
        )
        raise NotGranted(reason, permanent=True)
    trusted = x509.load_der_x509_certificate(authority).public_bytes(Encoding.PEM)
    channel = grpc.aio.secure_channel(
        address,
        grpc.ssl_channel_credentials(trusted),
        options=(("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.enable_http_proxy", 0)),
    )
    try:
        call = channel.unary_unary(
            _ENROLL,
            request_serializer=fleet_pb2.EnrollRequest.SerializeToString,
            response_deserializer=fleet_pb2.NodeCertificate.FromString,
        )
        request = fleet_pb2.EnrollRequest(token=token.text, node_id=node_id, request_der=request_der, hostname=hostname)
        granted = await call(request, timeout=TIMEOUT_S)
    except grpc.aio.AioRpcError as error:
        raise NotGranted(_why(error), permanent=error.code() in _PERMANENT) from None
    finally:
        await channel.close(grace=None)
    return cast(fleet_pb2.NodeCertificate, granted)


async def renew(channel: grpc.aio.Channel, request_der: bytes, *, left_s: float) -> fleet_pb2.NodeCertificate:
    """The next certificate, by a channel that shows the present one. Raises NotGranted.

    The present one is good for `left_s` more: one control plane that does not answer must leave time for another try.
    """
    timeout_s = min(TIMEOUT_S, max(RENEW_S_MIN, left_s / 4))
    call = channel.unary_unary(
        _RENEW,
        request_serializer=fleet_pb2.RenewRequest.SerializeToString,
        response_deserializer=fleet_pb2.NodeCertificate.FromString,
    )
    try:
        granted = await call(fleet_pb2.RenewRequest(request_der=request_der), timeout=timeout_s)
    except grpc.aio.AioRpcError as error:
        raise NotGranted(_why(error), permanent=error.code() in _PERMANENT) from None
    return cast(fleet_pb2.NodeCertificate, granted)


def _why(error: grpc.aio.AioRpcError) -> str:
    return str(error.details() or error.code().name)


def _shown_chain(address: SocketAddress) -> Sequence[bytes]:
    """The certificates, DER, that a server shows to whoever connects. Nothing is believed here. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((address.host, address.port), timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=SERVER_NAME) as secure,
    ):
        # Public since Python 3.13, where it gives DER; before that it is there, but for the public name.
        public: Callable[[], Sequence[bytes]] | None = getattr(secure, "get_unverified_chain", None)
        if public is not None:
            return public()
        shown = secure._sslobj.get_unverified_chain()  # type: ignore[attr-defined]  # see above
        return [certificate.public_bytes(_DER) for certificate in shown]
