"""`python -m tests.conformance malformed FILE [--only ID]`: hostile requests against the proxy on loopback.

Each vector gets a proxy and a recording upstream of its own, so that they can run side by side and nothing one leaves
behind is seen by another. Prints `FAIL id: why` for what fails leniently, `strict-only id: why` for what meets only an
alternative, then `strict: N of M` and `passed N of M`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import uvloop

from data_plane.proxy.settings import ProxySettings
from pointsman.rules.paths import normalise
from tests.conformance.strict_http import Message, NotStrictError, read_answer, read_request
from tests.support.proxying import Client, Rig, proxy_to, route_to_first, upstream_of

Vector: TypeAlias = Mapping[str, object]

AT_ONCE = 24
SILENCE_S = 10.0
BIG_BYTES = 64 << 20
LARGE_BYTES = 1 << 18
CANARY = b"/__canary__/"
# Ports of 127.0.0.1 are the whole machine's: who still dials one that was another's a moment ago must not come here.
OWN_IP = f"127.{64 + (os.getpid() >> 14) % 128}.{(os.getpid() >> 6) % 256}.{1 + os.getpid() % 64}"


@dataclass
class Recorder:
    """What the upstream got: the octets of each connection, the requests in them, and the first that was not strict."""

    connections: list[bytearray] = field(default_factory=list)
    requests: list[Message] = field(default_factory=list)
    fault: str = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        octets = bytearray()
        self.connections.append(octets)
        pending = b""
        while piece := await reader.read(1 << 16):
            octets += piece
            pending += piece
            # To read a large body again and again from its beginning would take longer than anything else here.
            while len(pending) < LARGE_BYTES or pending.endswith(b"\r\n"):
                try:
                    read = read_request(pending)
                except NotStrictError as fault:
                    self.fault = self.fault or str(fault)
                    return
                if read is None:
                    break
                request, pending = read
                self.requests.append(request)
                if await self._answer(request, reader, writer):
                    return

    async def _answer(self, request: Message, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer; True when the connection has become a tunnel and ended."""
        target = request.start[1]
        if target.startswith(b"/ws") and request.values("upgrade") == [b"websocket"]:
            if request.values("sec-websocket-version") != [b"13"]:
                writer.write(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
                return False
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while data := await reader.read(1000):
                writer.write(data)
            return True
        if target.startswith(b"/big"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BIG_BYTES)
            for _ in range(BIG_BYTES >> 16):
                writer.write(b"x" * 65536)
                await writer.drain()
            return False
        body = b"" if request.start[0] == b"HEAD" else b"seen " + target[:100]
        writer.write(b"HTTP/1.1 200 OK\r\nX-Recorder: 1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return False


@dataclass
class Outcome:
    """What the client saw."""

    data: bytes = b""
    closed: bool = False
    tunnelled: bool = False
    answers: list[Message] = field(default_factory=list)
    fault: str = ""

    def parse(self, *, head: bool) -> None:
        """Read the answers out of the octets."""
        rest = self.data
        self.answers = []
        try:
            while rest:
                read = read_answer(rest, no_body=head, ended=self.closed)
                if read is None:
                    break
                answer, rest = read
                self.answers.append(answer)
        except NotStrictError as fault:
            self.fault = str(fault)

    @property
    def final(self) -> list[Message]:
        """The answers that are no interim ones."""
        return [answer for answer in self.answers if answer.status >= 200]


def octets_of(vector: Vector) -> bytes:
    """Return the octets a vector sends."""
    raw = vector.get("raw")
    if isinstance(raw, str):
        return raw.encode("latin-1")
    parts = vector["raw_parts"]
    assert isinstance(parts, list)
    return b"".join(text.encode("latin-1") * repeat for text, repeat in parts)


@asynccontextmanager
async def rig_for(recorder: Recorder, *, scale: float, hostless: bool = False) -> AsyncIterator[Rig]:
    """Run the proxy with the routes and limits that the vectors ask for.

    `hostless` adds a route that asks for no host: no other could show what becomes of a request without one.
    """
    settings = ProxySettings(
        head_bytes_max=32768,
        header_line_bytes_max=32768,
        header_count_max=200,
        request_line_bytes_max=16384,
        body_bytes_max=8388608,
        chunk_extension_bytes_max=16384,
        head_timeout_s=5 * scale,
        body_idle_timeout_s=5 * scale,
        keepalive_timeout_s=5 * scale,
        send_timeout_s=5 * scale,
        upstream_keepalive_pool_size=1,
    )
    # Everything but what begins with /ad and /g, so that there is no route for /admin and only GET for /get-only.
    routes = [
        route_to_first(id="all", hosts=("gw.test",), paths=("~/(?s:[^ag].*|a|a[^d].*)?$",)),
        route_to_first(id="get", hosts=("gw.test",), paths=("/get-only",), methods=("GET",)),
    ]
    if hostless:
        routes.append(route_to_first(id="hostless", paths=("/v",)))
    async with (
        upstream_of(recorder, ip=OWN_IP) as port,
        proxy_to(port, settings=settings, routes=routes, ip=OWN_IP) as rig,
    ):
        yield rig


async def converse(vector: Vector, rig: Rig, *, scale: float) -> Outcome:
    """Send what the vector says, in its manner, and read until it can be judged."""
    plan = vector.get("plan", {})
    expect = vector["expect"]
    assert isinstance(plan, dict)
    assert isinstance(expect, dict)
    data = octets_of(vector)
    outcome = Outcome()
    client = await Client.open(rig.port, OWN_IP)
    try:
        if "drip_bytes" in plan:
            sending = asyncio.create_task(_drip(client, data, scale * plan["drip_every_s"], scale * plan["max_s"]))
            await _read_on(client, outcome, silence_s=scale * plan["max_s"])
            sending.cancel()
            return outcome
        if "read_every_s" in plan:
            client.send(data)
            return await _sip(client, outcome, scale * plan["max_s"], rig)
        if "split_every" in plan:
            for octet in data:
                client.send(bytes([octet]))
                await asyncio.sleep(0)
        else:
            client.send(data)
        if plan.get("half_close_after"):
            client.writer.write_eof()
        if "wait_for" in plan:
            await _read_on(client, outcome, silence_s=SILENCE_S, until=plan["wait_for"].encode())
            client.send(plan["then_send"].encode())
        silence_s = scale * plan["hold_s"] if "hold_s" in plan else SILENCE_S
        count = expect["upstream_requests"]
        answers = expect.get("responses", count if isinstance(count, int) and count else 1)
        if expect["connection_after"] == "close":
            answers = 0
        no_body = data.startswith(b"HEAD ")
        await _read_on(client, outcome, silence_s=silence_s, answers=answers, no_body=no_body)
        outcome.parse(head=no_body)
        if outcome.final == [] and outcome.answers and outcome.answers[-1].status == 101:
            client.send(b"ping")
            outcome.tunnelled = await client.reader.readexactly(4) == b"ping"
        elif expect["connection_after"] == "keep" and not outcome.closed:
            client.send(b"GET /after HTTP/1.1\r\nHost: gw.test\r\n\r\n")
            try:
                after = await client.answer()
            except (ConnectionError, asyncio.IncompleteReadError):
                outcome.closed = True
            else:
                if after.body != b"seen /after":
                    outcome.fault = f"the next request on the connection got {after.body[:80]!r}"
    finally:
        await client.close()
    return outcome


async def _read_on(
    client: Client, outcome: Outcome, *, silence_s: float, until: bytes = b"", answers: int = 0, no_body: bool = False
) -> None:
    """Read to the end of the stream, to N answers, to a word, or until nothing more comes."""
    try:
        while True:
            async with asyncio.timeout(silence_s):
                piece = await client.reader.read(1 << 16)
            if not piece:
                outcome.closed = True
                break
            outcome.data += piece
            outcome.parse(head=no_body)
            if (until and until in outcome.data) or (answers and len(outcome.final) >= answers):
                return
            if any(answer.status == 101 for answer in outcome.answers):
                return
    except TimeoutError:
        pass
    except ConnectionError:
        outcome.closed = True
    outcome.parse(head=no_body)


async def _drip(client: Client, data: bytes, every_s: float, max_s: float) -> None:
    for octet in data[: int(max_s / every_s) + 1]:
        client.send(bytes([octet]))
        await asyncio.sleep(every_s)


async def _sip(client: Client, outcome: Outcome, max_s: float, rig: Rig) -> Outcome:
    """Read next to nothing of a large answer until the gateway has had enough."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport reads
    try:
        async with asyncio.timeout(max_s):
            while rig.factory.connections:
                await asyncio.sleep(0.05)
        outcome.closed = True
    except TimeoutError:
        pass
    client.writer.transport.resume_reading()  # type: ignore[attr-defined]
    await _read_on(client, outcome, silence_s=SILENCE_S)
    return outcome


async def probe(rig: Rig, recorder: Recorder) -> str:
    """Send clean requests on new connections: each must get its own answer, over whatever the pool holds now."""
    for number in range(2):
        token = b"/probe%d" % number
        client = await Client.open(rig.port, OWN_IP)
        try:
            client.send(b"GET " + token + b" HTTP/1.1\r\nHost: gw.test\r\n\r\n")
            answer = await client.answer()
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError) as error:
            return f"probe {number} got no answer: {error!r}"
        finally:
            await client.close()
        if answer.body != b"seen " + token:
            return f"probe {number} got {answer.status} {answer.body[:80]!r}"
    return recorder.fault and f"upstream got what is not strict: {recorder.fault}"


def check_always(vector: Vector, recorder: Recorder, outcome: Outcome) -> str:
    """Check what holds for every vector, whatever the class."""
    if recorder.fault:
        return f"upstream got what is not strict: {recorder.fault}"
    if outcome.fault:
        return f"client got what is not strict: {outcome.fault}"
    if any(answer.status in (500, 502) for answer in outcome.answers):
        return f"answered {[answer.status for answer in outcome.answers]}"
    expect = vector["expect"]
    assert isinstance(expect, dict)
    for matcher in expect.get("upstream_must_not_see", []):
        if matches(matcher, recorder):
            return f"upstream saw {matcher}"
    for matcher in expect.get("upstream_must_see", []):
        if recorder.requests and not matches(matcher, recorder):
            return f"upstream did not see {matcher}"
    return ""


def matches(matcher: Mapping[str, object], recorder: Recorder) -> bool:
    """Tell whether the upstream saw what a matcher describes."""
    octets = b"".join(bytes(connection) for connection in recorder.connections)
    text = {key: value.encode("latin-1") for key, value in matcher.items() if isinstance(value, str)}
    requests = recorder.requests
    if "request_line_contains" in text:
        return any(text["request_line_contains"] in request.head.split(b"\r\n")[0] for request in requests)
    if "octets" in text:
        return text["octets"] in octets
    if "octets_regex" in text:
        return any(re.search(text["octets_regex"], request.framing) for request in requests)
    if "octets_outside_a_framed_request" in text:
        return any(text["octets_outside_a_framed_request"] in request.body for request in requests)
    if "fields_together" in matcher:
        names = matcher["fields_together"]
        assert isinstance(names, list)
        return any(all(request.values(name) for name in names) for request in requests)
    if "field" in text:
        found = [value for request in requests for value in request.values(str(matcher["field"]))]
        return any(text.get("value_contains", b"") in value for value in found)
    if "trailer" in text:
        return any(name.lower() == text["trailer"] for request in requests for name, _ in request.trailers)
    if "target_contains" in text:
        return any(text["target_contains"] in request.start[1] for request in requests)
    if "target_resolves_under" in text:
        under = text["target_resolves_under"]
        paths = [normalise(request.start[1].partition(b"?")[0]) for request in requests]
        return any(path == under or path.startswith(under + b"/") for path in paths)
    if "body" in text:
        return any(request.body == text["body"] for request in requests)
    raise ValueError(f"unknown matcher {matcher}")


def judge(wanted: str, vector: Vector, seen: Sequence[Message], outcome: Outcome) -> str:
    """Return why the outcome is not of that class; empty when it is."""
    statuses = [answer.status for answer in outcome.final]
    got = f"got {statuses or ('a close' if outcome.closed else 'nothing')}, {len(seen)} requests upstream"
    first = statuses[0] if statuses else 0
    ok = False
    match wanted:
        case "reject-400":
            ok = statuses[-1:] == [400] and not seen
        case "reject-4xx-close":
            ok = (400 <= first < 500 or (outcome.closed and not outcome.data)) and not seen
        case "forward-as-is" | "forward-normalised":
            return _forwarded(wanted, vector, seen, outcome) or ""
        case "tunnel":
            ok = outcome.tunnelled
        case "local-response":
            ok = 200 <= first < 500 and not seen
        case "incomplete-close":
            ok = (first in (400, 408) or (outcome.closed and not outcome.data)) and not seen
        case "h2-settings":
            ok = False
        case "403":
            # No route answers 403 here; that there is none for it is as good.
            ok = first in (403, 404)
        case _:
            ok = first == int(wanted)
    return "" if ok else f"not {wanted}: {got}"


def _forwarded(wanted: str, vector: Vector, seen: Sequence[Message], outcome: Outcome) -> str:
    if not seen:
        return f"not {wanted}: got {[answer.status for answer in outcome.final]}, nothing upstream"
    if not outcome.data.startswith((b"HTTP/1.1 2", b"HTTP/1.1 1", b"HTTP/1.1 426")):
        return f"not {wanted}: client got {outcome.data[:60]!r}"
    try:
        sent = read_request(octets_of(vector).replace(b"HTTP/1.0\r\n", b"HTTP/1.1\r\n", 1))
    except NotStrictError:
        sent = None
    if sent is not None:
        original = sent[0]
        if original.start[0] != seen[0].start[0] or original.body != seen[0].body:
            return f"not {wanted}: method or body changed"
        if wanted == "forward-as-is" and _resolved(original.start[1]) != _resolved(seen[0].start[1]):
            return f"not {wanted}: target became {seen[0].start[1][:80]!r}"
    return ""


def _resolved(target: bytes) -> tuple[bytes, bytes]:
    """A target after Kong's steps: the form that routes are tried on and that goes upstream."""
    path, _, query = target.partition(b"?")
    return normalise(path), query


def check_primary(expect: Mapping[str, object], seen: Sequence[Message], outcome: Outcome) -> str:
    """Check what belongs to the primary class: the end of the connection, and how much went upstream."""
    after = expect["connection_after"]
    if after == "close" and not outcome.closed:
        return "the connection was not closed"
    if after == "keep" and outcome.closed:
        return "the connection was closed"
    count = expect["upstream_requests"]
    allowed = range(min(count), max(count) + 1) if isinstance(count, list) else [count]
    if len(seen) not in allowed:
        return f"{len(seen)} requests upstream, not {count}"
    responses = expect.get("responses")
    if responses is not None and len(outcome.final) != responses:
        return f"{len(outcome.final)} answers, not {responses}"
    return ""


async def run_vector(vector: Vector, *, scale: float) -> tuple[str, str]:
    """Return why the vector fails strictly and why it fails leniently; empty when it passes."""
    recorder = Recorder()
    hostless = b"host:" not in octets_of(vector).lower()
    async with rig_for(recorder, scale=scale, hostless=hostless) as rig:
        outcome = await converse(vector, rig, scale=scale)
        seen = [request for request in recorder.requests if request.start[1] != b"/after"]
        always = check_always(vector, recorder, outcome) or await probe(rig, recorder)
    if always:
        return always, always
    expect = vector["expect"]
    assert isinstance(expect, dict)
    strict = judge(str(expect["class"]), vector, seen, outcome)
    lenient = strict
    for alternative in expect.get("also_ok", []):
        if lenient:
            lenient = judge(alternative, vector, seen, outcome)
    if not strict:
        strict = check_primary(expect, seen, outcome)
        lenient = lenient or strict
    return strict, lenient


async def run_all(vectors: Sequence[Vector], *, scale: float) -> list[tuple[str, str, str]]:
    """Run vectors side by side; returns id, strict fault and lenient fault of each."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(vector: Vector) -> tuple[str, str, str]:
        async with gate:
            strict, lenient = await run_vector(vector, scale=scale)
            return str(vector["id"]), strict, lenient

    return await asyncio.gather(*(one(vector) for vector in vectors))


def main(arguments: Sequence[str]) -> int:
    """Run the file named, print what fails, `strict: N of M`, and last `passed N of M`."""
    parser = argparse.ArgumentParser(prog="malformed", description="hostile requests against the proxy")
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", help="the id of one vector")
    parser.add_argument("--scale", type=float, default=1.0, help="shorten all times, limits and plans alike")
    options = parser.parse_args(arguments)
    vectors = [
        vector
        for vector in json.loads(options.file.read_text())["vectors"]
        if not options.only or vector["id"] == options.only
    ]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(run_all(vectors, scale=options.scale))
    for name, strict, lenient in results:
        if lenient:
            print(f"FAIL {name}: {lenient}")
        elif strict:
            print(f"strict-only {name}: {strict}")
    print(f"strict: {sum(not strict for _, strict, _ in results)} of {len(results)}")
    passed = sum(not lenient for _, _, lenient in results)
    print(f"passed {passed} of {len(results)}")
    return 0 if passed == len(results) else 1
