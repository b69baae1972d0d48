"""One node of a fleet struck while a change is on its way, again and again, and what must come of it every time.

Three nodes under load; the third, the victim, has a link to the control plane that can be broken in every way. Whatever
happens to it, the other two end at the head, and nothing that they were sent is lost; a rollout ends, and says what the
victim did; the victim ends at the head as soon as it can, and until then the control plane says why it does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from typing_extensions import override

from tests.support import ledger
from tests.support.load import Destination, OpenLoop
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.processes import Fleet, Node, Process
from tests.support.rollouts import (
    SERVICE,
    View,
    all_live,
    host_of,
    roll_out,
    stored_state,
    to,
    until_state,
    versions,
    why,
)
from tests.support.sick_link import SickLink, sick_link

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
    SPOILED = "spoiled"  # the same, and its last good files are damaged meanwhile


OF_THE_LINK = (Fault.CUT, Fault.DEAF, Fault.DUMB, Fault.HALF_OPEN)


class Moment(StrEnum):
    """When."""

    PREPARING = "preparing"
    DECIDED = "decided"
    APPLYING = "applying"  # a plain change


@dataclass(frozen=True, slots=True)
class Struck:
    """How one trial ended: the rollout, and the victim in it; or a plain change, and what is said of the victim."""

    state: str
    standing: str


class FaultyFleet(Fleet):
    """`nodes[VICTIM]` has the link that can be broken. No node can build a route that says `poison`."""

    def __init__(self, folder: Path, link: SickLink) -> None:
        super().__init__(folder, nodes=2, node_flags=link.node_flags)
        self.control_plane = link.control_plane
        self.link = link
        self.rng = random.Random(4711)
        (folder / "sitecustomize.py").write_text(_OLD_ENGINE, encoding="utf-8")

    async def begin(self) -> None:
        await self.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        victim = self.new_node("node-3")
        victim.fleet_address = self.link.address()
        self.nodes.append(victim)
        await victim.up()
        await ledger.apply_example(self)
        await all_live(self)

    @override
    def new_node(self, name: str) -> Node:
        node = super().new_node(name)
        node.environment["PYTHONPATH"] = str(self.folder)
        return node


_OLD_ENGINE = """
import re2
_compile = re2.compile
def compile_unless_poison(pattern, *others, **more):
    if "poison" in pattern:
        raise re2.error("this is an older engine")
    return _compile(pattern, *others, **more)
re2.compile = compile_unless_poison
"""
"""What the control plane lets in and a node of an earlier release can't build."""


@contextlib.asynccontextmanager
async def faulty_fleet(folder: Path, *, by_kernel: bool | None = None) -> AsyncIterator[FaultyFleet]:
    """By whom the link is broken is as in `sick_link`."""
    async with sick_link(folder, by_kernel=by_kernel) as link, FaultyFleet(folder, link) as fleet:
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
    if moment is Moment.APPLYING:
        return await _strike_applying(fleet, fault, delay_s=delay_s)
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


async def _strike_applying(fleet: FaultyFleet, fault: Fault, *, delay_s: float) -> Struck:
    """The same with a plain change, which goes to one node first: to the victim, perhaps."""
    victim = fleet.nodes[VICTIM]
    colour = "green" if await host_of(fleet) == "blue" else "blue"
    answer = await fleet.admin("PATCH", f"/services/{SERVICE}", {"host": colour}, {"Prefer": "wait=0"})
    version = int(answer.headers["X-Pointsman-Version"])
    await asyncio.sleep(delay_s)
    await _strike(fleet, fault)
    async with asyncio.timeout(PATIENCE_S):
        while [await fleet.node_version(node) for node in fleet.nodes[:VICTIM]] != [version] * VICTIM:
            await asyncio.sleep(0.02)
        # It said that it runs the version, or it is said why not: no longer heard of, or nothing heard for too long.
        while (told := await _told_of(fleet, victim))["state"] in ("syncing", "connecting"):
            await asyncio.sleep(0.02)
    assert told["state"] != "current" or told["version"] == version
    assert told["connected"] or told["reason"], told
    await _mend(fleet, fault)
    await all_live(fleet)
    return Struck("applied", str(told["state"]))


