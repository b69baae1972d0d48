"""Entity bytes for tests of the worker, and a `Worker` whose channel is a list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import cast

from google.protobuf.duration_pb2 import Duration

from data_plane.balancer import Endpoint
from data_plane.observe.counters import Counters
from data_plane.observe.side_counts import SideCounts
from data_plane.proxy.serving import ClientFactory
from data_plane.proxy.tables import Active, Tables
from data_plane.worker.listeners import Listeners
from data_plane.worker.process import Worker
from pointsman.wire.v1 import config_pb2, fleet_pb2
from pointsman.wire.v1 import worker_pb2 as wire

SECOND = Duration(seconds=1)


def service(service_id: str, host: str, port: int = 80) -> bytes:
    return config_pb2.Entity(
        service=config_pb2.Service(
            id=service_id,
            name=f"name-{service_id}",
            protocol="http",
            host=host,
            port=port,
            retries=1,
            connect_timeout=SECOND,
            write_timeout=SECOND,
            read_timeout=SECOND,
        )
    ).SerializeToString()


def route(route_id: str, service_id: str, *, paths: Sequence[str] = ("/",)) -> bytes:
    return config_pb2.Entity(
        route=config_pb2.Route(
            id=route_id, name=f"name-{route_id}", protocols=["http"], paths=paths, service=service_id
        )
    ).SerializeToString()


def upstream(upstream_id: str, name: str, *, host_header: str = "") -> bytes:
    return config_pb2.Entity(
        upstream=config_pb2.Upstream(id=upstream_id, name=name, host_header=host_header)
    ).SerializeToString()


def target(target_id: str, upstream_id: str, text: str, weight: int = 100) -> bytes:
    return config_pb2.Entity(
        target=config_pb2.Target(id=target_id, upstream=upstream_id, target=text, weight=weight)
    ).SerializeToString()


class FakeFactory:
    """The proxy as the worker drives it."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.connections = 0
        self.in_flight = 0
        self.reading = 0

    def loads(self) -> dict[Endpoint, int]:
        return {}

    def open_sides(self) -> dict[SideCounts, int]:
        return {}

    def close_late(self, sides: Collection[tuple[str, str]]) -> int:
        self.steps.append(f"close late {sorted(sides)}")
        return 0

    def doing(self) -> dict[str, int]:
        return {"in tunnels": self.connections} if self.connections else {}

    def start(self) -> None:
        self.steps.append("start")

    def begin_drain(self) -> None:
        self.steps.append("begin_drain")

    def end_idle(self) -> None:
        self.steps.append("end_idle")

    def cut(self) -> None:
        self.steps.append("cut")
        self.connections = self.in_flight = 0

    def stop(self) -> None:
        self.steps.append("stop")


class FakeListeners:
    """The sockets as the worker drives them."""

    def __init__(self, steps: list[str]) -> None:
        self.steps = steps

    async def open(self) -> None:
        self.steps.append("open")

    async def close(self, *, handshakes_s: float) -> None:
        self.steps.append("close")

    def cut(self) -> None:
        self.steps.append("cut greetings")


class Rig:
    """A worker with everything around it replaced; `said` is what it has told the node process."""

    def __init__(self) -> None:
        self.active = Active()
        self.factory = FakeFactory()
        self.counters = Counters()
        self.said: list[wire.FromWorker] = []
        self.gave_up: list[str] = []
        self.ends_by_s: list[float] = []
        self.worker = Worker(
            active=self.active,
            factory=cast("ClientFactory", self.factory),
            counters=self.counters,
            listeners=cast("Listeners", FakeListeners(self.factory.steps)),
            send=lambda data: self.said.append(wire.FromWorker.FromString(data)),
            give_up=self._note_that_it_gave_up,
            end_by=self.ends_by_s.append,
        )

    def _note_that_it_gave_up(self, what: str, error: BaseException | None) -> None:
        self.gave_up.append(f"{what}: {error!r}")

    @property
    def tables(self) -> Tables:
        assert self.active.tables is not None
        return self.active.tables

    def tell(self, message: wire.ToWorker) -> None:
        self.worker.on_message(message.SerializeToString())

    def begin(self, version: int, base: int) -> None:
        begin = wire.StageBegin(snapshot=fleet_pb2.SnapshotRef(version=version), base_version=base)
        self.tell(wire.ToWorker(stage_begin=begin))

    def part(self, upserts: Iterable[bytes] = (), deletes: Iterable[tuple[str, str]] = ()) -> None:
        part = wire.StagePart(upserts=upserts)
        for collection, entity_id in deletes:
            part.deletes.add(collection=collection, id=entity_id)
        self.tell(wire.ToWorker(stage_part=part))

    async def stage(
        self, version: int, base: int, upserts: Iterable[bytes] = (), deletes: Iterable[tuple[str, str]] = ()
    ) -> wire.FromWorker:
        """Stage a version; returns what the worker says to it."""
        self.begin(version, base)
        self.part(upserts, deletes)
        self.tell(wire.ToWorker(stage_end=wire.StageEnd()))
        return await self.next()

    async def activate(self, version: int) -> wire.FromWorker:
        self.tell(wire.ToWorker(activate=wire.Activate(version=version)))
        return await self.next()

    async def put(
        self, version: int, base: int, upserts: Iterable[bytes] = (), deletes: Iterable[tuple[str, str]] = ()
    ) -> None:
        """Stage and activate, which must both work."""
        prepared = await self.stage(version, base, upserts, deletes)
        assert prepared.WhichOneof("kind") == "prepared", prepared
        activated = await self.activate(version)
        assert activated.activated.version == version

    def names(self, **answers: Sequence[str]) -> None:
        message = wire.ToWorker()
        for name, ips in answers.items():
            told = message.names.answers.add(name=name.replace("_", "."))
            for ip in ips:
                told.records.add(ip=ip)
        self.tell(message)

    async def next(self) -> wire.FromWorker:
        """The next thing the worker says."""
        async with asyncio.timeout(10):
            while not self.said:
                assert not self.gave_up, self.gave_up
                await asyncio.sleep(0)
        return self.said.pop(0)

    def pick(self, service_id: str) -> str:
        """Where the next request of a service goes."""
        endpoint = self.tables.services[service_id].balancer.pick(())
        return f"{endpoint.ip}:{endpoint.port}"

    async def eventually(self, condition: Callable[[], bool]) -> None:
        """Let the loop run until the condition holds."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)
