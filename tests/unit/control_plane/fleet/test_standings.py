"""Goal: other control planes learn of our nodes in time and cheaply. Method: two of them over one pretended store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from control_plane.fleet import standings
from control_plane.fleet.nodes import Nodes, Plane
from control_plane.fleet.relay_words import Taken, to_text
from control_plane.fleet.settings import FleetSettings
from control_plane.fleet.standings import Standings
from control_plane.fleet.waiting import wait_for
from control_plane.store.contract import NodeRecord, PlaneRecord
from tests.support.patience import until
from tests.unit.control_plane.fleet.test_known_nodes import EPOCH, LEASE_S, hello, ref

NODES = 50
HEAD = ref(1)


class Shared:
    """The part of a shared store that is about nodes; what is told is heard by all, this one too."""

    shared = True

    def __init__(self) -> None:
        self.rows: dict[str, NodeRecord] = {}
        self.planes: dict[str, PlaneRecord] = {}
        self.hearers: list[Callable[[str], None]] = []
        self.saves = 0

    async def save_nodes(self, records: Sequence[NodeRecord]) -> None:
        self.saves += 1
        self.rows |= {record.id: record for record in records}

    async def nodes(self) -> Sequence[NodeRecord]:
        return list(self.rows.values())

    async def save_plane(self, record: PlaneRecord, *, others_seen_before: float) -> Sequence[PlaneRecord]:
        self.planes[record.id] = record
        return list(self.planes.values())

    async def forget_nodes(self, *, last_seen_before: float) -> None:
        pass

    def tell_planes(self, text: str) -> None:
        loop = asyncio.get_running_loop()
        for hearer in self.hearers:
            loop.call_soon(hearer, text)

    def hear_planes(self, hearer: Callable[[str], None]) -> Callable[[], None]:
        self.hearers.append(hearer)
        return lambda: self.hearers.remove(hearer)


class ControlPlane:
    def __init__(self, store: Shared, name: str) -> None:
        self.nodes = Nodes(
            clock=asyncio.get_running_loop().time, wall=lambda: 1.7e9, lease_s=LEASE_S, purge_after_s=1e6,
            plane=Plane(name, name),
        )  # fmt: skip
        self.hurried: list[int] = []
        self.standings = Standings(
            store,  # type: ignore[arg-type]  # the part that is used
            self.nodes,
            PlaneRecord(name, name, 0.0, 0.0),
            FleetSettings(save_interval_s=3600),  # nothing here may wait for it
            hurry=self.hurried.append,
            clock=asyncio.get_running_loop().time,
            wall=lambda: 1.7e9,
        )
        self.task = asyncio.create_task(self.standings.run())

    async def stop(self) -> None:
        self.task.cancel()
        self.standings.stop()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_a_wait_makes_the_others_save_at_once_and_together() -> None:
    store = Shared()
    store.planes["there"] = PlaneRecord("there", "there", 0.0, 0.0)
    here, there = ControlPlane(store, "here"), ControlPlane(store, "there")
    members = [there.nodes.accepted(hello(running=HEAD, node_id=f"{n:036}"), ip="", head=HEAD) for n in range(NODES)]
    await until(lambda: len(store.rows) == NODES and len(store.planes) == 2)
    async with here.standings.awaited(2, 20.0):
        waiting = asyncio.create_task(wait_for(here.nodes, 2, epoch=EPOCH, timeout_s=20.0))
        await until(lambda: there.hurried == [2])
        saves = store.saves
        for member in members:
            there.nodes.head_moved(member, ref(2))
            there.nodes.applied(member, ref(2), took_s=0.1)
            await asyncio.sleep(0)
        report = await waiting
    assert (report.complete, report.total) == (True, NODES)
    assert store.saves - saves <= 2, "rounds, not writes for each node"
    assert here.hurried == [], "its own words are not for itself"
    for plane in (here, there):
        await plane.stop()
    assert store.hearers == []


async def test_words_about_rollouts_are_not_for_it() -> None:
    store = Shared()
    here = ControlPlane(store, "here")
    taken = Taken(1, 1, {}, 7, last=True, sent_ns=0, received_ns=0, answered_ns=0)
    for hearer in store.hearers:
        hearer(to_text(taken, plane="there", to="here"))
    assert here.hurried == [], "its version is what nodes run, and nobody waits for it"
    await here.stop()


async def test_without_a_wait_what_nodes_run_is_left_to_the_interval() -> None:
    store = Shared()
    there = ControlPlane(store, "there")
    member = there.nodes.accepted(hello(running=ref(1)), ip="", head=ref(1))
    await until(lambda: store.saves == 1)
    there.nodes.head_moved(member, ref(2))
    there.nodes.applied(member, ref(2), took_s=0.1)
    await asyncio.sleep(3 * standings.GATHER_S)
    assert store.saves == 1
    await there.stop()
