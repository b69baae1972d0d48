"""The node's end of the fleet link: dials, talks, pulls, keeps the last good snapshot. It decides nothing.

What to do is the session's business; this module feeds it what happened and carries out what it answers. There is one
conversation at a time and at most one piece of work (a pull, then its apply), which outlives a conversation once the
workers have it. Serving never depends on any of this: whatever fails here, the node goes on with what it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol, assert_never

import grpc
import grpc.aio

from data_plane.node import messages, session
from data_plane.node.bases import Bases
from data_plane.node.crash_guard import STABLE_S, CrashGuard
from data_plane.node.fleet_access import BadTrust, FleetAccess, NoAccess, PlainAccess
from data_plane.node.health_report import HealthSource
from data_plane.node.keeping import Keeper, Ready
from data_plane.node.last_good import Generation, LastGood
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
from data_plane.node.outcomes import Applied, ApplyOutcome, Fault, Refused, Stage
from data_plane.node.pull import Pulls, SnapshotGone
from data_plane.node.reconnect import Reconnect, ReconnectSettings
from data_plane.node.session import Session
from data_plane.node.side_sums import SideSource
from data_plane.node.snapshot import RAW_BYTES_MAX, Delta, NodeSnapshot, Offer, SnapshotRefused, apply_delta, make_delta
from pointsman.rules.plane_clock import PlaneClock
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
INLINE_BYTES_MAX = 64 * 1024
"""Raw bytes of a delta that is made on the loop: in well under a millisecond."""
UNANSWERED_MAX = 32
"""Beats whose answers are waited for."""
REPORTS_MAX = 64
"""Messages that may wait for a control plane that does not read."""
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


class SnapshotSink(Protocol):
    """Who makes snapshots active; see `applying.py`."""

    @property
    def running(self) -> NodeSnapshot | None: ...
    async def apply(self, snapshot: NodeSnapshot) -> ApplyOutcome: ...


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
        self._sink = sink
        self._last_good = last_good
        self._in_flight = in_flight
        self._tracer = tracer or _nobody_traces
        self._traces: set[asyncio.Task[None]] = set()
        self._health = health
        self._sides = sides
        self._touch = touch
        self._access = access or PlainAccess()
        self._rng = rng or random.SystemRandom()
        self._clock = clock
        self._session = Session()
        self._reconnect = Reconnect(settings.reconnect, self._rng)
        self._pulls = Pulls(
            introduction.node_id,
            raw_bytes_max=settings.snapshot_bytes_max,
            piece_timeout_s=settings.piece_timeout_s,
            pace=Reconnect(settings.reconnect, self._rng),
        )
        self._conversation: _Conversation | None = None
        self.loaded = asyncio.Event()
        """Whether `restore` has read what there is: from then on the workers are at work, and this process is not."""
        self._pulled: Ready | None = None
        self._bases = Bases()
        self._work: asyncio.Task[None] | None = None
        self._keeper = Keeper(last_good)
        self._guard = CrashGuard(last_good.folder)
        self._stable: asyncio.TimerHandle | None = None
        self._stopping = asyncio.Event()
        self._talking: asyncio.Task[float] | None = None
        self._refused = ""
        self._last_loss = ""
        self._head_version: int | None = None

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
            last_good=self._keeper.problem,
        )

    async def restore(self) -> bool:
        """Serves from the last good snapshot, or the one before it; whether one of them is active now.

        Call it before `run`, so that the first hello can say what runs.
        """
        await asyncio.to_thread(self._guard.begin)
        try:
            return await self._restore_or_forgive()
        finally:
            self.loaded.set()

    async def _restore_or_forgive(self) -> bool:
        if await self._restore():
            return True
        if self._guard.refused:
            log.error("there is nothing to serve but the configuration that the node ended with; trying it again")
            self._guard.forgive()
            return await self._restore()
        return False

    async def _restore(self) -> bool:
        for generation in Generation:
            loaded = await asyncio.to_thread(self._last_good.load, generation)
            if loaded.snapshot is not None:
                self.loaded.set()
            for problem in loaded.problems:
                self._keeper.problem = problem
                log.error("last good snapshot: %s", problem)
            if loaded.snapshot is None:
                continue
            outcome = await self._hand_over(loaded.snapshot, restored=True)
            match outcome:
                case Applied():
                    self._bases.add(loaded.snapshot)
                    self._session.restored(loaded.snapshot.ref)
                    self._keeper.restored(loaded.snapshot)
                    log.info("serving %s from %s", loaded.snapshot.ref, generation.value)
                    _say_running(loaded.snapshot, kept=True, restored=True)
                    return True
                case Refused():
                    self._keeper.problem = f"{generation.value} was refused: {_first(outcome)}"
                    log.error("last good snapshot: %s", self._keeper.problem)
        return False

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
        await self._end_work()
        if self._stable is not None:
            self._stable.cancel()
        self._guard.ended()
        await self._keeper.stop(self._sink.running)

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
                actions = self._session.disconnected()
                self._perform(actions)
                if actions:
                    await self._end_work()
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
                        running=self._session.running,
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
        log.info("connected to control plane %s at %s", welcome.plane_id, conversation.address)
        self._session.connected()
        self._heard(caught_up=welcome.head == self._session.running)
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
            self._heard(caught_up=isinstance(message, BeatAck) and self._session.work is None)
            match message:
                case Offer() | Delta():
                    self._head_version = message.ref.version
                    self._perform(self._session.offered(message))
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
            self._say(messages.standing(trusts=standing.trusts, issuer=standing.issuer))

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
                running=self._session.running,
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

    # --- what rollouts make active ----------------------------------------------------------------------------------

    def refusal(self, snapshot: NodeSnapshot) -> Refused | None:
        """Why this content must not become active on this node."""
        return self._guard.refusal(snapshot.snapshot_hash)

    def arming(self, snapshot: NodeSnapshot, *, restored: bool = False) -> None:
        """This snapshot is about to become active."""
        self._guard.activating(snapshot.snapshot_hash, restored=restored)
        if self._stable is not None:
            self._stable.cancel()
        self._stable = asyncio.get_running_loop().call_later(STABLE_S, self._guard.stable)

    async def activated(self, snapshot: NodeSnapshot, delta: Delta | None) -> None:
        """It is active in all workers. Returns when a kill of this process can't undo that any more."""
        self._bases.add(snapshot)
        _say_running(snapshot, kept=await self._keeper.keep(Ready(snapshot, delta=delta)))

    def told(self, snapshot: NodeSnapshot, took_s: float) -> None:
        """A rollout's report of the activation is on its way."""
        self._perform(self._session.rolled_out(snapshot.ref, took_s))

    # --- work -------------------------------------------------------------------------------------------------------

    def _perform(self, actions: Sequence[session.Action]) -> None:
        """Carries out what the session decided."""
        for action in actions:
            match action:
                case session.StartPull():
                    self._start(self._pull(action.offer))
                case session.StartMake():
                    self._start(self._make(action.delta))
                case session.StopPull():
                    if self._work is not None:
                        self._work.cancel()
                case session.ApplyPulled():
                    ready, self._pulled = self._pulled, None
                    assert ready is not None
                    assert ready.snapshot.ref == action.ref
                    self._start(self._apply(ready))
                case session.Adopt():
                    running = self._sink.running
                    assert running is not None, "only what runs can take another name"
                    adopted = running.adopt(action.ref)
                    self._start(self._apply(Ready(adopted, delta=make_delta(running, adopted))))
                case session.TellApplied():
                    self._heard(caught_up=self._session.work is None)
                    self._say(messages.applied(action.ref, took_s=action.took_s))
                case session.TellUnusable():
                    log.warning("%s is wanted whole: %s", action.ref, action.fault.message)
                    self._say(
                        messages.delta_unusable(
                            action.ref, running=action.running, code=action.fault.code, message=action.fault.message
                        )
                    )
                case session.TellRejected():
                    log.error("rejected %s: %s", action.ref, _first(action.refused))
                    self._say(messages.rejected(action.ref, action.refused, running=action.running))
                case _:
                    assert_never(action)

    def _say(self, message: fleet_pb2.NodeMessage) -> None:
        assert self._conversation is not None, "the session tells only while connected"
        self._conversation.say(message)

    def _start(self, work: Coroutine[None, None, tuple[session.Action, ...]]) -> None:
        """Begins the next piece of work. The one before it has fed its end to the session, which asked for this one."""
        self._work = asyncio.create_task(self._do(work), name="fleet link work")

    async def _do(self, work: Coroutine[None, None, tuple[session.Action, ...]]) -> None:
        try:
            self._perform(await work)
        except Exception:  # the owner of this task has nobody to raise to; serving goes on and the log says why
            log.exception("the fleet link's work ended by a mistake of ours")

    async def _end_work(self) -> None:
        if self._work is not None:
            self._work.cancel()
            await asyncio.wait((self._work,))

    async def _make(self, delta: Delta) -> tuple[session.Action, ...]:
        base = self._bases.find(delta.base)
        if base is None:
            return self._session.delta_unusable(
                Fault("UNKNOWN_BASE", message=f"this node has not got version {delta.base.version}")
            )
        try:
            if delta.raw_bytes <= INLINE_BYTES_MAX:
                snapshot = apply_delta(delta, base, raw_bytes_max=self._settings.snapshot_bytes_max)
            else:
                snapshot = await asyncio.to_thread(
                    apply_delta, delta, base, raw_bytes_max=self._settings.snapshot_bytes_max
                )
        except SnapshotRefused as error:
            return self._session.delta_unusable(error.refused.faults[0])
        except Exception as error:  # as in _hand_over
            log.exception("making %s failed", delta.ref)
            return self._session.pull_refused(_internal(Stage.VERIFY, error))
        self._pulled = Ready(snapshot, delta=delta)
        return self._session.pulled()

    async def _pull(self, offer: Offer) -> tuple[session.Action, ...]:
        assert self._conversation is not None
        try:
            channel = self._conversation.channel
            base = self._sink.running
            repaired = await self._pulls.repair(channel, offer, base) if base is not None else None
            ready = repaired or await self._pulls.fetch(
                channel, offer, give_up=lambda: self._session.waiting is not None
            )
        except SnapshotRefused as error:
            return self._session.pull_refused(error.refused)
        except SnapshotGone as error:
            log.warning("%s can't be pulled any longer: %s", offer.ref, error)
            return self._session.pull_gone()
        except Exception as error:  # as in _hand_over
            log.exception("pulling %s failed", offer.ref)
            return self._session.pull_refused(_internal(Stage.PULL, error))
        self._pulled = ready
        return self._session.pulled()

    async def _apply(self, ready: Ready) -> tuple[session.Action, ...]:
        running = self._sink.running
        if running is not None and running.epoch == ready.snapshot.epoch and running.version > ready.snapshot.version:
            return self._session.overtaken()  # by a rollout, while this one was on its way
        outcome = await self._hand_over(ready.snapshot)
        match outcome:
            case Applied():
                self._bases.add(ready.snapshot)
                # Before the report: what was reported must not be undone by a kill a moment later.
                _say_running(ready.snapshot, kept=await self._keeper.keep(ready))
                return self._session.applied(outcome.took_s)
            case Refused():
                return self._session.refused(outcome)

    async def _hand_over(self, snapshot: NodeSnapshot, *, restored: bool = False) -> ApplyOutcome:
        if (refusal := self.refusal(snapshot)) is not None:
            return refusal
        self.arming(snapshot, restored=restored)
        try:
            return await self._sink.apply(snapshot)
        except Exception as error:  # a mistake of ours must show as a refusal, not as a node that never answers
            log.exception("applying %s failed", snapshot.ref)
            return _internal(Stage.ACTIVATE, error)


