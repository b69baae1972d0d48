"""Goal: a node votes by what it found, arms what was decided, lets go of the rest. Method: a stager that records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import zstandard
from google.protobuf.duration_pb2 import Duration

from data_plane.balancer.addresses import Address
from data_plane.node.applying import Activated
from data_plane.node.diff import Diff
from data_plane.node.health import Outlook
from data_plane.node.messages import ref_to_wire
from data_plane.node.outcomes import Refused
from data_plane.node.rollouts import SAMPLES_WANTED, Rollouts
from data_plane.node.snapshot import EMPTY, Delta, NodeSnapshot
from data_plane.node.workers import WarmedEndpoint
from pointsman.rules.plane_clock import SAMPLES_MAX, PlaneClock
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.snapshots import Fault, Stage
from pointsman.wire.v1 import fleet_pb2
from tests.unit.data_plane.node.entities import Entities, service


def hashed(version: int, entities: Entities) -> NodeSnapshot:
    return NodeSnapshot(b"e" * 16, version, snapshot_hash(entities), entities)


ONE = hashed(1, service("s1", "10.0.0.1"))
TWO = hashed(2, service("s1", "10.0.0.2"))
ADDRESS = Address("10.0.0.9:80", "10.0.0.9", 80, "10.0.0.9", 100, "t1")


class Stager:
    """Workers that do as they are told."""

    def __init__(self) -> None:
        self.running: NodeSnapshot | None = ONE
        self.refuse: Refused | None = None
        self.prepared: NodeSnapshot | None = None
        self.armed: list[int] = []
        self.warmed: list[WarmedEndpoint] = [WarmedEndpoint("u", ADDRESS.key, 2, "")]
        self.go = asyncio.Event()

    async def prepare(self, snapshot: NodeSnapshot) -> Refused | None:
        if self.refuse is None:
            self.prepared = snapshot
        return self.refuse

    async def warm(
        self, snapshot: NodeSnapshot, upstreams: Sequence[str], *, connections: int, timeout_s: float
    ) -> list[WarmedEndpoint]:
        assert connections > 0
        return self.warmed

    def is_prepared(self, snapshot: NodeSnapshot) -> bool:
        return self.prepared is snapshot

    def drop_prepared(self, snapshot: NodeSnapshot) -> None:
        if self.prepared is snapshot:
            self.prepared = None

    async def activate(self, snapshot: NodeSnapshot, at_ns: int) -> Activated | Refused:
        assert self.prepared is snapshot
        self.armed.append(at_ns)
        await self.go.wait()
        self.running = snapshot
        return Activated(at_ns + 3000, (3, 2))


class Rig:
    """A node whose clock is the plane's less 1000 ns."""

    def __init__(self) -> None:
        self.stager = Stager()
        self.clock = PlaneClock()
        self.said: asyncio.Queue[fleet_pb2.NodeMessage] = asyncio.Queue()
        self.now_ns = 1_000_000
        self.states: dict[str, int] = {}
        self.addresses = [ADDRESS]
        self.active: list[NodeSnapshot] = []
        self.guard: Refused | None = None
        self.followed: list[str] = []
        self.beats = 0
        self.rtt_ns = 0
        self.rollouts = Rollouts(
            "node",
            self.stager,
            self.clock,
            workers=2,
            outlook=self.outlook,
            follower=lambda: self,
            now_ns=lambda: self.now_ns,
        )
        self.rollouts.connected(self.said.put_nowait, self.beat)

    def refusal(self, snapshot: NodeSnapshot) -> Refused | None:
        return self.guard if snapshot is not ONE else None

    def arming(self, snapshot: NodeSnapshot) -> None:
        self.followed.append("arming")

    async def activated(self, snapshot: NodeSnapshot, delta: Delta | None) -> None:
        assert delta is not None
        assert (delta.base, delta.ref) == (ONE.ref, snapshot.ref)
        assert self.said.empty(), "it was reported before it was kept"
        self.followed.append("kept")

    def told(self, snapshot: NodeSnapshot, took_s: float) -> None:
        assert not self.said.empty()
        self.followed.append("told")
        self.active.append(snapshot)

    def beat(self) -> None:
        self.now_ns += 10
        self.beats += 1
        self.clock.sample(
            sent_ns=self.now_ns - 2 - self.rtt_ns,
            plane_received_ns=self.now_ns + 999,
            plane_sent_ns=self.now_ns + 999,
            received_ns=self.now_ns,
        )

    def outlook(self, upstream_id: str, _diff: Diff) -> Outlook:
        if upstream_id != "u":
            raise KeyError(upstream_id)
        return Outlook("green", self.addresses, {}, self.states, {})

    def prepare(self, number: int = 1, *, base: NodeSnapshot = ONE, upstreams: Sequence[str] = ("u",)) -> None:
        raw = fleet_pb2.DeltaBody(upserts=TWO.entities.values()).SerializeToString()
        self.rollouts.told(
            fleet_pb2.RolloutPrepare(
                rollout=number,
                round=1,
                delta=fleet_pb2.Delta(
                    base=ref_to_wire(base.ref),
                    snapshot=ref_to_wire(TWO.ref),
                    packed=zstandard.compress(raw),
                    raw_bytes=len(raw),
                    entities=len(TWO.entities),
                ),
                vote_within=Duration(seconds=5),
                hold=Duration(seconds=60),
                upstreams=upstreams,
                connections_per_target=8,
                nodes=1,
                warm=True,
            )
        )

    def activate(self, number: int = 1) -> None:
        self.rollouts.told(
            fleet_pb2.RolloutActivate(rollout=number, snapshot=ref_to_wire(TWO.ref), at_plane_ns=9_001_000)
        )

    async def vote(self) -> fleet_pb2.RolloutVote:
        message = await self.said.get()
        assert message.WhichOneof("kind") == "vote"
        return message.vote

    async def report(self) -> fleet_pb2.RolloutActivated:
        message = await self.said.get()
        assert message.WhichOneof("kind") == "rollout_activated"
        return message.rollout_activated


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.rollouts.stop()