async def _told_of(fleet: Fleet, node: Node) -> View:
    answer = await fleet.admin("GET", "/fleet/nodes")
    assert isinstance(answer.body, dict)
    (told,) = [each for each in answer.body["data"] if each["node_id"] == node.node_id]
    assert isinstance(told, dict)
    return told


def victim_reason(view: View, victim: Node) -> str:
    return str(next(node["reason"] for node in view["nodes"] if node["node_id"] == victim.node_id))


async def _strike(fleet: FaultyFleet, fault: Fault) -> None:
    victim, link = fleet.nodes[VICTIM], fleet.link
    match fault:
        case Fault.CUT:
            link.cut()
        case Fault.DEAF:
            link.lose(to_plane=False, to_node=True)
        case Fault.DUMB:
            link.lose(to_plane=True, to_node=False)
        case Fault.HALF_OPEN:
            link.lose(to_plane=True, to_node=True)
        case Fault.STOPPED:
            victim.kill(signal.SIGSTOP)
        case Fault.KILLED:
            victim.destroy()
        case Fault.SPOILED:
            victim.destroy()
            spoil(fleet.folder / f"{victim.name}.state" / "last-good", fleet.rng)
            fleet.spoiled.add(VICTIM)


async def _mend(fleet: FaultyFleet, fault: Fault) -> None:
    victim = fleet.nodes[VICTIM]
    match fault:
        case Fault.CUT | Fault.DEAF | Fault.DUMB | Fault.HALF_OPEN:
            fleet.link.mend()
        case Fault.STOPPED:
            victim.kill(signal.SIGCONT)
        case Fault.KILLED | Fault.SPOILED:
            # The guard against configurations that kill counts two ends within 30 s, and contents repeat here.
            (fleet.folder / f"{victim.name}.state" / "last-good" / "lives.json").unlink(missing_ok=True)
            await victim.up()


def spoil(folder: Path, rng: random.Random) -> None:
    """Flips a bit of each last good file and journal there, or cuts it short."""
    for file in sorted(folder.iterdir()):
        content = bytearray(file.read_bytes())
        if not content or not file.name.startswith(("current", "previous", "journal")):
            continue
        if rng.random() < 0.5:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        else:
            del content[rng.randrange(len(content)) :]
        file.write_bytes(content)


async def feed_poison(fleet: FaultyFleet) -> None:
    """A rollout of what no node can build is refused with the reason; a plain write of it stops at the first node."""
    before = max(await versions(fleet))
    body = {"name": "bad", "paths": ["~/poison"], "service": {"name": SERVICE}}
    refused = await roll_out(fleet, {"changes": [{"operation": "create", "collection": "routes", "body": body}]})
    assert refused.status == 409, refused.body
    assert isinstance(refused.body, dict)
    assert "an older engine" in str(refused.body["nodes"]), refused.body
    assert await versions(fleet) == [before] * 3, "a refused rollout changed what a node runs"

    written = await fleet.admin("POST", "/routes", body, {"Prefer": PREFER})
    version = int(written.headers["X-Pointsman-Version"])
    answer = await fleet.admin("GET", "/fleet/nodes")
    assert isinstance(answer.body, dict)
    told = answer.body["data"]
    assert sorted(node["state"] for node in told) == ["held", "held", "rejected"], told
    assert all("an older engine" in str(node) for node in told), "each says why it is not at the head"
    assert await versions(fleet) == [before] * 3
    gone = await fleet.admin("DELETE", "/routes/bad", None, {"Prefer": PREFER})
    assert int(gone.headers["X-Pointsman-Version"]) == version + 1
    await all_live(fleet)


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
    async with asyncio.timeout(PATIENCE_S):  # the control plane may take it for the one that was there a moment ago
        while await versions(fleet) != [before + 1] * 3:
            await asyncio.sleep(0.02)
    await all_live(fleet)
