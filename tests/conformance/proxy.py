"""Replays a recording of a proxy against a real control plane and a real node, and says what differs.

    python -m tests.conformance proxy FILE [--groups paths,balancing] [--accepted FILE]

Lines of kind `admin` set the gateway up and are all sent, in order; `proxy` lines are requests whose answer and whose
form at the upstream count; `dist` lines are many requests of which the counts per upstream count. The upstreams are
real servers (`recorded_upstreams.py`), the ports are the kernel's, the node has one worker, and nothing listens where
it looks for a nameserver. The accepted list names differences that we want, with the reason and what differs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import http.client
import json
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import yaml

from tests.conformance.proxy_compare import Answer, Json, differences, dist_differences, mapped, parsed
from tests.conformance.recorded_upstreams import RecordedUpstreams
from tests.support.patience import PATIENCE_S
from tests.support.processes import ControlPlane, Node

ACCEPTED = Path(__file__).with_name("accepted-proxy.yaml")
PROXY_PORT = 18000
PASSIVE_SETTLE_S = 0.03
"""A verdict takes up to 10 ms from the request that causes it to the workers."""

HEALTH_SETTLE_S = 3.0

_PORT = re.compile(r"(?<![\w.])190\d\d(?![\w.])")

_Tree = dict[str, Json]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a recording."""

    number: int
    raw: Mapping[str, Json]

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @property
    def group(self) -> str:
        return str(self.raw["group"])

    @property
    def label(self) -> str:
        """How the report calls it: the recorded step, or the line's number where there is none."""
        step = self.raw.get("step")
        return f"line {self.number}" if step is None else f"step {step}"

    def text(self, name: str) -> str:
        """A field that may be null."""
        value = self.raw.get(name)
        return "" if value is None else str(value)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A difference that is meant. Texts are patterns that must match somewhere; all that differs needs a `differs`."""

    reason: str
    differs: tuple[str, ...]
    step: int | None = None
    group: str = ""
    path: str = ""
    host: str = ""
    method: str = ""
    request_headers: str = ""

    def covers(self, line: Line, found: Sequence[str]) -> bool:
        """Whether it speaks of this line and of all that differs there."""
        return (
            self.step in (None, line.raw.get("step"))
            and all(
                re.search(pattern, text)
                for pattern, text in (
                    (self.group, line.group),
                    (self.path, line.text("path")),
                    (self.host, line.text("host")),
                    (self.method, line.text("method")),
                    (self.request_headers, json.dumps(line.raw.get("headers"))),
                )
            )
            and all(any(re.search(pattern, text, re.DOTALL) for pattern in self.differs) for text in found)
        )


def read_accepted(path: Path) -> list[Accepted]:
    """The accepted list: YAML or JSON, a list of mappings with the fields of `Accepted`."""
    rows = yaml.safe_load(path.read_text()) or []
    return [Accepted(**{**row, "differs": tuple(row["differs"])}) for row in rows]


@dataclass(frozen=True, slots=True)
class Score:
    """How a replay ended. `lines` is the report, without the last line."""

    passed: int
    total: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Gateway:
    """What is replayed against, in our ports."""

    admin: tuple[str, int]
    proxy: tuple[str, int]
    status: tuple[str, int]
    ports: Mapping[int, int]


class Entities:
    """What the recorded gateway was told, from its own answers: which upstream stands behind a host."""

    def __init__(self) -> None:
        self._services: dict[str, _Tree] = {}
        self._upstreams: dict[str, _Tree] = {}
        self._routes: list[_Tree] = []

    def learn(self, path: str, response: Json) -> None:
        """Takes in the answer to one write."""
        collection = path.strip("/").split("/")
        if not isinstance(response, dict) or len(collection) > 2:
            return
        match collection[0]:
            case "services":
                self._services[str(response.get("id"))] = response
            case "upstreams":
                self._upstreams[str(response.get("name"))] = response
            case "routes":
                self._routes.append(response)
            case _:
                pass

    def upstream_of(self, host: str) -> _Tree:
        """The upstream that a request for this host is balanced over; empty = none."""
        for route in self._routes:
            service = route.get("service")
            if isinstance(route.get("hosts"), list) and host in cast("list[Json]", route["hosts"]):
                found = self._services.get(str(service.get("id"))) if isinstance(service, dict) else None
                return self._upstreams.get(str(found.get("host")), {}) if found is not None else {}
        return {}

    @property
    def probe_interval_s(self) -> float:
        """The longest interval of an active check."""
        return max((_active_interval(upstream) for upstream in self._upstreams.values()), default=0.0)


def _below(tree: Json, *names: str) -> Json:
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _number(value: Json) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


def _active_interval(upstream: _Tree) -> float:
    return max(
        _number(_below(upstream, "healthchecks", "active", half, "interval")) for half in ("healthy", "unhealthy")
    )


def _judges_traffic(upstream: _Tree) -> bool:
    limits = _below(upstream, "healthchecks", "passive", "unhealthy")
    return any(_number(_below(limits, name)) for name in ("http_failures", "tcp_failures", "timeouts"))


class Replay:
    """Sends the lines of a recording, one after the other."""

    def __init__(self, gateway: Gateway, accepted: Sequence[Accepted]) -> None:
        self._gateway = gateway
        self._accepted = accepted
        self._entities = Entities()
        self._ids: dict[str, str] = {}
        self._port_of_key: dict[tuple[str, str], str] = {}
        self._lines: list[str] = []
        self._version = 0

    def run(self, lines: Sequence[Line], groups: Sequence[str]) -> Score:
        """Replays all lines and scores those of the groups; no groups = all."""
        passed: Counter[str] = Counter()
        total: Counter[str] = Counter()
        for line, following in zip(lines, [*lines[1:], None], strict=True):
            if line.kind == "admin" and not _asks_for_health(line):
                self._set_up(line, settle=following is None or following.kind != "admin")
                continue
            if groups and line.group not in groups:
                continue
            total[line.group] += 1
            match line.kind:
                case "proxy":
                    found = self._proxied(line)
                case "dist":
                    found = self._distributed(line)
                case "admin":
                    found = self._health(line)
                case other:
                    found = [f"a line of kind {other!r}, which is not known here"]
            row = next((row for row in self._accepted if row.covers(line, found)), None) if found else None
            if row is not None:
                self._lines.append(f"accepted {line.label}: {row.reason}")
            elif found:
                self._lines.append(
                    f"{line.label}: {line.text('method')} {line.text('host')}{line.text('path')}: {'; '.join(found)}"
                )
                continue
            passed[line.group] += 1
        report = (*self._lines, *(f"group {group}: {passed[group]} of {total[group]}" for group in total))
        return Score(sum(passed.values()), sum(total.values()), report)

    def _set_up(self, line: Line, *, settle: bool) -> None:
        """Sends a write; the last one before requests waits until the node runs it and probes have spoken."""
        to_ours = self._gateway.ports.items()
        recorded = parsed(line.text("response"))
        path, tree = _with_recorded_id(line, recorded)
        path = self._in_our_ids(mapped(path, to_ours))
        body = None if tree is None else self._in_our_ids(mapped(json.dumps(tree), to_ours))
        connection = http.client.HTTPConnection(*self._gateway.admin, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request(
                line.text("method"),
                path,
                body=body,
                headers={"Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            text = answer.read().decode()
            self._version = max(self._version, int(answer.headers.get("X-Pointsman-Version", "0")))
        if answer.status != line.raw["status"]:
            self._lines.append(
                f"set-up, line {line.number}: {line.text('method')} {path}: status {line.raw['status']} expected, "
                f"{answer.status} came: {text[:300]}"
            )
        self._entities.learn(line.text("path"), recorded)
        ours, theirs = _below(parsed(text), "id"), _below(recorded, "id")
        if isinstance(ours, str) and isinstance(theirs, str):
            self._ids[theirs] = ours
        if settle:
            _await_version(self._gateway.status, self._version)
        if settle and self._entities.probe_interval_s:
            time.sleep(3 * self._entities.probe_interval_s + 0.5)

    def _health(self, line: Line) -> list[str]:
        """Asks for an upstream's health until the words are the recorded ones, or for long enough."""
        path = self._in_our_ids(mapped(line.text("path"), self._gateway.ports.items()))
        to_recorded = [(ours, theirs) for theirs, ours in self._gateway.ports.items()]
        expected = _words(parsed(line.text("response")))
        end = time.monotonic() + HEALTH_SETTLE_S
        while True:
            connection = http.client.HTTPConnection(*self._gateway.admin, timeout=PATIENCE_S)
            with contextlib.closing(connection):
                connection.request("GET", path)
                answer = connection.getresponse()
                text = mapped(answer.read().decode(), to_recorded)
            if answer.status != line.raw["status"]:
                return [f"status {line.raw['status']} expected, {answer.status} came: {text[:300]}"]
            if (came := _words(parsed(text))) == expected:
                return []
            if time.monotonic() > end:
                return [f"health: {expected} expected, {came} came"]
            time.sleep(0.05)

    def _in_our_ids(self, text: str) -> str:
        for theirs, ours in self._ids.items():
            text = text.replace(theirs, ours)
        return text

    def _proxied(self, line: Line) -> list[str]:
        headers = [(str(pair[0]), str(pair[1])) for pair in cast("list[list[Json]]", line.raw["headers"])]
        ours = self._request(
            line.text("method"),
            line.text("path"),
            line.text("host"),
            headers=headers,
            body=line.text("request_body"),
            version=line.text("version"),
        )
        recorded_headers = cast("list[list[str]]", line.raw["response_headers"])
        recorded = Answer(
            int(_number(line.raw["status"])),
            tuple((name, value) for name, value in recorded_headers),
            line.text("response_body"),
        )
        if self._entities.upstream_of(line.text("host")):
            # Which of the targets a single request goes to is nobody's promise.
            time.sleep(PASSIVE_SETTLE_S if _judges_traffic(self._entities.upstream_of(line.text("host"))) else 0)
            recorded, ours = _at_any_port(recorded), _at_any_port(ours)
        return differences(recorded, ours, head=line.text("method") == "HEAD")

    def _distributed(self, line: Line) -> list[str]:
        host, note = line.text("host"), line.text("note")
        upstream = self._entities.upstream_of(host)
        path, headers = _hash_input(upstream, note)
        counts: Counter[str] = Counter()
        for _ in range(int(_number(line.raw["count"]))):
            answer = self._request("GET", path, host, headers=headers)
            port = _below(parsed(answer.text), "port")
            counts[str(port) if port is not None else str(answer.status)] += 1
            if _judges_traffic(upstream):
                time.sleep(PASSIVE_SETTLE_S)
        algorithm = str(upstream.get("algorithm", "direct"))
        found = dist_differences(algorithm, cast("dict[str, int]", line.raw["dist"]), counts)
        if algorithm == "consistent-hashing" and not found:
            (port_now,) = counts
            before = self._port_of_key.setdefault((host, note), port_now)
            if before != port_now:
                found.append(f"dist ({algorithm}): the key {note!r} led to {before} before and to {port_now} now")
        return found

    def _request(
        self,
        method: str,
        path: str,
        host: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        body: str = "",
        version: str = "HTTP/1.1",
    ) -> Answer:
        to_ours = self._gateway.ports.items()
        lines = [f"{method} {path} {version}", f"Host: {host}", *(f"{name}: {value}" for name, value in headers)]
        names = {name.lower() for name, _ in headers}
        if body and not names & {"content-length", "transfer-encoding"}:
            lines.append(f"Content-Length: {len(body)}")
        if "connection" not in names:
            lines.append("Connection: close")
        head = mapped("\r\n".join(lines), to_ours)
        with socket.create_connection(self._gateway.proxy, timeout=PATIENCE_S) as connection:
            connection.sendall((head + "\r\n\r\n" + body).encode("latin-1"))
            response = http.client.HTTPResponse(connection, method=method)
            try:
                response.begin()
                content = response.read()
            except (http.client.HTTPException, OSError) as error:
                return Answer(0, (), f"{type(error).__name__}: {error}")
        to_recorded = [(ours, theirs) for theirs, ours in to_ours]
        told = tuple((name, mapped(value, to_recorded)) for name, value in response.getheaders())
        text = content.decode("latin-1")
        # A port has as many digits here as there, or the length would tell; the kernel gives high ones.
        return Answer(response.status, told, mapped(text, to_recorded))


