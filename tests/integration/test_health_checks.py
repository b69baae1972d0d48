"""A real node on loopback with real upstreams that fall ill: passive and active checks, sessions, failover, words.

The clocks of the checks are short; nothing here asserts a time, only that things happen within everybody's patience.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from data_plane.node.snapshot import NodeSnapshot
from pointsman.rules.snapshot_hash import snapshot_hash
from pointsman.wire.v1 import config_pb2 as wire
from tests.support.node_rig import Entities, Response, config, prepared_node, ready, request, status_address
from tests.support.patience import PATIENCE_S, last_callers, until
from tests.support.processes import Node

RING_BALANCER = "failure to get a peer from the ring-balancer"
QUICK = Duration(nanos=50_000_000)
PASSIVE = wire.PassiveCheck(
    healthy=wire.Thresholds(http_statuses=[200]),
    unhealthy=wire.Thresholds(http_statuses=[500], http_failures=2, tcp_failures=1, timeouts=1),
)
ACTIVE = wire.ActiveCheck(
    type="http",
    timeout=Duration(seconds=2),
    concurrency=4,
    http_path="/health",
    healthy=wire.Thresholds(interval=QUICK, http_statuses=[200], successes=1),
    unhealthy=wire.Thresholds(interval=QUICK, http_statuses=[500], http_failures=1, tcp_failures=1, timeouts=1),
)


class Patient:
    """An upstream that answers with its name, or with 500 while `ill`; counts probes and other requests apart."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ill = False
        self.requests = 0
        self.probes: list[bytes] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await last_callers()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b" /health " in head:
                    self.probes.append(head)
                else:
                    self.requests += 1
                status = b"500 Bad Day" if self.ill else b"200 OK"
                body = self.name.encode()
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
                await writer.drain()
                if b"Connection: close" in head:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


@asynccontextmanager
async def patients(*names: str) -> AsyncIterator[list[Patient]]:
    made = [Patient(name) for name in names]
    try:
        for patient in made:
            await patient.open()
        yield made
    finally:
        for patient in made:
            await patient.close()


def checked(
    *targets: str,
    upstream: Callable[[wire.Upstream], None],
    target: Callable[[int, wire.Target], None] = lambda number, entity: None,
    settings: wire.UpstreamSettings | None = None,
) -> NodeSnapshot:
    """The rig's config with its upstream and targets changed in place."""
    entities: Entities = dict(config(*targets).entities)
    entity = wire.Entity.FromString(entities["upstreams", "u1"])
    upstream(entity.upstream)
    entities["upstreams", "u1"] = entity.SerializeToString()
    for number in range(len(targets)):
        entity = wire.Entity.FromString(entities["targets", f"t{number}"])
        target(number, entity.target)
        entities["targets", f"t{number}"] = entity.SerializeToString()
    if settings is not None:
        entities["upstream_settings", "u1"] = wire.Entity(upstream_settings=settings).SerializeToString()
    return NodeSnapshot(b"e" * 16, 1, snapshot_hash(entities), entities)


def passive(entity: wire.Upstream) -> None:
    entity.healthchecks.passive.CopyFrom(PASSIVE)


def active(entity: wire.Upstream) -> None:
    entity.healthchecks.active.CopyFrom(ACTIVE)


@asynccontextmanager
async def running(folder: Path, snapshot: NodeSnapshot, *, workers: int = 2) -> AsyncIterator[Node]:
    node = prepared_node(folder, snapshot, workers=workers)
    try:
        await node.up()
        await ready(node)
        yield node
    finally:
        node.destroy()


async def ask(node: Node, *headers: str, path: str = "/", method: str = "GET") -> Response:
    return await request(node.proxy_address, path, headers=headers, method=method)


async def answered_by(node: Node, wanted: set[str], *, rounds: int = 12) -> None:
    """Wait until so many requests in a row get answers of these only, and of all of these."""
    async with asyncio.timeout(PATIENCE_S):
        while {(await ask(node)).body for _ in range(rounds)} != wanted:
            await asyncio.sleep(0.02)


async def test_what_one_worker_sees_fail_no_worker_uses(tmp_path: Path) -> None:
    async with (
        patients("blue", "green") as (blue, green),
        running(tmp_path, checked(blue.address, green.address, upstream=passive)) as node,
    ):
        await answered_by(node, {"blue", "green"})
        blue.ill = True
        failed = 0
        async with asyncio.timeout(PATIENCE_S):
            while failed < 2:
                failed += (await ask(node)).status == 500
        await answered_by(node, {"green"}, rounds=30)
        seen = blue.requests
        await answered_by(node, {"green"}, rounds=30)
        assert blue.requests == seen


