"""A chunked reader of our own for comparing, slow and strict: whole input, byte by byte, RFC 9112 §7.1 and no more."""

from __future__ import annotations

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
HEX = frozenset(b"0123456789ABCDEFabcdef")
QUOTED = (
    frozenset(b"\t !") | frozenset(range(0x23, 0x5C)) | frozenset(range(0x5D, 0x7F)) | frozenset(range(0x80, 0x100))
)
ESCAPED = frozenset(b"\t") | frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 0x100))
VALUE = frozenset(b"\t") | frozenset(range(0x20, 0x7F)) | frozenset(range(0x80, 0x100))
SIZE_MAX = 2**63 - 1


class ModelRefuses(Exception):
    """The octets are no chunked body; says where."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def peek(self) -> int:
        return self.data[self.at] if self.at < len(self.data) else -1

    def take_while(self, allowed: frozenset[int]) -> bytes:
        start = self.at
        while self.peek() in allowed:
            self.at += 1
        return self.data[start : self.at]

    def expect(self, text: bytes) -> None:
        if self.data[self.at : self.at + len(text)] != text:
            raise ModelRefuses(f"octet {self.at}: expected {text!r}")
        self.at += len(text)

    def spaces(self) -> None:
        self.take_while(frozenset(b" \t"))


def read_chunked(data: bytes) -> tuple[bytes, int]:
    """Return the content and where the body ends; raises `ModelRefuses`, also when it is not complete."""
    reader = _Reader(data)
    content = b""
    while True:
        digits = reader.take_while(HEX)
        if not 1 <= len(digits) <= 16:
            raise ModelRefuses(f"octet {reader.at}: chunk size")
        size = int(digits, 16)
        if size > SIZE_MAX:
            raise ModelRefuses("chunk size beyond 63 bits")
        _extensions(reader)
        reader.expect(b"\r\n")
        if size == 0:
            break
        if reader.at + size > len(data):
            raise ModelRefuses("incomplete")
        content += data[reader.at : reader.at + size]
        reader.at += size
        reader.expect(b"\r\n")
    while reader.data[reader.at : reader.at + 2] != b"\r\n":
        if not reader.take_while(TOKEN):
            raise ModelRefuses(f"octet {reader.at}: trailer name")
        reader.expect(b":")
        reader.take_while(VALUE)
        reader.expect(b"\r\n")
    return content, reader.at + 2


def _extensions(reader: _Reader) -> None:
    while True:
        before = reader.at
        reader.spaces()
        if reader.peek() != ord(";"):
            reader.at = before
            return
        reader.at += 1
        reader.spaces()
        if not reader.take_while(TOKEN):
            raise ModelRefuses(f"octet {reader.at}: extension name")
        before = reader.at
        reader.spaces()
        if reader.peek() != ord("="):
            reader.at = before
            continue
        reader.at += 1
        reader.spaces()
        if reader.peek() != ord('"'):
            if not reader.take_while(TOKEN):
                raise ModelRefuses(f"octet {reader.at}: extension value")
            continue
        reader.at += 1
        while reader.peek() != ord('"'):
            if reader.peek() == ord("\\"):
                reader.at += 1
                if reader.peek() not in ESCAPED:
                    raise ModelRefuses(f"octet {reader.at}: escape")
                reader.at += 1
            elif reader.peek() in QUOTED:
                reader.at += 1
            else:
                raise ModelRefuses(f"octet {reader.at}: quoted value")
        reader.at += 1
