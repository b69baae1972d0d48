"""`python -m tests.conformance upstream-malformed FILE [--only ID]`: broken answers, and what clients get.

The scripted upstream answers the vector's request with its octets and every other request cleanly, so that a clean
request afterwards shows whether the broken connection was used again. Prints `FAIL id: why` and last `passed N of M`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from data_plane.model import ServiceConfig
from data_plane.proxy.settings import ProxySettings
from tests.conformance.malformed import AT_ONCE, Vector, octets_of
from tests.conformance.strict_http import Message, NotStrictError, read_answer
from tests.support.patience import PATIENCE_S
from tests.support.proxying import Client, Rig, proxy_to, upstream_of

READ_TIMEOUT_S = 0.5
EARLY_BODY_BYTES = 64 << 20


@dataclass
class Scripted:
    """An upstream that misbehaves once; remembers which of its connections carried what."""

    vector: Vector
    connections: int = 0
    broken_on: int = 0
    clean_on: int = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b" /clean" in head:
                self.clean_on = number
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nclean")
                continue
            self.broken_on = number
            if await self._misbehave(reader, writer):
                return

    async def _misbehave(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Send the octets as the plan says; True when the connection ends."""
        plan = self.vector.get("plan", {})
        assert isinstance(plan, dict)
        if plan.get("rst"):
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return True
        octets = octets_of(self.vector)
        size = plan.get("split_every", len(octets) or 1)
        for begin in range(0, len(octets), size):
            writer.write(octets[begin : begin + size])
            await writer.drain()
            await asyncio.sleep(0)
        if plan.get("hold_s"):
            await reader.read()
            return True
        return bool(self.vector["upstream_closes_after"])


@dataclass(frozen=True)
class Got:
    """What the client got: octets, whether the stream ended, and the answers in them."""

    data: bytes
    closed: bool
    answers: Sequence[Message]
    fault: str


async def ask(rig: Rig, vector: Vector) -> Got:
    """Send the vector's request and read to its answer, or to the end."""
    method = str(vector["request_method"])
    client = await Client.open(rig.port)
    request = f"{method} /broken HTTP/1.1\r\nHost: h\r\n".encode()
    if method == "POST":
        request += b"Content-Length: %d\r\n\r\n" % EARLY_BODY_BYTES + b"x" * 200_000
    else:
        request += b"\r\n"
    client.send(request)
    data, closed, fault = b"", False, ""
    answers: list[Message] = []
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                piece = await client.reader.read(1 << 16)
                data += piece
                closed = closed or not piece
                answers, fault = _answers(data, head=method == "HEAD")
                if closed or fault or any(answer.status >= 200 for answer in answers):
                    break
    except ConnectionError:
        closed = True
    finally:
        await client.close()
    return Got(data, closed, answers, fault)


def _answers(data: bytes, *, head: bool) -> tuple[list[Message], str]:
    answers: list[Message] = []
    try:
        while data:
            read = read_answer(data, no_body=head)
            if read is None:
                break
            answers.append(read[0])
            data = read[1]
    except NotStrictError as fault:
        return answers, str(fault)
    return answers, ""


def judge(wanted: str, got: Got, vector: Vector) -> str:
    """Return why the client's side is not of that class; empty when it is."""
    final = [answer for answer in got.answers if answer.status >= 200]
    shown = f"got {[answer.status for answer in got.answers]}, {got.data[-60:]!r}"
    if got.fault:
        return f"client got what is not strict: {got.fault}"
    if wanted in ("502", "504"):
        return "" if [answer.status for answer in final] == [int(wanted)] else f"not {wanted}: {shown}"
    if wanted == "cut":
        return "" if got.closed and not final and got.data else f"not cut: {shown}"
    if not final:
        return f"no whole answer: {shown}"
    octets = octets_of(vector)
    begin = octets.rindex(b"HTTP/1.") if octets[9:10] == b"1" else 0  # the one after interim answers
    said = int(octets[begin:].split(b" ")[1][:3])
    return "" if final[0].status == said else f"status {final[0].status}, not {said}"


async def run_vector(vector: Vector) -> str:
    """Return why the vector fails; empty when it passes."""
    script = Scripted(vector)
    service = ServiceConfig(id="s", host="up.test", retries=0, read_timeout_s=READ_TIMEOUT_S)
    settings = ProxySettings(upstream_keepalive_pool_size=2)
    async with upstream_of(script) as port, proxy_to(port, service=service, settings=settings) as rig:
        got = await ask(rig, vector)
        expect = vector["expect"]
        assert isinstance(expect, dict)
        why = judge(expect["class"], got, vector)
        for alternative in expect.get("also_ok", []):
            why = why and judge(alternative, got, vector)
        if why:
            return why
        for _ in range(2):
            clean = await rig.ask(b"GET /clean HTTP/1.1\r\nHost: h\r\n\r\n")
            if not clean.endswith(b"\r\n\r\nclean"):
                return f"a clean request afterwards got {clean[:80]!r}"
            if script.clean_on == script.broken_on and expect["upstream_connection"] == "drop":
                return "the connection was used again"
        if expect["upstream_connection"] == "keep" and script.connections > 1:
            return "the connection was not used again"
    return ""


async def run_all(vectors: Sequence[Vector]) -> list[tuple[str, str]]:
    """Run vectors side by side; returns the id and the fault of each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(vector: Vector) -> tuple[str, str]:
        async with gate:
            return str(vector["id"]), await run_vector(vector)

    return await asyncio.gather(*(one(vector) for vector in vectors))


def main(arguments: Sequence[str]) -> int:
    """Run the file named, print what fails, and last `passed N of M`."""
    parser = argparse.ArgumentParser(prog="upstream-malformed", description="broken answers of an upstream")
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", help="the id of one vector")
    options = parser.parse_args(arguments)
    vectors = [
        vector
        for vector in json.loads(options.file.read_text())["vectors"]
        if not options.only or vector["id"] == options.only
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(run_all(vectors))
    for name, why in results:
        if why:
            print(f"FAIL {name}: {why}")
    passed = sum(not why for _, why in results)
    print(f"passed {passed} of {len(results)}")
    return 0 if passed == len(results) else 1
