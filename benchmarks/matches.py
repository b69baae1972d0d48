"""`python -m benchmarks.matches`: what a match costs when the plan cache does not help, by how many routes there are.

The worst a client can do to the router is never to ask for the same path twice. Processor time, so that others on the
machine don't count; the last row is the router's worst case, regexes of one host that begin alike.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from data_plane.model import RouteConfig
from data_plane.router import Router, build_router

MATCHES = 5000
COUNTS = (1, 1000, 10_000)


def routed(routes: Sequence[RouteConfig]) -> Router:
    """Build the router in one go."""
    steps = build_router(routes)
    while True:
        try:
            next(steps)
        except StopIteration as done:
            router: Router = done.value
            return router


def microseconds(router: Router, host: Callable[[int], bytes], path: Callable[[int], bytes]) -> float:
    """Mean time of matches that all differ, each of which must find a route."""
    asked = [(host(number), path(number)) for number in range(MATCHES)]
    began = time.thread_time()
    for name, target in asked:
        if router.match(b"GET", name, target, port=80, scheme="http", header_values=lambda _: ()) is None:
            raise SystemExit(f"no route for {target!r}")
    return (time.thread_time() - began) / MATCHES * 1e6


def main() -> None:
    """Print the table."""
    kinds: list[tuple[str, Callable[[int], RouteConfig], Callable[[int, int], tuple[bytes, bytes]]]] = [
        (
            "a host each",
            lambda n: RouteConfig(id=f"{n:032x}", hosts=(f"h{n}.test",)),
            lambda n, of: (b"h%d.test" % (n % of), b"/x/%d" % n),
        ),
        (
            "a prefix each",
            lambda n: RouteConfig(id=f"{n:032x}", paths=(f"/p{n}/",)),
            lambda n, of: (b"any.test", b"/p%d/x/%d" % (n % of, n)),
        ),
        (
            "a regex each",
            lambda n: RouteConfig(id=f"{n:032x}", paths=(f"~/r{n}/[0-9]+$",)),
            lambda n, of: (b"any.test", b"/r%d/%d" % (n % of, n)),
        ),
        (
            "regexes that begin alike",
            lambda n: RouteConfig(id=f"{n:032x}", paths=(f"~/[^/]+/r{n}/[0-9]+$",)),
            lambda n, of: (b"any.test", b"/a%d/r%d/%d" % (n, n % of, n)),
        ),
    ]
    print(f"{'match, no path twice':26}" + "".join(f"{count:>14,} routes" for count in COUNTS))
    for name, route, asked in kinds:
        row = ""
        for count in COUNTS:
            router = routed([route(number) for number in range(count)])

            def host(
                number: int, count: int = count, asked: Callable[[int, int], tuple[bytes, bytes]] = asked
            ) -> bytes:
                return asked(number, count)[0]

            def path(
                number: int, count: int = count, asked: Callable[[int, int], tuple[bytes, bytes]] = asked
            ) -> bytes:
                return asked(number, count)[1]

            row += f"{microseconds(router, host, path):>18.2f} us"
        print(f"{name:26}{row}")


if __name__ == "__main__":
    gc.disable()
    main()
