"""Vectors on a real node: a control plane, a node of one worker, real upstream servers and a real nameserver.

All of it lives in a network namespace, where loopback has every address that a vector names. One gateway serves all
vectors, one after the other; a name that an earlier one used with other records gets a suffix, so that no answer is
remembered from before.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from tests.conformance.balancer_cores import hash_input_of_headers, upstream_of
from tests.conformance.balancer_servers import HOLD, STEP, ConnectCounter, Servers
from tests.conformance.balancer_vectors import (
    HEALTH_KEYS,
    Answered,
    Json,
    Seen,
    Step,
    Tree,
    Vector,
    differences,
    items,
    peer_name,
    resolved_peer,
    tree,
)
from tests.support.dns_server import DnsServer, Failure
from tests.support.netns import add_addresses
from tests.support.patience import PATIENCE_S
from tests.support.processes import Fleet

SETTLE_S = 2.5
"""How long effects may take to show, by the vectors' conventions, and a little."""
VERDICT_S = 0.05
"""How long a verdict may take to reach the worker, 10 ms by the requirements, on top of the turns that are awaited."""

_FAILURES = {"SERVFAIL": Failure.SERVFAIL, "DOWN": Failure.SILENCE}


class NotBuilt(Exception):
    """The gateway has no such thing yet; the text names it."""


class Rig:
    """The gateway that all vectors run on."""

    def __init__(self, folder: Path, fleet: Fleet, dns: DnsServer, connects: ConnectCounter) -> None:
        self.fleet = fleet
        self.dns = dns
        self.servers = Servers(folder)
        self.connects = connects
        self._version = 0
        self._records: dict[str, str] = {}

    def is_new_name(self, name: str, records: str) -> bool:
        """Whether a name may stand as it is: nobody used it before, or with the very same records."""
        return self._records.setdefault(name, records) == records

    @classmethod
    @contextlib.asynccontextmanager
    async def up(cls, folder: Path) -> AsyncIterator[Rig]:
        """Starts everything and ends it again."""
        async with DnsServer() as dns:
            flags = ("--resolver", f"127.0.0.1:{dns.port}")
            with ConnectCounter() as connects:
                async with Fleet(folder, nodes=1, node_flags=flags) as fleet:
                    await fleet.start({})
                    rig = cls(folder, fleet, dns, connects)
                    try:
                        yield rig
                    finally:
                        await rig.servers.close()

    async def admin(self, method: str, path: str, body: object = None, *, wait: bool = True) -> tuple[int, Json]:
        """One call to the Admin API; unless one with `wait` follows, a write is waited for until the node runs it."""
        answer = await self.fleet.admin(method, path, body)
        headers = {name.lower(): value for name, value in answer.headers.items()}
        self._version = max(self._version, int(headers.get("x-pointsman-version", "0")))
        if wait and method != "GET" and answer.status < 300:
            await self.applied()
        return answer.status, cast(Json, answer.body)

    async def must(self, method: str, path: str, body: object = None, *, wait: bool = True) -> Json:
        """A call that has to be answered well."""
        status, told = await self.admin(method, path, body, wait=wait)
        assert status < 300, f"{method} {path} {json.dumps(body)}: {status} {told}"
        return told

    async def applied(self) -> None:
        """Waits until the node runs what was written last."""
        node = self.fleet.nodes[0]
        end = time.monotonic() + PATIENCE_S
        while await self.fleet.node_version(node) < self._version:
            assert time.monotonic() < end, f"the node does not get to version {self._version}:\n{node.log_tail()}"
            await asyncio.sleep(0.01)

    async def verdicts(self) -> None:
        """Waits until what the worker saw has become a verdict and the verdict has reached the worker.

        On a slow machine the node process' turns are late, and so is its answer: each one awaited is a turn it had.
        """
        status = self.fleet.nodes[0].status
        for _ in range(2):
            await asyncio.sleep(VERDICT_S / 2)
            await self.fleet.call("GET", f"http://{status}/status")

    async def clear(self) -> None:
        """Forgets all entities and servers."""
        await self.must("POST", "/config/sync", {"_format_version": "3.0"})
        await self.servers.close()

    async def request(self, lines: Sequence[str], body: bytes) -> Answered:
        """One request to the node; `lines` is its head."""
        host, port = self.fleet.nodes[0].proxy_address
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
                head = await reader.readuntil(b"\r\n\r\n")
                text = await reader.read()
            finally:
                writer.close()
        first, *fields = head[:-4].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
        return Answered(int(first.split(" ")[1]), headers, text.decode("latin-1"), headers.get("x-peer", ""))


