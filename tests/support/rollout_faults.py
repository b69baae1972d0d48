"""One node of a fleet struck while a rollout is on its way, again and again, and what must come of it every time.

Three nodes under load; the third, the victim, reaches the control plane through a proxy that can break the link in
every way. Whatever happens to it, the other two end at the head, and nothing that they were sent is lost; the rollout
ends, and says what the victim did; the victim ends at the head as soon as it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.support import ledger
from tests.support.fault_proxy import FaultProxy
from tests.support.load import Destination, OpenLoop
from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane, Fleet, Node, Process
from tests.support.rollouts import View, all_live, host_of, roll_out, stored_state, to, until_state, versions, why

VICTIM = 2
POLICY = {"vote_by_s": 1.0, "confirm_by_s": 1.0}


class Fault(StrEnum):
    """What happens to the victim."""

    CUT = "cut"  # connections reset, new ones refused
    DEAF = "deaf"  # nothing comes to it any more
    DUMB = "dumb"  # nothing comes from it any more
    HALF_OPEN = "half open"  # neither, and nobody is told
    STOPPED = "stopped"  # the node process stands still; its workers go on
    KILLED = "killed"  # the node process and its workers, and started again


class Moment(StrEnum):
    """When."""

    PREPARING = "preparing"
    DECIDED = "decided"


@dataclass(frozen=True, slots=True)
class Struck:
    """How one trial ended: the rollout, and the victim in it."""

    state: str
    standing: str


class FaultyFleet(Fleet):
    """`nodes[VICTIM]` is behind `proxy`; beats are a second apart, so that a dead link is found within three."""

    def __init__(self, folder: Path, proxy: FaultProxy) -> None:
        super().__init__(folder, nodes=2)
        self.control_plane = ControlPlane(folder, "--beat-interval-s", "1")
        self.proxy = proxy

    async def begin(self) -> None:
        await self.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        self.proxy.target_port = int(self.control_plane.fleet.rsplit(":", 1)[1])
        victim = Node("node-3", self.folder, self.proxy.address)
        self.nodes.append(victim)
        await victim.up()
        await ledger.apply_example(self)
        await all_live(self)


@contextlib.asynccontextmanager
async def faulty_fleet(folder: Path) -> AsyncIterator[FaultyFleet]:
    async with FaultProxy() as proxy, FaultyFleet(folder, proxy) as fleet:
        await fleet.begin()
        yield fleet


@contextlib.asynccontextmanager
async def load_on_the_healthy(fleet: Fleet, *, rate: float) -> AsyncIterator[OpenLoop]:
    """Requests to all nodes but the victim; none may be lost, and the history of all nodes must be true in the end."""
    load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes[:VICTIM]], rate=rate, host=ledger.HOST)
    load.start()
    yield load
    assert (await ledger.books(fleet, load)).failures == []


async def strike(fleet: FaultyFleet, fault: Fault, moment: Moment, *, delay_s: float = 0.0) -> Struck:
    """One trial: begins a rollout, strikes the victim, waits for the end, mends it, and checks all of it."""
    host, before = await host_of(fleet), max(await versions(fleet))
    colour = "green" if host == "blue" else "blue"
    slow, victim = fleet.nodes[0], fleet.nodes[VICTIM]
    try:
        if moment is Moment.PREPARING:
            slow.kill(signal.SIGSTOP)  # its vote is awaited, so preparing lasts until the victim is struck
        answer = await fleet.admin("POST", "/fleet/rollouts", to(colour, **POLICY))
        assert answer.status == 202, answer.body
        number = int(answer.headers["X-Pointsman-Rollout"])
        if moment is Moment.PREPARING:
            await until_state(fleet, number, "preparing")
        else:
            async with asyncio.timeout(PATIENCE_S):
                while stored_state(fleet, number) not in ("decided", "confirmed", "partial"):
                    await asyncio.sleep(0.001)
        await asyncio.sleep(delay_s)
        await _strike(fleet, fault)
    finally:
        slow.kill(signal.SIGCONT)
    view = await until_state(fleet, number, "confirmed", "partial", "aborted")
    healthy = [await fleet.node_version(node) for node in fleet.nodes[:VICTIM]]
    await _mend(fleet, fault)
    (standing,) = [node["standing"] for node in view["nodes"] if node["node_id"] == victim.node_id]
    if view["state"] == "aborted":
        assert moment is Moment.PREPARING, why(view)
        assert await host_of(fleet) == host
        assert view["reason"], "it says why"
        assert healthy == [before] * VICTIM, "an aborted rollout changed what a node runs"
    else:
        assert (await host_of(fleet), view["version"]) == (colour, before + 1)
        assert healthy == [view["version"]] * VICTIM, why(view)
    if view["state"] == "partial":
        assert standing == "lagging", why(view)
        assert victim_reason(view, victim), "it says why"
    await all_live(fleet)
    return Struck(view["state"], standing)


def victim_reason(view: View, victim: Node) -> str:
    return str(next(node["reason"] for node in view["nodes"] if node["node_id"] == victim.node_id))


async def _strike(fleet: FaultyFleet, fault: Fault) -> None:
    victim, proxy = fleet.nodes[VICTIM], fleet.proxy
    match fault:
        case Fault.CUT:
            proxy.refuse = True
            proxy.cut()
        case Fault.DEAF:
            proxy.stall_one_way(to_client=True)
        case Fault.DUMB:
            proxy.stall_one_way(to_client=False)
        case Fault.HALF_OPEN:
            proxy.stall()
        case Fault.STOPPED:
            victim.kill(signal.SIGSTOP)
        case Fault.KILLED:
            victim.destroy()


async def _mend(fleet: FaultyFleet, fault: Fault) -> None:
    victim, proxy = fleet.nodes[VICTIM], fleet.proxy
    match fault:
        case Fault.CUT:
            proxy.refuse = False
        case Fault.DEAF | Fault.DUMB | Fault.HALF_OPEN:
            proxy.resume()
        case Fault.STOPPED:
            victim.kill(signal.SIGCONT)
        case Fault.KILLED:
            await victim.up()


@contextlib.contextmanager
def full_disk(process: Process) -> Iterator[None]:
    """No file of the process grows any more, as on a disk that is full; what it says to others still goes out."""
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, hard))


async def fill_disks(fleet: FaultyFleet) -> None:
    """A full disk of the control plane's ends a rollout before its decision; a node's only costs its last good."""
    before = max(await versions(fleet))
    colour = "green" if await host_of(fleet) == "blue" else "blue"
    fleet.nodes[0].kill(signal.SIGSTOP)
    try:
        begun = await fleet.admin("POST", "/fleet/rollouts", to(colour, vote_by_s=30))
        number = int(begun.headers["X-Pointsman-Rollout"])
        with full_disk(fleet.control_plane):
            fleet.nodes[0].kill(signal.SIGCONT)
            view = await until_state(fleet, number, "aborted")
            assert "full" in view["reason"] or "disk" in view["reason"], why(view)
            refused = await fleet.admin("POST", "/upstreams", {"name": "no-room"})
            assert refused.status == 503, refused.body
    finally:
        fleet.nodes[0].kill(signal.SIGCONT)
    assert await versions(fleet) == [before] * 3
    async with asyncio.timeout(PATIENCE_S):
        while stored_state(fleet, number) != "aborted":
            await asyncio.sleep(0.02)

    victim = fleet.nodes[VICTIM]
    with full_disk(victim):
        done = await roll_out(fleet, to(colour))
        assert done.status == 200, done.body
    victim.destroy()
    await victim.up()
    await all_live(fleet)
    assert await versions(fleet) == [before + 1] * 3
