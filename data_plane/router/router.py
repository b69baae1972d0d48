"""Matching a request: from its host to the few path tables that concern it, and the best candidate in them.

The result is always the first candidate in the order of rank whose every condition holds, whatever the tables look
like; `tests/property/test_router.py` compares it with a scan of all candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from data_plane.flavours import TRADITIONAL
from data_plane.model import RouteConfig
from data_plane.router.candidate import (
    Candidate,
    Facts,
    PathRegex,
    split_host,
    split_host_traditional,
)
from data_plane.router.table import Best, Lengthwise, PathTable
from data_plane.sharded import Sharded
from pointsman.rules.paths import normalise


class Match:
    """What a request matched.

    `path` is the normalised path. `matched_path` is the part of it that a path of the route matched, None unless the
    route strips it. `captures` are a regex path's groups by number and name, without those that took no part; None when
    there are none. `joins_v1` says how `upstream_path` joins.
    """

    __slots__ = ("captures", "joins_v1", "matched_path", "path", "route")

    def __init__(
        self,
        route: RouteConfig,
        path: bytes,
        *,
        matched_path: bytes | None,
        captures: Mapping[str, str] | None,
        joins_v1: bool,
    ) -> None:
        self.route = route
        self.path = path
        self.matched_path = matched_path
        self.captures = captures
        self.joins_v1 = joins_v1


class HostTables:
    """Path tables by host: exact names, endings (`*.example.com`), starts (`example.*`), and routes without hosts."""

    __slots__ = ("any_host", "ends", "exact", "starts")

    def __init__(self) -> None:
        self.exact: Lengthwise[PathTable] = Lengthwise()
        self.ends: Lengthwise[PathTable] = Lengthwise()
        self.starts: Lengthwise[PathTable] = Lengthwise()
        self.any_host: PathTable | None = None

    def search(self, facts: Facts, best: Best) -> None:
        if facts.has_host:
            name = facts.name
            table = self.exact.entries.get(name)
            if table is not None:
                table.search(facts, best)
            size_max = len(name)
            for size in self.ends.lengths:
                if size > size_max:
                    break
                table = self.ends.entries.get(name[size_max - size :])
                if table is not None:
                    table.search(facts, best)
            for size in self.starts.lengths:
                if size > size_max:
                    break
                table = self.starts.entries.get(name[:size])
                if table is not None:
                    table.search(facts, best)
        if self.any_host is not None:
            self.any_host.search(facts, best)


class Router:
    """All routes of one version, ready to match. Made by `build_router`, never changed afterwards.

    `header_names` are the headers any route looks at, lower-case with `-`. `sni_matters` says that some route looks at
    the SNI. Without either, what a request matches depends on nothing but method, host, path, port and scheme.
    """

    __slots__ = ("candidates", "flavour", "header_counts", "header_names", "hosts", "sni_matters", "snis")

    def __init__(self, flavour: str) -> None:
        self.flavour = flavour
        self.hosts = HostTables()
        self.candidates: Sharded[str, tuple[RouteConfig, tuple[Candidate, ...]]] = Sharded()
        self.header_counts: dict[str, int] = {}
        self.header_names: frozenset[str] = frozenset()
        self.snis = 0
        self.sni_matters = False

    def __len__(self) -> int:
        return len(self.candidates)

    def match(
        self,
        method: bytes,
        host: bytes | None,
        path: bytes,
        *,
        port: int,
        scheme: str,
        header_values: Callable[[str], Sequence[bytes]],
        sni: bytes | None = None,
    ) -> Match | None:
        """Return the match for a request, None when no route has it.

        `path` is the raw path of the request target without its query; `host` the Host field as received; `port` the
        listener's, which counts when Host names none. `header_values` gives the values of a header (lower-case name
        with `-`), one a line; it is asked only for names in `header_names`. A path that is not UTF-8 matches nothing.
        """
        facts = self.facts(method, host, path, port=port, scheme=scheme, header_values=header_values, sni=sni)
        return self.search(facts) if facts is not None else None

    def facts(
        self,
        method: bytes,
        host: bytes | None,
        path: bytes,
        *,
        port: int,
        scheme: str,
        header_values: Callable[[str], Sequence[bytes]],
        sni: bytes | None = None,
    ) -> Facts | None:
        """Return what routes are asked about a request (arguments as for `match`); None when its path is not UTF-8."""
        path = normalise(path)
        if not path.isascii():
            try:
                path.decode()
            except UnicodeDecodeError:
                return None
        traditional = self.flavour == TRADITIONAL
        name: bytes | None = None
        if host is not None:
            name, host_port = split_host_traditional(host) if traditional else split_host(host)
            if host_port:
                port = host_port
            elif traditional:
                port = 443 if scheme == "https" else 80
        return Facts(
            method=method,
            name=name,
            port=port,
            path=path,
            encrypted=scheme == "https",
            sni=sni,
            header_values=header_values,
        )

    def search(self, facts: Facts) -> Match | None:
        """Return the match for these facts, None when no route has one."""
        winner = self.winner(facts)
        return self._matched(winner, facts.path) if winner is not None else None

    def winner(self, facts: Facts) -> Candidate | None:
        """Return the candidate that is tried first of all that hold."""
        best = Best()
        self.hosts.search(facts, best)
        return best.candidate or best.deferred

    def _matched(self, winner: Candidate, path: bytes) -> Match:
        route = winner.route
        matched: bytes | None = None
        captures: dict[str, str] | None = None
        if winner.prefixes:
            matched = path[: len(winner.prefixes[0])]
        for regex in winner.regexes:
            found = regex.pattern.match(path)
            if found is not None:
                matched = path[: found.end(0)]
                if regex.pattern.groups:
                    captures = _captures(regex, found.groups())
                break
        return Match(
            route,
            path,
            matched_path=matched if route.strip_path else None,
            captures=captures,
            joins_v1=self.flavour == TRADITIONAL and route.path_handling == "v1",
        )


def _captures(regex: PathRegex, groups: Sequence[bytes | None]) -> dict[str, str] | None:
    captures = {
        str(number): value.decode("utf-8", "replace")
        for number, value in enumerate(groups, start=1)
        if value is not None
    }
    for name, number in regex.pattern.groupindex.items():
        value = captures.get(str(number))
        if value is not None:
            captures[name] = value
    return captures or None
