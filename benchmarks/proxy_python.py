"""What the proxy's own Python costs a request, without a single system call.

One client connection and one idle upstream connection over transports that throw everything away, a request with 12
header fields, an answer with 5, both in one piece: the path of a keep-alive request and nothing else. Time is the
process's CPU time, the least of several rounds, so other load on the machine hardly shows.

    python -m benchmarks.proxy_python [--rounds 9] [--requests 9000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import time

from typing_extensions import override

from data_plane.balancer.endpoint import Endpoint
from data_plane.model import RouteConfig, ServiceConfig
from data_plane.observe.counters import Counters
from data_plane.proxy.serving import ClientFactory, client_factory
from data_plane.proxy.settings import ProxySettings
from data_plane.proxy.tables import Active, ServiceRuntime, Tables
from data_plane.proxy.upstream import UpstreamConnection
from tests.support.proxying import HandBalancer, router_of

REQUEST = b"\r\n".join(
    (
        b"GET /anything/42?page=2 HTTP/1.1",
        b"Host: example.test",
        b"User-Agent: bench/1.0",
        b"Accept: */*",
        b"Accept-Encoding: gzip, deflate, br",
        b"Accept-Language: en-GB,en;q=0.9",
        b"Cache-Control: no-cache",
        b"Cookie: session=0123456789abcdef",
        b"Referer: https://example.test/start",
        b"Sec-Fetch-Dest: document",
        b"Sec-Fetch-Mode: navigate",
        b"X-Request-Start: t=1700000000",
        b"X-Trace: 4bf92f3577b34da6a3ce929d0e0e4736",
        b"",
        b"",
    )
)
BODY = b"x" * 128
ANSWER = b"\r\n".join(
    (
        b"HTTP/1.1 200 OK",
        b"Server: bench",
        b"Date: Mon, 01 Jan 2024 00:00:00 GMT",
        b"Content-Type: text/plain",
        b"Cache-Control: max-age=60",
        b"Content-Length: %d" % len(BODY),
        b"",
        BODY,
    )
)


class Nowhere(asyncio.Transport):
    """Takes everything and keeps nothing."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 4242), "sockname": ("127.0.0.1", 8000)})

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    @override
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    @override
    def abort(self) -> None:
        pass


def feed(upstream: UpstreamConnection, data: bytes) -> None:
    """Let a read bring this, as the loop does."""
    upstream.get_buffer(-1)[: len(data)] = data
    upstream.buffer_updated(len(data))


async def _run(*, rounds: int, requests: int) -> None:
    loop = asyncio.get_running_loop()
    endpoint = Endpoint(key="127.0.0.1:9", ip="127.0.0.1", port=9, host="127.0.0.1", weight=100)
    runtime = ServiceRuntime(ServiceConfig(id="s", name="example", host="up.test"), HandBalancer([endpoint]))
    routes = [RouteConfig(id="r", name="r", paths=("/anything",), service="s", strip_path=False)]
    active = Active(Tables(7, router_of(routes), {"s": runtime}))
    factory = client_factory(active, ProxySettings(), loop, Counters())
    assert isinstance(factory, ClientFactory)
    shared = factory._shared
    client = factory()
    client.connection_made(Nowhere())
    upstream = UpstreamConnection(shared, endpoint)
    upstream.connection_made(Nowhere())
    endpoint.idle.append(upstream)
    best = float("inf")
    gc.disable()
    for _ in range(rounds):
        balancer = runtime.balancer
        assert isinstance(balancer, HandBalancer)
        balancer.picked.clear()
        client.requests = 0  # type: ignore[attr-defined]  # so that its limit is not met
        upstream.requests = 0
        began = time.process_time()
        for _ in range(requests):
            client.data_received(REQUEST)
            feed(upstream, ANSWER)
        best = min(best, (time.process_time() - began) / requests)
    print(f"{best * 1e6:.3f} us of CPU per request (least of {rounds} rounds of {requests})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=9000)
    given = parser.parse_args()
    asyncio.run(_run(rounds=given.rounds, requests=given.requests))


if __name__ == "__main__":
    main()
