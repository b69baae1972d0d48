"""Vectors on the pure cores: verdicts, balancer and hash input, with a clock that the vector sets.

The entities go the way they go in the product: through the schema, the wire and the node's decoding.
"""

from __future__ import annotations

from collections.abc import Mapping

from control_plane.entities.registry import SCHEMAS
from control_plane.snapshot.encode import encode
from data_plane.balancer import Endpoint, Upstream
from data_plane.balancer.hash_input import HashFacts, hash_input
from data_plane.health import Event, Source, Transition, Verdicts, Word, checking_enabled, target_word, upstream_word
from data_plane.model import RouteConfig, TargetConfig, UpstreamConfig
from data_plane.resolve.answers import Answer, Record
from data_plane.worker.decode import decode
from pointsman.rules.upstream_health import is_usable
from tests.conformance.balancer_vectors import (
    Answered,
    Json,
    Seen,
    Step,
    Tree,
    Vector,
    items,
    peer_name,
    resolved_peer,
    tree,
)
from tests.conformance.router import build, route_config

NOW = 1_795_000_000.0
UPSTREAM_ID = "10000000-0000-4000-8000-000000000000"


def entity(collection: str, body: Tree, entity_id: str) -> object:
    """An entity as a worker has it, defaults filled in."""
    stored = SCHEMAS[collection].on_insert(body, now=NOW, resolve=lambda *_: None, entity_id=entity_id)
    return decode(encode(collection, stored))


def upstream_of(body: Tree) -> UpstreamConfig:
    """A vector's upstream."""
    config = entity("upstreams", {"name": "upstream.internal", **body}, UPSTREAM_ID)
    assert isinstance(config, UpstreamConfig)
    return config


def target_of(body: Tree, number: int) -> TargetConfig:
    """A vector's target; `number` makes its id."""
    written: Tree = {**body, "upstream": {"id": UPSTREAM_ID}}
    config = entity("targets", written, f"20000000-0000-4000-8000-{number:012}")
    assert isinstance(config, TargetConfig)
    return config


