"""Targets and their nameserver on bad days, under the ledger's load: what became of every request.

One run = three targets of which one may fall ill, an open loop of GET and POST, and a fault that is brought on and
lifted; several runs may share a gateway. `Outcome.wrongs` lists what must never be, whatever the fault: an answer or a
body that belongs to another request, a POST that reached targets twice, an answer nobody asked for, a request without
any answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.dns_server import DnsServer
from tests.support.load import Destination, OpenLoop, Record
from tests.support.moody_upstream import Mood, MoodyUpstream
from tests.support.patience import PREFER
from tests.support.processes import Fleet

HOST = "faults.test"
POST_EVERY = 10
RESUMES_S = 1.5
"""Until probes have found revived targets: an interval, a timeout, a verdict, and a busy machine."""
SICK = "blue-1"

PASSIVE: Mapping[str, object] = {
    "unhealthy": {"tcp_failures": 2, "timeouts": 2, "http_failures": 3, "http_statuses": [500]}
}
ACTIVE: Mapping[str, object] = {
    "http_path": "/well",
    "timeout": 0.3,
    "healthy": {"interval": 0.2, "successes": 1},
    "unhealthy": {"interval": 0.2, "tcp_failures": 1, "timeouts": 1, "http_failures": 1},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run's requests came to."""

    records: Sequence[Record]
    wrongs: tuple[str, ...]

    @property
    def lost_gets(self) -> list[Record]:
        """GETs that did not get their own 200."""
        return [record for record in self.records if record.problem and record.id % POST_EVERY]

    @property
    def lost_posts(self) -> list[Record]:
        """POSTs that did not get their own 200."""
        return [record for record in self.records if record.problem and not record.id % POST_EVERY]

    def statuses(self) -> dict[int, int]:
        """How many were answered with which status; 0 = the answer was cut or none came."""
        return dict(sorted(Counter(record.status for record in self.records).items()))

    def instances(self, *, since: float = 0.0) -> Counter[str]:
        """Who answered what was sent after `since`."""
        return Counter(record.instance for record in self.records if record.instance and record.sent >= since)

    def summary(self, name: str) -> str:
        """One line of figures."""
        late = sorted(record.answered - record.due for record in self.records if record.answered)
        return (
            f"{name:<28} sent {len(self.records):>6}   GET lost {len(self.lost_gets):>4}   "
            f"POST failed {len(self.lost_posts):>4}   p99 {late[int(len(late) * 0.99)] * 1000:>7.1f} ms   "
            f"by status {self.statuses()}"
        )


@dataclass(frozen=True, slots=True)
class Gateway:
    """What runs are made on, one after the other."""

    fleet: Fleet
    dns: DnsServer


class Bench:
    """The targets of one run, in `folder`. `name` is a name of this run's own, of which no node remembers anything."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.fleet = gateway.fleet
        self.dns = gateway.dns
        self.folder = folder
        self.name = f"moving-{uuid.uuid4().hex[:8]}.test"
        self.targets: dict[str, MoodyUpstream] = {}
        self._load: OpenLoop | None = None

    async def mood(self, mood: Mood, *instances: str) -> None:
        """Sets the mood of these targets, by default of the one that falls ill."""
        for instance in instances or (SICK,):
            answer = await self.fleet.call("GET", f"http://{self.targets[instance].address}/mood/{mood.value}")
            assert answer.status == 200

    async def kill(self, *instances: str) -> None:
        """Kills these targets: connections to them are refused."""
        for instance in instances or (SICK,):
            self.targets[instance].kill()
            await self.targets[instance].wait()

    async def revive(self, *instances: str) -> None:
        """Starts them again, on their old ports."""
        await asyncio.gather(*(self.targets[instance].up() for instance in instances or (SICK,)))

    async def twin_of_sick(self) -> MoodyUpstream:
        """Starts a server on another address and the same port as the one that falls ill, for its name to move to."""
        twin = MoodyUpstream("blue", "blue-twin", self.folder, host="127.0.0.2")
        twin.port = self.targets[SICK].port
        self.targets[twin.name] = twin
        await twin.up()
        return twin

    def start_load(self, rate: float) -> None:
        """Begins to send."""
        destinations = [Destination(*node.proxy_address) for node in self.fleet.nodes]
        self._load = OpenLoop(destinations, rate=rate, host=HOST, body_every=POST_EVERY)
        self._load.start()

    async def outcome(self) -> Outcome:
        """Stops sending and looks at what there is."""
        assert self._load is not None
        await self._load.stop()
        wrongs = [
            f"request {record.id}: {record.problem}"
            for record in self._load.records
            if record.answers > 1 or record.problem.startswith(("got the answer", "the upstream read", "no answer"))
        ]
        posts = Counter(post for target in self.targets.values() for post in target.posts())
        wrongs += [f"POST {post} reached targets {count} times" for post, count in posts.items() if count > 1]
        wrongs += [f"{self._load.stray} answers without a request"] if self._load.stray else []
        return Outcome(self._load.records, tuple(wrongs))


@contextlib.asynccontextmanager
async def gateway(folder: Path, *, workers: int = 2) -> AsyncIterator[Gateway]:
    """A fleet of one node that asks our nameserver."""
    async with DnsServer() as dns:
        flags = ("--resolver", f"127.0.0.1:{dns.port}")
        async with Fleet(folder, nodes=1, workers=workers, node_flags=flags) as fleet:
            await fleet.start({})
            yield Gateway(fleet, dns)


@contextlib.asynccontextmanager
async def bench_on(
    gateway: Gateway, folder: Path, *, checks: Mapping[str, object] | None = None, named: bool = False
) -> AsyncIterator[Bench]:
    """Three targets behind the gateway; `named` = the one that falls ill is a name in our nameserver."""
    made = Bench(gateway, folder)
    made.targets = {instance: MoodyUpstream("blue", instance, folder) for instance in (SICK, "blue-2", "blue-3")}
    try:
        await made.revive(*made.targets)
        made.dns.set(made.name, "A", ["127.0.0.1"], ttl=1)
        await _configure(made, checks or {}, named=named)
        yield made
    finally:
        for target in made.targets.values():
            target.destroy()


@contextlib.asynccontextmanager
async def bench(
    folder: Path, *, checks: Mapping[str, object] | None = None, named: bool = False
) -> AsyncIterator[Bench]:
    """The same on a gateway of its own."""
    async with gateway(folder) as alone, bench_on(alone, folder, checks=checks, named=named) as made:
        yield made


async def _configure(made: Bench, checks: Mapping[str, object], *, named: bool) -> None:
    addresses = [target.address for target in made.targets.values()]
    if named:
        addresses[0] = f"{made.name}:{made.targets[SICK].port}"
    config = {
        "_format_version": "3.0",
        "services": [
            {
                "name": "faults",
                "host": "blue",
                "connect_timeout": 500,
                "read_timeout": 500,
                "write_timeout": 500,
                "routes": [{"name": "faults", "hosts": [HOST]}],
            }
        ],
        "upstreams": [
            {
                "name": "blue",
                "healthchecks": checks,
                "targets": [{"target": address, "weight": 100} for address in addresses],
            }
        ],
    }
    answer = await made.fleet.admin("POST", "/config/sync", config, {"Prefer": PREFER})
    assert answer.status in {200, 202}, f"sync was answered {answer.status}: {answer.body}"
    await made.fleet.until_ready()
