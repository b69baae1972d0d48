"""Building a router in small steps beside the live one, sharing with it all that has not changed.

A worker runs the generator in slices between requests, so a step is never longer than one route or a few comparisons.
With `previous`, only routes that differ are compiled and only the tables they are filed in are copied: one changed
route among 10,000 costs a walk over their identities.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable
from typing import TypeVar

from data_plane.flavours import TRADITIONAL_COMPATIBLE
from data_plane.model import RouteConfig
from data_plane.router.candidate import (
    ENDS,
    PLAIN,
    STARTS,
    Candidate,
    make_candidates,
)
from data_plane.router.router import HostTables, Router
from data_plane.router.table import Leaf, Lengthwise, PathTable, path_keys
from data_plane.sharded import Sharded

_COMPARED_PER_STEP = 64
_RELEASED_PER_STEP = 16
_ANY_HOST = ((None, b""),)

K = TypeVar("K")
V = TypeVar("V")


def build_router(
    routes: Iterable[RouteConfig], *, flavour: str = TRADITIONAL_COMPATIBLE, previous: Router | None = None
) -> Generator[None, None, Router]:
    """Yield between steps and return the router of `routes`, which are walked more than once.

    Raises BadRoute for one that cannot be matched by.
    """
    base = previous if previous is not None and previous.flavour == flavour else None
    known = base.candidates if base is not None else Sharded[str, tuple[RouteConfig, tuple[Candidate, ...]]]()
    changed: list[RouteConfig] = []
    staying = 0
    for number, route in enumerate(routes):
        before = known.get(route.id)
        if before is not None:
            staying += 1
        if before is None or not (before[0] is route or before[0] == route):
            changed.append(route)
        if number % _COMPARED_PER_STEP == 0:
            yield
    if base is not None and not changed and staying == len(known):
        return base
    editor = _Editor(flavour)
    if base is not None:
        editor.begin(base)
    if staying < len(known):
        wanted: Sharded[str, None] = Sharded()  # a set of 100,000 would stop everything each time it grows
        for number, route in enumerate(routes):
            wanted.put(route.id, None)
            if number % _COMPARED_PER_STEP == 0:
                yield
        for number, route_id in enumerate(known):
            if route_id not in wanted:
                yield from editor.remove(route_id)
            if number % _COMPARED_PER_STEP == 0:
                yield
    for route in changed:
        yield from editor.put(route)
    return (yield from editor.finish())


def release_router(router: Router, successor: Router | None = None) -> Generator[None, None, None]:
    """Take a router apart that no request uses any more, a little in each step.

    Letting go of 10,000 routes at once would hold up a request. What `successor` shares stays as it is.
    """
    if router is successor:
        return
    hosts = router.hosts
    heirs = successor.hosts if successor is not None else HostTables()
    if hosts.any_host is not None and hosts.any_host is not heirs.any_host:
        yield from hosts.any_host.entries.release(heirs.any_host.entries if heirs.any_host is not None else None)
    for tables, theirs in ((hosts.exact, heirs.exact), (hosts.ends, heirs.ends), (hosts.starts, heirs.starts)):
        yield from tables.entries.release(theirs.entries)
    yield from router.candidates.release(successor.candidates if successor is not None else None)


def _empty(mapping: dict[K, V]) -> Generator[None, None, None]:
    number = 0
    while mapping:
        mapping.popitem()
        number += 1
        if number % _RELEASED_PER_STEP == 0:
            yield


class _Editor:
    """A router being made: a copy of `base` at the top, below that copies of what is touched."""

    def __init__(self, flavour: str) -> None:
        self._router = Router(flavour)
        self._all_own = True  # until there is a base, everything was made here
        # Tables and leaves that were made or copied here, and so may be written; kept alive, so that an id means one.
        self._own: dict[int, PathTable | Leaf] = {}
        self._leaves_to_compile: dict[int, tuple[Leaf, Leaf | None]] = {}  # those with regexes

    def begin(self, base: Router) -> None:
        """Start from what `base` has."""
        self._all_own = False
        router = self._router
        router.candidates = base.candidates.copy()
        router.header_counts = base.header_counts.copy()
        router.snis = base.snis
        router.hosts.exact = base.hosts.exact.copy()
        router.hosts.ends = base.hosts.ends.copy()
        router.hosts.starts = base.hosts.starts.copy()
        router.hosts.any_host = base.hosts.any_host

    def put(self, route: RouteConfig) -> Generator[None, None, None]:
        """File a route, in place of what it was before."""
        router = self._router
        if route.id in router.candidates:
            yield from self.remove(route.id)
        candidates = make_candidates(route, flavour=router.flavour)
        router.candidates.put(route.id, (route, candidates))
        for candidate in candidates:
            if candidate.headers or candidate.snis:
                self._count(candidate, 1)
            for kind, text in _host_keys(candidate):
                table = self._table(kind, text)
                for key in path_keys(candidate):
                    leaf = self._leaf(table, key)
                    leaf.add(candidate)
                    if candidate.regexes:
                        self._leaves_to_compile.setdefault(id(leaf), (leaf, None))
                    yield

    def remove(self, route_id: str) -> Generator[None, None, None]:
        """Take a route out wherever it is filed."""
        _, candidates = self._router.candidates.drop(route_id)
        for candidate in candidates:
            self._count(candidate, -1)
            for kind, text in _host_keys(candidate):
                table = self._table(kind, text)
                for key in path_keys(candidate):
                    leaf = self._leaf(table, key)
                    leaf.remove(candidate)
                    if leaf.empty:
                        table.drop(key)
                    yield
                if not table.entries:
                    self._drop_table(kind, text)

    def finish(self) -> Generator[None, None, Router]:
        """Compile what is compiled together and hand over the router."""
        while self._leaves_to_compile:
            _, (leaf, before) = self._leaves_to_compile.popitem()
            yield from leaf.compile(before)
            yield
        yield from _empty(self._own)
        router = self._router
        router.header_names = frozenset(router.header_counts)
        router.sni_matters = router.snis > 0
        return router

    def _count(self, candidate: Candidate, change: int) -> None:
        router = self._router
        for header in candidate.headers:
            count = router.header_counts.get(header.name, 0) + change
            if count:
                router.header_counts[header.name] = count
            else:
                del router.header_counts[header.name]
        if candidate.snis:
            router.snis += change

    def _tables(self, kind: str) -> Lengthwise[PathTable]:
        hosts = self._router.hosts
        if kind == PLAIN:
            return hosts.exact
        return hosts.ends if kind == ENDS else hosts.starts

    def _table(self, kind: str | None, text: bytes) -> PathTable:
        hosts = self._router.hosts
        table = hosts.any_host if kind is None else self._tables(kind).entries.get(text)
        if table is None:
            table = PathTable()
        elif self._all_own or id(table) in self._own:
            return table
        else:
            table = table.copy()
        if not self._all_own:
            self._own[id(table)] = table
        if kind is None:
            hosts.any_host = table
        else:
            self._tables(kind).put(text, table)
        return table

    def _drop_table(self, kind: str | None, text: bytes) -> None:
        if kind is None:
            self._router.hosts.any_host = None
        else:
            self._tables(kind).drop(text)

    def _leaf(self, table: PathTable, key: bytes) -> Leaf:
        before = table.entries.get(key)
        if before is None:
            leaf = Leaf()
        elif self._all_own or id(before) in self._own:
            return before
        else:
            leaf = before.copy()
            if before.regexes:
                self._leaves_to_compile[id(leaf)] = (leaf, before)
        if not self._all_own:
            self._own[id(leaf)] = leaf
        table.put(key, leaf)
        return leaf


def _host_keys(candidate: Candidate) -> Collection[tuple[str | None, bytes]]:
    """Where a candidate is filed by host: under each of its hosts without port, or where no host is asked for."""
    hosts = candidate.hosts
    if not hosts:
        return _ANY_HOST
    assert all(host.kind in (PLAIN, ENDS, STARTS) for host in hosts)
    return {(host.kind, host.text) for host in hosts}