class Run:
    """One vector (or one case or variant of it) on the rig."""

    def __init__(self, rig: Rig, given: Tree, *, number: int, expectations: Callable[[str], list[Tree]]) -> None:
        self._rig = rig
        self._number = number
        self._suffix = f".v{number}"
        self._names = self._names_to_change(given)
        self._given = tree(json.loads(self._renamed(json.dumps(given))))
        self._expectations = expectations
        self._upstream = ""
        self._holds: set[asyncio.Task[Answered]] = set()
        self.seen: dict[str, Seen] = {}

    async def __aenter__(self) -> Self:
        await self._rig.clear()
        await self._set_up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hold in self._holds:
            hold.cancel()
        await asyncio.gather(*self._holds, return_exceptions=True)

    # Names

    def _names_to_change(self, given: Tree) -> list[str]:
        changing = {
            str(tree(record)["name"])
            for step in items(given.get("steps"))
            for record in items(tree(step).get("records"))
        }
        records: dict[str, list[Json]] = {}
        for record in items(given.get("dns")):
            records.setdefault(str(tree(record)["name"]), []).append(record)
        found = [
            name
            for name, told in records.items()
            if name in changing or not self._rig.is_new_name(name, json.dumps(told))
        ]
        return sorted(found, key=len, reverse=True)

    def _renamed(self, text: str) -> str:
        for name in self._names:
            text = text.replace(name, name.replace(".", "\0") + self._suffix.replace(".", "\0"))
        return text.replace("\0", ".")

    def _original(self, text: str) -> str:
        return text.replace(self._suffix, "")

    # Set-up

    async def _set_up(self) -> None:
        given = self._given
        if "plugins" in given:
            raise NotBuilt("plugins")
        if "workspace" in tree(given.get("service")):
            raise NotBuilt("workspaces")
        if {"tcp", "udp", "tls"} & set(items(tree(given.get("route")).get("protocols"))):
            raise NotBuilt("layer 4 routes")
        await asyncio.to_thread(add_addresses, self._addresses())
        for record in items(given.get("dns")):
            self._set_record(tree(record))
        await self._rig.servers.open(self._peers())
        for peer, behaviour in tree(given.get("backends")).items():
            await self._rig.servers.become(peer, str(behaviour))
        await self._make_entities()
        self._rig.connects.take()

    async def _make_entities(self) -> None:
        given, rig = self._given, self._rig
        targets = [tree(target) for target in items(given.get("targets"))]
        if "target" in given:
            targets.append({"target": given["target"]})
        if "upstream" in given or targets:
            upstream = tree(given.get("upstream"))
            self._upstream = str(upstream.get("name") or f"upstream-{self._number}.internal")
            await self._make_upstream({**upstream, "name": self._upstream}, targets)
        route = tree(given.get("route"))
        service = None
        if "service" not in route:
            body = {"name": "service", "host": self._upstream, **tree(given.get("service"))}
            service = {"id": tree(await rig.must("POST", "/services", body, wait=False))["id"]}
        await rig.must("POST", "/routes", {"paths": ["/"], **route, "service": service})

    async def _make_upstream(self, body: Tree, targets: Sequence[Tree]) -> None:
        await self._rig.must("POST", "/upstreams", body, wait=False)
        for target in targets:
            await self._rig.must("POST", f"/upstreams/{self._upstream}/targets", target, wait=False)
        await self._rig.applied()

    def _addresses(self) -> set[str]:
        """All IP addresses that the vector names anywhere."""
        found = set()
        texts = [str(tree(target).get("target", "")) for target in self._targets()]
        texts += [str(value) for record in self._records() for value in tree(record).values()]
        texts += [f"{tree(self._given.get('service')).get('host')}", *tree(self._given.get("backends"))]
        for text in texts:
            for form in (text, text.rpartition(":")[0]):
                with contextlib.suppress(ValueError):
                    found.add(str(ipaddress.ip_address(form.strip("[]"))))
        return found

    def _targets(self) -> list[Json]:
        added = [step.raw["create_target"] for step in self.steps if "create_target" in step.raw]
        return [*items(self._given.get("targets")), *added, {"target": self._given.get("target", "")}]

    def _records(self) -> list[Json]:
        """The answers of all names, those of later steps too."""
        changed = [record for step in self.steps for record in items(step.raw.get("records"))]
        return [
            one for record in [*items(self._given.get("dns")), *changed] for one in items(tree(record).get("answers"))
        ]

    def _peers(self) -> set[str]:
        """Every address with every port: which of them are used is what the vector is about."""
        ports = {str(tree(target).get("target", "")).rpartition(":")[2] for target in self._targets()}
        ports |= {str(tree(record).get("port") or "") for record in self._records()}
        ports |= {peer.rpartition(":")[2] for peer in tree(self._given.get("backends"))}
        ports |= {str(tree(self._given.get("service")).get("port") or 80)}
        return {
            peer_name(f"[{address}]:{port}" if ":" in address else f"{address}:{port}")
            for address in self._addresses()
            for port in ports
            if port.isdigit() and 0 < int(port) < 65536
        }

    @property
    def steps(self) -> list[Step]:
        """The steps, in this run's names."""
        return [Step(tree(step)) for step in items(self._given.get("steps"))]

    def _set_record(self, record: Tree) -> None:
        dns, name, kind = self._rig.dns, str(record["name"]), str(record["type"])
        dns.fail(name, _FAILURES.get(kind))
        if kind in ("NXDOMAIN", "EMPTY"):
            dns.remove(name)
        if kind == "EMPTY":
            dns.set(name, "TXT", ['"nothing else"'])
        if kind not in ("A", "AAAA", "SRV"):
            return
        values = []
        for answer in map(tree, items(record.get("answers"))):
            if kind == "SRV":
                values.append(f"{answer['priority']} {answer['weight']} {answer['port']} {answer['target']}.")
            else:
                values.append(str(answer["address"]))
        # A day's vectors take seconds here: what would be kept for an hour is asked for again every second.
        dns.set(name, kind, values, ttl=min(1, cast(int, record.get("ttl", 3600))))

    # Steps

    async def run(self) -> None:
        """Carries out all steps."""
        for step in self.steps:
            seen = self.seen[step.name] = Seen()
            before = len(self._rig.servers.received)
            self._rig.connects.take()
            await self._step(step, seen)
            received = self._rig.servers.received[before:]
            seen.received = [
                type(one)(one.peer, one.method, one.path, self._original(one.host), one.body_bytes, one.probe)
                for one in received
            ]
            seen.peers = [one.peer for one in received if not one.probe]
            attempts = self._rig.connects.take()
            ours = Counter({peer: count for peer, count in attempts.items() if peer in self._rig.servers})
            seen.attempts = ours | Counter(seen.peers)  # on a kept connection there is no attempt to connect

    async def _step(self, step: Step, seen: Seen) -> None:
        match step.do:
            case "requests":
                await self._requests(step, seen)
            case "hold":
                for _ in range(int(step.number("count"))):
                    await self._hold(step)
            case "backend":
                peer = resolved_peer(step.text("peer"), self.seen)
                await self._rig.servers.become(peer, step.text("to"), probe=step.text("probe"))
            case "dns":
                await self._dns(step)
            case "admin":
                await self._admin(step)
            case "health_put":
                await self._health_put(step)
            case "health_get" | "balancer_get":
                await self._health_get(step, seen)
            case "wait":
                await asyncio.sleep(step.number("seconds"))
            case other:
                raise NotImplementedError(f"step {other!r} on a node")

    async def _requests(self, step: Step, seen: Seen) -> None:
        if "seconds" in step.raw:
            await self._load(step, seen)
            return
        headers = tree(step.raw.get("headers"))
        if headers and self._upstream:
            sent = {name: [str(one) for one in items(value) or [value]] for name, value in headers.items()}
            seen.hash_input = hash_input_of_headers(upstream_of(tree(self._given.get("upstream"))), sent)
        checked = "healthchecks" in tree(self._given.get("upstream"))
        for key in step.hash_keys() or [""] * int(step.number("count")):
            lines, body = self._head(step, key)
            answer = await self._rig.request(lines, body)
            seen.answers.append(Answered(answer.status, answer.headers, self._original(answer.text), answer.peer, key))
            if answer.status >= 500 or (checked and not key):
                await self._rig.verdicts()

    async def _load(self, step: Step, seen: Seen) -> None:
        end = time.monotonic() + step.number("seconds")

        async def client() -> None:
            while time.monotonic() < end:
                seen.answers.append(await self._rig.request(*self._head(step, "")))

        await asyncio.gather(*(client() for _ in range(int(step.number("concurrency")))))

    def _head(self, step: Step, key: str) -> tuple[list[str], bytes]:
        written = step.text("body")
        amount, _, unit = written.partition(" KB")
        body = b"x" * (int(amount) * 1024) if unit == "" and written.endswith(" KB") else written.encode()
        method = step.text("method", str(self._given.get("method", "GET")))
        host = str(self._given.get("client_host", "client.test"))
        lines = [f"{method} {step.text('path', '/')} HTTP/1.1", f"Host: {host}", "Connection: close"]
        lines.append(f"{STEP.decode()}: {step.name}")
        for name, value in tree(step.raw.get("headers")).items():
            lines += [f"{name}: {self._filled(str(one))}" for one in items(value) or [value]]
        if key:
            lines.append(f"x-key: {key}")
        if body:
            lines.append(f"Content-Length: {len(body)}")
        return lines, body

    def _filled(self, text: str) -> str:
        """A header's value, with what an earlier step set as a cookie."""
        name, _, rest = text.partition("=<value set in ")
        if not rest:
            return text
        cookie = self.seen[rest.rstrip(">")].answers[0].headers.get("set-cookie", "")
        return f"{name}={cookie.partition(';')[0].partition('=')[2]}"

    async def _hold(self, step: Step) -> None:
        lines, body = self._head(step, "")
        before = len(self._rig.servers.received)
        hold = asyncio.create_task(self._rig.request([*lines, f"{HOLD.decode()}: 1"], body))
        self._holds.add(hold)
        while len(self._rig.servers.received) == before and not hold.done():
            await asyncio.sleep(0.002)

    async def _dns(self, step: Step) -> None:
        """Changes records and waits until somebody has asked for them, so that the change is known."""
        records = [tree(record) for record in items(step.raw.get("records"))]
        for record in records:
            self._set_record(record)
        kinds = ("A", "AAAA", "SRV")
        before = {str(record["name"]): self._asked(str(record["name"]), kinds) for record in records}
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end and any(self._asked(name, kinds) == count for name, count in before.items()):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)

    def _asked(self, name: str, kinds: Sequence[str]) -> int:
        return sum(self._rig.dns.asked(name, kind) for kind in kinds)

    async def _admin(self, step: Step) -> None:
        rig, base = self._rig, f"/upstreams/{self._upstream}"
        if "create_target" in step.raw:
            await rig.must("POST", f"{base}/targets", step.raw["create_target"])
        elif "update_target" in step.raw:
            patch = tree(step.raw["update_target"])
            await rig.must("PATCH", f"{base}/targets/{patch['target']}", {"weight": patch["weight"]})
        elif "delete_upstream" in step.raw:
            await rig.must("DELETE", f"/upstreams/{step.raw['delete_upstream']}")
        elif "create_upstream" in step.raw:
            targets = [tree(target) for target in items(self._given.get("targets"))]
            await self._make_upstream({**tree(self._given.get("upstream")), "name": self._upstream}, targets)
        else:
            raise NotImplementedError(f"admin step {json.dumps(step.raw)}")

    async def _health_put(self, step: Step) -> None:
        address = step.text("address")
        path = f"/upstreams/{self._upstream}/targets/{step.text('target')}/{address + '/' if address else ''}"
        status, told = await self._rig.admin("PUT", path + step.text("to"))
        if status in (404, 405):
            raise NotBuilt(f"manual health ({status})")
        assert status == 204, f"PUT {path}: {status} {told}"
        await self._rig.verdicts()

    async def _health_get(self, step: Step, seen: Seen) -> None:
        query = "?balancer_health=1" if step.do == "balancer_get" else ""
        end = time.monotonic() + SETTLE_S
        while True:
            status, told = await self._rig.admin("GET", f"/upstreams/{self._upstream}/health{query}")
            if status in (404, 405):
                raise NotBuilt(f"health in the Admin API ({status})")
            seen.health = cast(Json, json.loads(self._original(json.dumps(told))))
            fits = any(
                not differences(self._health_part(one), seen, self.seen) for one in self._expectations(step.name)
            )
            if fits or time.monotonic() > end:
                return
            await asyncio.sleep(0.05)

    @staticmethod
    def _health_part(expected: Tree) -> Tree:
        return {key: value for key, value in expected.items() if key in HEALTH_KEYS}


