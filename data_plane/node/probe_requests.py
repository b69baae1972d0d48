"""What a probe sends and how it reads what comes back: HTTP/1.1, and gRPC's standard Health service. Pure.

A reader takes all octets received so far and says what they mean, or None while it can't tell yet. Only what decides is
read: the status line, or the one message of the gRPC answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from data_plane.health import Event
from data_plane.model import HeaderCondition

Result = Event | int
"""What a probe found: an answer's status (0 = none that can be read), or an event of its own."""

Read = Callable[[bytes], Result | None]

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: |$)")
_LINE_BYTES_MAX = 8192

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEAD_BYTES = 9
_DATA, _HEADERS, _RESET, _GOAWAY = 0, 1, 3, 7
_END_STREAM, _END_HEADERS, _PADDED = 0x1, 0x4, 0x8
_SETTINGS_FRAME = bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_MESSAGE_HEAD_BYTES = 5
_SERVING = b"\x08\x01"


def http_request(host: str, path: str, headers: Iterable[HeaderCondition]) -> bytes:
    """A GET that asks for the connection to end. A field that could end its own line is left out."""
    lines = [f"GET {path or '/'} HTTP/1.1"]
    fields = [(field.name, value) for field in headers for value in field.values if _one_line(field.name + value)]
    if not any(name.lower() == "host" for name, _ in fields):
        lines.append(f"Host: {host}")
    lines += ["Connection: close", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("utf-8", "replace")


def read_status(received: bytes) -> Result | None:
    """The status of an HTTP/1 answer; 0 when its first line is none."""
    end = received.find(b"\n")
    if end < 0:
        return 0 if len(received) > _LINE_BYTES_MAX else None
    found = _STATUS.match(received[:end].rstrip(b"\r"))
    return int(found[1]) if found is not None else 0


def grpc_request(authority: str, headers: Iterable[HeaderCondition], *, tls: bool) -> bytes:
    """A whole HTTP/2 connection with one call of `grpc.health.v1.Health/Check`, for the server as a whole."""
    fields = [
        (":method", "POST"),
        (":scheme", "https" if tls else "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *((field.name.lower(), value) for field in headers for value in field.values if _one_line(field.name + value)),
    ]
    block = b"".join(_literal(name.encode(), value.encode("utf-8", "replace")) for name, value in fields)
    message = bytes(_MESSAGE_HEAD_BYTES)  # an empty request: not compressed, length zero
    return b"".join(
        (
            _PREFACE,
            _SETTINGS_FRAME,
            _frame(_HEADERS, _END_HEADERS, block),
            _frame(_DATA, _END_STREAM, message),
        )
    )


def read_serving(received: bytes) -> Result | None:
    """Whether a gRPC server says SERVING; anything else that it answers is a failure."""
    at = 0
    message = b""
    while len(received) - at >= _FRAME_HEAD_BYTES:
        length = int.from_bytes(received[at : at + 3], "big")
        kind, flags = received[at + 3], received[at + 4]
        stream = int.from_bytes(received[at + 5 : at + 9], "big") & 0x7FFFFFFF
        body = received[at + _FRAME_HEAD_BYTES : at + _FRAME_HEAD_BYTES + length]
        if len(body) < length:
            return None
        at += _FRAME_HEAD_BYTES + length
        if kind == _GOAWAY:
            return Event.HTTP
        if stream != 1:
            continue
        if kind == _RESET:
            return Event.HTTP
        if kind == _DATA:
            message += body[1 : len(body) - body[0]] if flags & _PADDED and body else body
            size = int.from_bytes(message[1:_MESSAGE_HEAD_BYTES], "big")
            if len(message) >= _MESSAGE_HEAD_BYTES + size > _MESSAGE_HEAD_BYTES - 1 and len(message) > 4:
                said = message[_MESSAGE_HEAD_BYTES : _MESSAGE_HEAD_BYTES + size]
                return Event.SUCCESS if not message[0] and said.startswith(_SERVING) else Event.HTTP
        if kind in (_DATA, _HEADERS) and flags & _END_STREAM:
            return Event.HTTP  # an error without an answer, such as "unimplemented"
    return None


def _one_line(text: str) -> bool:
    return "\r" not in text and "\n" not in text


def _frame(kind: int, flags: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 1)) + body


def _literal(name: bytes, value: bytes) -> bytes:
    """A field as HPACK writes it without any table: never indexed, not compressed (RFC 7541 section 6.2.3)."""
    return b"\x10" + _sized(name) + _sized(value)


def _sized(text: bytes) -> bytes:
    size = len(text)
    if size < 127:
        return bytes((size,)) + text
    rest = size - 127
    prefix = bytearray((127,))
    while rest >= 128:
        prefix.append(rest % 128 + 128)
        rest //= 128
    prefix.append(rest)
    return bytes(prefix) + text
