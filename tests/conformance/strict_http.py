"""A strict reader of HTTP/1.1 for the runners: what it can't read in exactly one way is a failure of whoever sent it.

Deliberately independent of the product's scanners, and slow: it reads one message from the front of a byte string.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t -~\x80-\xff]*")
_FIELD = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*((?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")


class NotStrictError(Exception):
    """The octets are no strict HTTP/1.1; says where."""


@dataclass(frozen=True)
class Message:
    """One request (`start` = method, target) or answer (`start` = status) with all its octets."""

    start: tuple[bytes, ...]
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    head: bytes
    framing: bytes
    """Everything but the content: head, chunk sizes and trailers."""

    def values(self, name: str) -> list[bytes]:
        """Return the values of a field by name in any case."""
        return [value for key, value in self.fields if key.lower() == name.lower().encode()]

    @property
    def status(self) -> int:
        """The status of an answer."""
        return int(self.start[0])


def read_request(data: bytes) -> tuple[Message, bytes] | None:
    """Return the first request and what follows it; None when it is not complete yet."""
    return _read(data, _REQUEST_LINE, no_body=False)


def read_answer(data: bytes, *, no_body: bool = False, ended: bool = False) -> tuple[Message, bytes] | None:
    """Return the first answer and what follows it; None when it is not complete. `ended` = nothing more will come."""
    return _read(data, _STATUS_LINE, no_body=no_body, ended=ended)


def _read(
    data: bytes, start_line: re.Pattern[bytes], *, no_body: bool, ended: bool = False
) -> tuple[Message, bytes] | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, rest = data[:end], data[end + 4 :]
    lines = head.split(b"\r\n")
    first = start_line.fullmatch(lines[0])
    if first is None:
        raise NotStrictError(f"start line {lines[0][:80]!r}")
    fields = tuple(_field(line) for line in lines[1:])
    answer = start_line is _STATUS_LINE
    if answer and (no_body or first[1] in (b"204", b"304") or first[1].startswith(b"1")):
        return Message(first.groups(), fields, b"", (), head, head), rest
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise NotStrictError("more than one framing field")
    if not answer and len([name for name, _ in fields if name.lower() == b"host"]) != 1:
        raise NotStrictError("not exactly one Host")
    if codings:
        if codings[0].lower() != b"chunked":
            raise NotStrictError(f"coding {codings[0]!r}")
        return _chunked(first.groups(), fields, head, rest)
    if lengths:
        if not lengths[0].isdigit():
            raise NotStrictError(f"length {lengths[0]!r}")
        length = int(lengths[0])
        if len(rest) < length:
            return None
        return Message(first.groups(), fields, rest[:length], (), head, head), rest[length:]
    if answer:
        return (Message(first.groups(), fields, rest, (), head, head), b"") if ended else None
    return Message(first.groups(), fields, b"", (), head, head), rest


def _field(line: bytes) -> tuple[bytes, bytes]:
    found = _FIELD.fullmatch(line)
    if found is None:
        raise NotStrictError(f"field line {line[:80]!r}")
    return found[1], found[2]


def _chunked(
    start: tuple[bytes, ...], fields: tuple[tuple[bytes, bytes], ...], head: bytes, rest: bytes
) -> tuple[Message, bytes] | None:
    body = b""
    framing = head
    while True:
        line, mark, after = rest.partition(b"\r\n")
        if not mark:
            return None
        if _SIZE.fullmatch(line) is None:
            raise NotStrictError(f"chunk size {line[:40]!r}")
        framing += line
        size = int(line, 16)
        if size == 0:
            break
        if len(after) < size + 2:
            return None
        if after[size : size + 2] != b"\r\n":
            raise NotStrictError("no line end after a chunk")
        body += after[:size]
        rest = after[size + 2 :]
    trailers: list[tuple[bytes, bytes]] = []
    while True:
        line, mark, after = after.partition(b"\r\n")
        if not mark:
            return None
        framing += line
        if not line:
            return Message(start, fields, body, tuple(trailers), head, framing), after
        trailers.append(_field(line))