def _asks_for_health(line: Line) -> bool:
    return line.text("method") == "GET" and re.search(r"/health/?(\?|$)", line.text("path")) is not None


def _words(report: Json) -> dict[str, Json]:
    """The words of a health report: by target, or of the whole upstream."""
    data = _below(report, "data")
    if isinstance(data, list):
        return {str(_below(item, "target")): _below(item, "health") for item in data}
    return {name: _below(data, name) for name in ("health", "balancer_health")}


def _at_any_port(answer: Answer) -> Answer:
    return dataclasses.replace(answer, text=_PORT.sub("19000", answer.text))


def _with_recorded_id(line: Line, recorded: Json) -> tuple[str, Json]:
    """The path and the body of a write; a route that is put by its name keeps its recorded id, which decides ties."""
    path, body, route_id = line.text("path"), line.raw.get("body"), _below(recorded, "id")
    parts = path.strip("/").split("/")
    is_new_route = line.text("method") == "PUT" and len(parts) == 2 and parts[0] == "routes"
    if not is_new_route or not isinstance(body, dict) or not isinstance(route_id, str):
        return path, body
    return f"/routes/{route_id}", {"name": parts[1]} | body


def _hash_input(upstream: _Tree, note: str) -> tuple[str, list[tuple[str, str]]]:
    """The path and the headers that carry the key which a line's note names; notes of more than one word are prose."""
    key = "" if " " in note else note
    match upstream.get("hash_on"):
        case "header":
            return "/", [(str(upstream["hash_on_header"]), key)] if key else []
        case "path":
            return key or "/", []
        case "query_arg":
            return f"/?{key}" if key else "/", []
        case "cookie":
            return "/", [("Cookie", f"{upstream['hash_on_cookie']}={key or 'abc'}")]
        case _:
            return "/", []


