"""`python -m tests.conformance router FILE`: the router on a file of the form of `vectors/router.json`.

Each vector is a table of routes, one request, and what a gateway makes of it: the route, the path and Host that go
upstream, captures, the matched part of the path, or the gateway's own answer. Vectors of what is not built (flavour
`expressions`, subsystem `stream`) are counted apart, and so are those marked with a quirk that we do better on purpose.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, cast

from data_plane.model import HeaderCondition, PeerCondition, RouteConfig
from data_plane.router import (
    TRADITIONAL,
    TRADITIONAL_COMPATIBLE,
    Match,
    Router,
    build_router,
    protocol_answer,
    redirect_host,
    upstream_host,
    upstream_path,
)

Json: TypeAlias = "str | int | float | bool | list[Json] | dict[str, Json] | None"
Vector: TypeAlias = "dict[str, Json]"

FLAVOURS = frozenset({TRADITIONAL_COMPATIBLE, TRADITIONAL})
EXIT_USAGE = 64
FIELDS_NOT_BUILT = frozenset({"expression", "priority"})

# What a quirk of the original becomes here. The rule as implemented decides; these only say why an answer differs.
BETTER = {
    "host-case": "hosts are compared ignoring case (RFC 9110)",
    "unanchored-alternation": "all branches of a regex path are anchored at the start",
    "header-captures": "captures come from the path only",
    "header-regex-lowercased": "header regexes ignore case without being lower-cased themselves",
}


class Outcome:
    """What became of a file: failing ids with their differences, and the counts."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.skipped: Counter[str] = Counter()
        self.quirks = 0
        self.passed = 0
        self.run = 0


def main(arguments: Sequence[str]) -> int:
    """Run the files named, print what fails and `passed N of M` last; 0 when nothing fails."""
    files = [Path(argument) for argument in arguments]
    if not files:
        print("usage: python -m tests.conformance router FILE...")
        return EXIT_USAGE
    outcome = Outcome()
    for file in files:
        document = cast("dict[str, list[Vector]]", json.loads(file.read_text()))
        check_all(document["vectors"], outcome)
    for line in outcome.lines:
        print(line)
    for reason, count in sorted(outcome.skipped.items()):
        print(f"skipped {count}: {reason}")
    if outcome.quirks:
        print(f"quirks done better: {outcome.quirks}")
    print(f"passed {outcome.passed} of {outcome.run}")
    return 0 if outcome.passed == outcome.run else 1


def check_all(vectors: Sequence[Vector], outcome: Outcome) -> None:
    """Run the vectors into the outcome."""
    for vector in vectors:
        reason = not_built(vector)
        if reason is not None:
            outcome.skipped[reason] += 1
            continue
        differences = check(vector)
        quirk = vector.get("quirk")
        if differences and isinstance(quirk, str) and quirk in BETTER:
            outcome.quirks += 1
            outcome.lines.append(f"quirk {vector['id']}: {BETTER[quirk]}")
            continue
        outcome.run += 1
        if differences:
            outcome.lines.append(f"{vector['id']}: {'; '.join(differences)}")
        else:
            outcome.passed += 1


def not_built(vector: Vector) -> str | None:
    """Say why a vector cannot be run, None if it can."""
    subsystem = vector.get("subsystem", "http")
    if subsystem != "http":
        return f"subsystem {subsystem}"
    flavour = vector.get("flavor", TRADITIONAL_COMPATIBLE)
    if flavour not in FLAVOURS:
        return f"flavour {flavour}"
    for route in cast("list[dict[str, Json]]", vector["routes"]):
        for field in sorted(FIELDS_NOT_BUILT & route.keys()):
            return f"route field {field}"
    return None


def check(vector: Vector) -> list[str]:
    """Return how the router differs from what the vector expects."""
    bodies = cast("list[dict[str, Json]]", vector["routes"])
    services = {cast(str, body["id"]): cast("dict[str, Json] | None", body.get("service")) for body in bodies}
    router = build([route_config(body) for body in bodies], str(vector.get("flavor", TRADITIONAL_COMPATIBLE)))
    request = Request(cast("dict[str, Json]", vector["request"]))
    match = request.match(router)
    found = describe(match, services, request)
    expected = cast("dict[str, Json]", vector["expect"])
    return [
        f"{name}: expected {json.dumps(value)}, got {json.dumps(found.get(name))}"
        for name, value in expected.items()
        if not agrees(name, value, found.get(name))
    ]


def agrees(name: str, expected: Json, found: Json) -> bool:
    """Compare one fact; of an answer only what the vector names, header names in any case."""
    if name != "response" or not isinstance(expected, dict) or not isinstance(found, dict):
        return expected == found
    headers = {key.lower(): value for key, value in cast("dict[str, Json]", found["headers"]).items()}
    for key, value in expected.items():
        if key == "headers":
            if any(headers.get(header.lower()) != said for header, said in cast("dict[str, Json]", value).items()):
                return False
        elif found.get(key) != value:
            return False
    return True


