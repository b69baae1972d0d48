"""A thousand light nodes on one control plane: how fast a change is everywhere, and what a restart of it costs.

    python -m tests.support.fleet_sim --nodes 1000

The control plane is the real program with its real store. The nodes are the protocol alone, over real gRPC and mutual
TLS, each with a key, a certificate and a connection of its own: they say hello, beat, take deltas and offers (pulling
what they must), verify by hash, vote in rollouts, activate at the instant by their own clocks' estimate, and report.
They share one event loop, so on a small machine the figures measure the simulator as much as the control plane.
`--plain` leaves TLS out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import grpc
import grpc.aio

from data_plane.node import messages
from data_plane.node.messages import BeatAck, Goodbye, Introduction, Welcome
from data_plane.node.reconnect import Reconnect, ReconnectSettings
from data_plane.node.snapshot import Delta, NodeSnapshot, Offer, apply_delta, unpack
from pointsman.rules.plane_clock import PlaneClock
from pointsman.snapshots import NOTHING, SnapshotRef
from pointsman.wire.v1 import fleet_pb2
from tests.support.enrolled import Plane
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import ControlPlane
from tests.support.rollouts import why
from tests.support.sim_identities import SimIdentity, join_all, without_certificates

_CONTROL = "/pointsman.wire.v1.FleetLink/Control"
_PULL = "/pointsman.wire.v1.FleetLink/Pull"
_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_receive_message_length", 1024 * 1024 + 64 * 1024),
)
BEATS_REMEMBERED = 32
CLOCK_SAMPLES = 4
"""Beats right after the welcome, as a real node's: whoever is asked to prepare knows the control plane's clock."""
POLICY = {"vote_by_s": 30, "confirm_by_s": 30}
SHOWN_MAX = 5
"""Nodes that a wait in vain names."""


class Contents:
    """Snapshots that a node of this process made already: a thousand equal ones need not be made anew."""

    def __init__(self) -> None:
        self._known: dict[SnapshotRef, NodeSnapshot] = {}

    def put(self, snapshot: NodeSnapshot) -> NodeSnapshot:
        kept = self._known.setdefault(snapshot.ref, snapshot)
        while len(self._known) > 64:
            del self._known[next(iter(self._known))]
        return kept

    def get(self, ref: SnapshotRef) -> NodeSnapshot | None:
        return self._known.get(ref)


@dataclass(slots=True)
class SimNode:
    """One node: the conversation and nothing behind it. `applied_at` is when it had each version (monotonic)."""

    number: int
    address: str
    contents: Contents
    rng: random.Random
    identity: SimIdentity
    running: NodeSnapshot | None = None
    connected: bool = False
    applied_at: dict[int, float] = field(default_factory=dict)
    history: list[SnapshotRef] = field(default_factory=list)
    deltas: int = 0
    pulls: int = 0
    clock: PlaneClock = field(default_factory=PlaneClock)
    votes: int = 0
    late_us: list[int] = field(default_factory=list)
    staged: tuple[int, NodeSnapshot] | None = None
    beats: int = 0
    beats_sent_ns: dict[int, int] = field(default_factory=dict)
    lost: str = ""  # why its last conversation ended
    saying: asyncio.Lock = field(default_factory=asyncio.Lock)
    armed: asyncio.Task[None] | None = None  # outlives the conversation in which it began

    @property
    def node_id(self) -> str:
        return self.identity.node_id

    @property
    def ref(self) -> SnapshotRef:
        return self.running.ref if self.running is not None else NOTHING

    def facts(self) -> str:
        """Where it stands, for whoever waits for it in vain."""
        connection = "connected" if self.connected else f"not connected since {self.lost or 'the start'}"
        return f"{self.number} ({connection}, version {self.ref.version}, {self.deltas} deltas, {self.pulls} pulls)"

    async def run(self) -> None:
        """Talks until cancelled."""
        pace = Reconnect(ReconnectSettings(), self.rng)
        while True:
            began = time.monotonic()
            channel = self.identity.channel(self.address, _OPTIONS)
            wait_s: float | None = None
            self.lost = "a goodbye"
            try:
                wait_s = await self._talk(channel, pace)
            except grpc.aio.AioRpcError as error:
                self.lost = f"{error.code().name} {error.details()}"
            except (asyncio.InvalidStateError, TimeoutError) as error:
                self.lost = type(error).__name__
            finally:
                self.connected = False
                await channel.close(grace=None)
            await asyncio.sleep(wait_s if wait_s is not None else pace.after_loss(connected_s=time.monotonic() - began))

    async def _talk(self, channel: grpc.aio.Channel, pace: Reconnect) -> float | None:
        call = channel.stream_stream(
            _CONTROL,
            request_serializer=fleet_pb2.NodeMessage.SerializeToString,
            response_deserializer=fleet_pb2.PlaneMessage.FromString,
        )(None)
        who = Introduction(self.node_id, f"sim-{self.number}", "0.1.0", time.time_ns(), {"zone": "sim"}, workers=1)
        async with asyncio.timeout(PATIENCE_S):
            await self._say(call, messages.hello(who, running=self.ref, snapshot_bytes_max=1 << 30))
            welcome = await self._next(call)
        if isinstance(welcome, Goodbye):
            return pace.after_goodbye(min_s=welcome.reconnect_min_s, max_s=welcome.reconnect_max_s)
        if not isinstance(welcome, Welcome):
            return None
        self.connected = True
        self.clock.reset()
        for _ in range(CLOCK_SAMPLES):
            await self._say_beat(call)
        beats = asyncio.create_task(self._beat(call, welcome.beat_interval_s))
        try:
            while True:
                message = await self._next(call)
                match message:
                    case Delta():
                        await self._take_delta(call, message)
                    case Offer():
                        await self._take_offer(channel, call, message)
                    case Goodbye():
                        return pace.after_goodbye(min_s=message.reconnect_min_s, max_s=message.reconnect_max_s)
                    case BeatAck():
                        self._take_time(message)
                    case fleet_pb2.RolloutPrepare():
                        await self._prepare(call, message)
                    case fleet_pb2.RolloutActivate():
                        self.armed = asyncio.create_task(self._activate_at(call, message))
                    case fleet_pb2.RolloutAbort():
                        self.staged = None
                    case None:
                        return None
                    case _:
                        pass
        finally:
            beats.cancel()
            await asyncio.gather(beats, return_exceptions=True)
            call.cancel()

    async def _say(
        self,
        call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage],
        message: fleet_pb2.NodeMessage,
    ) -> None:
        """A stream takes one write at a time, and there are beats beside whatever else is said."""
        async with self.saying:
            await call.write(message)

    async def _next(self, call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage]) -> object:
        message = await call.read()
        return messages.decode(message) if isinstance(message, fleet_pb2.PlaneMessage) else None

    async def _beat(
        self, call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage], interval_s: float
    ) -> None:
        await asyncio.sleep(self.rng.uniform(0, interval_s))
        while True:
            await self._say_beat(call)
            await asyncio.sleep(interval_s)

    async def _say_beat(self, call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage]) -> None:
        self.beats += 1
        if len(self.beats_sent_ns) > BEATS_REMEMBERED:
            self.beats_sent_ns.clear()
        error_ns = self.clock.error_ns(time.monotonic_ns())
        beat = messages.beat(
            self.beats,
            running=self.ref,
            in_flight=0,
            clock_error_us=0 if error_ns is None else max(1, error_ns // 1000),
        )
        self.beats_sent_ns[self.beats] = time.monotonic_ns()
        await self._say(call, beat)

    def _take_time(self, ack: BeatAck) -> None:
        received_ns = time.monotonic_ns()
        sent_ns = self.beats_sent_ns.pop(ack.sequence, None)
        if sent_ns is not None and ack.plane_sent_ns:
            self.clock.sample(
                sent_ns=sent_ns,
                plane_received_ns=ack.plane_received_ns,
                plane_sent_ns=ack.plane_sent_ns,
                received_ns=received_ns,
            )

    async def _prepare(
        self,
        call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage],
        prepare: fleet_pb2.RolloutPrepare,
    ) -> None:
        """Stages what is to come and votes; a real node also resolves names and opens connections here."""
        delta = messages.delta_from_wire(prepare.delta)
        vote = fleet_pb2.RolloutVote(rollout=prepare.rollout, round=prepare.round, kind=fleet_pb2.VOTE_KIND_REFUSE)
        error_ns = self.clock.error_ns(time.monotonic_ns())
        if self.running is not None and self.ref == delta.base and error_ns is not None:
            made = self.contents.get(delta.ref) or self.contents.put(apply_delta(delta, self.running))
            self.staged = (prepare.rollout, made)
            vote.kind, vote.workers = fleet_pb2.VOTE_KIND_READY, 1
            vote.clock_error_us = max(1, error_ns // 1000)
        self.votes += 1
        await self._say(call, fleet_pb2.NodeMessage(vote=vote))

    async def _activate_at(
        self,
        call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage],
        activate: fleet_pb2.RolloutActivate,
    ) -> None:
        staged, self.staged = self.staged, None
        if staged is None or staged[0] != activate.rollout:
            return
        at_ns = self.clock.to_monotonic(activate.at_plane_ns, time.monotonic_ns()) or time.monotonic_ns()
        while (left_ns := at_ns - time.monotonic_ns()) > 0:
            await asyncio.sleep(left_ns / 1e9)
        snapshot = staged[1].adopt(messages.ref_from_wire(activate.snapshot))
        now_ns = time.monotonic_ns()
        late_us = (now_ns - at_ns) // 1000
        self.running = snapshot
        self.history.append(snapshot.ref)
        self.applied_at[snapshot.version] = time.monotonic()
        self.late_us.append(late_us)
        told = fleet_pb2.RolloutActivated(
            rollout=activate.rollout,
            snapshot=activate.snapshot,
            at_plane_ns=self.clock.to_plane(now_ns, now_ns) or 0,
            late_us=[late_us],
        )
        with contextlib.suppress(grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError):
            await self._say(call, fleet_pb2.NodeMessage(rollout_activated=told))  # else the next hello says what runs

    async def _take_delta(
        self, call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage], delta: Delta
    ) -> None:
        self.deltas += 1
        made = self.contents.get(delta.ref)
        if made is None:
            base = self.running if self.ref == delta.base else self.contents.get(delta.base)
            if base is None:
                await self._say(
                    call, messages.delta_unusable(delta.ref, running=self.ref, code="UNKNOWN_BASE", message="not here")
                )
                return
            made = self.contents.put(apply_delta(delta, base))
        await self._activate(call, made)

    async def _take_offer(
        self,
        channel: grpc.aio.Channel,
        call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage],
        offer: Offer,
    ) -> None:
        self.pulls += 1
        pull = channel.unary_stream(
            _PULL,
            request_serializer=fleet_pb2.PullRequest.SerializeToString,
            response_deserializer=fleet_pb2.Piece.FromString,
        )(messages.pull_request(offer.ref, from_piece=0), metadata=(("pointsman-node-id", self.node_id),))
        pieces = [piece.data async for piece in pull]
        made = self.contents.get(offer.ref) or self.contents.put(unpack(offer, b"".join(pieces)))
        await self._activate(call, made)

    async def _activate(
        self, call: grpc.aio.StreamStreamCall[fleet_pb2.NodeMessage, fleet_pb2.PlaneMessage], snapshot: NodeSnapshot
    ) -> None:
        self.running = snapshot
        self.history.append(snapshot.ref)
        self.applied_at[snapshot.version] = time.monotonic()
        await self._say(call, messages.applied(snapshot.ref, took_s=0.0))


@dataclass(slots=True)
class Figures:
    """What a run found; seconds and bytes."""

    nodes: int
    entities: int
    connected_s: float = 0.0
    change_wait_s: list[float] = field(default_factory=list)
    change_nodes_s: list[float] = field(default_factory=list)
    control_plane_start_s: float = 0.0
    rollout_confirmed_s: list[float] = field(default_factory=list)
    rollout_skew_ms: list[float] = field(default_factory=list)
    rollout_late_ms: list[float] = field(default_factory=list)
    storm_settled_s: float = 0.0
    storm_pulls: int = 0
    admin_s: list[float] = field(default_factory=list)
    control_plane_rss_max_bytes: int = 0
    simulator_cpu_s: float = 0.0

    def report(self) -> dict[str, object]:
        return {
            "nodes": self.nodes,
            "entities": self.entities,
            "all_connected_s": round(self.connected_s, 2),
            "changes": len(self.change_wait_s),
            "change_confirmed_by_all_s": spread(self.change_wait_s),
            "change_applied_by_all_s": spread(self.change_nodes_s),
            "rollouts": len(self.rollout_confirmed_s),
            "rollout_confirmed_s": spread(self.rollout_confirmed_s),
            "rollout_skew_ms": spread(self.rollout_skew_ms),
            "rollout_late_ms": spread(self.rollout_late_ms),
            "control_plane_start_s": round(self.control_plane_start_s, 2),
            "storm_settled_s": round(self.storm_settled_s, 2),
            "storm_pulls": self.storm_pulls,
            "admin_during_storm_s": spread(self.admin_s),
            "control_plane_rss_max_mib": round(self.control_plane_rss_max_bytes / 2**20, 1),
            "simulator_cpu_s": round(self.simulator_cpu_s, 1),
        }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 99th percentile and maximum."""
    ordered = sorted(values)
    if not ordered:
        return {}
    return {
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 3),
        "max": round(ordered[-1], 3),
    }


