"""Whether what came through our node is what came through the recorded gateway.

Request ids, latencies, dates and version numbers differ by nature, and so do lengths that follow from them. Header
lines are compared as a set with counts: their order means nothing between different names.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Pairs = tuple[tuple[str, str], ...]

_REQUEST_ID = re.compile(r"\b[0-9a-f]{32}\b")
_UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_PRODUCT = re.compile(r"\bkong/[0-9.]+")
_BY_NATURE = frozenset({"date", "content-length"})
_ABSENT = "(absent)"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it came through the gateway. Status 0 = the connection ended without one."""

    status: int
    headers: Pairs
    text: str


def differences(recorded: Answer, ours: Answer, *, head: bool) -> list[str]:
    """What differs; empty = the same. `head` = the request was HEAD, which has a length and no body."""
    if recorded.status != ours.status:
        return [f"status {recorded.status} expected, {ours.status} came: {ours.text[:300]}"]
    found = _header_differences("header", recorded.headers, ours.headers)
    length = {name.lower(): value for name, value in ours.headers}.get("content-length")
    if not head and length is not None and int(length) != len(ours.text.encode("latin-1")):
        found.append(f"header content-length: {length} for {len(ours.text)} octets")
    return found + _body_differences(recorded.text, ours.text)


def _header_differences(what: str, recorded: Pairs, ours: Pairs) -> list[str]:
    expected, came = _lines(recorded), _lines(ours)
    return [
        f"{what} {name}: {_values(expected, name)} expected, {_values(came, name)} came"
        for name in sorted({name for name, _ in (expected - came) + (came - expected)})
    ]


def _lines(headers: Pairs) -> Counter[tuple[str, str]]:
    return Counter((name.lower(), _equal_value(name.lower(), value)) for name, value in headers)


def _equal_value(name: str, value: str) -> str:
    if name in _BY_NATURE:
        return "*"
    if name.endswith("-latency"):
        return "number" if value.isdigit() else value
    return _equal_text(value.strip())


def _equal_text(text: str) -> str:
    return _PRODUCT.sub("kong/*", _UUID.sub("<uuid>", _REQUEST_ID.sub("<id>", text)))


def _values(lines: Counter[tuple[str, str]], name: str) -> str:
    return ", ".join(repr(value) for key, value in sorted(lines.elements()) if key == name) or _ABSENT


def _body_differences(recorded: str, ours: str) -> list[str]:
    expected, came = _echo(recorded), _echo(ours)
    if expected is None or came is None:
        return [] if _equal_body(recorded) == _equal_body(ours) else [f"body: {recorded!r} expected, {ours!r} came"]
    found = [
        f"upstream {key}: {expected.get(key)!r} expected, {came.get(key)!r} came"
        for key in sorted(expected.keys() | came.keys())
        if key != "headers" and expected.get(key) != came.get(key)
    ]
    return found + _header_differences("upstream header", _pairs(expected["headers"]), _pairs(came["headers"]))


def _equal_body(text: str) -> Json:
    equal = _equal_text(text)
    body = parsed(equal)
    return equal.strip() if body is None else body


def _echo(text: str) -> Mapping[str, Json] | None:
    """What an upstream server says it got; None when the gateway answered itself."""
    body = parsed(text)
    return body if isinstance(body, dict) and isinstance(body.get("headers"), list) else None


def _pairs(headers: Json) -> Pairs:
    assert isinstance(headers, list)
    return tuple((str(pair[0]), str(pair[1])) for pair in headers if isinstance(pair, list))


def parsed(text: str) -> Json:
    """The JSON of a text; None when it is none."""
    try:
        body: Json = json.loads(text)
    except ValueError:
        return None
    return body


def dist_differences(algorithm: str, recorded: Mapping[str, int], ours: Mapping[str, int]) -> list[str]:
    """Exact, except that it is open to which one port a hashed key leads."""
    if algorithm == "consistent-hashing":
        same = len(ours) == len(recorded) == 1 and set(ours.values()) == set(recorded.values())
    else:
        same = dict(ours) == dict(recorded)
    return [] if same else [f"dist ({algorithm}): {_sorted(recorded)} expected, {_sorted(ours)} came"]


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def mapped(text: str, ports: Iterable[tuple[int, int]]) -> str:
    """The text with each first port of a pair made the second, where it stands as a number of its own."""
    table = {str(old): str(new) for old, new in ports}
    return re.sub(r"(?<![\w.])\d{4,5}(?![\w.])", lambda found: table.get(found[0], found[0]), text)
