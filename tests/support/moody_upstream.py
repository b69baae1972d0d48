"""A ledger upstream that falls ill on command, and a journal of every POST that outlives its process.

`GET /mood/NAME` sets how requests are answered from then on (see `Mood`); `/books` is always answered, so that probes
can be told apart from traffic: `GET /well` is the probe's path and follows the mood. SIGTERM drains it, as good servers
do: it listens no more, answers what comes on the connections it has and closes them with that, and closes the others
when they have been quiet for a while.

    python -m tests.support.moody_upstream --colour blue --instance blue-1 --journal FILE
"""

from __future__ import annotations

import argparse
import asyncio
import enum
import os
import signal
import socket
import struct
import sys
from pathlib import Path

import uvloop
from typing_extensions import override

from tests.support.ledger_upstream import Books, LedgerServer
from tests.support.processes import Upstream

RESET_AFTER_S = 0.01
QUIET_S = 0.5
"""An idle connection is closed after this long in a drain: by then gateways have seen that nobody listens any more."""


class Mood(enum.Enum):
    """How a server answers."""

    WELL = "well"
    HANG = "hang"
    RESET_HEAD = "reset-head"
    RESET_BODY = "reset-body"
    HALF_500 = "half-500"


class Patient:
    """One server's mood and journal, shared by its connections."""

    def __init__(self, books: Books, journal: Path) -> None:
        self.books = books
        self.mood = Mood.WELL
        self.requests = 0
        self.draining = False
        self.connections: set[MoodyServer] = set()
        # Unbuffered: what was read stands there even when the process is killed in the next instant.
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, request_id: bytes) -> None:
        os.write(self._journal, request_id + b"\n")

    async def drain(self) -> None:
        """Ends when all connections have."""
        self.draining = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        while self.connections:
            quiet_since = loop.time() - QUIET_S
            if began <= quiet_since:
                for connection in list(self.connections):
                    connection.close_if_quiet(since=quiet_since)
            await asyncio.sleep(RESET_AFTER_S)


class MoodyServer(LedgerServer):
    """The ledger's server with moods."""

    def __init__(self, patient: Patient) -> None:
        super().__init__(patient.books)
        self._patient = patient
        self._read_at = 0.0

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._read_at = asyncio.get_running_loop().time()
        self._patient.connections.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._patient.connections.discard(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._read_at = asyncio.get_running_loop().time()
        super().data_received(data)

    def close_if_quiet(self, *, since: float) -> None:
        assert self._transport is not None
        if self._read_at < since:
            self._transport.close()

    @override
    def _answer(self, head: bytes, body: bytes) -> None:
        method, target, _ = head.split(b" ", 2)
        if target.startswith(b"/mood/"):
            self._patient.mood = Mood(target.removeprefix(b"/mood/").decode())
            self._write(b"ok")
            return
        if target == b"/books":
            super()._answer(head, body)
            return
        if method == b"POST":
            self._patient.note(target.rsplit(b"/", 1)[-1])
        match self._patient.mood:
            case Mood.WELL:
                self._answer_well(head, body, probe=target == b"/well")
            case Mood.HANG:
                pass
            case Mood.RESET_HEAD:
                self._send_and_reset(b"HTTP/1.1 200 OK\r\nContent-Len")
            case Mood.RESET_BODY:
                self._send_and_reset(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of what was")
            case Mood.HALF_500:
                self._patient.requests += 1
                if self._patient.requests % 2:
                    self._send(b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno")
                else:
                    self._answer_well(head, body, probe=target == b"/well")

    def _answer_well(self, head: bytes, body: bytes, *, probe: bool) -> None:
        if probe:
            self._write(b"well")
        else:
            super()._answer(head, body)

    @override
    def _write(self, body: bytes, *, kind: bytes = b"text/plain", status: bytes = b"200 OK") -> None:
        if not self._patient.draining:
            super()._write(body, kind=kind, status=status)
            return
        assert self._transport is not None
        self._send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        self._transport.close()

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _send_and_reset(self, data: bytes) -> None:
        self._send(data)
        asyncio.get_running_loop().call_later(RESET_AFTER_S, self._reset)

    def _reset(self) -> None:
        assert self._transport is not None
        raw = self._transport.get_extra_info("socket")
        if raw is not None and not self._transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class MoodyUpstream(Upstream):
    """The process of one; `posts()` reads its journal."""

    def __init__(self, colour: str, instance: str, folder: Path, *, host: str = "127.0.0.1") -> None:
        super().__init__(colour, instance, folder)
        self.host = host
        self.journal = folder / f"{instance}.journal"
        self.arguments = [
            sys.executable, "-m", "tests.support.moody_upstream", "--host", host,
            "--colour", colour, "--instance", instance, "--journal", str(self.journal),
        ]  # fmt: skip

    @property
    @override
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def posts(self) -> list[str]:
        """The ids of all POSTs that it ever read whole."""
        return self.journal.read_text().split() if self.journal.exists() else []


async def serve(patient: Patient, host: str, port: int, port_file: Path | None) -> None:
    """Serves until SIGTERM; writes the port it got to `port_file` once it listens."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: MoodyServer(patient), host, port, backlog=1024)
    if port_file is not None:
        fresh = port_file.with_suffix(".new")
        fresh.write_text(str(server.sockets[0].getsockname()[1]))
        fresh.rename(port_file)
    done = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, done.set)
    await done.wait()
    server.close()
    await patient.drain()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--colour", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path)
    options = parser.parse_args()
    patient = Patient(Books(options.colour, options.instance), options.journal)
    uvloop.run(serve(patient, options.host, options.port, options.port_file))


if __name__ == "__main__":
    main()
