"""The gRPC end of enrolment: a listener of its own, for nodes that have a join token and no certificate yet.

It can't be the fleet link's listener, which turns away whoever shows no certificate before a message is read.
"""

from __future__ import annotations

import logging

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from control_plane.fleet.gate import EnrolledGate
from control_plane.fleet.peers import peer_ip
from control_plane.identity.node_certificates import Granted
from control_plane.identity.refusals import NotLetIn, Refusal
from control_plane.store.contract import StoreError
from pointsman.wire.v1 import fleet_pb2

log = logging.getLogger(__name__)

SERVICE = "pointsman.wire.v1.Enrolment"
REQUEST_BYTES_MAX = 16 * 1024
CALLS_MAX = 64
"""Enrolments under way at once; further ones are told to come again."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
    ("grpc.max_concurrent_streams", 2),
    ("grpc.max_connection_idle_ms", 10_000),
    ("grpc.max_connection_age_ms", 30_000),
)


class EnrolmentServer:
    """Serves `Enroll` on one address."""

    def __init__(self, listen: str, gate: EnrolledGate) -> None:
        self._listen = listen
        self._gate = gate
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens. Raises OSError when the address is taken or makes no sense."""
        server = grpc.aio.server(options=_OPTIONS, maximum_concurrent_rpcs=CALLS_MAX)
        handlers = {"Enroll": grpc.unary_unary_rpc_method_handler(self._enroll)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            self.port = server.add_secure_port(self._listen, self._gate.enrolment_credentials())
        except RuntimeError as error:
            raise OSError(f"nodes can't enrol on {self._listen}: {error}") from error
        await server.start()
        self._server = server
        log.info("nodes with a join token enrol on %s (port %d)", self._listen, self.port)

    async def stop(self) -> None:
        """Closes."""
        if self._server is not None:
            await self._server.stop(grace=0.5)
            self._server = None

    async def _enroll(self, frame: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        try:
            request = fleet_pb2.EnrollRequest.FromString(frame)
            granted = await self._gate.nodes.enrol(
                request.token,
                request.request_der,
                node_id=request.node_id,
                address=peer_ip(context.peer()),
                hostname=request.hostname,
            )
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no enrolment")
        except NotLetIn as refused:
            await context.abort(status_of(refused), str(refused))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store can't be used: {error}")
        return certificate_frame(granted)


def certificate_frame(granted: Granted) -> bytes:
    """A certificate as it travels."""
    life = Duration()
    life.FromNanoseconds(int(granted.life_s * 1e9))
    return fleet_pb2.NodeCertificate(
        chain_pem=granted.chain, trusted_pem=granted.trusted, life=life
    ).SerializeToString()


def status_of(refused: NotLetIn) -> grpc.StatusCode:
    """What gRPC calls a refusal: PERMISSION_DENIED for what no retry can mend."""
    return (
        grpc.StatusCode.RESOURCE_EXHAUSTED if refused.refusal is Refusal.TOO_MANY else grpc.StatusCode.PERMISSION_DENIED
    )
