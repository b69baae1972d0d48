"""A route made ready for matching: its conditions as tests on bytes, and its rank.

A route with several paths becomes several candidates, each ranked on its own (Kong does the same): one for all its
regexes together and one for each prefix length; in flavour `traditional`, one for each path. A candidate never changes,
so tables of different versions share it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import re2

from data_plane.flavours import TRADITIONAL
from data_plane.model import HeaderCondition, RouteConfig
from data_plane.router.rank import rank_compatible, rank_traditional
from data_plane.values import value
from pointsman.rules.regexes import BadRegex, compile_header_regex, compile_path_regex

# Ours: it decides nothing but the order of split routes that tie in everything else, alike on all nodes.
SPLIT_NAMESPACE = uuid.UUID("6f0d5f0e-3c39-5d0a-9c55-0f5d0a4f1b77")

_LITERAL_BYTES_MAX = 128
_IDENTITY_MASK = (1 << 128) - 1
_HTTP_PROTOCOLS = frozenset({"http", "https", "grpc", "grpcs", "ws", "wss"})
_PLAIN_PROTOCOLS = frozenset({"http", "grpc", "ws"})
_NONE: frozenset[bytes] = frozenset()


class BadRoute(ValueError):
    """A route that cannot be matched by; says which field and why."""

    def __init__(self, route: RouteConfig, field: str, message: str) -> None:
        super().__init__(f"route {route.name or route.id}: {field}: {message}")
        self.route = route
        self.field = field
        self.message = message


class BytesMatch(Protocol):
    """What RE2 tells of a match in bytes."""

    def groups(self) -> tuple[bytes | None, ...]: ...
    def end(self, index: int = 0, /) -> int: ...


class BytesPattern(Protocol):
    """A compiled pattern as it is used here: RE2 reads bytes as UTF-8, and is far quicker on them than on text."""

    @property
    def groups(self) -> int: ...
    @property
    def groupindex(self) -> dict[str, int]: ...
    def match(self, text: bytes, /) -> BytesMatch | None: ...
    def search(self, text: bytes, /) -> BytesMatch | None: ...
    def possiblematchrange(self, maxlen: int, /) -> tuple[bytes, bytes]: ...


@value
class PathRegex:
    """A regex path. Whatever it matches begins with `literal`, by which it is filed."""

    expression: str
    pattern: BytesPattern
    literal: bytes


@value
class HostPattern:
    """One value of `hosts` in lower case. `text` is the whole name, its end or its start; `port` 0 = any.

    `margin` is how many characters a star must stand for at least: none, but one in flavour `traditional`.
    """

    text: bytes
    kind: str
    port: int
    margin: int

    def holds(self, name: bytes, port: int) -> bool:
        if self.port not in (0, port):
            return False
        if self.kind == PLAIN:
            return name == self.text
        if len(name) < len(self.text) + self.margin:
            return False
        return name.endswith(self.text) if self.kind == ENDS else name.startswith(self.text)


PLAIN = "plain"
ENDS = "ends"
STARTS = "starts"


@value
class HeaderTest:
    """One header a route asks for: name with `-`, values in lower case, and regexes searched for in any value."""

    name: str
    values: frozenset[bytes]
    patterns: tuple[BytesPattern, ...]

    def holds(self, lines: Sequence[bytes]) -> bool:
        """Tell whether one of the lower-cased lines is among the values or is matched."""
        return any(
            line in self.values or any(pattern.search(line) is not None for pattern in self.patterns) for line in lines
        )


@value
class SniPattern:
    """One value of `snis`, compared as it is written."""

    text: bytes
    kind: str

    def holds(self, name: bytes) -> bool:
        if self.kind == PLAIN:
            return name == self.text
        return name.endswith(self.text) if self.kind == ENDS else name.startswith(self.text)


class Facts:
    """What is asked about one request. Headers are read at most once each, and only if a candidate asks."""

    __slots__ = ("_header_values", "_lines", "encrypted", "has_host", "method", "name", "path", "port", "sni")

    def __init__(
        self,
        *,
        method: bytes,
        name: bytes | None,
        port: int,
        path: bytes,
        encrypted: bool,
        sni: bytes | None,
        header_values: Callable[[str], Sequence[bytes]],
    ) -> None:
        self.method = method
        self.has_host = name is not None
        self.name = name or b""
        self.port = port
        self.path = path
        self.encrypted = encrypted
        self.sni = sni
        self._header_values = header_values
        self._lines: dict[str, tuple[bytes, ...]] = {}

    def lines(self, name: str) -> tuple[bytes, ...]:
        """Return the values of a header in lower case, one a line."""
        lines = self._lines.get(name)
        if lines is None:
            lines = self._lines[name] = tuple(line.lower() for line in self._header_values(name))
        return lines


class Candidate:
    """One entry of the order in which routes are tried: larger `rank` first, and no two are equal in a table.

    `prefixes` have one length; a candidate has prefixes, or regexes, or neither. `deferred` marks routes for TLS only
    that ask for an SNI: on a plain connection they are used only when nothing else matches, to be answered with 426 or
    a redirect. `simple` candidates need no more than the host and path by which they are filed.
    """

    __slots__ = (
        "checks_hosts",
        "deferred",
        "headers",
        "hosts",
        "methods",
        "prefixes",
        "rank",
        "regexes",
        "route",
        "simple",
        "snis",
    )

    def __init__(
        self,
        route: RouteConfig,
        *,
        rank: int,
        methods: frozenset[bytes],
        hosts: tuple[HostPattern, ...],
        headers: tuple[HeaderTest, ...],
        snis: tuple[SniPattern, ...],
        prefixes: tuple[bytes, ...],
        regexes: tuple[PathRegex, ...],
        deferred: bool,
    ) -> None:
        self.route = route
        self.rank = rank
        self.methods = methods
        self.hosts = hosts
        self.headers = headers
        self.snis = snis
        self.prefixes = prefixes
        self.regexes = regexes
        self.deferred = deferred
        # Being filed under a host proves it, unless a port or a star's margin is asked for too.
        self.checks_hosts = bool(hosts) and any(host.port or host.margin for host in hosts)
        self.simple = not (methods or headers or snis or regexes or self.checks_hosts)

    def holds(self, facts: Facts) -> bool:
        """Tell whether the request meets what being filed does not prove: all but the host's name and the prefix."""
        if self.methods and facts.method not in self.methods:
            return False
        if self.checks_hosts and not any(host.holds(facts.name, facts.port) for host in self.hosts):
            return False
        if self.snis and facts.encrypted:
            sni = facts.sni
            if sni is None or not any(pattern.holds(sni) for pattern in self.snis):
                return False
        if self.headers and not all(header.holds(facts.lines(header.name)) for header in self.headers):
            return False
        return not self.regexes or any(regex.pattern.match(facts.path) is not None for regex in self.regexes)

    def host_holds(self, facts: Facts) -> bool:
        """Tell whether the host and its port are among those asked for.

        Only `explain.py` asks this; a search knows it by where the candidate is filed.
        """
        if not self.hosts:
            return True
        return facts.has_host and any(host.holds(facts.name, facts.port) for host in self.hosts)


