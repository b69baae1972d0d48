"""The traffic sockets: Kong's listener syntax, and one bound socket per worker and address.

Sockets are bound at start, which claims the port and finds mistakes early, but nobody listens on them until a config is
active: until then connects are refused, which a load balancer understands. All workers share an address through
SO_REUSEPORT; the kernel spreads new connections over those that listen.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass

from pointsman.settings import SocketAddress

BACKLOG_DEFAULT = 16384

_LATER_FLAGS = {"http2": "HTTP/2"}


class ListenError(ValueError):
    """A listener that can't be had; the text names it and says what to do."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """TCP keep-alive of accepted connections; 0 = the system's figure."""

    idle_s: int = 0
    interval_s: int = 0
    count: int = 0


@dataclass(frozen=True, slots=True)
class ListenSpec:
    """One listener as the operator wrote it. Port 0 = chosen by the kernel, the same for all workers."""

    address: SocketAddress
    backlog: int = BACKLOG_DEFAULT
    deferred: bool = False
    ipv6only: bool = True
    keepalive: KeepAlive | None = None
    ssl: bool = False
    proxy_protocol: bool = False


def parse_listen(text: str) -> ListenSpec:
    """`address:port flag ...` (spec/proxy.md section 12); raises ListenError."""
    words = text.split()
    if not words:
        raise ListenError("a listener is empty; write it like 0.0.0.0:8000")
    if words[0] == "off":
        raise ListenError("'off' leaves a node with nothing to serve; give an address like 0.0.0.0:8000")
    try:
        address = SocketAddress.parse(words[0])
    except ValueError as error:
        raise ListenError(str(error)) from None
    backlog, deferred, ipv6only, ssl, proxy_protocol = BACKLOG_DEFAULT, False, True, False, False
    keepalive: KeepAlive | None = None
    for flag in words[1:]:
        name, _, value = flag.partition("=")
        if flag in _LATER_FLAGS:
            raise ListenError(f"'{text}': {_LATER_FLAGS[flag]} is not there yet; leave out the flag '{flag}'")
        if flag in ("reuseport", "bind"):
            continue  # always so
        if flag == "deferred":
            deferred = True
        elif flag == "ssl":
            ssl = True
        elif flag == "proxy_protocol":
            proxy_protocol = True
        elif name == "backlog" and value.isascii() and value.isdigit() and 0 < int(value) <= 65535:
            backlog = int(value)
        elif name == "ipv6only" and value in ("on", "off"):
            ipv6only = value == "on"
        elif name == "so_keepalive" and value:
            keepalive = _keepalive(value, text)
        else:
            raise ListenError(
                f"'{text}': unknown flag '{flag}'; known are ssl, proxy_protocol, reuseport, bind, deferred, "
                "backlog=N, ipv6only=on|off, so_keepalive=on|off|idle:interval:count"
            )
    return ListenSpec(address, backlog, deferred, ipv6only, keepalive, ssl, proxy_protocol)


def _keepalive(value: str, text: str) -> KeepAlive | None:
    if value == "off":
        return None
    if value == "on":
        return KeepAlive()
    parts = value.split(":")
    if len(parts) != 3 or not all(part == "" or (part.isascii() and part.isdigit()) for part in parts):
        raise ListenError(f"'{text}': so_keepalive is on, off or idle:interval:count in seconds")
    idle_s, interval_s, count = (int(part or 0) for part in parts)
    return KeepAlive(idle_s, interval_s, count)


def bind_for_workers(spec: ListenSpec, workers: int) -> list[socket.socket]:
    """One bound socket per worker, all on the same address; raises ListenError."""
    bound: list[socket.socket] = []
    try:
        family, address = _resolve(spec.address)
        for _ in range(workers):
            sock = _bind(spec, family, address)
            bound.append(sock)
            address = (address[0], sock.getsockname()[1], *address[2:])
    except OSError as error:
        for sock in bound:
            sock.close()
        raise ListenError(f"can't bind {spec.address}: {error.strerror or error}") from error
    return bound


def bind_one(address: SocketAddress) -> socket.socket:
    """A bound socket for a port that is not shared; raises ListenError."""
    try:
        family, resolved = _resolve(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(resolved)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ListenError(f"can't bind {address}: {error.strerror or error}") from error
    return sock


def address_of(sock: socket.socket) -> SocketAddress:
    """Where a socket is bound."""
    host, port = sock.getsockname()[:2]
    return SocketAddress(host, port)


def is_taken(spec: ListenSpec) -> bool:
    """Whether another process listens there now. Sharing with it is allowed (a node being replaced), rarely meant."""
    if spec.address.port == 0:
        return False
    try:
        family, address = _resolve(spec.address)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE  # anything else is for `bind_for_workers` to tell
    return False


_Address = tuple[str, int] | tuple[str, int, int, int]


def _resolve(wanted: SocketAddress) -> tuple[socket.AddressFamily, _Address]:
    found = socket.getaddrinfo(
        wanted.host, wanted.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
    )
    family, _, _, _, address = found[0]
    if len(address) == 4:
        return family, (str(address[0]), int(address[1]), int(address[2]), int(address[3]))
    return family, (str(address[0]), int(address[1]))


def _bind(spec: ListenSpec, family: socket.AddressFamily, address: _Address) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(spec.ipv6only))
        if spec.deferred:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
        if spec.keepalive is not None:
            # Accepted connections inherit these from the listening socket.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, figure in (
                (socket.TCP_KEEPIDLE, spec.keepalive.idle_s),
                (socket.TCP_KEEPINTVL, spec.keepalive.interval_s),
                (socket.TCP_KEEPCNT, spec.keepalive.count),
            ):
                if figure:
                    sock.setsockopt(socket.IPPROTO_TCP, option, figure)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
