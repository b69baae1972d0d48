"""Which header fields the proxy treats specially, and the patterns that find them.

A request's head is scanned by one search over its raw block: from each line end, either the name is one of ours, or it
must be a field name at all. So lines that only pass through cost nothing in Python, a missing colon, a space before the
colon and a folded line are all the same fault, and nothing is lower-cased, split or put in a dictionary. Splitting the
block into lines and asking a dictionary for each name was measured at twice the time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# Kinds of special request fields; those not listed pass as they came.
DROP = 1
HOST = 2
CONNECTION = 3
CONTENT_LENGTH = 4
TRANSFER_ENCODING = 5
TE = 6
EXPECT = 7
UPGRADE = 8
VIA = 9
X_FORWARDED_FOR = 10
TRUSTED = 11
MAX_FORWARDS = 12

REQUEST_KINDS: Mapping[bytes, int] = {
    b"host": HOST,
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"te": TE,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"via": VIA,
    b"max-forwards": MAX_FORWARDS,
    b"x-forwarded-for": X_FORWARDED_FOR,
    b"x-forwarded-proto": TRUSTED,
    b"x-forwarded-host": TRUSTED,
    b"x-forwarded-port": TRUSTED,
    b"x-forwarded-path": TRUSTED,
    b"x-forwarded-prefix": TRUSTED,
    b"x-real-ip": DROP,
    b"x-kong-request-id": DROP,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy": DROP,  # becomes HTTP_PROXY in CGI-style origins
    b"http2-settings": DROP,
}

# Never taken away by a `Connection` list: framing and routing would change meaning on the way (RFC 9110 §7.6.1
# leaves the choice to the recipient).
NOT_HOP_BY_HOP = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"close", b"keep-alive", b"te", b"via", b"server", b"date"}
)

TOKEN_OCTET = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
NAME = re.compile(TOKEN_OCTET + rb"+")

# Every octet a head may hold apart from CR and LF: visible ASCII, space, tab and opaque octets (RFC 9110 §5.5).
FIELD_OCTETS = bytes(octet for octet in range(256) if octet == 9 or (octet >= 32 and octet != 127))


def special_fields(names: Iterable[bytes], *, twins: bool) -> re.Pattern[bytes]:
    """Return the pattern that finds, from a line end on, a field of that name (groups: name, value) or a bad line.

    A match without a name is a line that is no field line. With `twins` an underscore counts as the dash of a name.
    Spelled out as sets of octets, grouped by first letter: `re.IGNORECASE` was measured at half as much again.
    """
    by_first: dict[str, list[str]] = {}
    for name in sorted(names, reverse=True):  # longer names before their beginnings
        text = name.decode("ascii")
        by_first.setdefault(text[0], []).append("".join(_either_case(letter, twins=twins) for letter in text[1:]))
    groups = [f"{_either_case(first, twins=twins)}(?:{'|'.join(rests)})" for first, rests in by_first.items()]
    firsts = "".join(first + first.upper() for first in by_first)
    ours = f"(?=[{firsts}])({'|'.join(groups)}):([^\\r]*)".encode()
    return re.compile(rb"\n(?:" + ours + rb"|(?!" + TOKEN_OCTET + rb"++:))")


def _either_case(letter: str, *, twins: bool) -> str:
    if letter.isalpha():
        return f"[{letter}{letter.upper()}]"
    return "[-_]" if letter == "-" and twins else re.escape(letter)


def field_values(block: bytes, name: bytes) -> list[bytes]:
    """Return the values of a field by lower-case name, in order: for what is asked rarely, it walks through the
    lines."""
    size = len(name)
    return [
        line[size + 1 :].strip(b" \t")
        for line in block.split(b"\r\n")
        if len(line) > size and line[size] == 58 and line[:size].lower() == name
    ]


def without_fields(segments: list[bytes], named: set[bytes]) -> list[bytes]:
    """Return segments of lines without the fields named, in lower case, by a `Connection` list."""
    return [
        line for segment in segments for line in segment.split(b"\r\n") if line[: line.find(b":")].lower() not in named
    ]


def list_items(value: bytes) -> list[bytes]:
    """Return the items of a comma list in lower case, white space around them removed; empty ones are kept."""
    return [item.strip(b" \t") for item in value.lower().split(b",")]