def make_candidates(route: RouteConfig, *, flavour: str) -> tuple[Candidate, ...]:
    """Return the candidates of a route: none when it is no http route. Raises BadRoute."""
    if _HTTP_PROTOCOLS.isdisjoint(route.protocols):
        return ()
    traditional = flavour == TRADITIONAL
    # There may be 50,000 routes to make ready before a node serves, and most ask for little.
    methods = frozenset(method.encode() for method in route.methods) if route.methods else _NONE
    hosts = tuple(_host(host, margin=1 if traditional else 0) for host in route.hosts) if route.hosts else ()
    headers = _headers(route, single=traditional) if route.headers else ()
    snis = tuple(_sni(sni, wildcards=not traditional) for sni in route.snis) if route.snis else ()
    deferred = bool(snis) and not traditional and _PLAIN_PROTOCOLS.isdisjoint(route.protocols)
    groups = _path_groups(route, single=traditional)
    rank_of = rank_traditional if traditional else rank_compatible
    candidates = []
    for number, (prefixes, regexes) in enumerate(groups, start=1):
        tie = _identity(route.id if len(groups) == 1 else f"{route.id}#{number}")
        candidates.append(
            Candidate(
                route,
                rank=rank_of(route, tie=tie, regex=bool(regexes), prefix_length=len(prefixes[0]) if prefixes else 0),
                methods=methods,
                hosts=hosts,
                headers=headers,
                snis=snis,
                prefixes=prefixes,
                regexes=regexes,
                deferred=deferred,
            )
        )
    return tuple(candidates)


def split_host(host: bytes) -> tuple[bytes, int]:
    """Split a Host at its first colon when a number follows: (name in lower case, port or 0).

    That is Kong's rule: a bracketed IPv6 address with a port has no number after its first colon and stays whole.
    """
    name, colon, port = host.partition(b":")
    if colon and port.isdigit() and len(port) <= 5:
        return name.lower(), int(port)
    return host.lower(), 0


