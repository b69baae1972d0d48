"""A worker's listening sockets: inherited, opened at the first activation, closed without losing who already waits.

The node process binds one socket per worker and address and keeps it open, so that connections queue while a crashed
worker is replaced. Until a config is active nobody listens and connects are refused, which tells a load balancer more
than an error page would.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import Callable, Sequence

from data_plane.worker.acceptor import Acceptor, Greeting

_SO_ATTACH_FILTER = 26
_BPF_LOAD_BYTE = 0x30  # BPF_LD | BPF_B | BPF_ABS
_BPF_JUMP_IF_SET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_BPF_RETURN = 0x06  # BPF_RET | BPF_K
_TCP_FLAGS_AT = 13
_TCP_SYN = 0x02

LATE_GREETING_S = 2.0
"""For connections that were accepted when the port was about to close."""


class Listeners:
    """The sockets of one worker and the servers that accept from them."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        factory: Callable[[], asyncio.BaseProtocol],
        *,
        backlogs: Sequence[int],
        greetings: Sequence[Greeting | None] = (),
    ) -> None:
        """`greetings` has an entry for each socket, None where requests come at once; empty = on all."""
        self._sockets = list(zip(sockets, backlogs, greetings or [None] * len(sockets), strict=True))
        self._factory = factory
        self._servers: list[asyncio.Server] = []
        self._acceptors: list[Acceptor] = []
        # The event loop takes over the descriptor it is given; these copies are ours, to empty the queue at the end.
        self._copies: list[tuple[socket.socket, Acceptor | None]] = []
        self._closed = False

    async def open(self) -> None:
        """Listen and accept."""
        loop = asyncio.get_running_loop()
        for sock, backlog, greeting in self._sockets:
            sock.setblocking(False)
            copy = sock.dup()
            copy.setblocking(False)
            acceptor: Acceptor | None = None
            if greeting is None:
                self._servers.append(await loop.create_server(self._factory, sock=sock, backlog=backlog))
            else:
                acceptor = Acceptor(sock, greeting, backlog=backlog)
                self._acceptors.append(acceptor)
            self._copies.append((copy, acceptor))

    async def close(self, *, handshakes_s: float) -> None:
        """Stop accepting, but serve every connection that a client could believe to have.

        Between a last look at the queue and the close the kernel alone would make further connections, and reset them.
        So first the sockets drop what begins a connection (its sender tries again in a second, and is refused then or
        finds another listener), for `handshakes_s` those under way complete, and then the queue is emptied.
        """
        if self._closed:
            return
        self._closed = True
        if handshakes_s and self._copies:
            for copy, _ in self._copies:
                _drop_syns(copy)
            await asyncio.sleep(handshakes_s)
        loop = asyncio.get_running_loop()
        for server in self._servers:
            server.close()
        for acceptor in self._acceptors:
            acceptor.close()
        accepted: list[socket.socket] = []
        for copy, greets in self._copies:
            with contextlib.suppress(OSError):  # nothing more in the queue, or no descriptors left to take it
                while True:
                    connection, _ = copy.accept()
                    connection.setblocking(False)
                    if greets is None:
                        accepted.append(connection)
                    else:
                        greets.take(connection, timeout_s=LATE_GREETING_S)
            copy.close()
        if not self._copies:
            for sock, *_ in self._sockets:  # never given to the event loop
                sock.close()
        await asyncio.gather(*(self._serve(loop, connection) for connection in accepted))

    def cut(self) -> None:
        """End connections that have not said yet what they are."""
        for acceptor in self._acceptors:
            acceptor.cut()

    async def _serve(self, loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
        try:
            await loop.connect_accepted_socket(self._factory, connection)
        except OSError:
            connection.close()


def _drop_syns(sock: socket.socket) -> None:
    """Let a listening socket take no new connections while it completes those that have begun.

    A classic BPF program sees each segment from its TCP header on: load the flags, drop if SYN is set, else pass all.
    Where the system knows no such thing, the few that come within microseconds of the close are reset.
    """
    program = b"".join(
        struct.pack("HBBI", code, jump_true, jump_false, value)
        for code, jump_true, jump_false, value in (
            (_BPF_LOAD_BYTE, 0, 0, _TCP_FLAGS_AT),
            (_BPF_JUMP_IF_SET, 0, 1, _TCP_SYN),
            (_BPF_RETURN, 0, 0, 0),
            (_BPF_RETURN, 0, 0, 0xFFFFFFFF),
        )
    )
    instructions = ctypes.create_string_buffer(program, len(program))
    with contextlib.suppress(OSError):
        fprog = struct.pack("HL", len(program) // 8, ctypes.addressof(instructions))
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
