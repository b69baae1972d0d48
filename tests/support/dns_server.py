"""A small real nameserver on loopback, UDP and TCP, whose zone and misbehaviour a test sets.

async with DnsServer() as server:
    server.set("blue.test", "A", ["127.0.0.1"], ttl=5)
    server.fail("blue.test", Failure.SERVFAIL)
    ... server.nameserver, server.asked("blue.test", "A")
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import struct
from collections.abc import Sequence
from typing import Self, cast

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from typing_extensions import override

from data_plane.resolve.system import Nameserver
from tests.support.patience import last_callers


class Failure(enum.Enum):
    """How the server answers a name that is made to fail."""

    SERVFAIL = "servfail"
    REFUSED = "refused"
    SILENCE = "silence"
    WRONG_ID_FIRST = "wrong id first"  # a forged answer, then the right one
    GARBAGE_FIRST = "garbage first"
    TRUNCATED = "truncated"  # over UDP; whole over TCP


class DnsServer:
    """See the module. CNAMEs in the zone are followed within it, as a recursive server does."""

    def __init__(self) -> None:
        self._zone: dict[tuple[str, str], tuple[int, list[str]]] = {}
        self._failures: dict[str, Failure] = {}
        self._asked: list[tuple[str, str]] = []
        self._transport: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def nameserver(self) -> Nameserver:
        return Nameserver("127.0.0.1", self.port)

    def set(self, name: str, kind: str, values: Sequence[str], *, ttl: int = 60) -> None:
        """Let `name` have these records; none = the name exists without them."""
        self._zone[(name.lower(), kind)] = (ttl, list(values))

    def remove(self, name: str) -> None:
        """Let `name` not exist."""
        for key in [key for key in self._zone if key[0] == name.lower()]:
            del self._zone[key]

    def fail(self, name: str, failure: Failure | None) -> None:
        """Let questions about `name` go wrong; None = no more."""
        if failure is None:
            self._failures.pop(name.lower(), None)
        else:
            self._failures[name.lower()] = failure

    def asked(self, name: str, kind: str) -> int:
        """How often this was asked, over either transport."""
        return self._asked.count((name.lower(), kind))

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for attempts_left in reversed(range(20)):
            self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
            self.port = self._tcp.sockets[0].getsockname()[1]
            try:
                self._transport, _ = await loop.create_datagram_endpoint(
                    lambda: _Datagrams(self), local_addr=("127.0.0.1", self.port)
                )
                break
            except OSError:  # the port is free for TCP but somebody's for UDP
                self._tcp.close()
                if not attempts_left:
                    raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._transport is not None
        assert self._tcp is not None
        self._transport.close()
        self._tcp.close()
        for writer in list(self._connections):
            writer.close()
        await last_callers()

    def answers(self, data: bytes, *, tcp: bool) -> list[bytes]:
        """The datagrams (or messages) to send for one question."""
        try:
            query = dns.message.from_wire(data)
        except dns.exception.DNSException:
            return []
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True).lower()
        self._asked.append((name, dns.rdatatype.to_text(question.rdtype)))
        failure = self._failures.get(name)
        if failure is Failure.SILENCE:
            return []
        response = dns.message.make_response(query)
        if failure in (Failure.SERVFAIL, Failure.REFUSED):
            response.set_rcode(dns.rcode.SERVFAIL if failure is Failure.SERVFAIL else dns.rcode.REFUSED)
            return [response.to_wire()]
        if failure is Failure.TRUNCATED and not tcp:
            response.flags |= dns.flags.TC
            return [response.to_wire()]
        self._fill(response, name, dns.rdatatype.to_text(question.rdtype))
        wire = response.to_wire(max_size=65535, want_shuffle=False)  # the order in an answer means something
        if failure is Failure.WRONG_ID_FIRST:
            forged = bytes([wire[0] ^ 0xFF]) + wire[1:]
            return [forged, wire]
        if failure is Failure.GARBAGE_FIRST:
            return [b"\x00\x01garbage", wire]
        return [wire]

    def _fill(self, response: dns.message.Message, name: str, kind: str) -> None:
        for _ in range(20):
            known = {each for each, _ in self._zone}
            if name not in known:
                response.set_rcode(dns.rcode.NXDOMAIN if not response.answer else dns.rcode.NOERROR)
                return
            ttl, values = self._zone.get((name, kind), (0, []))
            if values:
                response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", kind, *values))
                return
            ttl, aliases = self._zone.get((name, "CNAME"), (0, []))
            if not aliases:
                return
            response.answer.append(dns.rrset.from_text(f"{name}.", ttl, "IN", "CNAME", *aliases))
            name = aliases[0].rstrip(".").lower()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._tcp is not None
        if not self._tcp.is_serving():
            writer.close()
            return
        self._connections.add(writer)
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                for answer in self.answers(await reader.readexactly(length), tcp=True):
                    writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        finally:
            self._connections.discard(writer)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # the standard loop's own class is not one

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        for answer in self._server.answers(data, tcp=False):
            self._transport.sendto(answer, addr)