async def run_node(rig: Rig, vector: Vector, number: int) -> list[dict[str, Seen]]:
    """What the steps of a vector show, once for each of its cases or variants."""
    parts = items(vector.given.get("cases")) or items(vector.given.get("variants")) or [{}]
    shown = []
    for part in parts:
        given = {key: value for key, value in vector.given.items() if key not in ("cases", "variants")}
        async with Run(rig, {**given, **tree(part)}, number=number, expectations=vector.expectations) as run:
            await run.run()
        shown.append(run.seen)
    return shown


async def run_inputs(rig: Rig, vector: Vector) -> Tree:
    """What the Admin API makes of each of a vector's `inputs`, by the keys of its expectation."""
    told: dict[str, list[Json]] = {"valid": [], "algorithm": [], "hash_on": [], "stored": []}
    weights: set[Json] = set()
    await rig.clear()
    await rig.must("POST", "/upstreams", {"name": "inputs.internal"})
    for number, given in enumerate(items(vector.given["inputs"])):
        if isinstance(given, str):
            stored = tree(await rig.must("POST", "/upstreams/inputs.internal/targets", {"target": given}))
            told["stored"].append(stored["target"])
            weights.add(cast(int, stored["weight"]))
        else:
            status, made = await rig.admin("POST", "/upstreams", {"name": f"input-{number}.internal", **tree(given)})
            told["valid"].append(status == 201)
            told["algorithm"].append(tree(made).get("algorithm"))
            told["hash_on"].append(tree(made).get("hash_on"))
    result: Tree = {key: cast(Json, values) for key, values in told.items()}
    return {**result, "default_weight": next(iter(weights), None)}


