"""What Kong's regex library would say of a pattern that RE2 refuses.

Clients know the texts of PCRE2, which Kong quotes with the pattern and the place in it. What both engines refuse alike
is said in those words; what only RE2 refuses, look-around for example, keeps RE2's.
"""

from __future__ import annotations

from collections.abc import Iterator

_QUANTIFIERS = "*+?"


def in_pcre_words(pattern: str, refusal: str) -> str:
    """Return why a pattern cannot be compiled; `refusal` is RE2's word."""
    kind, _, quoted = refusal.partition(": ")
    at: int | None
    match kind:
        case "missing ]":
            said, at = "missing terminating ] for character class", len(pattern)
        case "trailing \\":
            said, at = "\\ at end of pattern", len(pattern)
        case "missing )":
            said, at = "missing closing parenthesis", len(pattern)
        case "unexpected )":
            said, at = "unmatched closing parenthesis", _unmatched(pattern)
        case "no argument for repetition operator":
            said, at = "quantifier does not follow a repeatable item", _nothing_before(pattern)
        case "invalid character class range" if len(quoted) == 3 and quoted[1] == "-":
            said, at = "range out of order in character class", pattern.find(quoted) + 2
        case _:
            return refusal
    if at is None:
        return refusal
    rest = pattern[at:]
    return f'pcre2_compile() failed: {said} in "{pattern}"' + (f' at "{rest}"' if rest else "")


def _unmatched(pattern: str) -> int | None:
    depth = 0
    for at, char in _outside_classes(pattern):
        depth += {"(": 1, ")": -1}.get(char, 0)
        if depth < 0:
            return at
    return None


def _nothing_before(pattern: str) -> int | None:
    before = "("
    for at, char in _outside_classes(pattern):
        if char in _QUANTIFIERS and before in "(|":
            return at
        before = char
    return None


def _outside_classes(pattern: str) -> Iterator[tuple[int, str]]:
    """The characters that are not inside a character class, with their places; an escaped one counts as a letter."""
    at, start = 0, -1
    while at < len(pattern):
        char = pattern[at]
        if char == "\\":
            if start < 0:
                yield at, "a"
            at += 1
        elif start >= 0:
            if char == "]" and at > start + 1:
                start = -1
                yield at, char
        elif char == "[":
            start = at + 1 if pattern[at + 1 : at + 2] == "^" else at
        else:
            yield at, char
        at += 1
