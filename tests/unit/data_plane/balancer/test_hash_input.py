"""What a request is hashed by, for each `hash_on` and `hash_fallback`; the expectations are Kong's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from data_plane.balancer import HashFacts, HashInput, hash_input
from data_plane.model import UpstreamConfig

CONFIG = UpstreamConfig(id="u", name="u", algorithm="consistent-hashing")


def facts(
    target: bytes = b"/",
    *,
    headers: Mapping[str, Sequence[bytes]] | None = None,
    captures: Mapping[str, str] | None = None,
    consumer: str = "",
) -> HashFacts:
    path, _, query = target.partition(b"?")
    lines = headers or {}
    return HashFacts(
        client_ip="10.0.0.9",
        header_values=lambda name: lines.get(name, ()),
        path=path,
        query=query,
        captures=captures or {},
        consumer=consumer,
    )


def made(config: UpstreamConfig, asked: HashFacts) -> HashInput:
    return hash_input(config, asked, make_id=lambda: "fresh")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/my-path", b"/my-path"),
        (b"/my-path?a=1&b=2", b"/my-path"),
        (b"/root/../%2e/root///././%2F.subdir/../.subdir/./%28%29", b"/root/.subdir/()"),
        (b"/a%2541", b"/a%41"),
    ],
)
def test_path(target: bytes, expected: bytes) -> None:
    assert made(replace(CONFIG, hash_on="path"), facts(target)).key == expected


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/?foo=123", b"123"),
        (b"/", b""),
        (b"/?foo", b"true"),
        (b"/?foo=", b""),
        (b"/?foo=b&foo=a&foo=c", b"a,b,c"),
        (b"/?foo&foo&", b"true,true"),
        (b"/?foo=s&foo&foo=1&foo=", b",1,s,true"),
        (b"/?f%6Fo=x%20y", b"x y"),
        (b"/?" + b"a=1&" * 100 + b"foo=late", b""),
    ],
)
def test_query_argument(target: bytes, expected: bytes) -> None:
    config = replace(CONFIG, hash_on="query_arg", hash_on_query_arg="foo")
    assert made(config, facts(target)).key == expected


def test_an_empty_argument_counts_as_present() -> None:
    config = replace(CONFIG, hash_on="query_arg", hash_on_query_arg="foo", hash_fallback="ip")
    assert made(config, facts(b"/?foo=")).key == b""
    assert made(config, facts(b"/?bar=")).key == b"10.0.0.9"


def test_repeated_headers_are_one_value() -> None:
    config = replace(CONFIG, hash_on="header", hash_on_header="X_LB-Hash")
    assert made(config, facts(headers={"x-lb-hash": (b"1st value", b"2nd value")})).key == b"1st value, 2nd value"


def test_fallbacks() -> None:
    config = replace(CONFIG, hash_on="header", hash_on_header="x-none", hash_fallback="path")
    assert made(config, facts(b"/my-path?a=1")).key == b"/my-path"
    config = replace(
        CONFIG,
        hash_on="query_arg",
        hash_on_query_arg="hashme",
        hash_fallback="uri_capture",
        hash_fallback_uri_capture="namespace",
    )
    assert made(config, facts(b"/x/1?a=1", captures={"namespace": "my-namespace"})).key == b"my-namespace"
    assert made(config, facts(b"/x/1?a=1")).key == b""


def test_consumer_and_nothing() -> None:
    config = replace(CONFIG, hash_on="consumer", hash_fallback="ip")
    assert made(config, facts(consumer="c-1")).key == b"c-1"
    assert made(config, facts()).key == b"10.0.0.9"
    assert made(CONFIG, facts()) == HashInput(b"")


def test_a_cookie_is_made_once_and_hashed_at_once() -> None:
    config = replace(CONFIG, hash_on="cookie", hash_on_cookie="sid", hash_on_cookie_path="/shop")
    first = made(config, facts(headers={"cookie": (b"other=1; xsid=2",)}))
    assert first.key == b"fresh"
    assert first.set_cookie == b"sid=fresh; Path=/shop; SameSite=Lax; HttpOnly"
    again = made(config, facts(headers={"cookie": (b"other=1; sid=fresh",)}))
    assert again == HashInput(b"fresh")
    assert made(config, facts(headers={"cookie": (b"sid=",)})) == HashInput(b"")


def test_a_fallback_cookie_is_only_made_when_needed() -> None:
    config = replace(CONFIG, hash_on="header", hash_on_header="x-key", hash_fallback="cookie", hash_on_cookie="sid")
    assert made(config, facts(headers={"x-key": (b"v",)})) == HashInput(b"v")
    assert made(config, facts()).set_cookie == b"sid=fresh; Path=/; SameSite=Lax; HttpOnly"
