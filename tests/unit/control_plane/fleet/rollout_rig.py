"""A control plane's end of rollouts without sockets: a real store, publisher, server and coordinator, nodes that talk.

`Talker` is a node at the other end of a control stream. It minds the protocol, notes each word with the time it came,
and answers as the test wants it to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from typing import TypeVar, cast

import grpc.aio
import zstandard

from control_plane.entities.types import EntityBody
from control_plane.fleet.health import HealthBook
from control_plane.fleet.messages import wire_ref
from control_plane.fleet.nodes import Nodes, Plane
from control_plane.fleet.published import Published, Shelf
from control_plane.fleet.publisher import Publisher
from control_plane.fleet.rollout import Policy
from control_plane.fleet.rollouts import Entry, Rollouts
from control_plane.fleet.server import LinkServer
from control_plane.fleet.settings import PROTOCOL, SCHEMA_LEVEL, FleetSettings
from control_plane.store import editor
from control_plane.store.contract import Origin, Store, StoreUnavailable, Transaction, Written
from pointsman.snapshots import SnapshotRef
from pointsman.wire.v1 import fleet_pb2
from tests.support.patience import PATIENCE_S, until

T = TypeVar("T")
Work = Callable[[Transaction], T]


def create(name: str) -> Callable[[Transaction], EntityBody]:
    return lambda tx: editor.create(tx, "upstreams", {"name": name}, now=time.time())


def slots(name: str, count: int) -> Callable[[Transaction], EntityBody]:
    return lambda tx: editor.update(tx, "upstreams", name, {"slots": count}, now=time.time())


class Wire:
    """What control planes tell each other over a database; `loses` says of each word whether it gets lost."""

    def __init__(self) -> None:
        self.hearers: list[Callable[[str], None]] = []
        self.told: list[dict[str, object]] = []
        self.loses: Callable[[dict[str, object]], bool] = lambda _word: False

    def tell(self, text: str) -> None:
        assert len(text.encode()) <= 7_000
        word = json.loads(text)
        self.told.append(word)
        if not self.loses(word):
            for hearer in tuple(self.hearers):
                asyncio.get_running_loop().call_soon(hearer, text)

    def words(self, kind: str) -> list[dict[str, object]]:
        return [word for word in self.told if word["word"] == kind]


class MoodyStore:
    """A store whose writes can fail before they begin, or after they are done."""

    def __init__(self, store: Store, wire: Wire) -> None:
        self._store = store
        self._wire = wire
        self.fails = False
        self.loses_answers = 0

    def tell_planes(self, text: str) -> None:
        self._wire.tell(text)

    def hear_planes(self, hearer: Callable[[str], None]) -> Callable[[], None]:
        self._wire.hearers.append(hearer)
        return lambda: self._wire.hearers.remove(hearer)

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def write(self, work: Work[T], origin: Origin) -> Written[T]:
        if self.fails:
            raise StoreUnavailable("the disk is full")
        written = await self._store.write(work, origin)
        if self.loses_answers and written.version:
            self.loses_answers -= 1
            raise StoreUnavailable("the connection was lost")
        return written


class Talker:
    """One node, connected from its making to `leave_off`; `running` is what it says that it runs."""

    def __init__(self, name: str, *, node_id: str = "", running: SnapshotRef | None = None, boot_id: int = 1) -> None:
        self.name = name
        self.id = node_id or str(uuid.uuid4())
        self.boot_id = boot_id
        self.running = running or SnapshotRef(b"", 0, b"")
        self.refuses = b"poison"
        self.votes = True
        self.activates = True
        self.early_s = 0.0  # how much its reading of the plane's clock is fast
        self.on_activate: Callable[[], None] = lambda: None
        self.prepared: list[tuple[int, int, bool]] = []
        self.activate: fleet_pb2.RolloutActivate | None = None
        self.aborted: list[str] = []
        self.offered: list[tuple[int, int]] = []  # version, monotonic ns
        self.applies = True
        self._prepared: SnapshotRef | None = None
        self._to_plane: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._stream: asyncio.Task[None] | None = None
        self._at: asyncio.TimerHandle | None = None

    def connect(self, server: LinkServer) -> None:
        hello = fleet_pb2.Hello(
            node_id=self.id,
            hostname=self.name,
            software="0.1.0",
            protocol_min=PROTOCOL,
            protocol_max=PROTOCOL,
            schema_level=SCHEMA_LEVEL,
            running=wire_ref(self.running),
            boot_id=self.boot_id,
            workers=1,
        )
        self._to_plane = asyncio.Queue()
        self.say(fleet_pb2.NodeMessage(hello=hello))
        context = cast("grpc.aio.ServicerContext[bytes, bytes]", self)
        no_requests = cast("AsyncIterator[bytes]", None)
        self._stream = asyncio.create_task(server._control(no_requests, context), name=f"stream of {self.name}")

    async def leave_off(self) -> None:
        """The connection breaks."""
        self._to_plane.put_nowait(None)
        if self._stream is not None:
            await self._stream

    async def break_off(self, turns: int) -> None:
        """The connection breaks, and gRPC cancels who serves it so many turns of the loop later."""
        assert self._stream is not None
        self._to_plane.put_nowait(None)
        for _ in range(turns):
            await asyncio.sleep(0)
        self._stream.cancel()
        await asyncio.gather(self._stream, return_exceptions=True)

    def say(self, message: fleet_pb2.NodeMessage) -> None:
        self._to_plane.put_nowait(message.SerializeToString())

    def leave(self) -> None:
        self.say(fleet_pb2.NodeMessage(leaving=fleet_pb2.Leaving(reason="it is stopped")))

    def vote(self, kind: fleet_pb2.VoteKind = fleet_pb2.VOTE_KIND_READY, why: str = "") -> None:
        """On what was prepared last."""
        number, round_number, _ = self.prepared[-1]
        vote = fleet_pb2.RolloutVote(rollout=number, round=round_number, kind=kind, clock_error_us=100, workers=1)
        if why:
            vote.faults.add(code="BAD_VALUE", message=why)
        self.say(fleet_pb2.NodeMessage(vote=vote))

    def take(self, ref: SnapshotRef) -> None:
        """Runs what it had only noted."""
        self.running = ref
        self.say(fleet_pb2.NodeMessage(applied=fleet_pb2.Applied(snapshot=wire_ref(ref))))

    def take_over(self, before: Talker) -> None:
        """Goes on as the same process on a new connection: armed as it was, and swapping at the instant."""
        assert before.activate is not None
        self.activate, self._prepared = before.activate, before._prepared
        delay_s = max(0.0, (self.activate.at_plane_ns - time.monotonic_ns()) / 1e9)
        self._at = asyncio.get_running_loop().call_later(delay_s, self.swap)

    def swap(self) -> None:
        """What was prepared becomes what runs, and the plane hears of it."""
        assert self.activate is not None
        assert self._prepared is not None
        self.running = self._prepared
        told = fleet_pb2.RolloutActivated(
            rollout=self.activate.rollout,
            snapshot=wire_ref(self.running),
            at_plane_ns=time.monotonic_ns(),
            late_us=[1],
            clock_error_us=100,
            ahead_us=40_000,
        )
        self.say(fleet_pb2.NodeMessage(rollout_activated=told))

    # --- what the server asks of a grpc context ---------------------------------------------------------------------

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4242"

    async def read(self) -> bytes | None:
        """None stands for gRPC's end of file."""
        return await self._to_plane.get()

    async def write(self, frame: bytes) -> None:
        message = fleet_pb2.PlaneMessage.FromString(frame)
        match message.WhichOneof("kind"):
            case "offer":
                self._offered(message.offer.snapshot, refused=False)
            case "delta":
                self._offered(message.delta.snapshot, refused=self._hates(message.delta))
            case "rollout_prepare":
                self._prepare(message.rollout_prepare)
            case "rollout_activate":
                self._arm(message.rollout_activate)
            case "rollout_abort":
                self.aborted.append(message.rollout_abort.reason)
            case _:
                pass

    def _hates(self, delta: fleet_pb2.Delta) -> bool:
        raw = zstandard.ZstdDecompressor().decompress(delta.packed)
        return any(self.refuses in entity for entity in fleet_pb2.DeltaBody.FromString(raw).upserts)

    def _offered(self, ref: fleet_pb2.SnapshotRef, *, refused: bool) -> None:
        self.offered.append((ref.version, time.monotonic_ns()))
        if refused:
            rejected = fleet_pb2.Rejected(snapshot=ref, running=wire_ref(self.running), stage=fleet_pb2.STAGE_BUILD)
            rejected.faults.add(code="BAD_VALUE", message="poison")
            self.say(fleet_pb2.NodeMessage(rejected=rejected))
        elif self.applies:
            self.running = SnapshotRef(ref.epoch, ref.version, ref.snapshot_hash)
            self.say(fleet_pb2.NodeMessage(applied=fleet_pb2.Applied(snapshot=ref)))

    def _prepare(self, prepare: fleet_pb2.RolloutPrepare) -> None:
        assert prepare.delta.base == wire_ref(self.running), "asked to prepare from what it does not run"
        ref = prepare.delta.snapshot
        self._prepared = SnapshotRef(ref.epoch, ref.version, ref.snapshot_hash)
        self.prepared.append((prepare.rollout, prepare.round, prepare.warm))
        if self._hates(prepare.delta):
            self.vote(fleet_pb2.VOTE_KIND_REFUSE, "poison")
        elif self.votes:
            self.vote()

    def _arm(self, activate: fleet_pb2.RolloutActivate) -> None:
        self.activate = activate
        self.on_activate()
        if self.activates:
            delay_s = max(0.0, (activate.at_plane_ns - time.monotonic_ns()) / 1e9 - self.early_s)
            self._at = asyncio.get_running_loop().call_later(delay_s, self.swap)


