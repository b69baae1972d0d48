"""The node's end of the fleet link: dials, says hello, talks until it is over, and dials again. It decides nothing.

There is one conversation at a time. What is said of snapshots goes to `intake.py`, of rollouts to `rollouts.py`, and so
on; they say through here what they have to say. Serving never depends on any of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import NoReturn, Protocol, assert_never

import grpc
import grpc.aio

from data_plane.node import messages
from data_plane.node.fleet_access import BadTrust, FleetAccess, NoAccess, PlainAccess
from data_plane.node.health_report import HealthSource
from data_plane.node.intake import Intake, SnapshotSink
from data_plane.node.last_good import LastGood
from data_plane.node.messages import (
    BadMessage,
    BeatAck,
    FleetHealth,
    Goodbye,
    HealthRequest,
    Introduction,
    RolloutWord,
    Trust,
    Welcome,
)
from data_plane.node.pull import Pulls
from data_plane.node.reconnect import Reconnect, ReconnectSettings
from data_plane.node.side_sums import SideSource
from data_plane.node.snapshot import Delta, Offer
from pointsman.rules.plane_clock import PlaneClock
from pointsman.snapshots import NOTHING, RAW_BYTES_MAX
from pointsman.wire.v1 import fleet_pb2

_Call = grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage]

Tracer = Callable[[fleet_pb2.TraceRequest], Awaitable[fleet_pb2.TraceAnswer]]
"""Who says what would become of a request. Never raises: why there is no answer is in the answer."""

log = logging.getLogger(__name__)

LEASE_BEATS = 3
"""Beats without any word from the control plane after which the connection counts as dead."""
FAREWELL_S = 3.0
"""How long a stopping node waits for the control plane to have heard that it leaves."""
TRACES_MAX = 8
"""Traces that may be under way at once."""
REPORTS_MAX = 64
"""Messages that may wait for a control plane that does not read."""
UNANSWERED_MAX = 32
"""Beats whose answers are waited for."""
_CONTROL = "/pointsman.wire.v1.FleetLink/Control"

_OPTIONS = (
    ("grpc.max_receive_message_length", 1024 * 1024 + 64 * 1024),  # a piece and its frame
    ("grpc.max_send_message_length", 128 * 1024),
    ("grpc.keepalive_time_ms", 9_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # gRPC pings to measure bandwidth, too; while such a ping is out no other is sent, and it may take a minute.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),  # nodes and control plane share a network; a web proxy has no place between them
    # A dial of ours must be a dial. Shared subchannels would make it wait for the backoff of the one before.
    ("grpc.use_local_subchannel_pool", 1),
)


class RolloutSink(Protocol):
    """Who takes part in rollouts; see `rollouts.py`. All calls come from the loop and return at once."""

    def connected(self, say: Callable[[fleet_pb2.NodeMessage], None], beat: Callable[[], None]) -> None:
        """A conversation begins; `beat` makes one more exchange of clocks."""
        ...

    def disconnected(self) -> None:
        """It is over. What is prepared or armed stays."""
        ...

    def told(self, word: RolloutWord) -> None:
        """A word of the control plane about a rollout."""
        ...


class Touch(Protocol):
    """Who wants to know whether there is a control plane; see `fence.py`."""

    def heard(self) -> None:
        """Any word of it."""
        ...

    def caught_up(self) -> None:
        """The node runs what it wants, or has said why not."""
        ...

    def lost(self) -> None:
        """The conversation is over."""
        ...


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """What an operator may set about the link. Times are seconds."""

    addresses: tuple[str, ...] = ("127.0.0.1:8005",)
    """Control planes, `host:port`; tried in random order."""
    snapshot_bytes_max: int = RAW_BYTES_MAX
    """Ceiling for a snapshot after decompression; a larger one is rejected before it is downloaded."""
    dial_timeout_s: float = 10.0
    """From the dial to the welcome."""
    piece_timeout_s: float = 60.0
    """A pull that brings no piece for this long is begun again where it stopped."""
    reconnect: ReconnectSettings = field(default_factory=ReconnectSettings)


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """The link in facts for operators; texts are empty when there is nothing to say."""

    connected: bool
    address: str  # of the present conversation
    refused: str  # the control plane's reason for a permanent refusal
    last_loss: str  # why the conversation before this one, or the last dial, ended
    head_version: int | None  # the control plane's word
    certificate_expires_at: float | None  # seconds since the epoch; None = the link needs none, or there is none
    certificate: str  # what is wrong with it
    last_good: str  # why the last good file is not up to date or was not usable


class _Over(Exception):
    """The conversation is over."""

    def __init__(self, reason: str, goodbye: Goodbye | None = None) -> None:
        super().__init__(reason)
        self.goodbye = goodbye


class _Conversation:
    """One control stream: what waits to be said, and since when there was a welcome."""

    def __init__(self, channel: grpc.aio.Channel, address: str) -> None:
        self.channel = channel
        self.address = address
        self.welcomed_at: float | None = None
        self.outbox: deque[fleet_pb2.NodeMessage] = deque()
        self.wake = asyncio.Event()
        self.closing = False
        self.overflowed = False
        self.beats = 0
        self.beats_sent_ns: dict[int, int] = {}  # by sequence, of those not answered yet

    def say(self, message: fleet_pb2.NodeMessage) -> None:
        """Queues a message. A full queue ends the conversation: the next hello says everything that counts."""
        if len(self.outbox) < REPORTS_MAX:
            self.outbox.append(message)
        else:
            self.overflowed = True
        self.wake.set()

    def close(self) -> None:
        """Ends the conversation when what waits is said."""
        self.closing = True
        self.wake.set()


class Link:
    """The fleet link of one node process; `run` it in a task and `stop` it in the end.

    `in_flight` tells how many requests are open in all workers.
    """

    def __init__(
        self,
        settings: LinkSettings,
        introduction: Introduction,
        sink: SnapshotSink,
        last_good: LastGood,
        *,
        in_flight: Callable[[], int] = lambda: 0,
        tracer: Tracer | None = None,
        health: HealthSource | None = None,
        sides: SideSource | None = None,
        rollouts: RolloutSink | None = None,
        plane_clock: PlaneClock | None = None,
        touch: Touch | None = None,
        access: FleetAccess | None = None,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._rollouts = rollouts
        self._plane_clock = plane_clock or PlaneClock()
        self._introduction = introduction
        self._in_flight = in_flight
        self._tracer = tracer or _nobody_traces
        self._traces: set[asyncio.Task[None]] = set()
        self._health = health
        self._sides = sides
        self._touch = touch
        self._access = access or PlainAccess()
        self._rng = rng or random.SystemRandom()
        self._clock = clock
        self._reconnect = Reconnect(settings.reconnect, self._rng)
        pulls = Pulls(
            introduction.node_id,
            raw_bytes_max=settings.snapshot_bytes_max,
            piece_timeout_s=settings.piece_timeout_s,
            pace=Reconnect(settings.reconnect, self._rng),
        )
        self.intake = Intake(self, sink, last_good, pulls, snapshot_bytes_max=settings.snapshot_bytes_max)
        self._conversation: _Conversation | None = None
        self._stopping = asyncio.Event()
        self._talking: asyncio.Task[float] | None = None
        self._refused = ""
        self._last_loss = ""
        self._head_version: int | None = None
        self._ready_from = NOTHING

    @property
    def connected(self) -> bool:
        """Whether the control plane welcomed us and the conversation goes on."""
        return self._conversation is not None and self._conversation.welcomed_at is not None

    @property
    def software(self) -> str:
        """What this node says that it is."""
        return self._introduction.software

    @property
    def snapshot_bytes_max(self) -> int:
        """The largest snapshot that is accepted."""
        return self._settings.snapshot_bytes_max

    @property
    def left_behind(self) -> str:
        """Why this node must not get traffic yet although it serves; empty when it may.

        It was away while the fleet was switched, and runs what is older than that. Who never reaches the control plane
        knows nothing of it and serves what it has.
        """
        running, needed = self.intake.running, self._ready_from
        if running.epoch != needed.epoch or running.version >= needed.version:
            return ""
        return f"the fleet was switched to version {needed.version} while this node was away, it runs {running.version}"

    @property
    def status(self) -> LinkStatus:
        conversation = self._conversation if self.connected else None
        return LinkStatus(
            connected=conversation is not None,
            address=conversation.address if conversation is not None else "",
            refused=self._refused,
            last_loss=self._last_loss,
            head_version=self._head_version,
            certificate_expires_at=self._access.expires_at,
            certificate=self._access.problem,
            last_good=self.intake.problem,
        )

    async def run(self) -> None:
        """Talks to control planes until `stop`."""
        care = asyncio.create_task(self._access.run(self._say_standing), name="certificate")
        try:
            await self._talk_on()
        finally:
            care.cancel()
            await asyncio.gather(care, return_exceptions=True)

    async def _talk_on(self) -> None:
        while not self._stopping.is_set():
            for address in self._rng.sample(self._settings.addresses, len(self._settings.addresses)):
                self._talking = asyncio.create_task(self._converse(address), name="fleet link conversation")
                try:
                    await asyncio.wait((self._talking,))
                finally:
                    self._talking.cancel()
                    await asyncio.gather(self._talking, return_exceptions=True)
                if self._stopping.is_set():
                    return
                await self._stopped_within(self._talking.result())

    async def stop(self, reason: str) -> None:
        """Says goodbye, ends `run`, and waits for the last good file. A pull is given up; so is an undecided apply."""
        if self._conversation is not None and self.connected:
            self._conversation.say(messages.leaving(reason))
            self._conversation.close()
        self._stopping.set()
        if self._talking is not None:
            if self.connected:
                await asyncio.wait((self._talking,), timeout=FAREWELL_S)
            self._talking.cancel()
            await asyncio.wait((self._talking,))
        for trace in self._traces:
            trace.cancel()
        await self.intake.stop()

    async def _stopped_within(self, seconds: float) -> bool:
        """Waits, but not beyond `stop`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    # --- one conversation -------------------------------------------------------------------------------------------

    async def _converse(self, address: str) -> float:
        """Dials and talks until it is over; returns how long to wait before the next dial, in seconds."""
        try:
            channel = await self._access.channel(address, _OPTIONS)
        except NoAccess as error:
            return self._no_access(address, error)
        conversation = self._conversation = _Conversation(channel, address)
        try:
            await self._talk(conversation)
        except _Over as over:
            return self._after(conversation, over)
        finally:
            self._conversation = None
            if self._health is not None:
                self._health.disconnected()
            if self._sides is not None:
                self._sides.disconnected()
            if self._rollouts is not None:
                self._rollouts.disconnected()
            if self._touch is not None and conversation.welcomed_at is not None:
                self._touch.lost()
            if conversation.welcomed_at is not None:
                await self.intake.disconnected()
            await channel.close(grace=None)

    async def _talk(self, conversation: _Conversation) -> NoReturn:
        """Raises _Over, always: a conversation has no other end."""
        call = conversation.channel.stream_stream(
            _CONTROL,
            request_serializer=fleet_pb2.NodeMessage.SerializeToString,
            response_deserializer=fleet_pb2.PlaneMessage.FromString,
        )(None)
        children: tuple[asyncio.Task[NoReturn], ...] = ()
        try:
            async with asyncio.timeout(self._settings.dial_timeout_s):
                await call.write(
                    messages.hello(
                        self._introduction,
                        running=self.intake.running,
                        snapshot_bytes_max=self._settings.snapshot_bytes_max,
                    )
                )
                welcome = await _next(call)
                match welcome:
                    case Welcome():
                        pass
                    case Goodbye():
                        raise _Over(welcome.reason, welcome)
                    case _:
                        raise _Over("the control plane did not answer the hello")
            self._welcomed(conversation, welcome)
            children = (
                asyncio.create_task(self._read(call, welcome.beat_interval_s), name="fleet link reader"),
                asyncio.create_task(self._write(conversation, call), name="fleet link writer"),
                asyncio.create_task(self._beat(conversation, welcome.beat_interval_s), name="fleet link beats"),
            )
            await asyncio.wait(children, return_when=asyncio.FIRST_COMPLETED)
            # In this order: when both ends close at once, what the reader heard last says more.
            for child in children:
                if child.done():
                    child.result()
            raise AssertionError("a conversation ends by _Over")
        except TimeoutError:
            raise _Over(f"no welcome within {self._settings.dial_timeout_s:g} s") from None
        except grpc.aio.AioRpcError as error:
            raise _Over(f"{error.code().name}: {error.details()}") from None
        except asyncio.InvalidStateError:
            raise _Over("the stream broke") from None
        except BadMessage as error:
            raise _Over(f"the control plane broke the protocol: {error}") from None
        finally:
            for child in children:
                child.cancel()
            await asyncio.gather(*children, return_exceptions=True)
            call.cancel()

    def _welcomed(self, conversation: _Conversation, welcome: Welcome) -> None:
        conversation.welcomed_at = self._clock()
        self._refused = ""
        self._head_version = welcome.head.version
        self._ready_from = replace(welcome.head, version=welcome.min_ready_version)
        log.info("connected to control plane %s at %s", welcome.plane_id, conversation.address)
        self.intake.connected()
        self._heard(caught_up=welcome.head == self.intake.running)
        if self._health is not None:
            self._health.connected(conversation.wake.set, beat_interval_s=welcome.beat_interval_s)
        if self._sides is not None:
            self._sides.connected(conversation.wake.set)
        self._plane_clock.reset()
        self._say_standing()
        if self._rollouts is not None:
            self._rollouts.connected(conversation.say, lambda: self._say_beat(conversation))

    async def _read(self, call: _Call, beat_interval_s: float) -> NoReturn:
        lease_s = LEASE_BEATS * beat_interval_s
        while True:
            try:
                async with asyncio.timeout(lease_s):
                    message = await _next(call)
                received_ns = time.monotonic_ns()
            except TimeoutError:
                raise _Over(f"the control plane was silent for {lease_s:g} s") from None
            # An acknowledged beat with nothing in work: it has had its say, and this node has done what it said.
            self._heard(caught_up=isinstance(message, BeatAck) and self.intake.idle)
            match message:
                case Offer() | Delta():
                    self._head_version = message.ref.version
                    self.intake.offered(message)
                case BeatAck():
                    self._head_version = message.head.version
                    self._take_time(message, received_ns)
                case fleet_pb2.TraceRequest():
                    self._trace(message)
                case fleet_pb2.RolloutPrepare() | fleet_pb2.RolloutActivate() | fleet_pb2.RolloutAbort():
                    if self._rollouts is not None:
                        self._rollouts.told(message)
                case HealthRequest():
                    if self._health is not None:
                        self._health.asked()
                case Trust():
                    self._trust(message)
                case FleetHealth():
                    if self._health is not None:
                        self._health.hinted(message.said)
                case Goodbye():
                    raise _Over(message.reason, message)
                case Welcome():
                    raise BadMessage("a second welcome")
                case None:
                    log.debug("the control plane sent a message of a later protocol")
                case _:
                    assert_never(message)

    def _trust(self, word: Trust) -> None:
        try:
            self._access.told(word.trusted, renew_within_s=word.within_s if word.renew else None)
        except (BadTrust, OSError) as error:
            log.error("the control plane's word on the CA can't be followed: %s", error)

    def _say_standing(self) -> None:
        standing = self._access.standing
        if standing is not None and self.connected:
            self.say(messages.standing(trusts=standing.trusts, issuer=standing.issuer))

    # --- what others say --------------------------------------------------------------------------------------------

    @property
    def channel(self) -> grpc.aio.Channel:
        """Where to pull from; only while connected."""
        assert self._conversation is not None, "pulled in a conversation"
        return self._conversation.channel

    def say(self, message: fleet_pb2.NodeMessage) -> None:
        """Queue a message; only while connected."""
        assert self._conversation is not None, "told in a conversation"
        self._conversation.say(message)

    def caught_up(self) -> None:
        """The node runs what the control plane wants it to."""
        self._heard(caught_up=True)

    def _heard(self, *, caught_up: bool) -> None:
        if self._touch is None:
            return
        if caught_up:
            self._touch.caught_up()
        else:
            self._touch.heard()

    def _trace(self, request: fleet_pb2.TraceRequest) -> None:
        """Have a worker say what would become of a request; too many at once are refused, not queued."""
        conversation = self._conversation
        assert conversation is not None, "asked in a conversation"
        if len(self._traces) >= TRACES_MAX:
            error = f"the node answers {TRACES_MAX} traces already"
            conversation.say(messages.trace_answer(fleet_pb2.TraceAnswer(error=error), request.id))
            return
        task = asyncio.create_task(self._answer_trace(conversation, request), name="trace")
        self._traces.add(task)
        task.add_done_callback(self._traces.discard)

    async def _answer_trace(self, conversation: _Conversation, request: fleet_pb2.TraceRequest) -> None:
        answer = await self._tracer(request)
        if conversation is self._conversation:
            conversation.say(messages.trace_answer(answer, request.id))

    async def _write(self, conversation: _Conversation, call: _Call) -> NoReturn:
        """Says what waits."""
        while True:
            await conversation.wake.wait()
            conversation.wake.clear()
            while message := self._next_word(conversation):
                if message.HasField("beat"):
                    conversation.beats_sent_ns[message.beat.sequence] = time.monotonic_ns()
                await call.write(message)
            if conversation.overflowed:
                raise _Over("the control plane does not read")
            if conversation.closing:
                await call.done_writing()
                # The control plane closes its side when it has read the last word; cancelling now could overtake it.
                await asyncio.sleep(FAREWELL_S)
                raise _Over("this node stops")

    def _next_word(self, conversation: _Conversation) -> fleet_pb2.NodeMessage | None:
        """What is said next: what waits, after that what there is to report on health, and then on sides."""
        if conversation.outbox:
            return conversation.outbox.popleft()
        report = self._health.next_report() if self._health is not None else None
        if report is not None:
            return messages.health_report(report)
        counted = self._sides.next_report() if self._sides is not None else None
        return None if counted is None else messages.side_report(counted)

    async def _beat(self, conversation: _Conversation, interval_s: float) -> NoReturn:
        # The first beat comes at a random point of the interval: nodes that connected together must not beat together.
        await asyncio.sleep(self._rng.uniform(0.0, interval_s))
        while True:
            self._say_beat(conversation)
            await asyncio.sleep(interval_s)

    def _say_beat(self, conversation: _Conversation) -> None:
        if len(conversation.beats_sent_ns) >= UNANSWERED_MAX:
            conversation.beats_sent_ns.clear()  # acknowledgements are of the latest beat only, so some never come
        conversation.beats += 1
        health = self._health
        error_ns = self._plane_clock.error_ns(time.monotonic_ns())
        conversation.say(
            messages.beat(
                conversation.beats,
                running=self.intake.running,
                in_flight=self._in_flight(),
                health_digest=health.digest if health is not None else 0,
                loads=health.loads() if health is not None else (),
                clock_error_us=0 if error_ns is None else max(1, error_ns // 1000),
            )
        )

    def _take_time(self, ack: BeatAck, received_ns: int) -> None:
        conversation = self._conversation
        sent_ns = conversation.beats_sent_ns.pop(ack.sequence, None) if conversation is not None else None
        if sent_ns is not None and ack.plane_sent_ns:
            self._plane_clock.sample(
                sent_ns=sent_ns,
                plane_received_ns=ack.plane_received_ns,
                plane_sent_ns=ack.plane_sent_ns,
                received_ns=received_ns,
            )

    def _no_access(self, address: str, error: NoAccess) -> float:
        reason = str(error)
        if reason != self._last_loss:
            log.error("no way to the control plane at %s: %s; serving on", address, reason)
        self._last_loss = reason
        if error.permanent:
            self._refused = reason
            return self._reconnect.after_refusal()
        return self._reconnect.after_loss(connected_s=0.0)

    def _after(self, conversation: _Conversation, over: _Over) -> float:
        if self._stopping.is_set():
            return 0.0
        reason, goodbye = str(over), over.goodbye
        if reason != self._last_loss or conversation.welcomed_at is not None:
            log.warning("control plane at %s: %s", conversation.address, reason)
        self._last_loss = reason
        if goodbye is not None and goodbye.permanent:
            if self._refused != reason:
                log.error("the control plane at %s refuses this node for good: %s", conversation.address, reason)
            self._refused = reason
            return self._reconnect.after_refusal()
        if goodbye is not None and goodbye.reconnect_max_s > 0:
            return self._reconnect.after_goodbye(min_s=goodbye.reconnect_min_s, max_s=goodbye.reconnect_max_s)
        lasted_s = self._clock() - conversation.welcomed_at if conversation.welcomed_at is not None else 0.0
        return self._reconnect.after_loss(connected_s=lasted_s)


async def _nobody_traces(_request: fleet_pb2.TraceRequest) -> fleet_pb2.TraceAnswer:
    return fleet_pb2.TraceAnswer(error="this node can't trace requests")


async def _next(call: _Call) -> messages.PlaneMessage | None:
    """The control plane's next message."""
    message = await call.read()
    if not isinstance(message, fleet_pb2.PlaneMessage):
        raise _Over("the control plane closed the stream")
    return messages.decode(message)
