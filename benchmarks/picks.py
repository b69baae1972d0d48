"""What one choice of an endpoint costs, by algorithm and number of targets.

    python -m benchmarks.picks

Each figure is the best of several rounds. A pick goes with its take and release, in microseconds on one core. Then
what following a change of 10,000 targets takes, in milliseconds: all of it for one changed weight, and the longest
step, which a request may wait for, with one changed weight and with half of the targets replaced. As in a
worker, the garbage collector is off.
"""

from __future__ import annotations

import argparse
import gc
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

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
    variants = (one_weight(count), targets)

    def work(calls: int) -> None:
        for number in range(calls):
            upstream.reconcile(config, variants[number & 1], lambda _: None)

    return best_us(work, 2) / 1000


def longest_step_ms(algorithm: str, count: int, changed: Callable[[int], list[TargetConfig]]) -> float:
    """The longest step between two looks at the clock, of the round in which it was shortest."""
    upstream, config = upstream_of(algorithm, targets_of(count))
    best = float("inf")
    for number in range(ROUNDS):
        targets = changed(count) if number % 2 == 0 else targets_of(count)
        gc.collect()
        steps = upstream.reconcile_steps(config, targets, lambda _: None)
        longest, going = 0.0, True
        while going:
            began = time.thread_time()
            going = next(steps, steps) is None
            longest = max(longest, time.thread_time() - began)
        best = min(best, longest)
    return best * 1000


def one_weight(count: int) -> list[TargetConfig]:
    """One of them weighs something else."""
    targets = targets_of(count)
    return [replace(targets[0], weight=70), *targets[1:]]


def half_new(count: int) -> list[TargetConfig]:
    """Every second one is another."""
    return [replace(each, host=f"11{each.host[2:]}") if n % 2 else each for n, each in enumerate(targets_of(count))]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    gc.disable()
    print(
        f"{'pick + take + release':<22}"
        + "".join(f"{count:>10,} targets" for count in TARGETS)
        + "   one weight changes   longest step   half new: longest"
    )
    for algorithm in ALGORITHMS:
        costs = "".join(f"{pick_us(algorithm, count):>15.2f} us" for count in TARGETS)
        whole = reconcile_ms(algorithm, TARGETS[-1])
        steps = [longest_step_ms(algorithm, TARGETS[-1], changed) for changed in (one_weight, half_new)]
        print(f"{algorithm:<22}{costs}{whole:>18.1f} ms{steps[0]:>12.2f} ms{steps[1]:>18.2f} ms")


if __name__ == "__main__":
    main()
