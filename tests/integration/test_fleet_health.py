"""Goal: what nodes say of targets arrives over the real fleet link, and what they must know comes back.

Method: a real fleet over a real store, and nodes that say exactly what a test wants them to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from control_plane.entities.types import EntityBody
from control_plane.fleet.fleet import Fleet
from control_plane.fleet.health import PATIENCE_BEATS
from control_plane.fleet.settings import FleetSettings
from control_plane.store import editor
from control_plane.store.contract import Origin, Store, Transaction
from control_plane.store.sqlite import open_sqlite
from pointsman.rules.health_digest import TableDigest, row_digest
from pointsman.wire.v1 import fleet_pb2
from tests.support.patience import PATIENCE_S, until

UPSTREAM, TARGET = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
UP, DOWN = fleet_pb2.HEALTH_STATE_HEALTHY, fleet_pb2.HEALTH_STATE_UNHEALTHY


@contextlib.asynccontextmanager
async def fleet_of(folder: Path, *, sampling_nodes_min: int = 50) -> AsyncIterator[tuple[Store, Fleet]]:
    store = await open_sqlite(folder / "db")
    settings = FleetSettings(
        listen="127.0.0.1:0",
        beat_interval_s=10.0,  # scripted nodes beat when they are told to; none may be dropped meanwhile
        health_interval_s=0.02,
        sampling_nodes_min=sampling_nodes_min,
        probers_per_zone=1,
    )
    fleet = Fleet(store, settings)
    try:
        await fleet.start()
        yield store, fleet
    finally:
        await fleet.stop()
        await store.close()


def row(state: fleet_pb2.HealthState, *, target: str = TARGET, since: int = 7) -> fleet_pb2.TargetHealth:
    address = fleet_pb2.AddressHealth(ip="10.0.0.1", port=80, weight=100, state=state, since=since, reason="active")
    return fleet_pb2.TargetHealth(upstream=UPSTREAM, target=target, record_type="A", addresses=[address])


def digest_of(*rows: fleet_pb2.TargetHealth) -> int:
    table: TableDigest[str] = TableDigest()
    for each in rows:
        addresses = [(a.ip, a.port, a.weight, int(a.state), a.since) for a in each.addresses]
        digest = row_digest(
            each.upstream, each.target, error=each.error, record_type=each.record_type, addresses=addresses
        )
        table.put(each.target, digest)
    return table.value


class ScriptedNode:
    """Says what it is told to, and keeps what it hears about health."""

    def __init__(self, call: grpc.aio.StreamStreamCall[bytes, fleet_pb2.PlaneMessage], node_id: str) -> None:
        self.id = node_id
        self.requests = 0
        self.hints: list[fleet_pb2.FleetHealth] = []
        self._call = call
        self._beats = 0

    async def say(self, **message: object) -> None:
        await self._call.write(fleet_pb2.NodeMessage(**message).SerializeToString())  # type: ignore[arg-type]  # one kind

    async def report(self, *rows: fleet_pb2.TargetHealth, full: bool) -> None:
        await self.say(health=fleet_pb2.HealthReport(full=full, targets=rows))

    async def beat(self, digest: int, *loads: fleet_pb2.UpstreamLoad) -> None:
        self._beats += 1
        await self.say(beat=fleet_pb2.Beat(sequence=self._beats, health_digest=digest, loads=loads))

    async def listen(self) -> None:
        while isinstance(message := await self._call.read(), fleet_pb2.PlaneMessage):
            match message.WhichOneof("kind"):
                case "health_request":
                    self.requests += 1
                case "fleet_health":
                    self.hints.append(message.fleet_health)
                case _:
                    pass


@contextlib.asynccontextmanager
async def scripted(fleet: Fleet, name: str) -> AsyncIterator[ScriptedNode]:
    node_id = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{fleet.port}") as channel:
        call = channel.stream_stream(
            "/pointsman.wire.v1.FleetLink/Control",
            request_serializer=None,
            response_deserializer=fleet_pb2.PlaneMessage.FromString,
        )(None)
        node = ScriptedNode(call, node_id)
        hello = fleet_pb2.Hello(
            node_id=node_id, hostname=name, protocol_min=1, protocol_max=1, schema_level=1, boot_id=time.time_ns()
        )
        await node.say(hello=hello)
        assert isinstance(await call.read(), fleet_pb2.PlaneMessage)
        listening = asyncio.create_task(node.listen())
        try:
            yield node
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            call.cancel()


def word(fleet: Fleet) -> str:
    verdict = fleet.verdict(UPSTREAM, TARGET)
    return verdict.word if verdict is not None else ""


async def test_reports_and_transitions_become_the_fleet_s_verdict(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (_, fleet), scripted(fleet, "a") as a, scripted(fleet, "b") as b:
        await a.report(row(UP), full=True)
        await until(lambda: word(fleet) == "HEALTHY")
        await b.report(row(DOWN), full=True)
        await until(lambda: (verdict := fleet.verdict(UPSTREAM, TARGET)) is not None and verdict.disagreement)
        await a.report(row(DOWN, since=8), full=False)
        await until(lambda: word(fleet) == "UNHEALTHY")
        verdict = fleet.verdict(UPSTREAM, TARGET)
        assert verdict is not None
        assert not verdict.disagreement
        assert {node: said.since for node, said in verdict.addresses[0].said.items()} == {a.id: 8, b.id: 7}


async def test_a_node_that_leaves_takes_its_word_with_it(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (_, fleet), scripted(fleet, "a") as a:
        await a.report(row(UP), full=True)
        async with scripted(fleet, "b") as b:
            await b.report(row(DOWN), full=True)
            await until(lambda: len(getattr(fleet.verdict(UPSTREAM, TARGET), "nodes", ())) == 2)
        await until(lambda: getattr(fleet.verdict(UPSTREAM, TARGET), "nodes", ()) == (a.id,))


async def test_a_wrong_digest_is_answered_by_a_request_for_everything(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (_, fleet), scripted(fleet, "a") as a:
        await a.beat(digest_of(row(UP)))
        await until(lambda: a.requests == 1)
        await a.report(row(UP), full=True)
        for _ in range(PATIENCE_BEATS + 2):
            await a.beat(digest_of(row(UP)))
        await a.report(row(DOWN), full=False)
        await until(lambda: word(fleet) == "UNHEALTHY")
        assert a.requests == 1
        await a.beat(digest_of(row(UP)))
        await until(lambda: a.requests == 2)


async def test_open_requests_come_with_the_beats(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as (_, fleet), scripted(fleet, "a") as a, scripted(fleet, "b") as b:
        load = fleet_pb2.UpstreamLoad(upstream=UPSTREAM, target=TARGET, in_flight=3)
        await a.beat(0, load)
        assert fleet.loads_age_s() is None
        await b.beat(0, load)
        await until(lambda: fleet.loads_age_s() is not None)
        verdict = fleet.verdict(UPSTREAM, TARGET)
        assert verdict is not None
        assert verdict.in_flight == {a.id: 3, b.id: 3}
        assert fleet.live_nodes() == {a.id: "a", b.id: "b"}


async def test_nodes_that_do_not_probe_hear_what_the_probers_see(tmp_path: Path) -> None:
    async with (
        fleet_of(tmp_path, sampling_nodes_min=1) as (_, fleet),
        scripted(fleet, "a") as a,
        scripted(fleet, "b") as b,
    ):
        await until(lambda: bool(a.hints and b.hints and a.hints[-1].probers))
        prober, other = (a, b) if a.hints[-1].probers == [a.id] else (b, a)
        await prober.report(row(UP), full=True)
        await until(lambda: any(hint.targets for hint in other.hints))
        assert other.hints[-1].probers == [prober.id]
        await prober.report(row(DOWN), full=False)
        await until(lambda: other.hints[-1].targets[0].addresses[0].state == DOWN)


@pytest.fixture
def settings() -> EntityBody:
    return {"manual_health": [{"target": TARGET, "healthy": True, "until": int(time.time()) - 1}]}


async def test_a_word_that_is_over_is_removed_as_a_version(tmp_path: Path, settings: EntityBody) -> None:
    def make(tx: Transaction) -> None:
        editor.create(tx, "upstreams", {"id": UPSTREAM, "name": "u"}, now=1.0)
        body: EntityBody = {"id": TARGET, "target": "10.0.0.1:80", "upstream": {"id": UPSTREAM}}
        editor.create(tx, "targets", body, now=1.0)
        bound: EntityBody = {**settings, "upstream": {"id": UPSTREAM}}
        editor.upsert(tx, "upstream_settings", UPSTREAM, bound, now=1.0)

    async with fleet_of(tmp_path) as (store, _):
        await store.write(make, Origin())
        async with asyncio.timeout(PATIENCE_S):
            while await store.head() < 2:
                await asyncio.sleep(0.01)
        found = await store.read(lambda tx: tx.get("upstream_settings", UPSTREAM))
        assert found is not None
        assert found["manual_health"] == []
