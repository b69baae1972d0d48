"""Questions to nameservers: one message out, one believable answer back, over UDP and, when it is cut short, TCP.

Each question goes out from a socket of its own, connected to the nameserver, with a random id: an answer is believed
only when address, port, id and question all fit (RFC 5452); whatever does not fit is ignored while the time runs on.
Lives in the node process; a worker never waits for a name.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import struct
from collections.abc import Sequence
from typing import Protocol

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from typing_extensions import override

from data_plane.resolve.system import Nameserver

UDP_PAYLOAD_BYTES = 1232
"""What we say we can take in one datagram: fits every path without fragments (DNS flag day 2020)."""


class TransportFailure(Exception):
    """No nameserver gave a usable answer in time."""


class Exchange(Protocol):
    """One question, one answer; what `Resolver` needs of a nameserver and tests replace."""

    async def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        """The answer, whatever its code; raises TransportFailure when there is none."""
        ...


class _Datagrams(asyncio.DatagramProtocol):
    """Waits for the datagram that answers `query`."""

    def __init__(self, query: dns.message.QueryMessage, answer: asyncio.Future[dns.message.Message]) -> None:
        self._query = query
        self._answer = answer

    @override
    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self._answer.done():
            return
        response = _believable(self._query, data)
        if response is not None:
            self._answer.set_result(response)

    @override
    def error_received(self, exc: Exception) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("the socket was closed"))


def _believable(query: dns.message.QueryMessage, data: bytes) -> dns.message.Message | None:
    """`data` as the answer to `query`, or None when it is malformed or belongs to another question."""
    try:
        response = dns.message.from_wire(data, ignore_trailing=True, raise_on_truncation=False)
    except (dns.exception.DNSException, ValueError):
        return None
    return response if query.is_response(response) else None


class Client:
    """Asks the given nameservers in turn until one answers."""

    def __init__(
        self,
        nameservers: Sequence[Nameserver],
        *,
        attempt_timeout_s: float,
        attempts: int,
        rotate: bool = False,
        rng: random.Random | None = None,
    ) -> None:
        if not nameservers:
            raise ValueError("at least one nameserver is needed")
        self._nameservers = tuple(nameservers)
        self._attempt_timeout_s = attempt_timeout_s
        self._attempts = attempts
        self._rotate = rotate
        self._rng = rng or random.SystemRandom()

    async def ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        """The first usable answer; SERVFAIL and REFUSED of one nameserver send the question to the next one.

        Raises TransportFailure with the last reason after all attempts; the whole takes at most attempts x timeout.
        """
        start = self._rng.randrange(len(self._nameservers)) if self._rotate else 0
        refusal: dns.message.Message | None = None
        reason = "no attempt was made"
        refused: set[Nameserver] = set()
        for attempt in range(self._attempts):
            nameserver = self._nameservers[(start + attempt) % len(self._nameservers)]
            if nameserver in refused:
                continue
            try:
                async with asyncio.timeout(self._attempt_timeout_s):
                    response = await self._exchange(nameserver, name, kind)
            except TimeoutError:
                reason = f"{nameserver.ip}:{nameserver.port} did not answer within {self._attempt_timeout_s:g} s"
                continue
            except OSError as error:
                reason = f"{nameserver.ip}:{nameserver.port}: {error.strerror or error}"
                continue
            if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                return response
            refusal = response
            refused.add(nameserver)
            if len(refused) == len(self._nameservers):
                break
        if refusal is not None:
            return refusal
        raise TransportFailure(reason)

    async def _exchange(
        self, nameserver: Nameserver, name: dns.name.Name, kind: dns.rdatatype.RdataType
    ) -> dns.message.Message:
        query = dns.message.make_query(
            name, kind, use_edns=0, payload=UDP_PAYLOAD_BYTES, id=self._rng.randrange(0x10000)
        )
        response = await self._over_udp(nameserver, query)
        if response.flags & dns.flags.TC:
            return await self._over_tcp(nameserver, query)
        if response.rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP) and query.edns >= 0:
            # Old servers refuse the EDNS record itself (RFC 6891 section 7): ask once more without.
            query.use_edns(-1)
            response = await self._over_udp(nameserver, query)
            if response.flags & dns.flags.TC:
                return await self._over_tcp(nameserver, query)
        return response

    async def _over_udp(self, nameserver: Nameserver, query: dns.message.QueryMessage) -> dns.message.Message:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dns.message.Message] = loop.create_future()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(query, answer), remote_addr=(nameserver.ip, nameserver.port)
        )
        try:
            transport.sendto(query.to_wire())
            return await answer
        finally:
            answer.cancel()
            transport.close()

    async def _over_tcp(self, nameserver: Nameserver, query: dns.message.QueryMessage) -> dns.message.Message:
        reader, writer = await asyncio.open_connection(nameserver.ip, nameserver.port)
        try:
            wire = query.to_wire()
            writer.write(struct.pack("!H", len(wire)) + wire)
            await writer.drain()
            (length,) = struct.unpack("!H", await reader.readexactly(2))
            response = _believable(query, await reader.readexactly(length))
        except asyncio.IncompleteReadError:
            raise ConnectionResetError("the nameserver closed the connection before its answer was complete") from None
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if response is None or response.flags & dns.flags.TC:
            raise ConnectionResetError("the nameserver sent a malformed answer over TCP")
        return response