async def test_clocks_are_compared_until_there_is_little_doubt_but_not_for_ever(rig: Rig) -> None:
    rig.clock.reset()
    rig.beats, rig.rtt_ns = 0, 40_000_000
    rig.prepare()
    vote = await rig.vote()
    assert (rig.beats, vote.kind) == (SAMPLES_MAX, fleet_pb2.VOTE_KIND_READY)
    assert vote.clock_error_us == 20_000
    rig.rtt_ns = 0
    rig.prepare(2)
    vote = await rig.vote()
    assert (rig.beats, vote.clock_error_us) == (SAMPLES_MAX + SAMPLES_WANTED, 1), "asked again though they are fresh"


async def test_ready_with_evidence_then_armed_by_the_plane_s_clock(rig: Rig) -> None:
    rig.prepare()
    vote = await rig.vote()
    assert (vote.kind, vote.workers, vote.rollout) == (fleet_pb2.VOTE_KIND_READY, 2, 1)
    (check,) = vote.upstreams
    assert (check.targets, check.healthy, check.connections) == (1, 1, 2)
    assert vote.clock_error_us >= 1
    rig.activate()
    rig.stager.go.set()
    told = await rig.report()
    assert rig.stager.armed == [9_000_000], "the instant by this node's clock"
    assert (list(told.late_us), told.at_plane_ns) == ([3, 2], 9_004_000)
    assert [each.ref for each in rig.active] == [TWO.ref]
    rig.activate()
    assert (await rig.report()) == told, "said again, not done again"
    assert len(rig.stager.armed) == 1


async def test_workers_that_refuse_make_a_refusal(rig: Rig) -> None:
    rig.stager.refuse = Refused(Stage.BUILD, (Fault("BAD_REGEX", "routes", "r1", message="no"),))
    rig.prepare()
    vote = await rig.vote()
    assert (vote.kind, vote.workers, vote.faults[0].code) == (fleet_pb2.VOTE_KIND_REFUSE, 0, "BAD_REGEX")
    rig.activate()
    assert (await rig.report()).fault.code == "NOT_PREPARED"


async def test_a_node_that_runs_something_else_refuses(rig: Rig) -> None:
    rig.prepare(base=TWO)
    vote = await rig.vote()
    assert (vote.kind, vote.faults[0].code) == (fleet_pb2.VOTE_KIND_REFUSE, "OTHER_BASE")


async def test_a_node_without_configuration_prepares_what_begins_at_nothing(rig: Rig) -> None:
    rig.stager.running = None
    rig.prepare(base=EMPTY)
    vote = await rig.vote()
    assert (vote.kind, list(vote.faults)) == (fleet_pb2.VOTE_KIND_READY, [])
    assert rig.stager.prepared == TWO
    rig.prepare(2, base=ONE)
    vote = await rig.vote()
    assert (vote.kind, vote.faults[0].code) == (fleet_pb2.VOTE_KIND_REFUSE, "OTHER_BASE")
    assert vote.faults[0].message.endswith("this node runs nothing")


async def test_no_target_that_can_be_reached_is_a_refusal_that_can_be_overruled(rig: Rig) -> None:
    rig.stager.warmed = [WarmedEndpoint("u", ADDRESS.key, 0, "connection refused")]
    rig.prepare()
    vote = await rig.vote()
    assert (vote.kind, vote.workers) == (fleet_pb2.VOTE_KIND_REFUSE, 2), "staged all the same"
    assert vote.faults[0].code == "NO_HEALTHY_TARGET"
    assert vote.upstreams[0].failures[0].error == "connection refused"
    rig.activate()
    rig.stager.go.set()
    assert not (await rig.report()).HasField("fault")


async def test_some_targets_down_is_a_warning(rig: Rig) -> None:
    rig.addresses.append(Address("10.0.0.8:80", "10.0.0.8", 80, "10.0.0.8", 100, "t2"))
    rig.states["10.0.0.8:80"] = fleet_pb2.HEALTH_STATE_UNHEALTHY
    rig.prepare()
    vote = await rig.vote()
    assert (vote.kind, vote.faults[0].code) == (fleet_pb2.VOTE_KIND_READY_WARN, "UNHEALTHY_TARGETS")


async def test_an_upstream_that_will_not_be_there(rig: Rig) -> None:
    rig.prepare(upstreams=("nobody",))
    vote = await rig.vote()
    assert (vote.kind, vote.faults[0].code) == (fleet_pb2.VOTE_KIND_REFUSE, "NO_UPSTREAM")


async def test_an_abort_lets_go_of_what_is_prepared_and_not_of_what_is_armed(rig: Rig) -> None:
    rig.prepare()
    await rig.vote()
    rig.rollouts.told(fleet_pb2.RolloutAbort(rollout=1, reason="lunch"))
    assert rig.stager.prepared is None
    rig.prepare(2)
    await rig.vote()
    rig.activate(2)
    rig.rollouts.told(fleet_pb2.RolloutAbort(rollout=2, reason="too late"))
    rig.prepare(3)
    assert (await rig.vote()).faults[0].code == "BUSY"
    rig.stager.go.set()
    assert (await rig.report()).rollout == 2
    assert rig.stager.running is not ONE
