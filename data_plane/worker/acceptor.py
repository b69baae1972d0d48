"""Accepting where the first octets decide what a connection is: a PROXY header, a TLS handshake, or neither.

    accepted --(PROXY header)--> first octet of a handshake --> TLS connection
                  |                  `----------- anything else --> answered 400 in the clear
                  `------------- listener in the clear --> connection
        `--nothing in time, or no PROXY header--> closed

The event loop's own servers hand a socket to TLS at once, and what is no handshake ends there without a word. So this
accepts by itself, takes exactly the PROXY header off the socket, peeks at the octet after it and hands the socket to
the loop. Whoever says nothing costs a descriptor and a timer until its time is over, and holds up nobody.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from data_plane.proxy.pool import COMPLAINTS_EVERY_S, EXHAUSTED
from data_plane.proxy.proxy_header import HEADER_BYTES_MAX, BadProxyHeader, ProxyHeaderReader

ACCEPTS_PER_TURN = 64
"""Connections taken before the loop turns to others."""
RETRY_S = 0.2
"""Pause after the system had no descriptor or no memory for one more."""
SHUTDOWN_S = 2.0
"""For a client to answer that a TLS connection ends; most just close."""

_HANDSHAKE = 0x16

_log = logging.getLogger(__name__)


class Speakers(Protocol):
    """Who makes the protocols, which is the proxy's `ClientFactory`."""

    def greeted(self) -> asyncio.Protocol:
        """Make the protocol of a connection that begins: it counts as one from now on."""
        ...

    def speaks_for(self, protocol: asyncio.Protocol, address: str) -> None:
        """Note whom the PROXY header names."""
        ...

    def misdirected(self, protocol: asyncio.Protocol) -> asyncio.Protocol:
        """Make the one that answers plain requests on a TLS port, in place of that one."""
        ...


@dataclass(frozen=True, slots=True)
class Greeting:
    """How connections of a listener begin. `context` None = in the clear; `timeout_s` is for all of it together."""

    speakers: Speakers
    context: ssl.SSLContext | None
    proxy_protocol: bool
    timeout_s: float


class Acceptor:
    """One listening socket that is accepted from here."""

    def __init__(self, sock: socket.socket, greeting: Greeting, *, backlog: int) -> None:
        self.greeting = greeting
        self.loop = asyncio.get_running_loop()
        self.pending: set[_Pending] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._sock = sock
        self._retry: asyncio.TimerHandle | None = None
        self._complained_at = 0.0
        sock.setblocking(False)
        sock.listen(backlog)
        self.loop.add_reader(sock, self._accept)

    def take(self, connection: socket.socket, *, timeout_s: float | None = None) -> None:
        """Begin with a connection that was accepted."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Pending(self, connection, self.greeting.timeout_s if timeout_s is None else timeout_s).look()

    def close(self) -> None:
        """Accept no more; those that have begun go on."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self.loop.remove_reader(self._sock)
        self._sock.close()

    def cut(self) -> None:
        """End those that have not become connections."""
        for pending in list(self.pending):
            pending.drop()
        for task in list(self.tasks):
            task.cancel()

    def complain(self, text: str, *arguments: object) -> None:
        """Log what clients do wrong, but not as fast as they can do it."""
        now = self.loop.time()
        if now - self._complained_at >= COMPLAINTS_EVERY_S:
            self._complained_at = now
            _log.warning(text, *arguments)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                connection, _ = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                self.complain("no connection can be accepted: %s", error.strerror)
                self.loop.remove_reader(self._sock)
                self._retry = self.loop.call_later(RETRY_S, self._resume)
                return
            self.take(connection)

    def _resume(self) -> None:
        self._retry = None
        self.loop.add_reader(self._sock, self._accept)


class _Pending:
    """One connection until it is known what it is."""

    __slots__ = ("_acceptor", "_protocol", "_reader", "_sock", "_timer", "_waits")

    def __init__(self, acceptor: Acceptor, sock: socket.socket, timeout_s: float) -> None:
        greeting = acceptor.greeting
        self._acceptor = acceptor
        self._sock = sock
        self._protocol = greeting.speakers.greeted()
        self._reader = ProxyHeaderReader() if greeting.proxy_protocol else None
        self._waits = False
        self._timer = acceptor.loop.call_later(timeout_s, self.drop)
        acceptor.pending.add(self)

    def look(self) -> None:
        """See what is there; called anew whenever the socket has more."""
        try:
            data = self._sock.recv(HEADER_BYTES_MAX, socket.MSG_PEEK)
            if data and self._reader is not None:
                data = data[self._take_header(self._reader, data) :]
                if self._reader is not None:
                    self._wait()
                    return
                if not data and self._acceptor.greeting.context is not None:
                    self._wait()
                    return
            elif not data:
                self.drop()
                return
        except (BlockingIOError, InterruptedError):
            self._wait()
            return
        except OSError:
            self.drop()
            return
        except BadProxyHeader as bad:
            self._acceptor.complain("connection without a PROXY header is closed: %s", bad)
            self.drop()
            return
        self._hand_over(data)

    def _take_header(self, reader: ProxyHeaderReader, data: bytes) -> int:
        size = reader.feed(data)
        self._sock.recv(size)  # what was peeked at is there
        if reader.header is not None:
            self._reader = None
            self._acceptor.greeting.speakers.speaks_for(self._protocol, reader.header.address)
        return size

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._acceptor.loop.add_reader(self._sock, self.look)

    def _hand_over(self, data: bytes) -> None:
        acceptor = self._acceptor
        greeting = acceptor.greeting
        self._let_go()
        context = greeting.context
        protocol = self._protocol
        if context is not None and data[0] != _HANDSHAKE:
            context = None
            protocol = greeting.speakers.misdirected(protocol)
        task = acceptor.loop.create_task(_connect(self._sock, protocol, context, greeting.timeout_s))
        acceptor.tasks.add(task)
        task.add_done_callback(acceptor.tasks.discard)

    def drop(self) -> None:
        """End it without a word: nobody knows which one would be understood."""
        self._let_go()
        self._sock.close()

    def _let_go(self) -> None:
        self._timer.cancel()
        self._acceptor.pending.discard(self)
        if self._waits:
            self._acceptor.loop.remove_reader(self._sock)


async def _connect(
    sock: socket.socket, protocol: asyncio.Protocol, context: ssl.SSLContext | None, timeout_s: float
) -> None:
    loop = asyncio.get_running_loop()
    make: Callable[[], asyncio.Protocol] = lambda: protocol  # noqa: E731 - as the loop wants it
    try:
        if context is None:
            await loop.connect_accepted_socket(make, sock)
        else:
            await loop.connect_accepted_socket(
                make, sock, ssl=context, ssl_handshake_timeout=timeout_s, ssl_shutdown_timeout=SHUTDOWN_S
            )
    except OSError:
        sock.close()  # a handshake that failed, which its client knows best