def describe(match: Match | None, services: Mapping[str, dict[str, Json] | None], request: Request) -> dict[str, Json]:
    """Say of a match what vectors say."""
    if match is None:
        return {"route": None}
    found: dict[str, Json] = {"route": match.route.name}
    answer = protocol_answer(
        match.route,
        request.proto,
        http2=request.http2,
        content_type=request.content_type,
        host=request.redirect_host,
        target=request.path + (b"?" + request.query if request.query is not None else b""),
    )
    if answer is not None:
        headers: dict[str, Json] = {name.decode(): value.decode("latin-1") for name, value in answer.fields}
        response: dict[str, Json] = {"status": answer.status, "headers": headers}
        if answer.message is not None:
            response["message"] = answer.message
        found["response"] = response
        return found
    service = services[match.route.id] or {}
    base = service.get("path")
    path = upstream_path(match, base.encode() if isinstance(base, str) else b"/").decode("latin-1")
    found["upstream_path"] = path
    if request.query is not None:
        found["upstream_uri"] = f"{path}?{request.query.decode('latin-1')}"
    found["captures"] = dict(match.captures) if match.captures is not None else None
    if match.matched_path is not None:
        found["matched"] = {"path": match.matched_path.decode("utf-8", "replace")}
    found["upstream_host"] = host_sent(match, service, request)
    return found


def host_sent(match: Match, service: Mapping[str, Json], request: Request) -> str | None:
    """Return the Host for an upstream without an Upstream entity, None when the vector names no service host."""
    protocol = str(service.get("protocol", "http"))
    port = service.get("port")
    if not isinstance(port, int):
        port = 443 if protocol in ("https", "grpcs") else 80
    name = service.get("host")
    if not isinstance(name, str) and not (match.route.preserve_host and request.host):
        return None
    return upstream_host(
        request.host, preserve=match.route.preserve_host, name=str(name), port=port, protocol=protocol
    ).decode("latin-1")


class Request:
    """A vector's request as the router gets it."""

    def __init__(self, body: Mapping[str, Json]) -> None:
        self.method = str(body.get("method", "GET")).encode()
        self.scheme = str(body.get("scheme", "http"))
        self.path = str(body.get("path", "/")).encode("utf-8", "surrogateescape")
        host = body.get("host")
        self.host = host.encode() if isinstance(host, str) else None
        query = body.get("query")
        self.query = query.encode() if isinstance(query, str) else None
        sni = body.get("sni")
        self.sni = sni.encode() if isinstance(sni, str) else None
        port = body.get("port")
        self.port = port if isinstance(port, int) else (443 if self.scheme == "https" else 80)
        self.http2 = str(body.get("http_version", "1.1")).startswith("2")
        self.headers: dict[str, list[bytes]] = {}
        for name, value in cast("dict[str, Json]", body.get("headers") or {}).items():
            lines = value if isinstance(value, list) else [value]
            self.headers.setdefault(name.lower().replace("_", "-"), []).extend(str(line).encode() for line in lines)
        self.content_type = next(iter(self.headers.get("content-type", ())), None)
        self.proto = self.scheme.encode()
        self.redirect_host = redirect_host(self.host or b"")
        if body.get("client_trusted"):
            self.proto = next(iter(self.headers.get("x-forwarded-proto", ())), self.proto)
            self.redirect_host = next(iter(self.headers.get("x-forwarded-host", ())), self.redirect_host)

    def match(self, router: Router) -> Match | None:
        """Ask the router."""
        return router.match(
            self.method,
            self.host,
            self.path,
            port=self.port,
            scheme=self.scheme,
            header_values=lambda name: self.headers.get(name, ()),
            sni=self.sni,
        )


def build(routes: Sequence[RouteConfig], flavour: str, previous: Router | None = None) -> Router:
    """Run the generator to its end."""
    return finish(build_router(routes, flavour=flavour, previous=previous))


def finish(steps: Generator[None, None, Router]) -> Router:
    """Run a build to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return cast(Router, stop.value)


def route_config(body: Mapping[str, Json]) -> RouteConfig:
    """Return a vector's route as the worker has it; what is not given has the entity's default."""

    def texts(name: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = body.get(name)
        return tuple(str(item) for item in value) if isinstance(value, list) else default

    def peers(name: str) -> tuple[PeerCondition, ...]:
        entries = cast("list[dict[str, Json]]", body.get(name) or [])
        return tuple(
            PeerCondition(cast("str | None", entry.get("ip")), cast("int | None", entry.get("port")))
            for entry in entries
        )

    def number(name: str, default: int) -> int:
        value = body.get(name)
        return value if isinstance(value, int) else default

    headers = cast("dict[str, list[str]]", body.get("headers") or {})
    return RouteConfig(
        id=str(body["id"]),
        name=str(body.get("name") or body["id"]),
        protocols=texts("protocols", ("http", "https")),
        methods=texts("methods"),
        hosts=texts("hosts"),
        paths=texts("paths"),
        headers=tuple(HeaderCondition(name, tuple(values)) for name, values in headers.items()),
        snis=texts("snis"),
        sources=peers("sources"),
        destinations=peers("destinations"),
        https_redirect_status_code=number("https_redirect_status_code", 426),
        regex_priority=number("regex_priority", 0),
        strip_path=body.get("strip_path") is not False,
        path_handling=str(body.get("path_handling") or "v0"),
        preserve_host=body.get("preserve_host") is True,
        service="service" if body.get("service") else "",
        created_at=number("created_at", 0),
    )
