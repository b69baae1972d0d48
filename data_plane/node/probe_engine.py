"""Many short connections at once, as cheap as they can be: connect, perhaps TLS, one request, one verdict, gone.

A node may have to send thousands of probes a second beside everything else it does. asyncio's connections cost several
tasks and callbacks each; here a probe is a non-blocking socket in an epoll of our own, which the event loop watches as
one descriptor. No redirect is followed, nothing is kept alive, and at most `READ_BYTES_MAX` octets are read.

Each step (connecting, TLS, the answer) may take the probe's timeout. A connection or handshake that is too slow counts
as Kong counts it: the first is a timeout, the second a TCP failure. A time in which this process itself did not run is
nobody's slowness: on a machine that is short of CPU a node would else call well targets ill, all of them at once.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import os
import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from data_plane.health import Event
from data_plane.node.probe_requests import Read, Result

READ_BYTES_MAX = 64 * 1024
DRAINING_MAX = 256
"""Connections whose verdict is there and whose rest is read so that the server sees no reset; beyond it: closed."""
SWEEP_EVERY_S = 0.02
STALL_S = 0.06
"""A sweep this much late says that this process did not run; busy loops are late by a few milliseconds."""

_CHUNK_BYTES = 16 * 1024
_EVENTS_MAX = 512
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_EDGES = select.EPOLLIN | select.EPOLLOUT | select.EPOLLET


@dataclass(frozen=True, slots=True)
class Errand:
    """One probe: where to, what to say, how to read the answer; an empty request means that connecting is enough."""

    ip: str
    port: int
    timeout_s: float
    request: bytes
    read: Read | None
    tls: ssl.SSLContext | None = None
    server_name: str = ""


class _Step(enum.Enum):
    CONNECTING = 1
    SECURING = 2
    ASKING = 3
    DRAINING = 4


class _Probe:
    """One connection on its way."""

    __slots__ = ("batch", "deadline", "done", "errand", "fd", "received", "sock", "step", "unsent")

    def __init__(
        self, errand: Errand, sock: socket.socket, done: Callable[[Result | None], None], *, deadline: float, batch: int
    ) -> None:
        self.batch = batch
        self.errand = errand
        self.sock: socket.socket | ssl.SSLSocket = sock
        self.fd = sock.fileno()
        self.done = done
        self.deadline = deadline
        self.step = _Step.CONNECTING
        self.unsent = errand.request
        self.received = b""


class ProbeEngine:
    """All probes under way. `done` of each is called once, from the loop, never from within `start`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._probes: dict[int, _Probe] = {}
        self._draining = 0
        self._batch = 0
        self._sweeping: asyncio.TimerHandle | None = None
        self._sweep_due = 0.0
        loop.add_reader(self._epoll.fileno(), self._ready)

    def start(self, errand: Errand, done: Callable[[Result | None], None]) -> None:
        """Begin a probe. `done` gets None when this process has nothing to make it with: it says nothing of others."""
        family = socket.AF_INET6 if ":" in errand.ip else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            self._loop.call_soon(done, None if error.errno in _EXHAUSTED else Event.TCP)
            return
        code = sock.connect_ex((errand.ip, errand.port))
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            self._loop.call_soon(done, None if code in _EXHAUSTED else Event.TCP)
            return
        probe = _Probe(errand, sock, done, deadline=self._loop.time() + errand.timeout_s, batch=self._batch)
        self._probes[probe.fd] = probe
        self._epoll.register(probe.fd, _EDGES)
        if self._sweeping is None:
            self._sweep_later()

    def close(self) -> None:
        """Give everything up; no `done` is called any more."""
        self._loop.remove_reader(self._epoll.fileno())
        if self._sweeping is not None:
            self._sweeping.cancel()
        for probe in self._probes.values():
            probe.sock.close()
        self._probes.clear()
        self._epoll.close()

    def _ready(self) -> None:
        self._batch += 1
        for fd, _ in self._epoll.poll(0, _EVENTS_MAX):
            probe = self._probes.get(fd)
            # A probe begun while these events are handled may have the number of one that has just ended: the event
            # is not about it, and would look as if it were connected.
            if probe is not None and probe.batch != self._batch:
                try:
                    self._advance(probe)
                except ssl.SSLError:
                    self._end(probe, Event.TCP)
                except OSError:
                    self._end(probe, Event.TCP)

    def _advance(self, probe: _Probe) -> None:
        if probe.step is _Step.CONNECTING and not self._connected(probe):
            return
        if probe.step is _Step.SECURING and not self._secured(probe):
            return
        if probe.unsent:
            try:
                probe.unsent = probe.unsent[probe.sock.send(probe.unsent) :]
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
        self._receive(probe)

    def _connected(self, probe: _Probe) -> bool:
        code = probe.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        errand = probe.errand
        if errand.tls is not None:
            try:
                probe.sock = errand.tls.wrap_socket(
                    probe.sock, server_hostname=errand.server_name or None, do_handshake_on_connect=False
                )
            except ValueError:  # a name that TLS can't say
                self._end(probe, Event.TCP)
                return False
            probe.step = _Step.SECURING
            probe.deadline = self._loop.time() + errand.timeout_s
            return True
        return self._ask(probe)

    def _secured(self, probe: _Probe) -> bool:
        assert isinstance(probe.sock, ssl.SSLSocket)
        try:
            probe.sock.do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return False
        return self._ask(probe)

    def _ask(self, probe: _Probe) -> bool:
        if probe.errand.read is None:
            self._end(probe, Event.SUCCESS)
            return False
        probe.step = _Step.ASKING
        probe.deadline = self._loop.time() + probe.errand.timeout_s
        return True

    def _receive(self, probe: _Probe) -> None:
        while True:
            try:
                data = probe.sock.recv(_CHUNK_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            probe.received += data
            if probe.step is _Step.DRAINING:
                if not data or len(probe.received) >= READ_BYTES_MAX:
                    self._close(probe)
                    return
                continue
            assert probe.errand.read is not None
            result = probe.errand.read(probe.received) if data else Event.TCP
            if result is None and len(probe.received) >= READ_BYTES_MAX:
                result = 0
            if result is not None:
                if data and self._draining < DRAINING_MAX:
                    self._draining += 1
                    probe.step = _Step.DRAINING
                    probe.done(result)
                    continue
                self._end(probe, result)
                return

    def _sweep_later(self) -> None:
        self._sweep_due = self._loop.time() + SWEEP_EVERY_S
        self._sweeping = self._loop.call_at(self._sweep_due, self._sweep)

    def _sweep(self) -> None:
        now = self._loop.time()
        late_s = now - self._sweep_due
        if late_s > STALL_S:
            for probe in self._probes.values():
                probe.deadline += late_s
        self._sweeping = None
        for probe in [probe for probe in self._probes.values() if probe.deadline <= now]:
            match probe.step:
                case _Step.CONNECTING | _Step.ASKING:
                    self._end(probe, Event.TIMEOUT)
                case _Step.SECURING:
                    self._end(probe, Event.TCP)
                case _Step.DRAINING:
                    self._close(probe)
                case _:
                    assert_never(probe.step)
        if self._probes:
            self._sweep_later()

    def _end(self, probe: _Probe, result: Result) -> None:
        told = probe.step is _Step.DRAINING
        self._close(probe)
        if not told:
            probe.done(result)

    def _close(self, probe: _Probe) -> None:
        if probe.step is _Step.DRAINING:
            self._draining -= 1
        self._probes.pop(probe.fd, None)
        probe.sock.close()