def _say_running(snapshot: NodeSnapshot, *, kept: bool, restored: bool = False) -> None:
    """One line a version, before it is reported, for whoever wants to know later what this node ran and when.

    `kept` = a kill brings it back to this version; `restored` = that is what happened.
    """
    facts = {
        "epoch": snapshot.epoch.hex(),
        "version": snapshot.version,
        "snapshot_hash": snapshot.snapshot_hash.hex(),
        "kept": kept,
        "restored": restored,
    }
    log.info("this node runs %s", snapshot.ref, extra=facts)


async def _nobody_traces(_request: fleet_pb2.TraceRequest) -> fleet_pb2.TraceAnswer:
    return fleet_pb2.TraceAnswer(error="this node can't trace requests")


async def _next(call: _Call) -> messages.PlaneMessage | None:
    """The control plane's next message."""
    message = await call.read()
    if not isinstance(message, fleet_pb2.PlaneMessage):
        raise _Over("the control plane closed the stream")
    return messages.decode(message)


def _internal(stage: Stage, error: Exception) -> Refused:
    return Refused(stage, (Fault("INTERNAL", message=f"{type(error).__name__}: {error}"),))


def _first(refused: Refused) -> str:
    if not refused.faults:
        return f"refused at {refused.stage.value}"
    fault = refused.faults[0]
    where = " ".join(part for part in (fault.collection, fault.entity_name or fault.entity_id, fault.field) if part)
    return f"{fault.code} {where}: {fault.message}" if where else f"{fault.code}: {fault.message}"
