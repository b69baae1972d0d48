"""Where candidates are filed, so that a request meets only the few that can match it.

A `PathTable` belongs to one host (exact, ending, start, or none asked for) and files candidates by what their path must
begin with: a prefix, or the literal start of a regex, or nothing. A request asks once for each length in use. What
shares a place is a `Leaf`: in the order of rank, with side tables for what else can be looked up (a header's value, an
SNI) and regexes in chunks that are tried all at once.

Tables are written while they are built and never after. A later build copies what it changes and shares the rest, which
is what `copy` is for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Generator
from typing import Generic, Self, TypeVar

import re2

from data_plane.router.candidate import PLAIN, Candidate, Facts
from data_plane.sharded import Sharded
from pointsman.rules.regexes import path_expression

V = TypeVar("V")

_ANY_PATH = (b"",)

# Below this many regexes in one place a set costs more than it saves.
_SET_MIN = 8
# A set is compiled in one go, between two requests: 128 patterns take about a millisecond. Fewer make more sets, and
# each costs a request that has to ask them all some 2 microseconds.
_CHUNK_MAX = 128
_SET_BYTES_MAX = 64 << 20
"""What the automaton of one set may take: RE2's default is an eighth, and is for one pattern. It is taken as needed."""


class Best:
    """The best candidate found so far, and the best of those that count only when there is no other."""

    __slots__ = ("candidate", "deferred", "deferred_rank", "rank")

    def __init__(self) -> None:
        self.candidate: Candidate | None = None
        self.rank = -1
        self.deferred: Candidate | None = None
        self.deferred_rank = -1


Line = list[Candidate]
"""Candidates in the order they are tried: rank descending."""


def _place(line: Line, candidate: Candidate) -> int:
    return bisect_left(line, -candidate.rank, key=_descending)


def _descending(candidate: Candidate) -> int:
    return -candidate.rank


def insert(line: Line, candidate: Candidate) -> None:
    """Put a candidate where its rank belongs."""
    if line:
        line.insert(_place(line, candidate), candidate)
    else:
        line.append(candidate)


def remove(line: Line, candidate: Candidate) -> None:
    """Take out the very candidate, which must be there."""
    place = _place(line, candidate)
    assert line[place] is candidate, "a candidate is filed where its rank belongs"
    del line[place]


def _insert_aside(lines: dict[bytes, Line], value: bytes, candidate: Candidate) -> None:
    line = lines.get(value, []).copy()
    insert(line, candidate)
    lines[value] = line


def _remove_aside(lines: dict[bytes, Line], value: bytes, candidate: Candidate) -> None:
    line = lines[value].copy()
    remove(line, candidate)
    if line:
        lines[value] = line
    else:
        del lines[value]


def search_line(line: Line, facts: Facts, best: Best) -> None:
    """Raise `best` to the first of the line that holds, unless what was found before outranks it."""
    for candidate in line:
        if candidate.rank <= best.rank:
            return
        if candidate.simple or candidate.holds(facts):
            if candidate.deferred and not facts.encrypted:
                if candidate.rank > best.deferred_rank:
                    best.deferred = candidate
                    best.deferred_rank = candidate.rank
                continue
            best.candidate = candidate
            best.rank = candidate.rank
            return


class Chunk:
    """Regex candidates next to each other in rank, and one automaton for all of their regexes.

    Made by `compile_chunks`. Without an automaton (a single regex that is too large for one) its candidates are tried.
    """

    __slots__ = ("_owners", "_set", "line")

    def __init__(self, line: Line) -> None:
        self.line = line
        self._set: re2.Set | None = None
        self._owners: list[int] = []

    def compile(self) -> bool:
        """Make the automaton; False when all of the regexes together are too large for one."""
        options = re2.Options()
        options.log_errors = False
        options.max_mem = _SET_BYTES_MAX
        together = re2.Set.SearchSet(options)
        owners: list[int] = []
        try:
            for index, candidate in enumerate(self.line):
                for regex in candidate.regexes:
                    together.Add(path_expression(regex.expression))
                    owners.append(index)
            together.Compile()
        except re2.error:  # each compiles alone
            return False
        self._set = together
        self._owners = owners
        return True

    def search(self, facts: Facts, best: Best) -> None:
        line = self.line
        if line[0].rank <= best.rank:
            return
        if self._set is not None:
            hits = self._set.Match(facts.path)
            if not hits:
                return
            line = [line[index] for index in sorted({self._owners[hit] for hit in hits})]
        search_line(line, facts, best)


