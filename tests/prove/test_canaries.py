"""The long proofs of canaries: shares over many requests, how soon a bad side is gone, and kills in every state.

docs/benchmarks.md keeps the figures of one run.
"""

from __future__ import annotations

import asyncio
import math
import random
import signal
import time
from collections import Counter, defaultdict
from pathlib import Path

import aiohttp
import pytest

from tests.support import canaries, ledger
from tests.support.load import Destination, OpenLoop
from tests.support.processes import Fleet
from tests.support.rollouts import all_live, host_of

BREACHES = 20
TRIALS = 5
STATES = ("shifting", "watching", "held", "settling", "undoing", "returning")


async def start(fleet: Fleet, rate: float) -> OpenLoop:
    await fleet.start({colour: len(weights) for colour, weights in ledger.WEIGHTS.items()})
    await ledger.apply_example(fleet)
    await all_live(fleet)
    load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=rate, host=ledger.HOST)
    load.start()
    return load


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_five_percent_of_ten_thousand_requests_and_keys_that_stay(tmp_path: Path) -> None:
    async with Fleet(tmp_path, nodes=3, workers=1) as fleet:
        load = await start(fleet, 500)
        number = int((await canaries.begin(fleet, 5, gates=None, wait_s=20))["switch"])
        began = time.monotonic()
        while sum(record.sent > began for record in load.records) < 10_000:
            await asyncio.sleep(0.2)
        ended = time.monotonic()
        await canaries.tell(fleet, number, "abort", reason="counted")
        await load.stop()
        counted = [record for record in load.records if began < record.sent and 0 < record.answered < ended]
        green, whole = canaries.share_of(counted, "green")
        bound = 2.576 * math.sqrt(whole * 0.05 * 0.95)
        by_node = [canaries.share_of([r for r in counted if r.node == node], "green") for node in range(3)]
        print(f"\n5 % of {whole} requests: {green} went to green, {whole * 0.05:.0f} give or take {bound:.0f} would do")
        print("by worker: " + ", ".join(f"{new} of {all_of}, exact {all_of * 0.05:.1f}" for new, all_of in by_node))
        assert abs(green - whole * 0.05) <= bound
        assert all(abs(new - all_of * 0.05) <= 2 for new, all_of in by_node), "one open at either end"

        sticky = {"on": "header", "name": "x-user"}
        number = int((await canaries.begin(fleet, 20, 60, gates=None, sticky=sticky, wait_s=20))["switch"])
        first = await sides_of_users(fleet)
        await canaries.tell(fleet, number, "promote")
        second = await sides_of_users(fleet)
        await canaries.tell(fleet, number, "abort", reason="counted")
        assert all(len(seen) == 1 for seen in (*first.values(), *second.values())), "a key flipped within a step"
        stayed = [user for user, seen in first.items() if "green" in seen]
        assert all("green" in second[user] for user in stayed), "a key went back while the share grew"
        grown = sum("green" in seen for seen in second.values())
        print(f"sticky: {len(stayed)} of 500 users on green at 20 %, {grown} at 60 %, none flipped within a step")


async def sides_of_users(fleet: Fleet) -> dict[int, set[str]]:
    """Which sides 500 users saw, each asking every node twice."""
    seen: dict[int, set[str]] = defaultdict(set)
    async with aiohttp.ClientSession() as session:
        for attempt in range(2):
            for user in range(500):
                for node in fleet.nodes:
                    headers = {"Host": ledger.HOST, "x-user": f"user-{user}"}
                    place = f"http://{node.proxy}/users/{attempt}-{node.name}-{user}-{time.monotonic_ns()}"
                    async with session.get(place, headers=headers) as answer:
                        seen[user].add((await answer.text()).split(" ")[1])
    return seen