def rss_bytes(pid: int) -> int:
    """Resident memory of a process now."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


class Simulation:
    """One control plane and its simulated nodes."""

    def __init__(
        self, folder: Path, *, nodes: int, entities: int, beat_interval_s: float, seed: int, plain: bool = False
    ) -> None:
        beat = f"--beat-interval-s={beat_interval_s:g}"
        self._plain = plain
        self.control_plane = ControlPlane(folder, beat) if plain else Plane(folder, "--cluster-mtls=enrolled", beat)
        self.figures = Figures(nodes, entities)
        self._rng = random.Random(seed)
        self._contents = Contents()
        self.nodes: list[SimNode] = []
        self._running: list[asyncio.Task[None]] = []
        self._killed = False

    async def run(self, *, changes: int, rollouts: int = 0) -> Figures:
        """Everything, in order."""
        count = self.figures.nodes
        identities = without_certificates(count) if self._plain else await join_all(self.control_plane.database, count)
        await self.control_plane.up()
        try:
            async with aiohttp.ClientSession() as session:
                await self._fill(session)
                self.nodes = [
                    SimNode(
                        number,
                        str(self.control_plane.fleet),
                        self._contents,
                        random.Random(self._rng.random()),
                        identity,
                    )
                    for number, identity in enumerate(identities)
                ]
                began = time.monotonic()
                self._running = [asyncio.create_task(node.run()) for node in self.nodes]
                await self._until_each(lambda node: node.running is not None, "has a configuration")
                self.figures.connected_s = time.monotonic() - began
                for _ in range(changes):
                    await self._change(session)
                if rollouts:
                    await self._until_each(lambda node: node.clock.samples > 0, "knows the control plane's clock")
                for number in range(rollouts):
                    await self._roll_out(session, number)
                await self._storm(session)
                self._look()
        finally:
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            self.control_plane.destroy()
        self.figures.simulator_cpu_s = time.process_time()
        check_histories(self.nodes)
        return self.figures

    async def _fill(self, session: aiohttp.ClientSession) -> None:
        await self._admin(session, "PUT", "/services/one", {"host": "blue", "port": 80})
        document = {
            "_format_version": "3.0",
            "upstreams": [{"name": f"u{number}"} for number in range(max(0, self.figures.entities - 1))],
        }
        if document["upstreams"]:
            await self._admin(session, "POST", "/config/apply", document)

    async def _change(self, session: aiohttp.ClientSession) -> None:
        began = time.monotonic()
        body = {"host": f"green-{time.time_ns()}"}
        version = await self._admin(session, "PATCH", "/services/one", body, prefer="wait=60")
        self.figures.change_wait_s.append(time.monotonic() - began)
        await self._until_each(lambda node: node.ref.version >= version, f"runs version {version}")
        last = max(node.applied_at.get(version, 0.0) for node in self.nodes)
        if last:
            self.figures.change_nodes_s.append(last - began)
        self._look()

    async def _roll_out(self, session: aiohttp.ClientSession, number: int) -> None:
        began = time.monotonic()
        told = [len(node.late_us) for node in self.nodes]
        change = {
            "operation": "update",
            "collection": "services",
            "key": "one",
            "body": {"host": f"side-{number}-{time.time_ns()}"},
        }
        body = {"changes": [change], "policy": POLICY, "reason": "simulated"}
        url = self.control_plane.url + "/fleet/rollouts"
        async with session.post(url, json=body, headers={"Prefer": PREFER}) as response:
            view = await response.json()
            assert response.status < 300, f"rollout {number}: {response.status} {why(view)}"
        self.figures.rollout_confirmed_s.append(time.monotonic() - began)
        assert view["state"] == "confirmed", f"rollout {number}: {why(view)}"
        self.figures.rollout_skew_ms.append(float(view["skew_us"] or 0) / 1000)
        late = [late for node, count in zip(self.nodes, told, strict=True) for late in node.late_us[count:]]
        assert len(late) == len(self.nodes)
        assert min(late) >= 0, "activated before the instant"
        self.figures.rollout_late_ms.append(max(late) / 1000)
        self._look()

    async def _storm(self, session: aiohttp.ClientSession) -> None:
        """The control plane is killed and comes back at once: every node notices and returns."""
        pulls = sum(node.pulls for node in self.nodes)
        self._killed = True
        self.control_plane.kill()
        await self.control_plane.wait()
        await self._until_each(lambda node: not node.connected, "has noticed the kill")
        began = time.monotonic()
        await self.control_plane.up()
        self._killed = False
        self.figures.control_plane_start_s = time.monotonic() - began
        began = time.monotonic()
        asking = asyncio.create_task(self._keep_asking(session))
        try:
            await self._until_each(lambda node: node.connected, "is back")
            self.figures.storm_settled_s = time.monotonic() - began
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        self.figures.storm_pulls = sum(node.pulls for node in self.nodes) - pulls

    async def _keep_asking(self, session: aiohttp.ClientSession) -> None:
        while True:
            began = time.monotonic()
            await self._admin(session, "GET", "/services/one", None)
            self.figures.admin_s.append(time.monotonic() - began)
            self._look()
            await asyncio.sleep(0.05)

    async def _admin(
        self, session: aiohttp.ClientSession, method: str, path: str, body: object, prefer: str = ""
    ) -> int:
        headers = {"Prefer": prefer} if prefer else {}
        async with session.request(method, self.control_plane.url + path, json=body, headers=headers) as response:
            text = await response.text()
            assert response.status < 300, f"{method} {path}: {response.status} {text[:500]}"
            return int(response.headers.get("X-Pointsman-Version", "0"))

    async def _until_each(self, condition: Callable[[SimNode], bool], what: str) -> None:
        """Waits until it is so of every node. A node that has ended by a mistake ends the simulation."""
        deadline = time.monotonic() + PATIENCE_S
        while missing := [node for node in self.nodes if not condition(node)]:
            for task in self._running:
                if task.done():
                    task.result()
            plane = self.control_plane
            assert plane.running or self._killed, f"the control plane has ended:\n{plane.log_tail()}"
            if time.monotonic() > deadline:
                shown = ", ".join(node.facts() for node in missing[:SHOWN_MAX])
                raise AssertionError(f"{len(missing)} nodes of which not one {what}: {shown}\n{plane.log_tail()}")
            await asyncio.sleep(0.01)

    def _look(self) -> None:
        pid = self.control_plane.pid
        self.figures.control_plane_rss_max_bytes = max(self.figures.control_plane_rss_max_bytes, rss_bytes(pid))


def check_histories(nodes: Sequence[SimNode]) -> None:
    """A node's versions never go back within an epoch; one version has one content, whoever ran it."""
    contents: dict[tuple[bytes, int], bytes] = {}
    for node in nodes:
        newest: dict[bytes, int] = {}
        for ref in node.history:
            assert ref.version >= newest.get(ref.epoch, 0), f"{node.node_id} went back to version {ref.version}"
            newest[ref.epoch] = ref.version
            content = contents.setdefault((ref.epoch, ref.version), ref.snapshot_hash)
            assert content == ref.snapshot_hash, f"version {ref.version} has two contents"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a simulation and prints its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--nodes", type=int, default=1000)
    parser.add_argument("--entities", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=20)
    parser.add_argument("--beat-interval-s", type=float, default=5.0)
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--plain", action="store_true", help="without TLS and certificates")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="pointsman-sim-") as folder:
        simulation = Simulation(
            Path(folder),
            nodes=options.nodes,
            entities=options.entities,
            beat_interval_s=options.beat_interval_s,
            seed=options.seed,
            plain=options.plain,
        )
        figures = asyncio.run(simulation.run(changes=options.changes, rollouts=options.rollouts))
    print(json.dumps(figures.report(), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
