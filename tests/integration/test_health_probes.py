"""Probes against real servers on loopback: what each kind of check says of good, bad, slow and silent ones."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest
import trustme
import uvloop

from data_plane.balancer.addresses import Address
from data_plane.health import Event
from data_plane.model import ActiveCheck, Thresholds
from data_plane.node.probe_engine import READ_BYTES_MAX, ProbeEngine
from data_plane.node.probe_requests import Result
from data_plane.node.probes import ProbePlan, Prober, TlsContexts
from tests.support.descriptors import no_descriptor_left
from tests.support.patience import PATIENCE_S

CHECK = ActiveCheck(timeout_s=0.2, http_path="/health", healthy=Thresholds(interval_s=0.02))
Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def server(answer: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    made = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


def says(data: bytes) -> Answering:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return answer


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def probe(
    port: int, check: ActiveCheck = CHECK, *, contexts: TlsContexts | None = None, host: str = "blue.test"
) -> Result | None:
    engine = ProbeEngine(asyncio.get_running_loop())
    done: asyncio.Future[Result | None] = asyncio.get_running_loop().create_future()
    address = Address("k", "127.0.0.1", port, host, 1, "t")
    try:
        engine.start(ProbePlan(check).errand(address, contexts or TlsContexts()), done.set_result)
        async with asyncio.timeout(PATIENCE_S):
            return await done
    finally:
        await asyncio.sleep(0.01)
        engine.close()


@pytest.mark.parametrize(
    ("said", "result"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n\r\n", 302),
        (b"HTTP/1.1 503 No\r\n\r\n" + b"x" * (2 * READ_BYTES_MAX), 503),
        (b"hello\r\n", 0),
        (b"x" * (2 * READ_BYTES_MAX), 0),
        (b"", Event.TCP),
        (b"HTTP/1.1 20", Event.TCP),
    ],
)
async def test_http(said: bytes, result: Result) -> None:
    async with server(says(said)) as port:
        assert await probe(port) == result


async def test_a_server_that_says_nothing_is_too_slow() -> None:
    async with server(silent) as port:
        assert await probe(port) is Event.TIMEOUT


async def test_a_node_without_a_descriptor_left_says_nothing_of_anybody() -> None:
    told: list[Result] = []
    async with server(says(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
        address = Address("k", "127.0.0.1", port, "x", 1, "t")
        prober = Prober(
            lambda upstream, available: [address] if available else (),
            lambda upstream, key, result: told.append(result),
            engine=ProbeEngine(asyncio.get_running_loop()),
        )
        try:
            with no_descriptor_left():
                prober.follow("u1", ProbePlan(replace(CHECK, timeout_s=5.0)))
                async with asyncio.timeout(PATIENCE_S):
                    while prober.sent < 3:
                        await asyncio.sleep(0.01)
            async with asyncio.timeout(PATIENCE_S):
                while not told:
                    await asyncio.sleep(0.01)
            assert set(told) == {200}
        finally:
            prober.stop()


def test_a_machine_that_stood_still_makes_nobody_ill() -> None:
    """On the loop that nodes have. Prober and server both stand still for longer than the timeout."""
    uvloop.run(stood_still())


async def stood_still() -> None:
    asked, woke, done = threading.Event(), threading.Event(), asyncio.get_running_loop().create_future()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                asked.set()
                woke.wait(PATIENCE_S)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        serving = threading.Thread(target=answer)
        serving.start()
        engine = ProbeEngine(asyncio.get_running_loop())
        check = replace(CHECK, timeout_s=0.3)
        address = Address("k", "127.0.0.1", listening.getsockname()[1], "blue.test", 1, "t")
        engine.start(ProbePlan(check).errand(address, TlsContexts()), done.set_result)
        while not asked.is_set():
            await asyncio.sleep(0)
        time.sleep(0.5)  # noqa: ASYNC251 - standing still is what this is about
        asyncio.get_running_loop().call_later(0.05, woke.set)
        async with asyncio.timeout(PATIENCE_S):
            assert await done == 200
        await asyncio.to_thread(serving.join)
        engine.close()


async def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        for kind in ("http", "tcp", "https", "grpc"):
            assert await probe(taken.getsockname()[1], replace(CHECK, type=kind)) is Event.TCP


async def test_tcp_is_content_with_a_connection() -> None:
    async with server(silent) as port:
        assert await probe(port, replace(CHECK, type="tcp")) is Event.SUCCESS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def contexts(authority: trustme.CA, tmp_path: Path) -> TlsContexts:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return TlsContexts(str(tmp_path / "ca.pem"))


def server_tls(authority: trustme.CA, name: str, *, http2: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if http2:
        context.set_alpn_protocols(["h2"])
    return context


async def test_https_verifies_the_name_unless_told_otherwise(authority: trustme.CA, contexts: TlsContexts) -> None:
    https = replace(CHECK, type="https", timeout_s=2.0)
    async with server(says(b"HTTP/1.1 200 OK\r\n\r\n"), server_tls(authority, "blue.test")) as port:
        assert await probe(port, https, contexts=contexts) == 200
        assert await probe(port, https, contexts=contexts, host="green.test") is Event.TCP
        named = replace(https, https_sni="blue.test")
        assert await probe(port, named, contexts=contexts, host="green.test") == 200
        assert await probe(port, https) is Event.TCP  # not signed by anybody the system trusts
        assert await probe(port, replace(https, https_verify_certificate=False)) == 200


async def test_a_handshake_that_never_ends_is_a_tcp_failure() -> None:
    async with server(silent) as port:
        assert await probe(port, replace(CHECK, type="https")) is Event.TCP


@asynccontextmanager
async def grpc_server(status: bytes | None, credentials: grpc.ServerCredentials | None = None) -> AsyncIterator[int]:
    async def check(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        assert request == b""
        assert status is not None
        return status

    made = grpc.aio.server()
    if status is not None:
        handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
        made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers),))
    if credentials is None:
        port = made.add_insecure_port("127.0.0.1:0")
    else:
        port = made.add_secure_port("127.0.0.1:0", credentials)
    await made.start()
    try:
        yield port
    finally:
        await made.stop(None)


@pytest.mark.parametrize(
    ("status", "result"), [(b"\x08\x01", Event.SUCCESS), (b"\x08\x02", Event.HTTP), (None, Event.HTTP)]
)
async def test_grpc_asks_the_standard_health_service(status: bytes | None, result: Result) -> None:
    async with grpc_server(status) as port:
        assert await probe(port, replace(CHECK, type="grpc", timeout_s=5.0)) is result


async def test_grpcs(authority: trustme.CA, contexts: TlsContexts) -> None:
    issued = authority.issue_cert("blue.test")
    pair = (issued.private_key_pem.bytes(), b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    async with grpc_server(b"\x08\x01", grpc.ssl_server_credentials([pair])) as port:
        grpcs = replace(CHECK, type="grpcs", timeout_s=5.0)
        assert await probe(port, grpcs, contexts=contexts) is Event.SUCCESS
        assert await probe(port, grpcs, contexts=contexts, host="green.test") is Event.TCP
        assert await probe(port, replace(grpcs, https_verify_certificate=False)) is Event.SUCCESS


async def test_a_round_stays_within_its_concurrency_and_ends_when_told() -> None:
    open_now = most = asked = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most, asked
        open_now += 1
        asked += 1
        most = max(most, open_now)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.01)
        open_now -= 1
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")

    told: list[tuple[str, str, Result]] = []
    async with server(count) as port:
        addresses = [Address(f"k{number}", "127.0.0.1", port, "x", 1, "t") for number in range(12)]
        prober = Prober(
            lambda upstream, available: addresses if available else (),
            lambda upstream, key, result: told.append((upstream, key, result)),
            engine=ProbeEngine(asyncio.get_running_loop()),
        )
        try:
            prober.follow("u1", ProbePlan(replace(CHECK, concurrency=3, timeout_s=5.0)))
            async with asyncio.timeout(PATIENCE_S):
                while len(told) < 36:
                    await asyncio.sleep(0.01)
            assert most <= 3
            assert {key for _, key, _ in told} == {address.key for address in addresses}
            assert {result for _, _, result in told} == {200}
            prober.follow("u1", None)
            before = -1
            async with asyncio.timeout(PATIENCE_S):
                while open_now or asked != before:  # what was under way comes to its end
                    before = asked
                    await asyncio.sleep(0.1)
            told.clear()
            await asyncio.sleep(0.1)
            assert (told, asked) == ([], before)
        finally:
            prober.stop()