async def test_a_refused_attempt_is_repeated_elsewhere_and_its_endpoint_left_alone(tmp_path: Path) -> None:
    async with (
        patients("blue", "green") as (blue, green),
        running(tmp_path, checked(blue.address, green.address, upstream=passive)) as node,
    ):
        await blue.close()
        for _ in range(40):
            assert (await ask(node, method="PUT")).body == "green"


async def test_when_everything_is_ill_kong_s_503_and_probes_bring_it_back(tmp_path: Path) -> None:
    async with (
        patients("blue", "green") as (blue, green),
        running(tmp_path, checked(blue.address, green.address, upstream=active)) as node,
    ):
        await answered_by(node, {"blue", "green"})
        blue.ill = green.ill = True
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await ask(node)).status != 503:
                await asyncio.sleep(0.02)
        assert RING_BALANCER in answer.body
        seen = blue.requests, green.requests
        assert (await ask(node)).status == 503
        assert (blue.requests, green.requests) == seen
        green.ill = False
        await answered_by(node, {"green"})
        blue.ill = False
        await answered_by(node, {"blue", "green"})


async def test_probes_say_what_kong_s_say(tmp_path: Path) -> None:
    def with_headers(entity: wire.Upstream) -> None:
        active(entity)
        entity.host_header = "blue.test"
        entity.healthchecks.active.headers.add(name="X-Probe", values=["one", "two"])

    async with patients("blue") as (blue,), running(tmp_path, checked(blue.address, upstream=with_headers)):
        await until(lambda: len(blue.probes) >= 2)
    lines = blue.probes[0].decode().split("\r\n")
    assert lines[0] == "GET /health HTTP/1.1"
    assert set(lines[1:-2]) == {"Host: blue.test", "Connection: close", "X-Probe: one", "X-Probe: two"}


async def test_a_worker_that_starts_late_knows_who_is_ill(tmp_path: Path) -> None:
    async with (
        patients("blue", "green") as (blue, green),
        running(tmp_path, checked(blue.address, green.address, upstream=passive)) as node,
    ):
        await blue.close()
        for _ in range(20):
            await ask(node)
        await blue.open()
        seen = blue.requests
        status = json.loads((await request(status_address(node), "/status")).body)
        for worker in status["workers"]["processes"]:
            os.kill(worker["pid"], signal.SIGKILL)
        await ready(node)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(40):
                while True:
                    try:
                        assert (await ask(node)).body == "green"
                        break
                    except OSError:
                        await asyncio.sleep(0.05)
        assert blue.requests == seen


async def test_an_operators_word_takes_a_target_out_and_lasts(tmp_path: Path) -> None:
    word = wire.UpstreamSettings(id="u1", manual_health=[wire.ManualHealth(target="t0", healthy=False)])
    async with patients("blue", "green") as (blue, green):
        snapshot = checked(blue.address, green.address, upstream=active, settings=word)
        async with running(tmp_path, snapshot) as node:
            await until(lambda: len(blue.probes) > 3)
            for _ in range(20):
                assert (await ask(node)).body == "green"


async def test_failover_targets_serve_only_while_no_other_does(tmp_path: Path) -> None:
    def second_stands_in(number: int, entity: wire.Target) -> None:
        entity.failover = number == 1

    async with patients("blue", "spare") as (blue, spare):
        snapshot = checked(blue.address, spare.address, upstream=active, target=second_stands_in)
        async with running(tmp_path, snapshot) as node:
            await answered_by(node, {"blue"})
            assert spare.requests == 0
            blue.ill = True
            await answered_by(node, {"spare"})
            blue.ill = False
            await answered_by(node, {"blue"})


async def test_a_session_sticks_over_workers_and_restarts_until_its_target_is_ill(tmp_path: Path) -> None:
    def sticky(entity: wire.Upstream) -> None:
        active(entity)
        entity.algorithm = "sticky-sessions"
        entity.sticky_sessions_cookie = "sid"
        entity.sticky_sessions_cookie_path = "/app"

    async with patients("blue", "green", "red") as made:
        by_name = {patient.name: patient for patient in made}
        snapshot = checked(*(patient.address for patient in made), upstream=sticky)
        async with running(tmp_path / "first", snapshot) as node:
            first = await ask(node)
            cookie, _, rest = first.headers["set-cookie"].partition(";")
            assert rest == " Path=/app; SameSite=Lax; HttpOnly"
            assert first.body not in cookie
            for _ in range(20):
                answer = await ask(node, f"Cookie: other=1; {cookie}")
                assert answer.body == first.body
                assert "set-cookie" not in answer.headers
        async with running(tmp_path / "second", snapshot) as node:
            assert (await ask(node, f"Cookie: {cookie}")).body == first.body
            forged = await ask(node, "Cookie: sid=forged")
            assert forged.headers["set-cookie"].startswith("sid=")
            by_name[first.body].ill = True
            async with asyncio.timeout(PATIENCE_S):
                while (moved := await ask(node, f"Cookie: {cookie}")).body == first.body:
                    await asyncio.sleep(0.02)
            assert moved.status == 200
            assert moved.headers["set-cookie"].partition(";")[0] != cookie