def read_lines(file: Path) -> list[Line]:
    """The lines of a recording."""
    lines = file.read_text().splitlines()
    return [Line(number, json.loads(line)) for number, line in enumerate(lines, 1) if line.strip()]


def _recorded_ports(lines: Iterable[Line]) -> set[int]:
    return {
        int(port) for line in lines for port in _PORT.findall(json.dumps([line.raw.get("body"), line.raw.get("dist")]))
    }


@contextlib.contextmanager
def scratch_gateway(lines: Sequence[Line]) -> Iterator[Gateway]:
    """A control plane over an empty store, a node of one worker, and the recording's upstreams."""
    with (
        RecordedUpstreams(_recorded_ports(lines)) as upstreams,
        tempfile.TemporaryDirectory(prefix="pointsman-conformance-") as folder,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reserved,
    ):
        reserved.bind(("127.0.0.1", 0))
        nameserver = f"127.0.0.1:{reserved.getsockname()[1]}"
        reserved.close()  # questions are refused at once, as in the recording
        plane = ControlPlane(Path(folder))
        beside: Node | None = None
        try:
            asyncio.run(plane.up())
            beside = Node("node-1", Path(folder), plane.fleet, "--resolver", nameserver)
            asyncio.run(beside.up())
            ports = {**upstreams.ports, PROXY_PORT: beside.proxy_address[1]}
            yield Gateway(_address(plane.admin), beside.proxy_address, _address(beside.status), ports)
        finally:
            if beside is not None:
                beside.destroy()
            plane.destroy()


