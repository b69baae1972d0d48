"""What of a request decides its place on the ring: Kong's `hash_on` and `hash_fallback`, as a pure function.

A value that is present but empty counts as present. Without any input the key is empty: all such requests then share
one endpoint, as in Kong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from data_plane.model import UpstreamConfig
from pointsman.rules.paths import normalise

ARGUMENTS_MAX = 100
"""How many query arguments are looked at, as in Kong."""


@dataclass(frozen=True, slots=True)
class HashFacts:
    """What hashing may ask about a request.

    `header_values` takes a lower-case name with `-`; `path` is the raw path and `query` what follows the `?`;
    `captures` are the route's; `consumer` is the authenticated one's id, or else its credential's.
    """

    client_ip: str
    header_values: Callable[[str], Sequence[bytes]]
    path: bytes
    query: bytes
    captures: Mapping[str, str]
    consumer: str = ""


@dataclass(frozen=True, slots=True)
class HashInput:
    """The key, and the Set-Cookie value that goes with it when the key was made up for a client without the cookie."""

    key: bytes
    set_cookie: bytes | None = None


def hash_input(config: UpstreamConfig, facts: HashFacts, *, make_id: Callable[[], str]) -> HashInput:
    """Return the key of a request; `make_id` gives a new random id for a cookie that is not there yet."""
    for kind, header, argument, capture in (
        (config.hash_on, config.hash_on_header, config.hash_on_query_arg, config.hash_on_uri_capture),
        (
            config.hash_fallback,
            config.hash_fallback_header,
            config.hash_fallback_query_arg,
            config.hash_fallback_uri_capture,
        ),
    ):
        if kind == "cookie":
            return _cookie_input(config, facts, make_id)
        key = _value(kind, facts, header=header, argument=argument, capture=capture)
        if key is not None:
            return HashInput(key)
    return HashInput(b"")


def input_value(kind: str, name: str, facts: HashFacts) -> bytes | None:
    """Return what `hash_on: kind` takes of a request, None when it is not there; a cookie is never made up."""
    if kind == "cookie":
        return cookie_value(facts.header_values("cookie"), name.encode())
    return _value(kind, facts, header=name, argument=name, capture=name)


def cookie_value(lines: Sequence[bytes], name: bytes) -> bytes | None:
    """Return the first cookie of that name in the Cookie fields, None when there is none."""
    for line in lines:
        for pair in line.split(b";"):
            key, equals, value = pair.strip().partition(b"=")
            if equals and key == name:
                return value
    return None


def _value(kind: str, facts: HashFacts, *, header: str, argument: str, capture: str) -> bytes | None:
    if kind == "ip":
        return facts.client_ip.encode()
    if kind == "header":
        lines = facts.header_values(header.lower().replace("_", "-"))
        return b", ".join(lines) if lines else None
    if kind == "path":
        return _plain_path(facts.path)
    if kind == "query_arg":
        return _argument(facts.query, argument.encode())
    if kind == "uri_capture":
        text = facts.captures.get(capture)
        return None if text is None else text.encode()
    if kind == "consumer":
        return facts.consumer.encode() or None
    return None


def _plain_path(raw: bytes) -> bytes:
    """Decode everything, merge slashes and resolve dots; unlike the router's form, reserved escapes are decoded too."""
    # What is decoded already must not be decoded again by the dot segments' rule.
    return normalise(unquote_to_bytes(raw).replace(b"%", b"%25")).replace(b"%25", b"%")


def _argument(query: bytes, name: bytes) -> bytes | None:
    values = []
    for piece in query.split(b"&", ARGUMENTS_MAX)[:ARGUMENTS_MAX]:
        key, equals, value = piece.partition(b"=")
        if _decoded(key) == name and key:
            values.append(_decoded(value) if equals else b"true")
    return b",".join(sorted(values)) if values else None


def _decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" "))


def _cookie_input(config: UpstreamConfig, facts: HashFacts, make_id: Callable[[], str]) -> HashInput:
    name = config.hash_on_cookie.encode()
    value = cookie_value(facts.header_values("cookie"), name)
    if value is not None:
        return HashInput(value)
    made = make_id().encode()
    path = (config.hash_on_cookie_path or "/").encode()
    # Kong writes `Same-Site`, which no browser knows.
    return HashInput(made, b"%s=%s; Path=%s; SameSite=Lax; HttpOnly" % (name, made, path))