class Cores:
    """One upstream with its verdicts, driven by the steps of a vector."""

    def __init__(self, given: Tree) -> None:
        self._now = 0.0
        self._config = upstream_of(tree(given.get("upstream")))
        self._verdicts = Verdicts()
        self._upstream = Upstream(UPSTREAM_ID, clock=lambda: self._now)
        self._answers = {
            str(tree(one)["name"]): Answer(
                str(tree(one)["name"]), tuple(Record(str(tree(a)["address"])) for a in items(tree(one).get("answers")))
            )
            for one in items(given.get("dns"))
        }
        self._targets: dict[str, TargetConfig] = {}
        for target in items(given.get("targets")):
            self._add(tree(target))
        self.seen: dict[str, Seen] = {}

    def run(self, step: Step) -> None:
        """Carries out a step and notes what it showed."""
        seen = self.seen[step.name] = Seen()
        self._now = max(self._now, step.number("t", self._now))
        match step.do:
            case "event":
                self._event(step)
            case "sample":
                self._upstream.observe(self._endpoint(resolved_peer(step.text("peer"), self.seen)), step.number("rtt"))
            case "hold":
                for _ in range(int(step.number("count"))):
                    endpoint = self._upstream.pick()
                    self._upstream.take(endpoint)
                    seen.peers.append(_peer(endpoint))
            case "tries":
                tried: list[Endpoint] = []
                for _ in range(int(step.number("n"))):
                    tried.append(self._upstream.pick(tried))
                seen.peers = [_peer(endpoint) for endpoint in tried]
            case "requests":
                for key in step.hash_keys():
                    endpoint = self._upstream.pick(key=key.encode())
                    seen.answers.append(Answered(200, {}, "", _peer(endpoint), key))
                    seen.peers.append(_peer(endpoint))
            case "admin":
                self._add(tree(step.raw["create_target"]))
            case "health_put":
                self._put(step.text("target"), available=step.text("to") == "healthy")
            case "health_get" | "balancer_get":
                seen.health = self._report()
            case "wait":
                self._now += step.number("seconds")
            case other:
                raise NotImplementedError(f"step {other!r} on the cores")

    def _add(self, body: Tree) -> None:
        self._targets[str(body["target"])] = target_of(body, len(self._targets) + 1)
        self._upstream.reconcile(self._config, tuple(self._targets.values()), self._answers.get)
        keys = [endpoint.key for endpoint in self._upstream.endpoints.values() if endpoint.weight]
        self._follow(self._verdicts.reconcile("u", self._config.healthchecks, keys, now=self._now))

    def _follow(self, transitions: list[Transition]) -> None:
        for transition in transitions:
            self._upstream.set_available(transition.key, available=transition.available)

    def _event(self, step: Step) -> None:
        key = self._endpoint(resolved_peer(step.text("peer"), self.seen)).key
        source = Source(step.text("source"))
        kind = step.text("kind")
        for _ in range(int(step.number("times", 1))):
            if kind.startswith("status"):
                transition = self._verdicts.observe_status("u", key, source, int(kind.split()[1]))
            else:
                transition = self._verdicts.observe("u", key, source, Event(kind))
            self._follow([] if transition is None else [transition])

    def _put(self, target: str, *, available: bool) -> None:
        for endpoint in self._of_target(self._targets[target]):
            transition = self._verdicts.put("u", endpoint.key, available=available)
            self._follow([] if transition is None else [transition])

    def _endpoint(self, peer: str) -> Endpoint:
        return next(one for one in self._upstream.endpoints.values() if _peer(one) == peer_name(peer))

    def _of_target(self, target: TargetConfig) -> list[Endpoint]:
        return [one for one in self._upstream.endpoints.values() if one.target_id == target.id]

    def _report(self) -> Json:
        """The Admin API's form of what the cores think: one answer that serves both kinds of question."""
        checking = checking_enabled(self._config.healthchecks)
        total = available = 0
        targets: list[Json] = []
        for written, target in self._targets.items():
            words = []
            for endpoint in self._of_target(target):
                up = self._verdicts.verdict("u", endpoint.key).available
                total += endpoint.weight
                available += endpoint.weight if up else 0
                known = self._verdicts.tracks("u", endpoint.key)
                words.append((Word.HEALTHY if up else Word.UNHEALTHY) if known else Word.HEALTHCHECKS_OFF)
            targets.append({"target": written, "health": target_word(words).value})
        usable = is_usable(available, total, self._config.healthchecks.threshold)
        return {"data": targets, "health": upstream_word(checking=checking, usable=usable).value}


def _peer(endpoint: Endpoint) -> str:
    return peer_name(f"[{endpoint.ip}]:{endpoint.port}" if ":" in endpoint.ip else f"{endpoint.ip}:{endpoint.port}")


def run_cores(vector: Vector) -> dict[str, Seen]:
    """What each step of a vector shows on the cores."""
    cores = Cores(vector.given)
    for step in vector.steps:
        cores.run(step)
    return cores.seen


def hash_inputs(given: Tree) -> list[str]:
    """The hash input of each of a vector's `requests`; "" = none."""
    config = upstream_of(tree(given.get("upstream")))
    paths = items(tree(given.get("route")).get("paths")) or ["/"]
    route = route_config({"id": "route", "name": "route", "paths": paths, "service": "service"})
    return [_hash_input(config, route, str(request), {}) for request in items(given.get("requests"))]


def hash_input_of_headers(config: UpstreamConfig, headers: Mapping[str, list[str]]) -> str:
    """The hash input of a request for `/` with these headers."""
    route = route_config({"id": "route", "name": "route", "paths": ["/"], "service": "service"})
    return _hash_input(config, route, "/", headers)


def _hash_input(config: UpstreamConfig, route: RouteConfig, target: str, headers: Mapping[str, list[str]]) -> str:
    path, _, query = target.partition("?")
    values = {name.lower(): [value.encode() for value in lines] for name, lines in headers.items()}
    found = build([route], "traditional_compatible").match(
        b"GET", b"client.test", path.encode(), port=80, scheme="http", header_values=lambda name: values.get(name, [])
    )
    assert found is not None
    facts = HashFacts(
        client_ip="127.0.0.1",
        header_values=lambda name: values.get(name, []),
        path=path.encode(),
        query=query.encode(),
        captures=found.captures or {},
    )
    return hash_input(config, facts, make_id=lambda: "made-up").key.decode()