async def test_weight_0_still_serves_those_who_hold_its_cookie(tmp_path: Path) -> None:
    def sticky(entity: wire.Upstream) -> None:
        entity.algorithm = "sticky-sessions"
        entity.sticky_sessions_cookie = "sid"

    def first_drains(number: int, entity: wire.Target) -> None:
        entity.weight = 0 if number == 0 else 100

    async with patients("blue", "green") as (blue, green):
        (tmp_path / "before").mkdir()
        (tmp_path / "after").mkdir()
        before = checked(blue.address, green.address, upstream=sticky)
        cookies: dict[str, str] = {}
        async with running(tmp_path / "before", before) as node, asyncio.timeout(PATIENCE_S):
            while len(cookies) < 2:
                answer = await ask(node)
                cookies[answer.body] = answer.headers["set-cookie"].partition(";")[0]
        after = checked(blue.address, green.address, upstream=sticky, target=first_drains)
        async with running(tmp_path / "after", after) as node:
            for _ in range(10):
                assert (await ask(node, f"Cookie: {cookies['blue']}")).body == "blue"
                assert (await ask(node)).body == "green"


@pytest.mark.parametrize(
    ("hash_on", "same", "other"),
    [
        ({"hash_on": "header", "hash_on_header": "X-User"}, ["X-User: ann"], ["X-User: bob"]),
        ({"hash_on": "query_arg", "hash_on_query_arg": "user"}, [], []),
        ({"hash_on": "path"}, [], []),
        ({"hash_on": "ip"}, [], []),
    ],
)
async def test_hashed_requests_stay_together_over_workers(
    tmp_path: Path, hash_on: dict[str, str], same: list[str], other: list[str]
) -> None:
    del other

    def hashing(entity: wire.Upstream) -> None:
        entity.algorithm = "consistent-hashing"
        for field, value in hash_on.items():
            setattr(entity, field, value)

    names = [f"target-{number}" for number in range(6)]
    async with patients(*names) as made:
        snapshot = checked(*(patient.address for patient in made), upstream=hashing)
        async with running(tmp_path, snapshot) as node:
            bodies = {(await ask(node, *same, path="/a/b?user=ann")).body for _ in range(16)}
            assert len(bodies) == 1
            spread = {
                (await ask(node, f"X-User: {number}", path=f"/{number}?user={number}")).body for number in range(60)
            }
            assert len(spread) == (1 if hash_on["hash_on"] == "ip" else 6)


async def test_a_hash_cookie_is_made_up_once_and_then_followed(tmp_path: Path) -> None:
    def hashing(entity: wire.Upstream) -> None:
        entity.algorithm = "consistent-hashing"
        entity.hash_on = "cookie"
        entity.hash_on_cookie = "who"

    async with patients("blue", "green", "red") as made:
        snapshot = checked(*(patient.address for patient in made), upstream=hashing)
        async with running(tmp_path, snapshot) as node:
            first = await ask(node)
            cookie = first.headers["set-cookie"].partition(";")[0]
            for _ in range(10):
                answer = await ask(node, f"Cookie: {cookie}")
                assert answer.body == first.body
                assert "set-cookie" not in answer.headers


async def said_ill(node: Node, patient: Patient) -> bool:
    """Whether the node's verdict on it is that it is ill."""
    metrics = (await request(status_address(node), "/metrics")).body
    return any(
        line.startswith("kong_upstream_target_health{") and f'address="{patient.address}"' in line
        and 'state="unhealthy"' in line and line.endswith(" 1")
        for line in metrics.splitlines()
    )  # fmt: skip


@pytest.mark.parametrize("algorithm", ["least-connections", "latency"])
async def test_the_other_algorithms_serve_and_avoid_who_fails(tmp_path: Path, algorithm: str) -> None:
    def chosen(entity: wire.Upstream) -> None:
        active(entity)
        entity.algorithm = algorithm

    async with patients("blue", "green") as (blue, green):
        snapshot = checked(blue.address, green.address, upstream=chosen)
        async with running(tmp_path, snapshot) as node:
            await answered_by(node, {"blue", "green"}, rounds=40)
            await blue.close()
            await answered_by(node, {"green"})
            # Latency may have left blue alone for a slow first answer. Only a verdict makes it begin anew.
            async with asyncio.timeout(PATIENCE_S):
                while not await said_ill(node, blue):
                    await asyncio.sleep(0.02)
            seen = blue.requests
            await blue.open()
            async with asyncio.timeout(PATIENCE_S):
                while blue.requests == seen:
                    await ask(node)
