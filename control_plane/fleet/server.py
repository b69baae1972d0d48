"""The gRPC end of the fleet link: streams in and out, admission, limits. It decides nothing about snapshots.

Each node has one `Control` stream with small messages and, when it needs bulk, a `Pull` stream of its own, so that a
large snapshot never delays a word. Requests and answers are bytes to gRPC: frames for all nodes are made once and
passed through.

A node that neither reads nor beats for a lease is dropped; what waits for it is in its `connection.py`.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from control_plane.entities.types import EntityBody
from control_plane.fleet import messages
from control_plane.fleet.connection import Connection
from control_plane.fleet.enrolment import certificate_frame, status_of
from control_plane.fleet.gate import ANYBODY, Caller, EnrolledGate, Gate
from control_plane.fleet.health import HealthBook
from control_plane.fleet.messages import (
    Applied,
    BadMessage,
    Beat,
    DeltaUnusable,
    HealthReport,
    Hello,
    Leaving,
    Rejected,
    RolloutWord,
    SideReport,
    Standing,
)
from control_plane.fleet.nodes import Node, Nodes
from control_plane.fleet.offers import Offers
from control_plane.fleet.peers import caller_of, metadata_of, peer_ip
from control_plane.fleet.published import Shelf
from control_plane.fleet.session import Waiting
from control_plane.fleet.settings import PROTOCOL, SCHEMA_LEVEL, FleetSettings
from control_plane.fleet.side_figures import SideBook
from control_plane.fleet.tracing import NoNode, Question, Traces, choose
from control_plane.identity.refusals import NotLetIn, Refusal, Refusals
from control_plane.store.contract import StoreError
from pointsman.snapshots import NOTHING
from pointsman.wire.v1.fleet_pb2 import RenewRequest, RolloutActivated, RolloutVote, TraceAnswer

log = logging.getLogger(__name__)

SERVICE = "pointsman.wire.v1.FleetLink"
NODE_ID_KEY = "pointsman-node-id"
"""Metadata of a pull that names the node; a certificate has to name the same one."""

ZONE_LABEL = "zone"
RENEWALS_PER_S = 200.0
"""How fast nodes are asked to renew when all of them must."""

_OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second control plane on this port must fail to start, not share it silently
    ("grpc.max_receive_message_length", messages.NODE_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", messages.PIECE_BYTES_MAX + 16 * 1024),
    ("grpc.max_concurrent_streams", 8),
    ("grpc.max_connection_idle_ms", 60_000),  # whoever connects and says nothing
    ("grpc.keepalive_time_ms", 9_000),  # a half-open connection is found within 15 s, as on the other side
    ("grpc.keepalive_timeout_ms", 5_000),
    # gRPC pings to measure bandwidth, too; while such a ping is out no other is sent, and it may take a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Nodes ping every 9 s. gRPC's default tolerates one ping in five minutes and answers with a GOAWAY.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
)


class LinkServer:
    """Serves the fleet link on one address."""

    def __init__(
        self,
        settings: FleetSettings,
        nodes: Nodes,
        shelf: Shelf,
        *,
        clock: Callable[[], float],
        plane_id: str = "",
        health: HealthBook | None = None,
        sides: SideBook | None = None,
        gate: Gate | None = None,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self.refusals = gate.refusals if gate is not None else Refusals()
        self._nodes = nodes
        self._shelf = shelf
        self._clock = clock
        self._plane_id = plane_id or str(uuid.uuid4())
        self.health = health or HealthBook()
        self.sides = sides or SideBook()
        self._health_request = messages.health_request()
        self._traces = Traces()
        self.on_rollout: Callable[[str, RolloutWord], None] = _nobody
        """Who hears what nodes say about rollouts: node id and word."""
        self.min_ready_version = 0
        """The version of the newest rollout that was decided: a node that comes back with less is not ready yet."""
        self._connections: dict[str, Connection] = {}
        self.offers = Offers(nodes, shelf, self._connections, canary_wait_s=settings.canary_wait_s, clock=clock)
        self._streams: set[Connection] = set()
        self._pulls = asyncio.Semaphore(settings.pulls_max)
        self._pulls_waiting = 0
        self._server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listens. Raises OSError when the address is taken or makes no sense."""
        server = grpc.aio.server(options=_OPTIONS)
        handlers = {
            "Control": grpc.stream_stream_rpc_method_handler(self._control),
            "Pull": grpc.unary_stream_rpc_method_handler(self._pull),
            "Renew": grpc.unary_unary_rpc_method_handler(self._renew),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            if self._gate is None:
                self.port = server.add_insecure_port(self._settings.listen)
            else:
                self.port = server.add_secure_port(self._settings.listen, self._gate.credentials())
        except RuntimeError as error:
            raise OSError(f"the fleet link can't listen on {self._settings.listen}: {error}") from error
        await server.start()
        self._server = server
        log.info("fleet link listens on %s (port %d)", self._settings.listen, self.port)

    async def stop(self) -> None:
        """Tells every node when to come back, then closes."""
        self.offers.stop()
        if self._server is None:
            return
        # Nodes come back as evenly as their number asks for: all at once when they are few.
        spread_s = min(self._settings.reconnect_spread_s_max, max(1.0, len(self._streams) / 500))
        frame = messages.goodbye("the control plane stops", reconnect_max_s=spread_s)
        for connection in self._streams:
            connection.say_goodbye(frame, "the control plane stops")
        gone = [asyncio.ensure_future(connection.gone.wait()) for connection in self._streams]
        if gone:
            _, late = await asyncio.wait(gone, timeout=1.0)
            for waiter in late:
                waiter.cancel()
        await self._server.stop(grace=0.5)
        self._server = None

    @property
    def plane_id(self) -> str:
        """This process, as nodes and other control planes know it."""
        return self._plane_id

    def send(self, nodes: Iterable[str], frame: bytes) -> None:
        """A word about a rollout to these nodes, those that have a stream; goes before all else."""
        for node in nodes:
            connection = self._connections.get(node)
            if connection is not None:
                connection.urge(frame)

    def hint(self, frames: Mapping[str, Sequence[bytes]]) -> None:
        """Sends each connected node the frames of its zone."""
        for connection in self._connections.values():
            zone = connection.node.labels.get(ZONE_LABEL, "")
            if waiting := frames.get(zone):
                connection.hint(waiting)

    async def trace(self, question: Question, *, node: str | None, timeout_s: float) -> tuple[Node, EntityBody]:
        """Ask a live node what would become of a request. Raises NoNode, NotAnswered and TooManyQuestions."""
        chosen = choose(self._nodes.live(), node)
        connection = self._connections.get(chosen.id)
        if connection is None:
            raise NoNode("the node's connection has just ended")
        return chosen, await self._traces.ask(chosen, question, connection.ask, timeout_s=timeout_s)

    async def _control(self, _requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        connection = await self._greet(context)
        if connection is None:
            return
        reader = asyncio.create_task(self._read(connection, context), name="fleet link reader")
        writer = asyncio.create_task(connection.write(context, self._nodes), name="fleet link writer")
        reason = "the stream broke"
        try:
            done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
            reason = next(iter(done)).result()
        finally:
            reader.cancel()
            writer.cancel()
            # Before anything is awaited: gRPC cancels us, too, when the node is gone, and that may come right here.
            self._ended(connection, reason)
            await asyncio.gather(reader, writer, return_exceptions=True)

    def tell_trust(self) -> None:
        """Tells the nodes that don't yet do so whom to trust, and to renew; each stream once for each step."""
        trust = self._gate.trust() if self._gate is not None else None
        if self._gate is None or trust is None:
            return
        behind = [
            connection
            for connection in self._connections.values()
            if connection.trust_told != trust and not self._gate.settled(connection.node.id)
        ]
        frame = messages.trust(trust.trusted, renew=trust.renew, within_s=len(behind) / RENEWALS_PER_S)
        for connection in behind:
            connection.trust_told = trust
            connection.urge(frame)

    def turn_out(self) -> None:
        """Ends the streams of nodes that may not stay: revoked, or with a certificate that has run out."""
        if self._gate is None:
            return
        for connection in tuple(self._connections.values()):
            if connection.ending:
                continue
            try:
                self._gate.still(connection.caller)
            except NotLetIn as refused:
                node = connection.node
                self.refusals.note(
                    refused,
                    f"node {node.id}",
                    node_id=node.id,
                    address=node.ip,
                    hostname=node.hostname,
                    software=node.software,
                )
                reason = str(refused)
                permanent = refused.refusal is not Refusal.EXPIRED
                connection.say_goodbye(messages.goodbye(reason, permanent=permanent), reason)

    async def _greet(self, context: grpc.aio.ServicerContext[bytes, bytes]) -> Connection | None:
        """Reads the hello and answers it; None when the stream is over."""
        ip = peer_ip(context.peer())
        try:
            async with asyncio.timeout(self._settings.hello_timeout_s):
                frame = await context.read()
                if not isinstance(frame, bytes):
                    return None
                try:
                    caller = await caller_of(context, self._gate)
                except NotLetIn as refused:
                    self._show_refused(frame, ip, refused)
                    await context.write(messages.goodbye(str(refused), permanent=True))
                    return None
                hello, answer = self._judge(frame, ip, caller)
                await context.write(answer)
        except TimeoutError:
            return None
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store can't be used: {error}")
        return self._accept(hello, ip, caller) if hello is not None else None

    def _show_refused(self, frame: bytes, ip: str, refused: NotLetIn) -> None:
        """Lets operators see why a node is not let in. Who is not known gets no line in the list of nodes."""
        try:
            hello = messages.decode(frame)
        except BadMessage:
            hello = None
        if not isinstance(hello, Hello):
            self.refusals.note(refused, f"a hello from {ip}", address=ip)
            return
        self._note(refused, hello, ip)
        if hello.node_id not in self._connections and self._nodes.get(hello.node_id):
            self._nodes.refused(hello, ip=ip, reason=str(refused))

    def _note(self, refused: NotLetIn, hello: Hello, ip: str) -> None:
        self.refusals.note(
            refused,
            f"a hello of node {hello.node_id} from {ip}",
            node_id=hello.node_id,
            address=ip,
            hostname=hello.hostname,
            software=hello.software,
        )

    def _judge(self, frame: bytes, ip: str, caller: Caller) -> tuple[Hello | None, bytes]:
        """The hello if it is accepted, and what to answer."""
        try:
            hello = messages.decode(frame)
            if not isinstance(hello, Hello):
                raise BadMessage("the first message is not a hello")
        except BadMessage as error:
            self.refusals.note(NotLetIn(Refusal.BAD_HELLO, str(error)), f"a hello from {ip}", address=ip)
            return None, messages.goodbye(str(error), permanent=True)
        if self._gate is not None:
            try:
                self._gate.greet(caller, hello.node_id)
                self._gate.still(caller)
            except NotLetIn as refused:
                self._note(refused, hello, ip)
                return None, messages.goodbye(str(refused), permanent=refused.refusal is not Refusal.EXPIRED)
        hello = replace(hello, labels={**hello.labels, **caller.labels})
        if (refusal := self._unfit(hello)) is not None:
            self._note(refusal, hello, ip)
            if hello.node_id not in self._connections:
                self._nodes.refused(hello, ip=ip, reason=str(refusal))
            return None, messages.goodbye(str(refusal), permanent=True)
        if (busy := self._taken(hello, caller)) is not None:
            log.warning("node %s (%s, %s) must wait: %s", hello.node_id, hello.hostname, ip, busy)
            lease_s = self._settings.lease_s
            return None, messages.goodbye(busy, reconnect_min_s=lease_s, reconnect_max_s=2 * lease_s)
        return hello, messages.welcome(
            plane_id=self._plane_id,
            beat_interval_s=self._settings.beat_interval_s,
            head=self._shelf.head_ref,
            protocol=PROTOCOL,
            schema_level=SCHEMA_LEVEL,
            min_ready_version=self.min_ready_version,
        )

    def _accept(self, hello: Hello, ip: str, caller: Caller) -> Connection:
        earlier = self._connections.pop(hello.node_id, None)
        if earlier is not None:
            earlier.say_goodbye(messages.goodbye("replaced by a newer stream of this node"), "replaced")
        goal = self.offers.goal(hello.node_id)
        node = self._nodes.accepted(
            hello,
            ip=ip,
            head=goal.ref if goal is not None else NOTHING,
            certificate_expires_at=caller.expires_at,
        )
        connection = Connection(node, hello.boot_id, self._shelf, caller, write_timeout_s=self._settings.lease_s)
        self._connections[node.id] = connection
        self.refusals.forget(node.id)
        self._streams.add(connection)
        assert node.session is not None
        if goal is not None and isinstance(node.session.phase, Waiting):
            connection.offer(goal)
        log.info("node %s (%s, %s) runs version %d", node.id, node.hostname, ip, node.running.version)
        return connection

    def _unfit(self, hello: Hello) -> NotLetIn | None:
        """Why the node can't be served until one side is upgraded."""
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            newer = hello.protocol_min > PROTOCOL
            spoken = f"{hello.protocol_min} to {hello.protocol_max}"
            return NotLetIn(
                Refusal.NODE_TOO_NEW if newer else Refusal.NODE_TOO_OLD,
                f"the node speaks protocols {spoken}, this control plane speaks {PROTOCOL}; "
                f"upgrade the {'control plane' if newer else 'node'}",
            )
        if hello.schema_level < SCHEMA_LEVEL:
            return NotLetIn(
                Refusal.NODE_TOO_OLD,
                f"the node knows entities up to schema level {hello.schema_level}, this control plane sends level"
                f" {SCHEMA_LEVEL}; upgrade the node",
            )
        return None

    def _taken(self, hello: Hello, caller: Caller) -> str | None:
        """Why the node can't be served now.

        Of two live processes with one node id the one that started later is served. A restarted node is back at once
        that way, while its former stream may look alive for a lease; and two machines that were cloned with one id do
        not push each other out for ever: the earlier one is told, and goes on with what it runs.
        """
        if hello.node_id not in self._connections and len(self._connections) >= self._settings.nodes_max:
            return f"this control plane serves {self._settings.nodes_max} nodes already"
        earlier = self._connections.get(hello.node_id)
        if earlier is None or (hello.boot_id >= earlier.boot_id and earlier.caller.key == caller.key):
            return None
        if self._nodes.silent_s(earlier.node) >= self._settings.lease_s:
            return None
        return "another node that started later uses this node id; give each node its own"

    async def _read(self, connection: Connection, context: grpc.aio.ServicerContext[bytes, bytes]) -> str:
        """Takes in what the node says; returns why it stopped."""
        rate = self._settings.messages_per_s_max
        credit = 4 * rate
        last = self._clock()
        try:
            while True:
                async with asyncio.timeout(self._settings.lease_s):
                    frame = await context.read()
                if not isinstance(frame, bytes):
                    return "the node closed the stream"
                received_ns = time.monotonic_ns()
                now = self._clock()
                credit = min(4 * rate, credit + (now - last) * rate) - 1
                last = now
                if credit < 0:
                    raise BadMessage(f"more than {rate:g} messages a second")
                if self._connections.get(connection.node.id) is connection:
                    self._heard(connection, frame, received_ns)
        except TimeoutError:
            return f"silent for {self._settings.lease_s:g} s"
        except BadMessage as error:
            log.warning("node %s broke the protocol: %s", connection.node.id, error)
            return f"broke the protocol: {error}"
        except grpc.aio.BaseError:
            return "the stream broke"

    def _heard(self, connection: Connection, frame: bytes, received_ns: int) -> None:
        node = connection.node
        message = messages.decode(frame)
        offer = False
        match message:
            case Beat():
                offer = self._nodes.beat(node, message.running, in_flight=message.in_flight)
                node.clock_error_us = message.clock_error_us
                self.offers.runs(node.id, message.running)
                connection.acknowledge(message.sequence, received_ns)
                if self.health.beat(node.id, message.health_digest, message.loads, now=self._clock()):
                    connection.ask_health(self._health_request)
            case HealthReport():
                self.health.report(node.id, message.targets, full=message.full)
            case SideReport():
                self.sides.report(node.id, message.rows, full=message.full, now=self._clock(), omitted=message.omitted)
            case Applied():
                offer = self._nodes.applied(node, message.ref, took_s=message.took_s)
                self.offers.runs(node.id, message.ref)
            case Rejected():
                offer = self._nodes.rejected(node, message.rejection, running=message.running)
                faults = "; ".join(f"{fault.code} {fault.message}" for fault in message.rejection.faults[:3])
                version = message.rejection.ref.version
                log.warning("node %s rejected version %d at %s: %s", node.id, version, message.rejection.stage, faults)
                self.offers.refused(node.id, message.rejection.ref, faults)
            case DeltaUnusable():
                offer = self._nodes.unusable(node, message.ref, running=message.running)
                log.info(
                    "node %s wants version %d whole: %s %s", node.id, message.ref.version, message.code, message.message
                )
            case Standing():
                if self._gate is not None:
                    self._gate.heard(node.id, trusts=message.trusts, issuer=message.issuer)
            case Leaving():
                self._nodes.leaving(node, message.reason)
            case Hello():
                raise BadMessage("a second hello")
            case RolloutVote():
                self.on_rollout(node.id, message)
            case RolloutActivated():
                if not message.HasField("fault"):
                    offer = self._nodes.applied(node, messages.ref(message.snapshot), took_s=0.0)
                self.on_rollout(node.id, message)
            case TraceAnswer():
                self._traces.answered(node.id, message)
            case None:
                log.debug("node %s sent a message of a later protocol", node.id)
        if offer:
            self.offers.again(connection)
        if node.session is not None and not isinstance(node.session.phase, Waiting):
            self.offers.answered(node.id)

    def _ended(self, connection: Connection, reason: str) -> None:
        self._streams.discard(connection)
        connection.gone.set()
        if self._connections.get(connection.node.id) is connection:
            del self._connections[connection.node.id]
            self._traces.gone(connection.node.id)
            self._nodes.disconnected(connection.node, reason)
            self.offers.lost(connection.node.id)
            log.info("node %s is gone: %s", connection.node.id, connection.node.reason)

    async def _check(self, context: grpc.aio.ServicerContext[bytes, bytes], node_id: str | None) -> Caller:
        """Ends the call unless the connection's certificate is good, and that node's where one is named."""
        if self._gate is None:
            return ANYBODY
        try:
            caller = await caller_of(context, self._gate)
            if node_id is not None:
                self._gate.greet(caller, node_id)
        except NotLetIn as refused:
            ip = peer_ip(context.peer())
            self.refusals.note(refused, f"a call from {ip}", node_id=node_id or "", address=ip)
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, str(refused))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store can't be used: {error}")
        return caller

    async def _renew(self, frame: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        caller = await self._check(context, None)
        if not isinstance(self._gate, EnrolledGate) or caller.node_id is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this control plane gives out no certificates")
        try:
            request = RenewRequest.FromString(frame)
            return certificate_frame(await self._gate.nodes.renew(caller.node_id, request.request_der))
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "this is no request for a certificate")
        except NotLetIn as refused:
            await context.abort(status_of(refused), str(refused))
        except StoreError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the store can't be used: {error}")

    async def _pull(self, request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
        try:
            wanted = messages.decode_pull(request)
            node_id = messages.node_id(metadata_of(context, NODE_ID_KEY))
        except BadMessage as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        await self._check(context, node_id)
        if node_id not in self._connections:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "say hello first")
        published = self._shelf.find(wanted.ref)
        if published is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "this snapshot is not offered any longer")
        if self._pulls_waiting >= self._settings.pulls_waiting_max:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many pulls wait")
        self._pulls_waiting += 1
        try:
            await self._pulls.acquire()
        finally:
            self._pulls_waiting -= 1
        try:
            if wanted.bucket_hashes:
                repair = await published.repair(wanted.bucket_hashes)
                if repair is None:
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "too much differs; pull all of it")
                pieces = repair
            else:
                pieces = (await published.frames()).pieces
            if wanted.from_piece >= len(pieces):
                await context.abort(grpc.StatusCode.OUT_OF_RANGE, f"there are {len(pieces)} pieces")
            for frame in pieces[wanted.from_piece :]:
                async with asyncio.timeout(self._settings.piece_timeout_s):
                    await context.write(frame)
        except TimeoutError:
            log.warning("node %s reads its snapshot too slowly", node_id)
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no piece was taken in time; resume")
        finally:
            self._pulls.release()


def _nobody(_node: str, _word: RolloutWord) -> None:
    """Nobody coordinates rollouts."""