def split_host_traditional(host: bytes) -> tuple[bytes, int]:
    """Split as flavour `traditional` does: brackets of an IPv6 address are peeled."""
    if host.startswith(b"["):
        name, _, rest = host[1:].partition(b"]")
        port = rest[1:]
        return name.lower(), int(port) if port.isdigit() and len(port) <= 5 else 0
    return split_host(host)


def _identity(text: str) -> int:
    try:
        return int(text.replace("-", ""), 16) & _IDENTITY_MASK
    except ValueError:
        return uuid.uuid5(SPLIT_NAMESPACE, text).int


def _host(value: str, *, margin: int) -> HostPattern:
    text = value.encode()
    name, port = split_host_traditional(text) if margin else split_host(text)
    if name.startswith(b"*"):
        return HostPattern(name[1:], ENDS, port, margin)
    if name.endswith(b"*"):
        return HostPattern(name[:-1], STARTS, port, margin)
    return HostPattern(name, PLAIN, port, 0)


def _sni(value: str, *, wildcards: bool) -> SniPattern:
    text = value.removesuffix(".").encode()
    if wildcards and text.startswith(b"*"):
        return SniPattern(text[1:], ENDS)
    if wildcards and text.endswith(b"*"):
        return SniPattern(text[:-1], STARTS)
    return SniPattern(text, PLAIN)


def _headers(route: RouteConfig, *, single: bool) -> tuple[HeaderTest, ...]:
    """`single` = only a value that stands alone may be a regex, as in flavour `traditional`."""
    by_name: dict[str, list[HeaderCondition]] = {}
    for condition in route.headers:
        by_name.setdefault(header_name(condition.name), []).append(condition)
    tests = []
    for name, conditions in sorted(by_name.items()):
        values: set[bytes] = set()
        patterns: list[BytesPattern] = []
        for condition in conditions:
            for wanted in condition.values:
                if wanted.startswith("~*") and not (single and len(condition.values) > 1):
                    try:
                        patterns.append(cast(BytesPattern, compile_header_regex(wanted[2:])))
                    except BadRegex as error:
                        raise BadRoute(route, f"headers.{name}", f"`{wanted}` is no valid regex: {error}") from None
                else:
                    values.add(wanted.encode().lower())
        tests.append(HeaderTest(name, frozenset(values), tuple(patterns)))
    return tuple(tests)


def header_name(name: str) -> str:
    """Return the name headers are compared by: lower case, `_` being the same as `-`."""
    return name.lower().replace("_", "-")


def _path_groups(route: RouteConfig, *, single: bool) -> list[tuple[tuple[bytes, ...], tuple[PathRegex, ...]]]:
    """Split a route's paths into what is ranked alike: all regexes, then prefixes by length as they first appear."""
    paths = route.paths
    if not paths:
        return [((), ())]
    if len(paths) == 1 and not paths[0].startswith("~"):
        return [((paths[0].encode(),), ())]
    regexes = [_path_regex(route, path) for path in route.paths if path.startswith("~")]
    prefixes = [path.encode() for path in route.paths if not path.startswith("~")]
    if single:
        return [((), (regex,)) for regex in regexes] + [((prefix,), ()) for prefix in dict.fromkeys(prefixes)]
    groups: list[tuple[tuple[bytes, ...], tuple[PathRegex, ...]]] = [((), tuple(regexes))] if regexes else []
    by_length: dict[int, list[bytes]] = {}
    for prefix in dict.fromkeys(prefixes):
        by_length.setdefault(len(prefix), []).append(prefix)
    groups.extend((tuple(alike), ()) for alike in by_length.values())
    return groups


def _path_regex(route: RouteConfig, path: str) -> PathRegex:
    try:
        pattern = cast(BytesPattern, compile_path_regex(path[1:]))
    except BadRegex as error:
        raise BadRoute(route, "paths", f"`{path}` is no valid regex: {error}") from None
    return PathRegex(path[1:], pattern, _literal(pattern))


def _literal(pattern: BytesPattern) -> bytes:
    """Return what every match must begin with: RE2 knows the first and the last string that can match."""
    try:
        least, greatest = pattern.possiblematchrange(_LITERAL_BYTES_MAX)
    except re2.error:
        return b""
    size = 0
    for one, other in zip(least, greatest, strict=False):
        if one != other:
            break
        size += 1
    return least[:size]
