"""The PROXY protocol's header, versions 1 and 2: whom a load balancer speaks for (haproxy.org, proxy-protocol.txt).

Read strictly and within a limit, because whoever reaches a listener with the flag `proxy_protocol` can send one: a
header is taken in exactly one way or the connection ends. Pure: `worker/acceptor.py` feeds it what the socket has, in
pieces of any size, and what follows the header is never looked at. Whether the address is believed is not decided here
(`forwarding.py`). A checksum among the extensions of version 2 is not verified; the transport has one.
"""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass

HEADER_BYTES_MAX = 4096
"""A longer header is refused. nginx has the same limit; those of the clouds' load balancers are below 200 octets."""
LINE_BYTES_MAX = 107
"""The longest header of version 1, line end included."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_BYTES = 16
_LINE_BEGINS = b"PROXY "
_LINE = re.compile(
    rb"PROXY (?:(TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5})|UNKNOWN(?: .*)?)"
)
_UNPRINTABLE = re.compile(rb"[^ -~]")
_LOCAL, _PROXY = 0x20, 0x21
# Family and transport, with the octets that the addresses and ports take. What is not TCP has none for us.
_TCP_ADDRESSES = {0x11: (socket.AF_INET, 4), 0x21: (socket.AF_INET6, 16)}
_FAMILIES = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}


class BadProxyHeader(Exception):
    """What a connection began with is no PROXY header with one meaning; the text says why, for the log."""


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Who connected to the load balancer. `address` empty = it speaks for itself, or of no TCP connection."""

    address: str = ""
    port: int = 0


class ProxyHeaderReader:
    """One connection's header. After `feed`: `header` is there when it is complete."""

    __slots__ = ("_held", "header")

    def __init__(self) -> None:
        self._held = b""
        self.header: ProxyHeader | None = None

    def feed(self, data: bytes) -> int:
        """Return how many octets of `data` belong to the header, all while it is not complete. Raises BadProxyHeader.

        The caller must take exactly those: the next one is the client's.
        """
        assert self.header is None, "nothing is fed after the end"
        before = len(self._held)
        held = self._held + data
        end = _end_of(held)
        if end is None:
            self._held = held
            return len(data)
        self._held = b""
        self.header = _version_2(held[:end]) if held[:1] == b"\r" else _version_1(held[: end - 2])
        return end - before


def _end_of(held: bytes) -> int | None:
    """Where the header ends, None when that is not there yet."""
    if held[: len(_SIGNATURE)] == _SIGNATURE[: len(held)]:
        if len(held) < _FIXED_BYTES:
            return None
        total = _FIXED_BYTES + int.from_bytes(held[14:16], "big")
        if total > HEADER_BYTES_MAX:
            raise BadProxyHeader(f"its length {total} is beyond {HEADER_BYTES_MAX}")
        return total if len(held) >= total else None
    if held[: len(_LINE_BEGINS)] != _LINE_BEGINS[: len(held)]:
        raise BadProxyHeader("it begins with something else")
    end = held.find(b"\r", 0, LINE_BYTES_MAX - 1)
    if _UNPRINTABLE.search(held, 0, LINE_BYTES_MAX if end < 0 else end) is not None:
        raise BadProxyHeader("an octet in its line is not printable")
    if end < 0:
        if len(held) >= LINE_BYTES_MAX - 1:
            raise BadProxyHeader(f"its line is longer than {LINE_BYTES_MAX} octets")
        return None
    if len(held) == end + 1:
        return None
    if held[end + 1] != 0x0A:
        raise BadProxyHeader("an octet in its line is not printable")
    return end + 2


def _version_1(line: bytes) -> ProxyHeader:
    found = _LINE.fullmatch(line)
    if found is None:
        raise BadProxyHeader("its line is not of version 1")
    if found[1] is None:
        return ProxyHeader()
    family = socket.AF_INET if found[1] == b"TCP4" else socket.AF_INET6
    address = _address(family, found[2])
    _address(family, found[3])
    port = _port(found[4])
    _port(found[5])
    return ProxyHeader(address, port)


def _address(family: socket.AddressFamily, text: bytes) -> str:
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text.decode("ascii")))
    except OSError:
        raise BadProxyHeader("one of its addresses is none of its family") from None


def _port(digits: bytes) -> int:
    port = int(digits)
    if port > 65535 or (len(digits) > 1 and digits.startswith(b"0")):
        raise BadProxyHeader("one of its ports is none")
    return port


def _version_2(header: bytes) -> ProxyHeader:
    command, family = header[12], header[13]
    if command not in (_LOCAL, _PROXY):
        raise BadProxyHeader("its version and command are not of version 2")
    if command == _LOCAL:
        return ProxyHeader()  # a health check of the load balancer itself; the rest says nothing
    size = _FAMILIES.get(family)
    if size is None:
        raise BadProxyHeader("its family and transport are unknown")
    rest = header[_FIXED_BYTES:]
    if len(rest) < size:
        raise BadProxyHeader("it is too short for its addresses")
    _check_extensions(rest[size:])
    tcp = _TCP_ADDRESSES.get(family)
    if tcp is None:
        return ProxyHeader()
    (port,) = struct.unpack_from("!H", rest, 2 * tcp[1])
    return ProxyHeader(socket.inet_ntop(tcp[0], rest[: tcp[1]]), port)


def _check_extensions(rest: bytes) -> None:
    """Each is a type, a length of two octets and so much of a value; nothing else may follow the addresses."""
    at = 0
    while at < len(rest):
        if len(rest) - at < 3:
            raise BadProxyHeader("its extensions end inside one")
        at += 3 + int.from_bytes(rest[at + 1 : at + 3], "big")
    if at > len(rest):
        raise BadProxyHeader("its extensions end inside one")
