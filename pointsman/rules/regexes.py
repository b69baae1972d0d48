"""Regexes from the configuration, compiled by RE2 within limits.

Both planes compile the same way: what the control plane lets in, a node can serve. RE2 runs in linear time whatever the
pattern and the input, so a hostile pattern costs its author a refusal and a hostile path costs nothing. Python's own
`re` never sees a pattern from the configuration.
"""

from __future__ import annotations

import functools
from typing import Protocol

import re2

PATTERN_BYTES_MAX = 4096
"""Longest pattern; RE2's program grows with the pattern, and with counted repetition much faster."""

PROGRAM_BYTES_MAX = 1 << 20
"""Memory of one compiled program and its cache of states."""


class BadRegex(ValueError):
    """The pattern cannot be compiled; the text says why, in RE2's words."""


class Match(Protocol):
    """What RE2 tells of a match; groups that took no part are None."""

    def group(self, index: int = 0, /) -> str | None: ...
    def groups(self) -> tuple[str | None, ...]: ...
    def groupdict(self) -> dict[str, str | None]: ...
    def end(self, index: int = 0, /) -> int: ...


class Pattern(Protocol):
    """A compiled pattern."""

    @property
    def pattern(self) -> str: ...
    @property
    def groups(self) -> int: ...
    def match(self, text: str, /) -> Match | None: ...
    def search(self, text: str, /) -> Match | None: ...


@functools.cache
def options() -> re2.Options:
    """Return the options all patterns are compiled with."""
    chosen = re2.Options()
    chosen.max_mem = PROGRAM_BYTES_MAX
    chosen.log_errors = False
    return chosen


def path_expression(pattern: str) -> str:
    """Return what is compiled for a route path `~pattern`: anchored at the start as one group, open at the end.

    Named groups may be written `(?<n>...)` or `(?P<n>...)`; RE2 reads both.

    Kong puts a bare `^` in front, which anchors only the first branch of an alternation; as one group all are.
    """
    return f"^(?:{pattern})"


def header_expression(pattern: str) -> str:
    """Return what is compiled for a header value `~*pattern`: searched anywhere, ignoring case."""
    return f"(?i){pattern}"


def compile_path_regex(pattern: str) -> Pattern:
    """Compile the text after `~` of a route's path; raises `BadRegex`."""
    return _compile(path_expression(pattern), pattern)


def compile_header_regex(pattern: str) -> Pattern:
    """Compile the text after `~*` of a header value; raises `BadRegex`."""
    return _compile(header_expression(pattern), pattern)


def _compile(expression: str, pattern: str) -> Pattern:
    if len(pattern.encode("utf-8", "surrogatepass")) > PATTERN_BYTES_MAX:
        raise BadRegex(f"longer than {PATTERN_BYTES_MAX} bytes")
    try:
        # Alone first: a stray parenthesis could otherwise close our group, and errors would quote what nobody wrote.
        re2.compile(pattern, options())
        compiled: Pattern = re2.compile(expression, options())
    except re2.error as error:
        reason = error.args[0] if error.args else "cannot be compiled"
        raise BadRegex(reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)) from None
    return compiled
