"""Requests for the differential test: whole ones of every framing, and such that went wrong at a few octets.

Each is a function of hypothesis' choices and of a token that makes it one of its kind.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from hypothesis import strategies as st

METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"]
PATHS = ["/", "/a/b", "/a%20b", "/a//b", "/a/../b", "/%41", "/a%2fb", "/a;x=1", "/%c3%a9", "/a+b", "/~a:@!$&'()*,="]
QUERIES = ["", "?", "?x=1", "?x=%41&y=%zz", "?a?b", "?x=//y/../z"]
FIELDS = [
    "Accept: */*", "X-A: 1", "X-B:", "X-C: a, b", "Cookie: a=b; c=d", "Range: bytes=0-1", "TE: trailers",
    "Connection: keep-alive",
    "Connection: X-A", "X_A: 2", "Expect: 100-continue", "Content-Type: application/x-www-form-urlencoded",
]  # fmt: skip
LONG_BYTES = 70_000  # beyond what is gathered before the first attempt
CANARY = b"GET /canary HTTP/1.1\r\nHost: %s\r\n\r\n"
BODIES = st.one_of(st.binary(max_size=40), st.just(b"0\r\n\r\n"), st.just(b"CANARY"), st.just(b"LONG"))
DAMAGE = [
    b"\n", b"\r", b"\r\n", b" ", b"\t", b"\x00", b"\x0b", b"\xff", b":", b",", b";", b"_", b"-", b"+", b"0", b"%",
    b"#", b"\\", b"\r\n ",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding:\tchunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"Host: other\r\n",
    b"Connection: close\r\n", b"0\r\n\r\n",
    b"1\r\nZ\r\n", b"Upgrade: websocket\r\nConnection: Upgrade\r\n", b"Expect: 100-continue\r\n", b"X-H: a\r\n b\r\n",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plain:
    """A whole request before it has a host and a token."""

    method: str
    path: str
    query: str
    fields: tuple[str, ...]
    body: bytes
    chunks: tuple[int, ...] | None
    """Sizes of chunks; None = Content-Length, or nothing without a body."""
    trailer: bool

    def content(self, host: str) -> bytes:
        """Return the body."""
        if self.body == b"LONG":
            return b"x" * LONG_BYTES  # spelled out here, so that a failing example stays readable
        return CANARY % host.encode() if self.body == b"CANARY" else self.body

    def sha256(self, host: str) -> str:
        """Return the body's hash."""
        return hashlib.sha256(self.content(host)).hexdigest()

    def target(self, token: str) -> str:
        """Return the target, the token before the query."""
        return f"{self.path}/{token}{self.query}"

    def octets(self, host: str, token: str) -> bytes:
        """Return the request as it is sent."""
        lines = [f"{self.method} {self.target(token)} HTTP/1.1", f"Host: {host}", *self.fields]
        body = self.content(host)
        if self.chunks is not None:
            lines.append("Transfer-Encoding: chunked")
            framed, rest = b"", body
            for size in self.chunks:
                piece, rest = rest[:size], rest[size:]
                if piece:
                    framed += b"%x\r\n%s\r\n" % (len(piece), piece)
            if rest:
                framed += b"%X;x=y\r\n%s\r\n" % (len(rest), rest)
            body = framed + b"0\r\n" + (b"X-Sum: 1\r\n" if self.trailer else b"") + b"\r\n"
        elif body or self.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(body)}")
        return "\r\n".join([*lines, "", ""]).encode() + body


WHOLE = st.builds(
    Plain,
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
    query=st.sampled_from(QUERIES),
    fields=st.lists(st.sampled_from(FIELDS), max_size=4, unique=True).map(tuple),
    body=BODIES,
    chunks=st.one_of(st.none(), st.lists(st.integers(1, 30), max_size=4).map(tuple)),
    trailer=st.just(False),  # they go on, and not every origin server reads them (Werkzeug answers 500)
)
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(["insert", "replace", "delete", "line"]),
        st.sampled_from(DAMAGE),
    ),
    min_size=1,
    max_size=4,
)


def damaged(octets: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    """Apply changes at places given as a share of the length; `line` = behind the end of the line there."""
    for place, how, text in changes:
        at = int(place * min(len(octets), 600))
        match how:
            case "insert":
                octets = octets[:at] + text + octets[at:]
            case "replace":
                octets = octets[:at] + text + octets[at + len(text) :]
            case "delete":
                octets = octets[:at] + octets[at + 1 :]
            case _:
                end = octets.find(b"\r\n", at) + 2
                octets = octets[:end] + text + octets[end:] if end > 1 else octets
    return octets