def compile_chunks(line: Line) -> Generator[None, None, list[Chunk]]:
    """Return chunks that make up a line: one, or halves of it as often as they are too large."""
    chunk = Chunk(line)
    whole = chunk.compile()
    yield
    if whole or len(line) == 1:
        return [chunk]
    middle = len(line) // 2
    first = yield from compile_chunks(line[:middle])
    second = yield from compile_chunks(line[middle:])
    return first + second


_NO_LINE: Line = []
_NO_HEADERS: dict[str, dict[bytes, Line]] = {}
_NO_SNIS: dict[bytes, Line] = {}


class Leaf:
    """The candidates of one place. Each is in exactly one of the four side tables, under one or more values.

    Most leaves hold one candidate and nothing aside: what is empty is the same for all of them until it is written.
    """

    __slots__ = ("by_header", "by_sni", "chunks", "plain", "regexes", "snis")

    def __init__(self) -> None:
        self.plain: Line = []
        self.regexes: Line = _NO_LINE
        self.chunks: list[Chunk] | None = None  # None = the regexes are tried one by one
        self.by_header: dict[str, dict[bytes, Line]] = _NO_HEADERS
        self.snis: Line = _NO_LINE  # all that `by_sni` holds: on a plain connection an SNI is not asked for
        self.by_sni: dict[bytes, Line] = _NO_SNIS

    def copy(self) -> Leaf:
        leaf = Leaf()
        leaf.plain = self.plain.copy()
        leaf.regexes = self.regexes.copy()
        leaf.chunks = self.chunks
        # The lines of the side tables are never written, only replaced: there may be thousands of them.
        leaf.by_header = {name: lines.copy() for name, lines in self.by_header.items()}
        leaf.snis = self.snis.copy()
        leaf.by_sni = self.by_sni.copy()
        return leaf

    @property
    def empty(self) -> bool:
        return not (self.plain or self.regexes or self.by_header or self.snis)

    def add(self, candidate: Candidate) -> None:
        if not (candidate.headers or candidate.snis or candidate.regexes):
            insert(self.plain, candidate)
            return
        header = _filing_header(candidate)
        if header is not None:
            name, values = header
            if self.by_header is _NO_HEADERS:
                self.by_header = {}
            lines = self.by_header.setdefault(name, {})
            for value in values:
                _insert_aside(lines, value, candidate)
        elif _filed_by_sni(candidate):
            if self.snis is _NO_LINE:
                self.snis, self.by_sni = [], {}
            insert(self.snis, candidate)
            for sni in _sni_names(candidate):
                _insert_aside(self.by_sni, sni, candidate)
        elif candidate.regexes:
            if self.regexes is _NO_LINE:
                self.regexes = []
            insert(self.regexes, candidate)
            self.chunks = None
        else:
            insert(self.plain, candidate)

    def remove(self, candidate: Candidate) -> None:
        header = _filing_header(candidate)
        if header is not None:
            name, values = header
            lines = self.by_header[name]
            for value in values:
                _remove_aside(lines, value, candidate)
            if not lines:
                del self.by_header[name]
        elif _filed_by_sni(candidate):
            remove(self.snis, candidate)
            for sni in _sni_names(candidate):
                _remove_aside(self.by_sni, sni, candidate)
        elif candidate.regexes:
            remove(self.regexes, candidate)
            self.chunks = None
        else:
            remove(self.plain, candidate)

    def compile(self, before: Leaf | None) -> Generator[None, None, None]:
        """Group the regexes; groups that a former leaf of the same place had are taken over as they are."""
        if self.chunks is not None or len(self.regexes) < _SET_MIN:
            return
        known = {id(chunk.line[0]): chunk for chunk in before.chunks or ()} if before is not None else {}
        chunks = []
        for line in _cut(self.regexes):
            chunk = known.get(id(line[0]))
            if chunk is not None and chunk.line == line:
                chunks.append(chunk)
                yield
            else:
                chunks += yield from compile_chunks(line)
        self.chunks = chunks

    def search(self, facts: Facts, best: Best) -> None:
        if self.plain:
            search_line(self.plain, facts, best)
        for name, values in self.by_header.items():
            for line in set(facts.lines(name)):
                found = values.get(line)
                if found is not None:
                    search_line(found, facts, best)
        if self.snis:
            if not facts.encrypted:
                search_line(self.snis, facts, best)
            elif facts.sni is not None:
                found = self.by_sni.get(facts.sni)
                if found is not None:
                    search_line(found, facts, best)
        if self.chunks is not None:
            for chunk in self.chunks:
                chunk.search(facts, best)
        elif self.regexes:
            search_line(self.regexes, facts, best)