async def run_calls(rig: Rig, vector: Vector) -> Tree:
    """The statuses of the manual health calls that a vector describes in words."""
    await rig.clear()
    upstream, target = tree(vector.given["upstream"]), tree(items(vector.given["targets"])[0])
    await rig.must("POST", "/upstreams", {**upstream, "name": "calls.internal"})
    await rig.must("POST", "/upstreams/calls.internal/targets", target)
    await rig.must("POST", "/upstreams", {**upstream, "name": "other.internal"})
    await rig.must("POST", "/upstreams/other.internal/targets", {"target": "10.0.0.99:80"})
    paths: Mapping[str, str] = {
        "existing upstream + existing target": f"calls.internal/targets/{target['target']}",
        "existing upstream + unknown target": "calls.internal/targets/10.0.0.98:80",
        "unknown upstream + existing target": f"unknown.internal/targets/{target['target']}",
        "existing upstream + target of another upstream": "calls.internal/targets/10.0.0.99:80",
    }
    statuses: list[Json] = []
    for call in items(vector.given["calls"]):
        status, _ = await rig.admin("PUT", f"/upstreams/{paths[str(call)]}/healthy")
        statuses.append(status)
    return {"statuses": statuses}


async def run_read_only(rig: Rig) -> Tree:
    """Manual health on the control plane and on a node's status API, and the node's own answer about health."""
    await rig.clear()
    checks = {"passive": {"unhealthy": {"tcp_failures": 1}}}
    await rig.must("POST", "/upstreams", {"name": "calls.internal", "healthchecks": checks})
    await rig.must("POST", "/upstreams/calls.internal/targets", {"target": "10.0.0.1:80"})
    manual = "/upstreams/calls.internal/targets/10.0.0.1:80/healthy"
    status_api = f"http://{rig.fleet.nodes[0].status}"
    on_plane, _ = await rig.admin("PUT", manual)
    on_node = await rig.fleet.call("PUT", status_api + manual)
    read = await rig.fleet.call("GET", status_api + "/upstreams/calls.internal/health")
    return {"statuses": [on_plane, on_node.status, read.status]}
