"""The router equals a scan of all routes by the written precedence.

The scan below is the specification read literally (tuples, strings, one route after the other) and shares nothing with
the tables but RE2. Random tables draw from few values so that routes overlap, tie and shadow each other; a second build
on top of the first must be the same as one from nothing.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.model import HeaderCondition, RouteConfig
from data_plane.router import Router
from data_plane.router.candidate import SPLIT_NAMESPACE
from tests.conformance.router import build
from tests.support.examples import examples

HOSTS = ("a.com", "b.a.com", "*.a.com", "*.com", "a.*", "b.*", "a.com:80", "*.a.com:8080", "b.*:80", "*")
PATHS = (
    "/",
    "/a",
    "/a/b",
    "/a/b/c",
    "/b",
    "~/a",
    r"~/(?<x>[a-z])/b",
    r"~/a/\d+$",
    "~/a|/b",
    "~/[ab]+",
    "~.*c$",
    "~(?i)/A",
)
METHODS = ("GET", "POST", "PUT")
HEADERS = (
    HeaderCondition("x-one", ("1", "2")),
    HeaderCondition("X_One", ("1",)),
    HeaderCondition("x-two", ("~*^[ab]+$",)),
    HeaderCondition("x-two", ("A", "~*z")),
    HeaderCondition("x-three", ("3",)),
)
SNIS = ("s.com", "*.s.com", "t.*", "s.com.")


@dataclass(frozen=True)
class Asked:
    """A request as the scan sees it."""

    method: str
    host: str | None
    path: str
    scheme: str
    port: int
    sni: str | None
    headers: Mapping[str, Sequence[str]]


routes = st.builds(
    RouteConfig,
    id=st.uuids(version=4).map(str),
    protocols=st.sampled_from((("http", "https"), ("https",), ("http",), ("grpc", "grpcs"))),
    methods=st.lists(st.sampled_from(METHODS), max_size=2, unique=True).map(tuple),
    hosts=st.lists(st.sampled_from(HOSTS), max_size=3, unique=True).map(tuple),
    paths=st.lists(st.sampled_from(PATHS), max_size=4, unique=True).map(tuple),
    headers=st.lists(
        st.sampled_from(HEADERS), max_size=2, unique_by=lambda header: header.name.lower().replace("_", "-")
    ).map(tuple),
    snis=st.one_of(st.just(()), st.lists(st.sampled_from(SNIS), max_size=2, unique=True).map(tuple)),
    regex_priority=st.sampled_from((0, 0, 5, -5)),
    created_at=st.sampled_from((0, 1, 2)),
)
tables = st.lists(routes, max_size=14, unique_by=lambda route: route.id).map(
    lambda table: [replace(route, name=str(index)) for index, route in enumerate(table)]
)


requests = st.builds(
    Asked,
    method=st.sampled_from(METHODS),
    host=st.sampled_from(
        (None, "a.com", "A.COM", "b.a.com", "b.a.com:8080", "a.com:80", "x.com", "a.net", "b.org:81", "")
    ),
    path=st.sampled_from(("/", "/a", "/a/b", "/a/b/c", "/A", "/b", "/ab", "/a/12", "/a/12/x", "/x/b", "/c", "/b/b/c")),
    scheme=st.sampled_from(("http", "https")),
    port=st.sampled_from((80, 8080)),
    sni=st.sampled_from((None, "s.com", "x.s.com", "t.s.com", "u")),
    headers=st.fixed_dictionaries(
        {},
        optional={
            "x-one": st.sampled_from((("1",), ("2",), ("3", "1"), ("9",))),
            "x-two": st.sampled_from((("ab",), ("A",), ("q", "xzx"), ("q",))),
            "x-three": st.sampled_from((("3",), ("4",))),
        },
    ),
)


@settings(max_examples=examples(100), deadline=None)
@given(table=tables, other=tables, asked=st.lists(requests, min_size=1, max_size=12))
def test_the_router_equals_a_linear_scan(
    table: list[RouteConfig], other: list[RouteConfig], asked: list[Asked]
) -> None:
    fresh = build(table, "traditional_compatible")
    # A table that shares half of its routes with the former one, built on it, and back again.
    between = build(other + table[::2], "traditional_compatible", fresh)
    back = build(table, "traditional_compatible", between)
    for request in asked:
        expected = scan(table, request)
        assert answer(fresh, request) == expected
        assert answer(back, request) == expected
        assert answer(between, request) == scan(other + table[::2], request)


@settings(max_examples=examples(40), deadline=None)
@given(table=tables, asked=st.lists(requests, min_size=1, max_size=12))
def test_the_older_flavour_equals_a_linear_scan_by_its_own_precedence(
    table: list[RouteConfig], asked: list[Asked]
) -> None:
    router = build(table, "traditional")
    for request in asked:
        assert answer(router, request) == scan_traditional(table, request)


@settings(max_examples=examples(20), deadline=None)
@given(
    names=st.lists(st.sampled_from("abcdefgh"), min_size=30, max_size=150),
    asked=st.text(alphabet="abcdefgh/", max_size=6).map(lambda text: f"/{text}"),
)
def test_many_regexes_in_one_place_are_still_tried_in_order(names: list[str], asked: str) -> None:
    table = [
        RouteConfig(
            id=str(uuid.UUID(int=index * 7919)), name=str(index), paths=(f"~/(.*/)?{name}",), regex_priority=index % 3
        )
        for index, name in enumerate(names)
    ]
    request = Asked("GET", None, re.sub("/+", "/", asked), "http", 80, None, {})
    first = build(table, "traditional_compatible")
    second = build(table[1:], "traditional_compatible", first)
    assert answer(first, request) == scan(table, request)
    assert answer(second, request) == scan(table[1:], request)


def answer(router: Router, asked: Asked) -> tuple[str, str] | None:
    """The route's name and what of the path it matched, as the router says."""
    match = router.match(
        asked.method.encode(),
        asked.host.encode() if asked.host is not None else None,
        asked.path.encode(),
        port=asked.port,
        scheme=asked.scheme,
        header_values=lambda name: [line.encode() for line in asked.headers.get(name, ())],
        sni=asked.sni.encode() if asked.sni is not None else None,
    )
    return None if match is None else (match.route.name, (match.matched_path or b"").decode())