def _cut(line: Line) -> Generator[Line, None, None]:
    """Cut a line into chunks at places that depend on the candidates there, not on how many stand before them.

    A candidate more or less changes one chunk, so the automata of all others can be kept.
    """
    chunk: Line = []
    for candidate in line:
        chunk.append(candidate)
        if len(chunk) >= _CHUNK_MAX or candidate.rank % _CHUNK_MAX == 0:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _filing_header(candidate: Candidate) -> tuple[str, frozenset[bytes]] | None:
    for header in candidate.headers:
        if header.values and not header.patterns:
            return header.name, header.values
    return None


def _filed_by_sni(candidate: Candidate) -> bool:
    return bool(candidate.snis) and all(sni.kind == PLAIN for sni in candidate.snis)


def _sni_names(candidate: Candidate) -> frozenset[bytes]:
    return frozenset(sni.text for sni in candidate.snis)


class Lengthwise(Generic[V]):
    """Entries by key, and which lengths keys have, so that a look-up by what something begins with tries only those."""

    __slots__ = ("_counts", "entries", "lengths")

    def __init__(self) -> None:
        self.entries: Sharded[bytes, V] = Sharded()
        self.lengths: tuple[int, ...] = ()
        self._counts: dict[int, int] = {}

    def copy(self) -> Self:
        twin = type(self)()
        twin.entries = self.entries.copy()
        twin.lengths = self.lengths
        twin._counts = self._counts.copy()
        return twin

    def put(self, key: bytes, entry: V) -> None:
        if self.entries.put(key, entry):
            size = len(key)
            count = self._counts.get(size, 0)
            self._counts[size] = count + 1
            if not count:
                self.lengths = tuple(sorted(self._counts))

    def drop(self, key: bytes) -> None:
        self.entries.drop(key)
        size = len(key)
        self._counts[size] -= 1
        if not self._counts[size]:
            del self._counts[size]
            self.lengths = tuple(sorted(self._counts))


class PathTable(Lengthwise[Leaf]):
    """The candidates of one host by what their path must begin with."""

    __slots__ = ()

    def search(self, facts: Facts, best: Best) -> None:
        path = facts.path
        leaves = self.entries
        size_max = len(path)
        for size in self.lengths:
            if size > size_max:
                return
            leaf = leaves.get(path[:size])
            if leaf is not None:
                leaf.search(facts, best)


def path_keys(candidate: Candidate) -> Collection[bytes]:
    """What the path of a matching request must begin with: one of these, which all differ."""
    if candidate.prefixes:
        return candidate.prefixes
    if candidate.regexes:
        return frozenset(regex.literal for regex in candidate.regexes)
    return _ANY_PATH
