"""Upstream servers that behave and misbehave as a vector says, each on the very address that the vector names.

A server names itself in its answers (`X-Peer`) and notes what it got. Attempts to connect are counted off the wire:
a refused one shows nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
import subprocess
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conformance.balancer_vectors import Received, peer_name

HOLD = b"x-vector-hold"
STEP = b"x-vector-step"

_DELAY = re.compile(r"ok after ([0-9.]+) s")
_TCP = 6
_SYN, _ACK = 0x02, 0x10


class Server:
    """One upstream server. `behaviour` and `probe_behaviour` may change at any time (`become`)."""

    def __init__(self, peer: str, received: list[Received]) -> None:
        self.peer = peer
        self.host, self.port = _host_and_port(peer)
        self.behaviour = "ok"
        self.probe_behaviour = ""
        self._received = received
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._full: list[socket.socket] = []

    async def become(self, behaviour: str, *, probe: str = "", certificate: Path | None = None) -> None:
        """Behaves like this from now on; open connections end."""
        await self.close()
        self.behaviour, self.probe_behaviour = behaviour, probe
        if behaviour == "refuse":
            return
        if behaviour == "blackhole":
            self._fill_queue()
            return
        context = None
        if "TLS" in behaviour:
            assert certificate is not None
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
        self._server = await asyncio.start_server(
            self._serve, self.host, self.port, ssl=context, reuse_address=True, backlog=512
        )

    async def close(self) -> None:
        """Stops listening and ends all connections with a reset."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        for one in self._full:
            one.close()
        self._full.clear()
        await asyncio.sleep(0)

    def _fill_queue(self) -> None:
        """A listener whose queue is full: the kernel drops what else wants to connect, so that it times out."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(0)
        self._full.append(listener)
        for _ in range(3):
            filler = socket.socket(family)
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect((self.host, self.port))
            self._full.append(filler)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.behaviour == "close":
            # Not before it was sent something: a connection that ends unused may be retried by whoever opened it.
            with contextlib.suppress(ConnectionError):
                await reader.read(1)
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head[:-4].split(b"\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
        method, path, _ = first.decode("latin-1").split(" ", 2)
        body = await _read_body(reader, fields)
        probe = STEP not in fields
        host = fields.get(b"host", b"").decode("latin-1")
        self._received.append(Received(self.peer, method, path, host, body, probe))
        behaviour = self.probe_behaviour if probe and self.probe_behaviour else self.behaviour
        if behaviour == "hang" or HOLD in fields:
            await reader.read()
            return False
        if behaviour == "raw":
            writer.write(b"\x15\x03\x01\x00\x02\x02\x46 these bytes are no HTTP\r\n\r\n")
            return False
        if behaviour == "garbage":
            writer.write(b"HTTP/1.1 200 OK\r\nX-Gar\x00bage: 1\r\nContent-Length: 0\r\n\r\n")
            return False
        if delay := _DELAY.match(behaviour):
            await asyncio.sleep(float(delay[1]))
        status = int(behaviour.partition(":")[2]) if behaviour.startswith("status:") else 200
        text = b"" if status in (204, 304) else f"own body of {self.peer}".encode()
        last = fields.get(b"connection", b"").lower() == b"close" or first.endswith(b"HTTP/1.0")
        writer.write(
            b"HTTP/1.1 %d Status\r\nX-Peer: %b\r\n%bContent-Length: %d\r\n\r\n%b"
            % (status, self.peer.encode(), b"Connection: close\r\n" if last else b"", len(text), text)
        )
        await writer.drain()
        return not last


async def _read_body(reader: asyncio.StreamReader, fields: dict[bytes, bytes]) -> int:
    if b"transfer-encoding" not in fields:
        length = int(fields.get(b"content-length", b"0"))
        await reader.readexactly(length)
        return length
    total = 0
    while size := int((await reader.readline()).split(b";")[0], 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readuntil(b"\r\n")
    return total


class Servers:
    """All servers of a vector."""

    def __init__(self, certificate_folder: Path) -> None:
        self.received: list[Received] = []
        self._servers: dict[str, Server] = {}
        self._certificate = certificate_folder / "self-signed.pem"

    def __contains__(self, peer: object) -> bool:
        return peer in self._servers

    async def open(self, peers: set[str]) -> None:
        """Lets these servers behave well."""
        for peer in sorted(peers):
            self._servers[peer] = server = Server(peer, self.received)
            await server.become("ok")

    async def become(self, peer: str, behaviour: str, *, probe: str = "") -> None:
        """Changes one server's behaviour."""
        peer = peer_name(peer)
        if peer not in self._servers:
            self._servers[peer] = Server(peer, self.received)
        if "TLS" in behaviour and not self._certificate.exists():
            await asyncio.to_thread(_make_certificate, self._certificate)
        await self._servers[peer].become(behaviour, probe=probe, certificate=self._certificate)

    async def close(self) -> None:
        """Ends all servers."""
        for server in self._servers.values():
            await server.close()
        self._servers.clear()
        self.received.clear()


def _make_certificate(path: Path) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=self-signed.test", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))],
        check=True, capture_output=True,
    )  # fmt: skip
    with path.open("a") as both:
        both.write(path.with_suffix(".crt").read_text())


class ConnectCounter:
    """Counts attempts to connect, by the address they go to, off the packets on loopback. Needs a namespace."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int]] = set()
        self._counts: Counter[str] = Counter()
        # All protocols; only a packet socket sees what is refused.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._socket.close()

    def take(self) -> Counter[str]:
        """The counts since the last call."""
        self._read()
        counts, self._counts = self._counts, Counter()
        self._seen.clear()
        return counts

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._count(self._socket.recv(256))

    def _count(self, packet: bytes) -> None:
        version = packet[0] >> 4
        if version == 4 and packet[9] == _TCP:
            tcp = packet[(packet[0] & 15) * 4 :]
            host = socket.inet_ntop(socket.AF_INET, packet[16:20])
        elif version == 6 and packet[6] == _TCP:
            tcp = packet[40:]
            host = f"[{socket.inet_ntop(socket.AF_INET6, packet[24:40])}]"
        else:
            return
        source, target = struct.unpack("!HH", tcp[:4])
        if tcp[13] & (_SYN | _ACK) != _SYN:
            return
        peer = peer_name(f"{host}:{target}")
        # Each packet passes twice on loopback, and an unanswered one is sent again: one port of origin, one attempt.
        if (peer, source) not in self._seen:
            self._seen.add((peer, source))
            self._counts[peer] += 1


def _host_and_port(peer: str) -> tuple[str, int]:
    host, _, port = peer.rpartition(":")
    return host.strip("[]"), int(port)
