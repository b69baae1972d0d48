"""What a request matches: the fields one by one, then how routes rank. Requests are bytes as they come off the wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from data_plane.model import HeaderCondition, RouteConfig
from data_plane.router import TRADITIONAL, TRADITIONAL_COMPATIBLE, BadRoute, Match, Router
from tests.conformance.router import build


def identity(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012d}"


def router(*routes: RouteConfig, flavour: str = TRADITIONAL_COMPATIBLE) -> Router:
    return build(routes, flavour)


def match(
    table: Router,
    path: bytes = b"/",
    *,
    host: bytes | None = b"example.com",
    method: bytes = b"GET",
    scheme: str = "http",
    port: int = 80,
    sni: bytes | None = None,
    headers: Mapping[str, Sequence[bytes]] | None = None,
) -> Match | None:
    lines = headers or {}
    return table.match(
        method, host, path, port=port, scheme=scheme, header_values=lambda name: lines.get(name, ()), sni=sni
    )


def name_of(found: Match | None) -> str | None:
    return None if found is None else found.route.name


@pytest.mark.parametrize(
    ("value", "host", "expected"),
    [
        ("example.com", b"EXAMPLE.com", True),
        ("Example.COM", b"example.com:9999", True),
        ("example.com", b"example.com.", False),
        ("*.example.com", b"x.y.example.com", True),
        ("*.example.com", b"example.com", False),
        ("api.*", b"api.", True),
        ("example.com:8080", b"example.com:8080", True),
        ("example.com:8080", b"example.com", False),
        ("example.com:80", b"example.com", True),
        ("*.example.com:8080", b"a.example.com:8080", True),
        ("*.example.com:8080", b"a.example.com:80", False),
        ("example.com", None, False),
        ("[::1]", b"[::1]", True),
    ],
)
def test_hosts(value: str, host: bytes | None, *, expected: bool) -> None:
    table = router(RouteConfig(id=identity(1), hosts=(value,)))
    assert (match(table, host=host) is not None) is expected


def test_the_listeners_port_counts_only_when_the_host_names_none() -> None:
    table = router(RouteConfig(id=identity(1), hosts=("example.com:8000",)))
    assert match(table, host=b"example.com", port=8000) is not None
    assert match(table, host=b"example.com:80", port=8000) is None


def test_a_path_that_is_not_utf8_matches_nothing() -> None:
    table = router(RouteConfig(id=identity(1), paths=("/",)))
    assert match(table, b"/%ff") is None
    assert match(table, b"/\xc3\xa9") is not None


def test_methods_are_case_sensitive() -> None:
    table = router(RouteConfig(id=identity(1), methods=("GET",)))
    assert match(table, method=b"get") is None


def test_all_header_names_must_match_by_any_of_their_values() -> None:
    route = RouteConfig(
        id=identity(1),
        headers=(HeaderCondition("X_Version", ("V1", "v2")), HeaderCondition("x-mobile", ("~*^(android|ios)",))),
    )
    table = router(route)
    assert table.header_names == {"x-version", "x-mobile"}
    assert match(table, headers={"x-version": (b"v1",), "x-mobile": (b"none", b"iOS 9")}) is not None
    assert match(table, headers={"x-version": (b"v1, v2",), "x-mobile": (b"ios",)}) is None
    assert match(table, headers={"x-version": (b"v1",)}) is None


def test_a_header_regex_keeps_its_classes() -> None:
    table = router(RouteConfig(id=identity(1), headers=(HeaderCondition("x-id", (r"~*^\D+$",)),)))
    assert match(table, headers={"x-id": (b"abc",)}) is not None
    assert match(table, headers={"x-id": (b"123",)}) is None


def test_every_branch_of_an_alternation_is_anchored() -> None:
    table = router(RouteConfig(id=identity(1), paths=("~/foo|/bar",)))
    assert match(table, b"/bar/x") is not None
    assert match(table, b"/x/bar") is None


def test_captures_are_numbered_and_named_and_come_from_the_path_only() -> None:
    route = RouteConfig(
        id=identity(1),
        paths=(r"~/(users/)?(?<id>\w+)/(x?)",),
        headers=(HeaderCondition("x-t", ("~*(t)",)),),
    )
    found = match(router(route), b"/caf%c3%a9/y", headers={"x-t": (b"t",)})
    assert found is None  # \w is ASCII
    found = match(router(route), b"/ab/y", headers={"x-t": (b"t",)})
    assert found is not None
    assert found.captures == {"2": "ab", "id": "ab", "3": ""}
    assert found.matched_path == b"/ab/"


def test_a_bad_regex_names_the_route_and_the_field() -> None:
    with pytest.raises(BadRoute, match=r"route r: paths: `~/\(` is no valid regex") as caught:
        router(RouteConfig(id=identity(1), name="r", paths=("~/(",)))
    assert caught.value.field == "paths"
    with pytest.raises(BadRoute, match=r"headers\.x-a"):
        router(RouteConfig(id=identity(1), name="r", headers=(HeaderCondition("X-A", ("~*[",)),)))


def test_an_sni_is_asked_for_on_tls_only() -> None:
    table = router(RouteConfig(id=identity(1), name="s", snis=("a.com", "*.b.com")))
    assert match(table, scheme="https", sni=b"a.com") is not None
    assert match(table, scheme="https", sni=b"x.b.com") is not None
    assert match(table, scheme="https", sni=b"c.com") is None
    assert match(table, scheme="https", sni=None) is None
    assert match(table, scheme="http") is not None
    assert table.sni_matters


def test_a_tls_only_route_with_an_sni_takes_plain_requests_only_when_nothing_else_does() -> None:
    secure = RouteConfig(id=identity(1), name="secure", protocols=("https",), snis=("a.com",), paths=("/",))
    plain = RouteConfig(id=identity(2), name="plain", paths=("/",))
    assert name_of(match(router(secure, plain))) == "plain"
    assert name_of(match(router(secure))) == "secure"


def test_stream_routes_are_no_http_routes() -> None:
    assert match(router(RouteConfig(id=identity(1), protocols=("tcp",), snis=("a.com",)))) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (RouteConfig(id=identity(1), methods=("GET",), paths=("/a",)), RouteConfig(id=identity(2), hosts=("h",))),
        (RouteConfig(id=identity(1), hosts=("h",)), RouteConfig(id=identity(2), paths=("/aaaaaaa",))),
        (RouteConfig(id=identity(1), hosts=("h",)), RouteConfig(id=identity(2), hosts=("h", "*.x"))),
        (
            RouteConfig(id=identity(1), headers=(HeaderCondition("a", ("1",)), HeaderCondition("b", ("1",)))),
            RouteConfig(id=identity(2), paths=("~/aaaaaaa",), regex_priority=9),
        ),
        (RouteConfig(id=identity(1), paths=("~/a",)), RouteConfig(id=identity(2), paths=("/aaaaaaa",))),
        (
            RouteConfig(id=identity(1), paths=("~/a",), regex_priority=1),
            RouteConfig(id=identity(2), paths=("~/aaaaaaa",)),
        ),
        (
            RouteConfig(id=identity(1), paths=("~/a",)),
            RouteConfig(id=identity(2), paths=("~/aaaaaaa",), regex_priority=-1),
        ),
        (RouteConfig(id=identity(1), paths=("/aaaaaaa",)), RouteConfig(id=identity(2), paths=("/aaa",))),
        (RouteConfig(id=identity(2), paths=("/a",)), RouteConfig(id=identity(1), paths=("/a",))),
    ],
)
def test_what_goes_before_what(first: RouteConfig, second: RouteConfig) -> None:
    for routes in ((first, second), (second, first)):
        found = match(router(*routes), b"/aaaaaaa", host=b"h", headers={"a": (b"1",), "b": (b"1",)})
        assert found is not None
        assert found.route is first


def test_each_prefix_length_of_a_route_ranks_on_its_own() -> None:
    many = RouteConfig(id=identity(1), name="many", paths=("/x", "/x/y/z", r"~/x/\d+"))
    other = RouteConfig(id=identity(2), name="other", paths=("/x/y",))
    table = router(many, other)
    assert name_of(match(table, b"/x/y/z")) == "many"
    assert name_of(match(table, b"/x/y/q")) == "other"
    assert name_of(match(table, b"/x/1")) == "many"


def test_traditional_breaks_ties_by_age_and_knows_no_sni_wildcards() -> None:
    old = RouteConfig(id=identity(1), name="old", paths=("/a",), created_at=1)
    new = RouteConfig(id=identity(2), name="new", paths=("/a",), created_at=2)
    assert name_of(match(router(new, old, flavour=TRADITIONAL), b"/a")) == "old"
    table = router(RouteConfig(id=identity(1), snis=("*.b.com",)), flavour=TRADITIONAL)
    assert match(table, scheme="https", sni=b"x.b.com") is None


def test_a_star_of_traditional_stands_for_something() -> None:
    table = router(RouteConfig(id=identity(1), hosts=("api.*",)), flavour=TRADITIONAL)
    assert match(table, host=b"api.") is None
    assert match(table, host=b"api.x:99") is not None


def test_regexes_too_large_for_one_automaton_are_split_and_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_plane.router.table._SET_BYTES_MAX", 96 << 10)
    routes = [RouteConfig(id=f"{number:032x}", paths=(f"~/.*/x{number}/[a-z]{{1,20}}$",)) for number in range(100)]
    router = build(routes, TRADITIONAL_COMPATIBLE)
    assert router.hosts.any_host is not None
    leaf = router.hosts.any_host.entries[b"/"]
    assert leaf.chunks is not None
    assert len(leaf.chunks) > 4, "a test of splitting needs regexes that don't fit"
    for number in range(100):
        match = router.match(
            b"GET", None, b"/a/x%d/abc" % number, port=80, scheme="http", header_values=lambda name: ()
        )
        assert match is not None
        assert match.route is routes[number]
