"""What one choice of an endpoint costs, by algorithm and number of targets.

    python -m benchmarks.picks

Each figure is the best of several rounds of pick + take + release, in microseconds, on one core; and the time that one
reconcile after a change of one weight takes, in milliseconds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence

from data_plane.balancer import Upstream
from data_plane.model import TargetConfig, UpstreamConfig

ALGORITHMS = ("round-robin", "least-connections", "latency", "consistent-hashing", "sticky-sessions")
TARGETS = (2, 100, 10_000)
ROUNDS = 5


def targets_of(count: int) -> list[TargetConfig]:
    """So many targets of mixed weights."""
    return [
        TargetConfig(
            id=f"target-{number}",
            upstream="upstream",
            host=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}",
            port=80,
            weight=100 if number % 3 else 50,
        )
        for number in range(count)
    ]


def upstream_of(algorithm: str, targets: Sequence[TargetConfig]) -> tuple[Upstream, UpstreamConfig]:
    """A filled upstream and its config."""
    config = UpstreamConfig(id="upstream", name="upstream", algorithm=algorithm, hash_on="header")
    upstream = Upstream("upstream", rng=random.Random(1), secret=b"secret")
    upstream.reconcile(config, targets, lambda _: None)
    return upstream, config


def best_us(work: Callable[[int], None], count: int) -> float:
    """The best round's microseconds a call."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work(count)
        best = min(best, time.perf_counter() - began)
    return best / count * 1e6


def pick_us(algorithm: str, count: int) -> float:
    """One pick with its take and release."""
    upstream, _ = upstream_of(algorithm, targets_of(count))
    keys = [b"key-%d" % number for number in range(1024)] if algorithm == "consistent-hashing" else [b""] * 1024
    observes = upstream.measures

    def work(calls: int) -> None:
        for number in range(calls):
            endpoint = upstream.pick((), keys[number & 1023])
            upstream.take(endpoint)
            upstream.release(endpoint)
            if observes:
                upstream.observe(endpoint, 0.001)

    work(2_000)
    return best_us(work, 20_000)


def reconcile_ms(algorithm: str, count: int) -> float:
    """One change of one target's weight."""
    targets = targets_of(count)
    upstream, config = upstream_of(algorithm, targets)
    changed = targets_of(count)
    changed[0] = TargetConfig(id="target-0", upstream="upstream", host=targets[0].host, port=80, weight=70)
    variants = (changed, targets)

    def work(calls: int) -> None:
        for number in range(calls):
            upstream.reconcile(config, variants[number & 1], lambda _: None)

    return best_us(work, 2) / 1000


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(
        f"{'pick + take + release':<22}"
        + "".join(f"{count:>10,} targets" for count in TARGETS)
        + "   one weight changes, 10,000"
    )
    for algorithm in ALGORITHMS:
        costs = "".join(f"{pick_us(algorithm, count):>15.2f} us" for count in TARGETS)
        print(f"{algorithm:<22}{costs}{reconcile_ms(algorithm, TARGETS[-1]):>20.1f} ms")


if __name__ == "__main__":
    main()
