"""Vectors of the balancer: what is given, and whether what was seen is what is expected.

A vector has steps; each leaves a `Seen`. `differences` compares one with its part of `expect`. Where a vector has a
`recommended`, that is an equally good answer.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Tree = dict[str, Json]

PICKS_MAX = 2000
"""Steps with more requests than this are run on the cores, as their notes allow."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a vector."""

    raw: Tree

    @property
    def name(self) -> str:
        return str(self.raw["s"])

    @property
    def do(self) -> str:
        return str(self.raw["do"])

    def text(self, key: str, default: str = "") -> str:
        """A text of it."""
        value = self.raw.get(key)
        return default if value is None else str(value)

    def number(self, key: str, default: float = 0.0) -> float:
        """A number of it."""
        value = self.raw.get(key, default)
        assert isinstance(value, (int, float))
        return float(value)

    def hash_keys(self) -> list[str]:
        """The hash inputs of its requests; empty = none."""
        keys = tree(self.raw.get("keys"))
        if not keys:
            return []
        first, last = cast(int, keys["from"]), cast(int, keys["to"])
        return [str(keys["pattern"]).replace("{n}", str(n)) for n in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Vector:
    """One sequence with what is expected of it."""

    id: str
    title: str
    given: Tree
    expect: Tree
    recommended: Tree

    @property
    def steps(self) -> list[Step]:
        return [Step(tree(step)) for step in items(self.given.get("steps"))]

    def expectations(self, step: str) -> list[Tree]:
        """What may be seen of a step, either of which is right."""
        first = tree(self.expect.get(step))
        better = tree(self.recommended.get(step))
        return [first, {**first, **better}] if better else [first]

    @property
    def pure(self) -> bool:
        """Whether it is about the cores alone."""
        steps = self.steps
        return (
            any(step.do in ("event", "sample") for step in steps)
            or {step.do for step in steps} == {"tries"}
            or any(step.number("count") > PICKS_MAX for step in steps if step.do == "requests")
        )


def read_vectors(file: Path) -> list[Vector]:
    """The vectors of a file of the form of balancer.json."""
    raw = json.loads(file.read_text())
    return [
        Vector(
            id=one["id"],
            title=one["title"],
            given=one["given"],
            expect=one["expect"],
            recommended=one.get("recommended") or {},
        )
        for one in raw["vectors"]
    ]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as an upstream server got it; `peer` is the address it was sent to."""

    peer: str
    method: str
    path: str
    host: str
    body_bytes: int
    probe: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as the client got it; header names in lower case, `peer` of the server it came from, "" = none."""

    status: int
    headers: Mapping[str, str]
    text: str
    peer: str
    key: str = ""


@dataclass(slots=True)
class Seen:
    """What one step showed."""

    peers: list[str] = field(default_factory=list)
    """Where each request of clients went, in order; an attempt that got to no server is not here."""
    answers: list[Answered] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    health: Json = None
    hash_input: str | None = None

    @property
    def peer(self) -> str:
        """The peer of all requests."""
        (only,) = set(self.peers)
        return only

    def mapping(self) -> dict[str, str]:
        """Key -> peer."""
        return {answer.key: answer.peer for answer in self.answers if answer.key}


def tree(value: Json) -> Tree:
    """The object there, or an empty one."""
    return value if isinstance(value, dict) else {}


def items(value: Json) -> list[Json]:
    """The list there, or an empty one."""
    return value if isinstance(value, list) else []


def peer_name(text: str) -> str:
    """An address of a peer in one form: IPv6 by value."""
    host, _, port = text.rpartition(":")
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return text
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _counts(value: Json) -> dict[str, Json]:
    return {peer_name(peer): count for peer, count in tree(value).items()}


Check = Callable[[Json, Seen, Mapping[str, Seen]], bool]


def differences(expected: Tree, seen: Seen, steps: Mapping[str, Seen]) -> list[str]:
    """What differs of one step; empty = as expected."""
    found = []
    for key, value in expected.items():
        check = CHECKS.get(key)
        if check is None:
            found.append(f"cannot check {key!r}")
        elif not check(value, seen, steps):
            found.append(f"{key}: {json.dumps(value)} expected, {_shown(key, seen)} came")
    return found


def _shown(key: str, seen: Seen) -> str:
    if key in HEALTH_KEYS:
        return json.dumps(seen.health)[:900]
    statuses = dict(Counter(answer.status for answer in seen.answers))
    shown: dict[str, object] = {"peers": dict(Counter(seen.peers)), "statuses": statuses}
    if key in ("peer_sequence", "peer_sequence_is_permutation_of"):
        shown["sequence"] = seen.peers[:8]
    if key in ("connections", "connections_total"):
        shown["attempts"] = dict(seen.attempts)
    if key in ("per_host_header", "host_header"):
        shown["hosts"] = dict(_hosts(seen))
    if key in ("message", "body", "set_cookie"):
        shown["answers"] = [(answer.text[:200], answer.headers.get("set-cookie")) for answer in seen.answers[:2]]
    if key == "hash_input":
        shown["hash_input"] = seen.hash_input
    return json.dumps(shown)


def _per_peer(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    return _counts(value) == dict(Counter(seen.peers))


def _statuses(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    return tree(value) == dict(Counter(str(answer.status) for answer in seen.answers))


def _message(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    return all(str(value) in answer.text for answer in seen.answers)


def _distinct_peers(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    return len(set(seen.peers)) == value


def _hosts(seen: Seen) -> Counter[str]:
    """Host as it stood in the requests that were answered; an attempt that failed had that of its own endpoint."""
    answering = {answer.peer for answer in seen.answers if answer.peer}
    return Counter(one.host for one in seen.received if not one.probe and one.peer in answering)


def _answering_peer(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    return {answer.peer for answer in seen.answers} == {peer_name(str(value))}


def _between(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    counts = Counter(seen.peers)
    return all(
        cast(int, items(limits)[0]) <= counts[peer] <= cast(int, items(limits)[1])
        for peer, limits in _counts(value).items()
    )


def _ratio(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    counts = Counter(seen.peers)
    for pair, limits in tree(value).items():
        one, other = (counts[peer_name(peer)] for peer in pair.split("/"))
        low, high = (cast(float, limit) for limit in items(limits))
        if not other or not low <= one / other <= high:
            return False
    return True


def _moved(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    for step, limit in tree(value).items():
        before, now = steps[step].mapping(), seen.mapping()
        moved = sum(before[key] != now[key] for key in before)
        if moved / len(before) * 100 > cast(float, tree(limit)["max"]):
            return False
    return True


def _set_cookie(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    told = [answer.headers.get("set-cookie") for answer in seen.answers]
    if value is None:
        return not any(told)
    wanted = tree(value)
    for line in told:
        pair, *attributes = [part.strip() for part in (line or "").split(";")]
        name, _, cookie = pair.partition("=")
        if (
            name != wanted["name"]
            or not cookie
            or not set(map(str, items(wanted.get("attributes")))) <= set(attributes)
        ):
            return False
        if wanted.get("value") == "uuid" and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", cookie):
            return False
    return bool(told)


def _own_body(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    return all(answer.peer for answer in seen.answers)  # only a server names itself in the answer


def _received_bytes(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    got = {one.peer: one.body_bytes for one in seen.received if not one.probe}
    return all(got.get(peer) == count for peer, count in _counts(value).items())


def _report_targets(seen: Seen) -> list[Tree]:
    return [tree(item) for item in items(tree(seen.health).get("data"))]


def _report_addresses(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    words = {
        peer_name(f"{tree(one).get('ip')}:{tree(one).get('port')}"): tree(one).get("health")
        for target in _report_targets(seen)
        for one in items(tree(target.get("data")).get("addresses"))
    }
    return all(words.get(peer) == word for peer, word in _counts(value).items())


def _of_targets(seen: Seen, read: Callable[[Tree], Json]) -> dict[str, Json]:
    return {str(target.get("target")): read(target) for target in _report_targets(seen)}


def _subset(value: Json, told: Mapping[str, Json]) -> bool:
    return all(told.get(name) == wanted for name, wanted in tree(value).items())


def _address_ips(target: Tree) -> Json:
    return [tree(one).get("ip") for one in items(tree(target.get("data")).get("addresses"))]


def _details(seen: Seen) -> Tree:
    return tree(tree(tree(seen.health).get("data")).get("details"))


def _host_weight(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    told: dict[str, Json] = {
        f"{tree(host).get('host')}:{tree(host).get('port')}": tree(host).get("weight")
        for host in items(_details(seen).get("hosts"))
    }
    return _subset(value, told)


def _unhealthy_peers(value: Json, seen: Seen, steps: Mapping[str, Seen]) -> bool:
    told = {
        peer_name(f"{tree(one).get('ip')}:{tree(one).get('port')}")
        for host in items(_details(seen).get("hosts"))
        for one in items(tree(host).get("addresses"))
        if tree(one).get("healthy") is False
    }
    return told == {peer_name(resolved_peer(str(peer), steps)) for peer in items(value)}


def resolved_peer(text: str, steps: Mapping[str, Seen]) -> str:
    """A peer, written out or as `peer_of:STEP`."""
    return steps[text.removeprefix("peer_of:")].peer if text.startswith("peer_of:") else text


def _told(seen: Seen, key: str) -> Json:
    return tree(tree(seen.health).get("data")).get(key)


CHECKS: Mapping[str, Check] = {
    "per_peer": _per_peer,
    "statuses": _statuses,
    "message": _message,
    "distinct_peers": _distinct_peers,
    "same_peer_as": lambda value, seen, steps: seen.peer == steps[str(value)].peer,
    "different_peer_from": lambda value, seen, steps: seen.peer != steps[str(value)].peer,
    "host_header": lambda value, seen, steps: set(_hosts(seen)) == {value},
    "per_host_header": lambda value, seen, steps: _hosts(seen) == value,
    "answering_peer": _answering_peer,
    "per_peer_between": _between,
    "ratio_between": _ratio,
    "peer_sequence": lambda value, seen, steps: [peer_name(str(peer)) for peer in items(value)] == seen.peers,
    "peer_sequence_is_permutation_of": lambda value, seen, steps: (
        sorted(peer_name(str(peer)) for peer in items(value)) == sorted(seen.peers)
    ),
    "connections_total": lambda value, seen, steps: seen.attempts.total() == value,
    "connections": lambda value, seen, steps: all(
        seen.attempts[peer] == count for peer, count in _counts(value).items()
    ),
    "moved_percent_vs": _moved,
    "set_cookie": _set_cookie,
    "hash_input": lambda value, seen, steps: seen.hash_input == value,
    "body": _own_body,
    "received_body_bytes": _received_bytes,
    "targets": lambda value, seen, steps: _subset(value, _of_targets(seen, lambda target: target.get("health"))),
    "addresses": _report_addresses,
    "dns": lambda value, seen, steps: _subset(
        value, _of_targets(seen, lambda target: tree(target.get("data")).get("dns"))
    ),
    "address_ip": lambda value, seen, steps: _subset(value, _of_targets(seen, _address_ips)),
    "weight": lambda value, seen, steps: _details(seen).get("weight") == value,
    "host_weight": _host_weight,
    "health": lambda value, seen, steps: _told(seen, "health") == value,
    "balancer_health": lambda value, seen, steps: _told(seen, "balancer_health") == value,
    "unhealthy_peers": _unhealthy_peers,
}
"""How each member of an expectation is compared with what was seen."""

HEALTH_KEYS = frozenset(
    (
        "targets",
        "addresses",
        "dns",
        "address_ip",
        "weight",
        "host_weight",
        "health",
        "balancer_health",
        "unhealthy_peers",
    )
)


def differences_over_cases(expected: Tree, cases: Sequence[Seen]) -> list[str]:
    """As `differences`, for the members that speak of a vector's cases one by one."""
    found = []
    for key, value in expected.items():
        if key in ("present_per_case", "absent_per_case"):
            for number, names in enumerate(items(value)):
                there = {name.lower() for answer in cases[number].answers for name in answer.headers}
                wrong = [name for name in items(names) if (str(name).lower() in there) == (key == "absent_per_case")]
                found += [f"{key}, case {number}: {wrong}"] if wrong else []
        elif key not in CASE_VALUES:
            found.append(f"cannot check {key!r} over cases")
        elif (told := _case_values(key, cases)) != value:
            found.append(f"{key}: {json.dumps(value)} expected, {json.dumps(told)} came")
    return found


CASE_VALUES = frozenset(
    ("host_header_per_case", "probe_host_per_case", "probe_method", "probe_path", "status_per_case")
)


def _case_values(key: str, cases: Sequence[Seen]) -> Json:
    def first(values: Iterable[str]) -> Json:
        return next(iter(values), None)

    match key:
        case "host_header_per_case":
            return [first(one.host for one in seen.received if not one.probe) for seen in cases]
        case "probe_host_per_case":
            return [first(one.host for one in seen.received if one.probe) for seen in cases]
        case "probe_method":
            return first({one.method for seen in cases for one in seen.received if one.probe})
        case "probe_path":
            return first({one.path for seen in cases for one in seen.received if one.probe})
        case "status_per_case":
            return [seen.answers[0].status for seen in cases]
        case _:
            raise KeyError(key)