def scan(table: Sequence[RouteConfig], asked: Asked) -> tuple[str, str] | None:
    """The specification, read literally: every split route in the order of precedence, the first that matches."""
    entries = []
    for route in table:
        groups = split(route)
        for number, paths in enumerate(groups, start=1):
            tie = uuid.UUID(route.id)
            if len(groups) > 1:
                tie = uuid.uuid5(SPLIT_NAMESPACE, f"{route.id}#{number}")
            entries.append((precedence(route, paths, tie.int), route, paths))
    entries.sort(key=lambda entry: entry[0], reverse=True)
    put_off: tuple[str, str] | None = None
    for _, route, paths in entries:
        matched = path_of(paths, asked.path)
        if matched is None or not conditions_hold(route, asked):
            continue
        found = (route.name, matched)
        if asked.scheme == "http" and route.snis and not {"http", "grpc"} & set(route.protocols):
            put_off = put_off or found
            continue
        return found
    return put_off


def scan_traditional(table: Sequence[RouteConfig], asked: Asked) -> tuple[str, str] | None:
    """The same for flavour `traditional` (section 13): each path by itself, kinds weighed, age for ties."""
    entries = []
    for route in table:
        paths: Sequence[str | None] = [
            *(path for path in route.paths if path.startswith("~")),
            *(path for path in route.paths if not path.startswith("~")),
        ] or [None]
        for number, path in enumerate(paths, start=1):
            tie = uuid.UUID(route.id) if len(paths) == 1 else uuid.uuid5(SPLIT_NAMESPACE, f"{route.id}#{number}")
            entries.append((traditional_precedence(route, path, tie.int), route, path))
    entries.sort(key=lambda entry: entry[0], reverse=True)
    for _, route, path in entries:
        matched = path_of((path,), asked.path) if path is not None else ""
        if matched is not None and traditional_conditions_hold(route, asked):
            return route.name, matched
    return None