@pytest.mark.prove
@pytest.mark.timeout(1200)
async def test_a_bad_side_is_gone_within_two_seconds_of_the_window_that_shows_it(tmp_path: Path) -> None:
    took, seen_for, shares = [], [], []
    async with Fleet(tmp_path, nodes=3, workers=1) as fleet:
        load = await start(fleet, 300)
        for number in range(BREACHES):
            await canaries.make(fleet, "green", ill=True, only="" if number % 2 else "green-1")
            asked, first = time.monotonic(), len(load.records)
            view = await canaries.begin(fleet, 10, 50, every_s=30, gates={"p99": None}, wait_s=60)
            assert view["state"] == "undone", view
            back = time.monotonic()
            await canaries.make(fleet, "green", ill=False)
            await asyncio.sleep(1.0)
            breach = view["canary"]["breach"]
            took.append(breach["undone_at"] - breach["at"])
            bad = [record for record in load.records[first:] if record.status == 500]
            assert all(asked <= record.sent <= back for record in bad)
            seen_for.append(bad[-1].sent - bad[0].sent)
            shares.append(100 * len(bad) / sum(asked <= record.sent <= back for record in load.records[first:]))
        await load.stop()
        duplicates = await ledger.count_duplicates(fleet)
    result = ledger.settle(load, (), revolutions=0, duplicates=duplicates, check_weights=False)
    print(f"\n{BREACHES} canaries at 10 % with a green that answers 500, wholly or by one of its two servers:")
    for what, values in (("gate broken to undo confirmed, s", took), ("first to last bad answer, s", seen_for),
                         ("share of requests in its time that saw it, %", shares)):  # fmt: skip
        values.sort()
        print(f"{what}: p50 {ledger.percentile(values, 0.5):.2f}   max {values[-1]:.2f}")
    print(f"sent {result.sent}   lost {len(result.lost)}   doubled {result.doubled}   bad {result.bad_answers}")
    assert result.failures == []
    assert took[-1] <= 2.0


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_a_control_plane_killed_in_any_state_leaves_a_canary_that_ends(tmp_path: Path) -> None:
    rng = random.Random(4711)
    ends: Counter[tuple[str, str]] = Counter()
    async with Fleet(tmp_path, nodes=3, workers=1) as fleet:
        load = await start(fleet, 200)
        for state in STATES * TRIALS:
            number = int((await canaries.begin(fleet, 20, 50, every_s=1, gates=None))["switch"])
            if state in ("watching", "held", "settling", "undoing", "returning"):
                await canaries.until(fleet, number, lambda view: view["canary"]["step"] >= 1)
            if state == "held":
                await canaries.tell(fleet, number, "hold", wait_s=0)
            if state == "settling":
                await canaries.tell(fleet, number, "promote", wait_s=0, all=True)
            if state in ("undoing", "returning"):
                await canaries.tell(fleet, number, "abort", wait_s=0, reason="for the proof")
            await asyncio.sleep(rng.uniform(0.0, 0.12))
            fleet.control_plane.kill(signal.SIGKILL)
            await fleet.control_plane.wait()
            await fleet.control_plane.up()
            found = await canaries.view_of(fleet, number)
            if state == "held":
                assert found["state"] == "held", found
                await canaries.tell(fleet, number, "promote", wait_s=0)
            view = await canaries.until_state(fleet, number, *canaries.FINAL)
            ends[state, view["state"]] += 1
            expected = "aborted" if state in ("undoing", "returning") else "confirmed"
            assert view["state"] == expected, view
            assert await host_of(fleet) == ("blue" if expected == "aborted" else "green")
            await all_live(fleet)
            if expected == "confirmed":
                assert (await canaries.tell(fleet, number, "undo")).status == 200
        await load.stop()
        duplicates = await ledger.count_duplicates(fleet)
    result = ledger.settle(load, (), revolutions=0, duplicates=duplicates, check_weights=False)
    print("\nkilled about " + ", ".join(f"{state}: {count} x {end}" for (state, end), count in ends.items()))
    print(f"sent {result.sent}   lost {len(result.lost)}   doubled {result.doubled}")
    assert result.failures == []
