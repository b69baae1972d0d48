"""Two control planes over one PostgreSQL database, each with nodes of its own, under load; and their bad days.

The first reaches the database through a proxy that can split it off. Time is passed by the database: `expire_lease` is
what a lease's length of waiting does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from typing_extensions import override

from tests.support import ledger
from tests.support.fault_proxy import FaultProxy
from tests.support.history import Commit, commits_in, of_fleet
from tests.support.load import Destination, OpenLoop
from tests.support.patience import PATIENCE_S, PREFER
from tests.support.postgres import PostgresServer
from tests.support.processes import Answer, ControlPlane, Fleet, Node, Process
from tests.support.rollouts import OPEN, SERVICE, View, to

FATES = ("killed", "stopped", "split")
STATES = ("preparing", "decided")
POLL_S = 0.002


class TwoPlanes(Fleet):
    """`nodes[0]` and `nodes[1]` are the first plane's, `nodes[2]` is the second's; `first` is cut off by `proxy`."""

    def __init__(self, folder: Path, postgres: PostgresServer, proxy: FaultProxy) -> None:
        super().__init__(folder, nodes=2)
        self._postgres = postgres
        self._database = folder.name
        self.proxy = proxy
        own = postgres.create(folder.name)
        through = f"postgresql://pointsman@127.0.0.1:{proxy.port}/{folder.name}"
        self.first = self.control_plane = ControlPlane(folder, name="first", database=through)
        self.second = ControlPlane(folder, name="second", database=own)

    @override
    def processes(self) -> list[Process]:
        return [*super().processes(), self.second]

    async def begin(self) -> None:
        """Starts all of it with the example, and waits until every node serves it."""
        await self.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
        await self.second.up()
        lonely = Node("node-3", self.folder, self.second.fleet)
        self.nodes.append(lonely)
        await lonely.up()
        await ledger.apply_example(self)
        await self.settled()

    async def ask(self, plane: ControlPlane, method: str, path: str, body: object = None, prefer: str = "") -> Answer:
        return await self.call(method, plane.url + path, body, {"Prefer": prefer} if prefer else None)

    def sql(self, statement: str) -> str:
        return self._postgres.psql(statement, self._database)

    async def expire_lease(self) -> None:
        """As long a time passes as a lease lasts.

        Not on the loop: a control plane that was killed in a transaction holds what this waits for until the proxy,
        which is on the loop, has ended its connections.
        """
        await asyncio.to_thread(self.sql, "UPDATE lease SET expires_at = 0")

    @contextlib.asynccontextmanager
    async def no_words(self) -> AsyncIterator[None]:
        """What control planes tell each other by notifications gets lost meanwhile, and nothing shows it: the
        connections live, and every question is answered."""
        self.sql("CREATE FUNCTION public.pg_notify(text, text) RETURNS void LANGUAGE sql AS 'SELECT'")
        self.sql(f'ALTER DATABASE "{self._database}" SET search_path = public, pg_catalog')
        self._end_connections()
        yield
        self.sql(f'ALTER DATABASE "{self._database}" RESET search_path')
        self.sql("DROP FUNCTION public.pg_notify(text, text)")
        self._end_connections()

    def _end_connections(self) -> None:
        self.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'pointsman'"
        )

    def state(self, number: int) -> str:
        """A rollout's state in the database."""
        return self.sql(f"SELECT state FROM rollout WHERE number = {number}")

    def newest(self) -> int:
        return int(self.sql("SELECT coalesce(max(number), 0) FROM rollout"))

    def head(self) -> int:
        return int(self.sql("SELECT max(version) FROM head"))

    async def until_state(self, number: int, states: Sequence[str]) -> str:
        async with asyncio.timeout(PATIENCE_S):
            while (state := self.state(number)) not in states:
                await asyncio.sleep(POLL_S)
            return state

    async def settled(self) -> None:
        """Waits until each node says itself that it runs the head."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    if {await self.node_version(node) for node in self.nodes} == {self.head()}:
                        return
                await asyncio.sleep(0.02)

    def commits(self) -> list[Commit]:
        return commits_in(self._postgres.url(self._database))

    async def view(self, plane: ControlPlane, number: int) -> View:
        answer = await self.ask(plane, "GET", f"/fleet/rollouts/{number}")
        assert isinstance(answer.body, dict)
        return answer.body


@contextlib.asynccontextmanager
async def two_planes(folder: Path, postgres: PostgresServer) -> AsyncIterator[TwoPlanes]:
    socket = str(postgres.folder / ".s.PGSQL.5432")
    async with FaultProxy(target_path=socket) as proxy, TwoPlanes(folder, postgres, proxy) as fleet:
        await fleet.begin()
        yield fleet


@dataclass(frozen=True, slots=True)
class Trial:
    """What the database held when the coordinator was struck, and what it says in the end."""

    stored: str
    ended: str


async def strike(fleet: TwoPlanes, fate: str, state: str, *, delay_s: float = 0.0) -> Trial:
    """Strikes the first control plane `delay_s` after its rollout reached the state, and lets it come back.

    The other one brings the rollout to its end meanwhile, and carries out one of its own, which it can only do under
    the next fence. What was decided is what every node comes to run; what was not has changed nothing anywhere. When
    the first is back it goes on from there.
    """
    host = await host_at(fleet)
    number, before = fleet.newest() + 1, fleet.head()
    stalled = fleet.nodes[1]
    if state == "preparing":
        stalled.kill(signal.SIGSTOP)
    asked: asyncio.Task[Answer] | None = None
    try:
        colour = "green" if host == "blue" else "blue"
        asked = asyncio.create_task(fleet.ask(fleet.first, "POST", "/fleet/rollouts", to(colour, vote_by_s=30)))
        await fleet.until_state(number, OPEN if state == "preparing" else (*OPEN[3:], "confirmed", "partial"))
        await asyncio.sleep(delay_s)
        restore = _strike(fleet, fate)
        stored, fence = fleet.state(number), _fence_of(fleet, number)
        await fleet.expire_lease()
        if stored not in ("confirmed", "partial"):
            undecided = stored in OPEN[:3]
            await fleet.until_state(number, ("aborted",) if undecided else ("decided", "confirmed", "partial"))
    finally:
        stalled.kill(signal.SIGCONT)
    # The second's turn: the service is free again, and its own node takes part.
    other = await fleet.ask(fleet.second, "POST", "/fleet/rollouts", _unrelated(number), prefer=PREFER)
    assert other.status == 200, other.body
    assert isinstance(other.body, dict)
    assert other.body["fence"] > fence or stored in ("confirmed", "partial")
    await restore()
    with contextlib.suppress(aiohttp.ClientError):  # its answer may have died with the control plane
        await asked
    await fleet.until_state(number, ("aborted", "confirmed", "partial"))
    await fleet.settled()
    ended = fleet.state(number)
    undecided = stored in OPEN[:3]
    assert (ended == "aborted") == undecided, (stored, ended)
    assert (await host_at(fleet) != host) != undecided, (stored, ended)
    assert fleet.head() == before + (1 if undecided else 2)
    return Trial(stored, ended)


def _strike(fleet: TwoPlanes, fate: str) -> Callable[[], Awaitable[None]]:
    """Does it; returns what ends it."""

    async def start_again() -> None:
        await fleet.first.wait()
        await fleet.first.up()

    async def go_on() -> None:
        fleet.first.kill(signal.SIGCONT)

    async def heal() -> None:
        fleet.proxy.refuse = False

    match fate:
        case "killed":
            fleet.first.kill(signal.SIGKILL)
            return start_again
        case "stopped":
            fleet.first.kill(signal.SIGSTOP)
            return go_on
        case _:
            fleet.proxy.refuse = True
            fleet.proxy.cut()
            return heal


def _unrelated(number: int) -> dict[str, object]:
    change = {"operation": "create", "collection": "upstreams", "body": {"name": f"unrelated-{number}"}}
    return {"changes": [change]}


def _fence_of(fleet: TwoPlanes, number: int) -> int:
    return int(fleet.sql(f"SELECT (body::json->>'fence')::int FROM rollout WHERE number = {number}") or 0)


async def until_first_has_its_nodes(fleet: TwoPlanes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await fleet.ask(fleet.first, "GET", "/fleet/nodes")
            assert isinstance(answer.body, dict)
            if [node["state"] for node in answer.body["data"]].count("current") == 2:
                return
            await asyncio.sleep(0.02)


async def until_each_knows_the_other(fleet: TwoPlanes) -> None:
    """By the records that they share, which are seconds old at most."""
    async with asyncio.timeout(PATIENCE_S):
        for plane in (fleet.first, fleet.second):
            while True:
                answer = await fleet.ask(plane, "GET", "/fleet/nodes")
                assert isinstance(answer.body, dict)
                if len({node["plane"]["id"] for node in answer.body["data"] if node["plane"]}) == 2:
                    break
                await asyncio.sleep(0.02)


async def host_at(fleet: TwoPlanes) -> str:
    answer = await fleet.ask(fleet.second, "GET", f"/services/{SERVICE}")
    assert isinstance(answer.body, dict)
    return str(answer.body["host"])


async def until_it_runs(fleet: TwoPlanes, node: Node, version: int) -> float:
    """Waits until the node says that it runs the version or a later one; the time by `time.monotonic`."""
    async with asyncio.timeout(PATIENCE_S):
        while await fleet.node_version(node) < version:
            await asyncio.sleep(POLL_S)
    return time.monotonic()


async def written_in_silence(fleet: TwoPlanes) -> float:
    """A plain write at the first control plane while no words get through; how much later than the first's own nodes
    the second's node ran it, in seconds."""
    colour = "green" if await host_at(fleet) == "blue" else "blue"
    answer = await fleet.ask(fleet.first, "PATCH", f"/services/{SERVICE}", {"host": colour})
    version = int(answer.headers["X-Pointsman-Version"])
    there, *here = await asyncio.gather(*(until_it_runs(fleet, node, version) for node in reversed(fleet.nodes)))
    return there - max(here)


@contextlib.asynccontextmanager
async def load_on(fleet: TwoPlanes, *, rate: float) -> AsyncIterator[OpenLoop]:
    """Requests to all nodes meanwhile; none of them may be lost or doubled."""
    load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=rate, host=ledger.HOST)
    load.start()
    yield load
    await load.stop()
    duplicates = await ledger.count_duplicates(fleet)
    result = ledger.settle(load, (), revolutions=0, duplicates=duplicates, check_weights=False)
    # A version's time is taken before its turn at the head's lock, and there are two that wait for it.
    result.history = of_fleet(fleet, load.records, commits=fleet.commits(), clock_doubt_s=0.5)
    assert result.failures == []