def traditional_precedence(route: RouteConfig, path: str | None, tie: int) -> tuple[int, ...]:
    kinds = {64: route.hosts, 32: route.headers, 16: route.paths, 8: route.methods, 4: route.snis}
    regex = path is not None and path.startswith("~")
    return (
        sum(bool(field) for field in kinds.values()),
        sum(weight for weight, field in kinds.items() if field),
        4 * any("*" in host and ":" in host for host in route.hosts)
        + 2 * (bool(route.hosts) and not any("*" in host for host in route.hosts))
        + regex,
        len(route.headers),
        route.regex_priority if regex else 0,
        len(path) if path is not None and not regex else 0,
        -route.created_at,
        tie,
    )


def traditional_conditions_hold(route: RouteConfig, asked: Asked) -> bool:
    if route.hosts:
        if asked.host is None:
            return False
        name, _, port = asked.host.partition(":")
        port = port or ("443" if asked.scheme == "https" else "80")
        for host in route.hosts:
            wanted, _, wanted_port = host.partition(":")
            begins, star, ends = wanted.partition("*")
            long_enough = not star or len(name) > len(begins) + len(ends)
            if wanted_port in ("", port) and long_enough and text_holds(wanted, name.lower()):
                break
        else:
            return False
    if route.snis and asked.scheme != "http" and asked.sni not in {sni.removesuffix(".") for sni in route.snis}:
        return False
    literal = replace(
        route,
        hosts=(),
        snis=(),
        headers=tuple(
            header
            if len(header.values) == 1
            else HeaderCondition(header.name, tuple(value for value in header.values if not value.startswith("~*")))
            for header in route.headers
        ),
    )
    return conditions_hold(literal, asked)


def split(route: RouteConfig) -> list[tuple[str, ...]]:
    """All regexes are one group, prefixes one for each length in the order of appearance."""
    if not route.paths:
        return [()]
    regexes = tuple(path for path in route.paths if path.startswith("~"))
    lengths: dict[int, tuple[str, ...]] = {}
    for path in route.paths:
        if not path.startswith("~"):
            lengths[len(path)] = (*lengths.get(len(path), ()), path)
    return ([regexes] if regexes else []) + list(lengths.values())


def precedence(route: RouteConfig, paths: tuple[str, ...], tie: int) -> tuple[int, ...]:
    """What is compared, from the top, larger first."""
    regex = bool(paths) and paths[0].startswith("~")
    return (
        sum(bool(field) for field in (route.methods, route.hosts, route.headers, route.snis, route.paths)),
        int(bool(route.hosts) and all("*" not in host for host in route.hosts)),
        len(route.headers),
        int(regex),
        route.regex_priority if regex else 0,
        len(paths[0]) if paths and not regex else 0,
        tie,
    )


def path_of(paths: tuple[str, ...], path: str) -> str | None:
    if not paths:
        return ""
    for pattern in paths:
        if pattern.startswith("~"):
            found = re2.match(f"^(?:{pattern[1:].replace('(?<', '(?P<')})", path)
            if found is not None:
                return str(found.group(0))
        elif path.startswith(pattern):
            return pattern
    return None


def conditions_hold(route: RouteConfig, asked: Asked) -> bool:
    if route.methods and asked.method not in route.methods:
        return False
    if route.hosts and (asked.host is None or not any(host_holds(host, asked) for host in route.hosts)):
        return False
    if route.snis and asked.scheme == "https":
        name = asked.sni
        if name is None or not any(text_holds(sni.removesuffix("."), name) for sni in route.snis):
            return False
    for header in route.headers:
        lines = [line.lower() for line in asked.headers.get(header.name.lower().replace("_", "-"), ())]
        if not any(value_holds(value, line) for value in header.values for line in lines):
            return False
    return True


def value_holds(value: str, line: str) -> bool:
    if value.startswith("~*"):
        return re2.search("(?i)" + value[2:], line) is not None
    return value.lower() == line


def host_holds(value: str, asked: Asked) -> bool:
    assert asked.host is not None
    name, _, port = asked.host.partition(":")
    wanted, _, wanted_port = value.partition(":")
    if wanted_port and int(wanted_port) != (int(port) if port else asked.port):
        return False
    return text_holds(wanted, name.lower())


def text_holds(pattern: str, text: str) -> bool:
    if pattern.startswith("*"):
        return text.endswith(pattern[1:])
    if pattern.endswith("*"):
        return text.startswith(pattern[:-1])
    return text == pattern
