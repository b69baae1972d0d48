"""Preview, split, sticky split, mirror and drain deadline in one worker's proxy, over real sockets."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_plane.balancer.endpoint import Endpoint
from data_plane.model import Mirror, Preview, ServiceConfig, Split, Sticky
from data_plane.observe.access_log import AccessLog, AccessLogFormat, AccessLogSettings
from data_plane.observe.counters import Counters
from data_plane.observe.log_lines import line_of
from data_plane.observe.side_counts import SideCounts
from data_plane.proxy import mirroring
from data_plane.proxy.serving import ClientFactory, client_factory
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.sides import Sides
from data_plane.proxy.tables import Active, ServiceRuntime, Tables
from tests.support.patience import until
from tests.support.proxying import Client, HandBalancer, endpoint_at, route_to_first, router_of, upstream_of

CONFIG = ServiceConfig(id="s", name="shop", host="blue", retries=0)


@dataclass
class Upstream:
    """Answers with its name; `status` and `wait` may be changed. Keeps the heads and bodies it got."""

    name: str
    status: str = "200 OK"
    heads: list[bytes] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    wait: Callable[[], Awaitable[object]] | None = None

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            sizes = [int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")]
            self.bodies.append(await reader.readexactly(sizes[0]) if sizes else b"")
            self.heads.append(head)
            if self.wait is not None:
                await self.wait()
            name = self.name.encode()
            writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (self.status.encode(), len(name), name))
            await writer.drain()


@dataclass
class Rig:
    """A proxy whose service has a blue and a green side."""

    port: int
    factory: ClientFactory
    counters: Counters
    blue: Upstream
    green: Upstream
    log: AccessLog | None

    def side(self, name: str) -> SideCounts:
        return self.counters.sides.sides["s"][name]

    async def served_by(self, count: int, fields: str = "", target: str = "/") -> Counter[str]:
        """Send requests on one connection and count who answered."""
        client = await Client.open(self.port)
        names: Counter[str] = Counter()
        for _ in range(count):
            client.send(f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode())
            names[(await client.answer()).body.decode()] += 1
        await client.close()
        return names


@asynccontextmanager
async def sides(
    *,
    preview: Preview | None = None,
    split: Split | None = None,
    mirror: Mirror | None = None,
    green_port: int | None = None,
    log_to: Path | None = None,
    settings: ProxySettings | None = None,
) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        blue, green = Upstream("blue"), Upstream("green")
        ports: dict[str, int] = {"blue": await stack.enter_async_context(upstream_of(blue))}
        ports["green"] = green_port if green_port is not None else await stack.enter_async_context(upstream_of(green))
        balancers = {name: HandBalancer([endpoint_at(port)]) for name, port in ports.items()}
        to_green = ServiceRuntime(CONFIG, balancers["green"], side="green", side_name="green")
        others = Sides(
            "s",
            preview=(preview, to_green) if preview is not None else None,
            split=(split, to_green) if split is not None else None,
            mirror=(mirror, to_green) if mirror is not None else None,
        )
        runtime = ServiceRuntime(CONFIG, balancers["blue"], side="blue", side_name="blue", sides=others)
        tables = Tables(7, router_of([route_to_first()]), {"s": runtime})
        counters = Counters()
        log = None
        if log_to is not None:
            log = AccessLog(AccessLogSettings(str(log_to)), line_of(AccessLogFormat.JSON, node_id="n"))
            log.start()
        loop = asyncio.get_running_loop()
        factory = client_factory(Active(tables), settings or ProxySettings(), loop, counters, access_log=log)
        factory.start()
        server = await loop.create_server(factory, "127.0.0.1", 0)
        try:
            yield Rig(server.sockets[0].getsockname()[1], factory, counters, blue, green, log)
        finally:
            server.close()
            factory.cut()
            factory.stop()
            await until(lambda: factory.connections == 0 and counters.upstream_connections_open == 0)
            assert counters.in_flight == 0
            assert [balancer.in_flight for balancer in balancers.values()] == [0, 0]


# Preview


async def test_requests_with_the_operator_s_mark_see_the_new_side_and_nobody_else() -> None:
    async with sides(preview=Preview("green", "X-Preview", "preview", "v2")) as rig:
        assert await rig.served_by(3) == {"blue": 3}
        for marked in ("x-preview: v2\r\n", "Cookie: a=1; preview=v2\r\n", "x-preview: 1\r\nX-Preview: v2\r\n"):
            assert await rig.served_by(2, marked) == {"green": 2}
        for other in ("x-preview: v3\r\n", "x-preview: v22\r\n", "Cookie: xpreview=v2\r\n", "x-previews: v2\r\n"):
            assert await rig.served_by(1, other) == {"blue": 1}


async def test_the_mark_goes_before_the_split() -> None:
    async with sides(preview=Preview("green", "x-preview", "", "1"), split=Split("green", 0)) as rig:
        assert await rig.served_by(5) == {"blue": 5}
        assert await rig.served_by(5, "x-preview: 1\r\n") == {"green": 5}


# Split


async def test_a_split_is_exact() -> None:
    async with sides(split=Split("green", 2_500)) as rig:
        assert await rig.served_by(400) == {"blue": 300, "green": 100}
        assert rig.side("green").requests == 100
        assert rig.side("blue").requests == 300


async def test_a_split_sticks_to_what_clients_bring() -> None:
    async with sides(split=Split("green", 5_000, Sticky("header", "x-user"))) as rig:
        served = Counter[str]()
        for user in range(40):
            mine = await rig.served_by(3, f"X-User: u{user}\r\n")
            assert len(mine) == 1, "a client that flips"
            served.update(mine)
        assert min(served.values()) >= 3 * 8


@pytest.mark.parametrize(
    ("sticky", "fields", "target"),
    [
        (Sticky("cookie", "sid"), "Cookie: x=1; sid={}\r\n", "/"),
        (Sticky("query_arg", "u"), "", "/?u={}"),
        (Sticky("path"), "", "/{}"),
    ],
    ids=["cookie", "query", "path"],
)
async def test_what_a_split_can_stick_to(sticky: Sticky, fields: str, target: str) -> None:
    async with sides(split=Split("green", 5_000, sticky)) as rig:
        served = Counter[str]()
        for user in range(12):
            mine = await rig.served_by(2, fields.format(f"u{user}"), target.format(f"u{user}"))
            assert len(mine) == 1
            served.update(mine)
        assert set(served) == {"blue", "green"}


async def test_who_brings_nothing_to_stick_to_is_counted_out() -> None:
    async with sides(split=Split("green", 5_000, Sticky("header", "x-user"))) as rig:
        assert await rig.served_by(100) == {"blue": 50, "green": 50}


async def test_a_request_keeps_to_its_side_when_that_fails() -> None:
    """A dead green must not hide behind blue: that is what the canary is to find out."""
    async with upstream_of(Upstream("gone")) as port:
        pass
    async with sides(split=Split("green", 5_000), green_port=port) as rig:
        client = await Client.open(rig.port)
        statuses = Counter[int]()
        for _ in range(10):
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            statuses[(await client.answer()).status] += 1
        await client.close()
        assert statuses == {200: 5, 502: 5}
        green, blue = rig.side("green"), rig.side("blue")
        assert (green.requests, green.errors_5xx, green.connect_errors) == (5, 5, 5)
        assert (blue.requests, blue.errors_5xx, blue.connect_errors) == (5, 0, 0)
        assert sum(green.latency_counts()) == 0


# Figures and the access log


async def test_answers_are_counted_by_side(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    async with sides(split=Split("green", 5_000), log_to=path) as rig:
        rig.green.status = "503 Service Unavailable"
        assert await rig.served_by(10) == {"blue": 5, "green": 5}
        green, blue = rig.side("green"), rig.side("blue")
        assert (green.requests, green.errors_5xx, green.connect_errors) == (5, 5, 0)
        assert (blue.requests, blue.errors_5xx) == (5, 0)
        assert (sum(green.latency_counts()), sum(blue.latency_counts())) == (5, 5)
        assert (green.service_name, green.upstream_name) == ("shop", "green")
        assert rig.log is not None
        rig.log.stop()
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        assert Counter(line["side"] for line in lines) == {"blue": 5, "green": 5}
        assert {line["response"]["status"] for line in lines if line["side"] == "green"} == {503}


async def test_a_client_that_does_not_wait_counts_with_the_time_it_waited() -> None:
    async with sides(split=Split("green", 10_000)) as rig:
        never = asyncio.Event()
        rig.green.wait = never.wait
        client = await Client.open(rig.port)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: len(rig.green.heads) == 1)
        assert rig.factory.open_sides() == {rig.side("green"): 1}
        client.reset()
        await until(lambda: rig.side("green").requests == 1)
        assert (rig.side("green").errors_5xx, sum(rig.side("green").latency_counts())) == (0, 1)
        assert rig.factory.open_sides() == {}


# Mirror


async def copied(rig: Rig, count: int) -> None:
    await until(lambda: rig.side("green").mirror_sent == count)


async def test_a_share_of_requests_is_copied_with_a_mark_and_its_answers_are_dropped() -> None:
    async with sides(mirror=Mirror("green", 5_000)) as rig:
        rig.green.status = "500 Oops"
        client = await Client.open(rig.port)
        for number in range(10):
            client.send(b"POST /p?q=%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % number)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"blue")
        await client.close()
        await copied(rig, 5)
        green, blue = rig.side("green"), rig.side("blue")
        assert (green.mirror_errors_5xx, green.mirror_failed, green.mirror_skipped) == (5, 0, 0)
        assert (green.requests, green.errors_5xx) == (0, 0), "copies are no requests of clients"
        assert blue.requests == 10
        assert set(rig.green.bodies) == {b"abc"}
        head = rig.green.heads[0]
        assert head.startswith(b"POST /p?q=")
        assert head.count(b"X-Pointsman-Mirror: 1\r\n") == 1
        assert b"X-Forwarded-For: 127.0.0.1" in head
        assert not any(b"X-Pointsman-Mirror" in head for head in rig.blue.heads)


async def test_what_is_a_copy_already_is_not_copied_again() -> None:
    async with sides(mirror=Mirror("green", 10_000)) as rig:
        await rig.served_by(3, "X-Pointsman-Mirror: 1\r\n")
        await rig.served_by(1)
        await copied(rig, 1)
        assert len(rig.green.heads) == 1


async def test_only_the_primary_side_is_mirrored() -> None:
    async with sides(preview=Preview("green", "x-preview", "", "1"), mirror=Mirror("green", 10_000)) as rig:
        await rig.served_by(4, "x-preview: 1\r\n")
        await rig.served_by(1)
        await copied(rig, 1)
        assert (rig.side("green").requests, len(rig.green.heads)) == (4, 5)


async def test_a_body_that_goes_on_as_it_comes_is_skipped() -> None:
    async with sides(
        mirror=Mirror("green", 10_000), settings=ProxySettings(replay_bytes_max=1 << 22, replay_total_bytes_max=1 << 23)
    ) as rig:
        client = await Client.open(rig.port)
        for size in (mirroring.BODY_BYTES_MAX, mirroring.BODY_BYTES_MAX + 1, 1 << 23):
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
            client.send(bytes(size))
            assert (await client.answer()).status == 200
        await client.close()
        await copied(rig, 1)
        assert rig.side("green").mirror_skipped == 2
        assert [len(body) for body in rig.green.bodies] == [mirroring.BODY_BYTES_MAX]


async def test_a_dead_mirror_harms_nobody() -> None:
    async with upstream_of(Upstream("gone")) as port:
        pass
    async with sides(mirror=Mirror("green", 10_000), green_port=port) as rig:
        assert await rig.served_by(50) == {"blue": 50}
        await until(lambda: rig.side("green").mirror_failed == 50)
        blue = rig.side("blue")
        assert (blue.requests, blue.errors_5xx, blue.connect_errors) == (50, 0, 0)


async def test_a_mirror_without_endpoints_harms_nobody() -> None:
    class Nobody(HandBalancer):
        def __init__(self) -> None:
            super().__init__(list[Endpoint]())

    async with sides(mirror=Mirror("green", 10_000)) as rig:
        tables = rig.factory._shared.active.tables
        assert tables is not None
        others = tables.services["s"].sides
        assert others is not None
        next(iter(others.runtimes())).balancer = Nobody()
        assert await rig.served_by(5) == {"blue": 5}
        await until(lambda: rig.side("green").mirror_failed == 5)


async def test_a_slow_mirror_holds_up_nobody_and_what_has_no_room_is_skipped() -> None:
    async with sides(mirror=Mirror("green", 10_000)) as rig:
        forever = asyncio.Event()
        rig.green.wait = forever.wait
        room = mirroring.OPEN_MAX + mirroring.WAITING_MAX
        assert await rig.served_by(room + 40) == {"blue": room + 40}
        assert rig.side("green").mirror_skipped == 40
        await until(lambda: len(rig.green.heads) == mirroring.OPEN_MAX)
        forever.set()
        await copied(rig, room)


async def test_a_mirror_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "DEADLINE_S", 0.05)
    async with sides(mirror=Mirror("green", 10_000)) as rig:
        rig.green.wait = asyncio.Event().wait
        assert await rig.served_by(2) == {"blue": 2}
        await until(lambda: rig.side("green").mirror_failed == 2)


async def test_a_flood_of_an_answer_is_cut_off_and_its_memory_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "ANSWER_BYTES_MAX", 1 << 18)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()

    async with upstream_of(flood) as port, sides(mirror=Mirror("green", 10_000), green_port=port) as rig:
        assert await rig.served_by(5) == {"blue": 5}
        await copied(rig, 5)
        await until(lambda: rig.counters.upstream_connections_open == 1)  # the one to blue


@pytest.mark.parametrize("answer", [b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", b""])
async def test_a_mirror_that_answers_nonsense_has_failed(answer: bytes) -> None:
    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with upstream_of(bad) as port, sides(mirror=Mirror("green", 10_000), green_port=port) as rig:
        assert await rig.served_by(3) == {"blue": 3}
        await until(lambda: rig.side("green").mirror_failed == 3)


# Drain deadline


async def test_what_is_open_on_a_side_that_was_left_is_closed() -> None:
    """An answer under way is cut so that its client sees it, a request without an answer gets ours."""

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /stream"):
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()

    async with upstream_of(half) as port, sides(split=Split("green", 10_000), green_port=port) as rig:
        stream, waiting = await Client.open(rig.port), await Client.open(rig.port)
        stream.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await stream.reader.readuntil(b"hello\r\n")).startswith(b"HTTP/1.1 200")
        waiting.send(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: rig.factory.open_sides().get(rig.side("green")) == 2)
        assert rig.factory.close_late({("s", "blue"), ("other", "green")}) == 0
        assert rig.factory.close_late({("s", "green")}) == 2
        assert await stream.to_end() == b"", "no last chunk: it is not whole"
        answer = await waiting.answer()
        assert answer.status == 504
        assert rig.side("green").closed_late == 2
        assert rig.side("green").errors_5xx == 0
        await waiting.close()
        await stream.close()


async def test_a_tunnel_ends_after_what_is_under_way_has_gone_out() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        while data := await reader.read(65536):
            writer.write(data)

    async with upstream_of(echo) as port, sides(split=Split("green", 10_000), green_port=port) as rig:
        client = await Client.open(rig.port)
        key = "dGhlIHNhbXBsZSBub25jZQ=="
        client.send(
            "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
        data = random.Random(1).randbytes(1 << 16)
        client.send(data)
        assert await client.reader.readexactly(len(data)) == data
        assert rig.factory.close_late({("s", "green")}) == 1
        assert await client.to_end() == b""
        assert rig.side("green").closed_late == 1
        await until(lambda: rig.counters.in_flight == 0)
        await client.close()