def _await_version(status: tuple[str, int], version: int) -> None:
    """Waits until the node runs this version or a later one."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        connection = http.client.HTTPConnection(*status, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            connection.request("GET", "/status")
            running = _below(parsed(connection.getresponse().read().decode()), "version")
        if _number(running) >= version:
            return
        time.sleep(0.02)
    raise TimeoutError(f"the node does not get to version {version}")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def replay(file: Path, *, groups: Sequence[str] = (), accepted: Path = ACCEPTED) -> Score:
    """Replays a recording against a gateway of its own."""
    lines = read_lines(file)
    with scratch_gateway(lines) as gateway:
        return Replay(gateway, read_accepted(accepted)).run(lines, groups)


def main(arguments: Sequence[str]) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance proxy", description=__doc__)
    parser.add_argument("file", type=Path, help="a recording of the form of vectors/kong-proxy.jsonl")
    parser.add_argument("--accepted", type=Path, default=ACCEPTED, help="the list of accepted differences")
    parser.add_argument("--groups", default="", help="groups to score, like paths,balancing")
    options = parser.parse_args(arguments)
    groups = [group for group in options.groups.split(",") if group]
    score = replay(options.file, groups=groups, accepted=options.accepted)
    for line in score.lines:
        print(line)
    print(f"passed {score.passed} of {score.total}")
    sys.stdout.flush()
    return 0 if score.passed == score.total else 1