class RigPlane:
    """One control plane over a store that others may be over, too."""

    def __init__(
        self,
        store: Store,
        *,
        name: str = "",
        canary_wait_s: float = 1.0,
        sole: bool = True,
        wire: Wire | None = None,
    ) -> None:
        self.name = name
        self.moody = MoodyStore(store, wire or Wire())
        self.store = cast("Store", self.moody)
        self.settings = FleetSettings(beat_interval_s=10.0, canary_wait_s=canary_wait_s)
        here, lease_s = Plane(name, name), self.settings.lease_s
        self.nodes = Nodes(clock=time.monotonic, wall=time.time, lease_s=lease_s, purge_after_s=1e6, plane=here)
        self.shelf = Shelf()
        self.server = LinkServer(self.settings, self.nodes, self.shelf, clock=time.monotonic, plane_id=name)
        self.publisher = Publisher(
            self.store,
            lambda snapshot: self.server.offers.publish(Published(snapshot)),
            gather=self.settings.gather,
            clock=time.monotonic,
        )
        self.rollouts = Rollouts(self.store, self.publisher, self.server, self.nodes, HealthBook(), sole=sole)
        self.talkers: list[Talker] = []
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.publisher.start()
        await self.rollouts.start()
        self._running = asyncio.create_task(self.publisher.run())

    async def stop(self) -> None:
        await self.rollouts.stop()
        for talker in self.talkers:
            await talker.leave_off()
        self.publisher.stop()
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def join(self, *talkers: Talker) -> None:
        """They connect and take the head."""
        for talker in talkers:
            self.talkers.append(talker)
            talker.connect(self.server)
            await until(lambda talker=talker: talker.running.version == self.publisher.published)  # type: ignore[misc]  # lambda defaults
        await until(lambda: len(self.nodes.live()) == len(self.talkers))

    def knows(self, other: RigPlane) -> None:
        """Learns of the other's nodes, as by their records."""
        self.nodes.merge(other.nodes.take_dirty(), {other.name: f"host of {other.name}"})

    @property
    def head(self) -> SnapshotRef:
        released = self.shelf.head_ref
        assert released is not None
        return released

    async def write(self, work: Work[T]) -> int:
        return (await self.store.write(work, Origin())).version

    async def roll_out(self, work: Work[T], policy: Policy | None = None) -> Entry:
        return await self.rollouts.create(work, Origin(), policy or Policy())

    async def ended(self, entry: Entry) -> str:
        async with asyncio.timeout(PATIENCE_S):
            await entry.ended.wait()
        return entry.machine.state.value


@contextlib.asynccontextmanager
async def started(plane: RigPlane) -> AsyncIterator[RigPlane]:
    await plane.start()
    try:
        yield plane
    finally:
        await plane.stop()
