"""What follows from a match for the upstream: path, Host, and the answers of a wrong protocol.

The full table of path joining is in the conformance vectors; here are the rules that a reader would tend to simplify.
"""

from __future__ import annotations

import pytest

from data_plane.model import RouteConfig
from data_plane.router import (
    Match,
    host_with_port,
    protocol_answer,
    redirect_host,
    upstream_host,
    upstream_path,
)


def joined(base: bytes, request: bytes, matched: bytes | None, *, strip: bool = True, v1: bool = False) -> bytes:
    route = RouteConfig(id="r", strip_path=strip)
    return upstream_path(Match(route, request, matched_path=matched, captures=None, joins_v1=v1), base)


@pytest.mark.parametrize(
    ("base", "request_path", "matched", "expected"),
    [
        (b"/", b"/route", b"/route", b"/"),
        (b"/s", b"/route/", b"/route", b"/s/"),
        (b"/s/", b"/route", b"/route", b"/s"),
        (b"/s/", b"/routereq", b"/route", b"/s/req"),
        (b"/s", b"/route../req", b"/route", b"/s/req"),
        (b"/s", b"/route..", b"/route", b"/s"),
        (b"/s", b"/", None, b"/s"),
        (b"", b"/a b", None, b"/a%20b"),
    ],
)
def test_stripped(base: bytes, request_path: bytes, matched: bytes | None, expected: bytes) -> None:
    assert joined(base, request_path, matched) == expected


def test_not_stripped_joins_with_one_slash() -> None:
    assert joined(b"/s/", b"/r", None, strip=False) == b"/s/r"
    assert joined(b"/s", b"/", None, strip=False) == b"/s"
    assert joined(b"/s", b"/r\xc3\xa9", None, strip=False) == b"/s/r%C3%A9"


def test_v1_inserts_no_slash() -> None:
    assert joined(b"/s", b"/rq", b"/r", v1=True) == b"/sq"
    assert joined(b"/s", b"/rq", None, strip=False, v1=True) == b"/srq"


@pytest.mark.parametrize(
    ("name", "port", "protocol", "expected"),
    [
        ("up", 80, "http", "up"),
        ("up", 8080, "http", "up:8080"),
        ("up", 443, "https", "up"),
        ("up", 80, "https", "up:80"),
        ("up", 443, "grpcs", "up"),
        ("::1", 8080, "http", "[::1]:8080"),
        ("::1", 80, "http", "[::1]"),
        ("[::1]", 8080, "http", "[::1]:8080"),
        ("up:9", 8080, "http", "up:9"),
    ],
)
def test_host_with_port(name: str, port: int, protocol: str, expected: str) -> None:
    assert host_with_port(name, port, protocol) == expected


def test_a_preserved_host_is_verbatim_and_needs_the_clients() -> None:
    assert upstream_host(b"A.com:8000", preserve=True, name="up", port=81, protocol="http") == b"A.com:8000"
    assert upstream_host(None, preserve=True, name="up", port=81, protocol="http") == b"up:81"
    assert upstream_host(b"A.com", preserve=False, name="up", port=80, protocol="http") == b"up"


def status(route: RouteConfig, proto: bytes, *, http2: bool = False, content_type: bytes | None = None) -> int | None:
    answer = protocol_answer(route, proto, http2=http2, content_type=content_type, host=b"h", target=b"/x?y=1")
    return None if answer is None else answer.status


def test_https_only_refuses_or_redirects_plain_requests() -> None:
    route = RouteConfig(id="r", protocols=("https",))
    assert status(route, b"http") == 426
    assert status(route, b"https") is None
    moved = RouteConfig(id="r", protocols=("https",), https_redirect_status_code=308)
    answer = protocol_answer(moved, b"http", http2=False, content_type=None, host=b"h", target=b"/x?y=1")
    assert answer is not None
    assert (answer.status, answer.message) == (308, None)
    assert answer.fields == ((b"Location", b"https://h/x?y=1"),)


def test_http_only_serves_https() -> None:
    assert status(RouteConfig(id="r", protocols=("http",)), b"https") is None


def test_grpc_routes_want_grpc_over_http2_and_grpcs_over_tls() -> None:
    either = RouteConfig(id="r", protocols=("grpc", "grpcs"))
    assert status(either, b"http", content_type=b"application/grpc") == 426
    assert status(either, b"http", http2=True, content_type=b"application/json") == 415
    assert status(either, b"http") == 415
    assert status(either, b"http", http2=True, content_type=b"application/grpc+proto") is None
    only = RouteConfig(id="r", protocols=("grpcs",))
    assert status(only, b"http", http2=True, content_type=b"application/grpc") == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [(b"A.com:8000", b"a.com"), (b"a.com", b"a.com"), (b"[::1]", b"[::1]"), (b"[::1]:8", b"[::1]")],
)
def test_redirect_host(host: bytes, expected: bytes) -> None:
    assert redirect_host(host) == expected
