"""The proof that a switch loses nothing: switches under open-loop load, and the books of every request.

Starts a control plane, nodes and upstream servers on loopback, switches a service between `blue` and `green`, and
accounts for each request that was sent: answered once, lost, doubled; which colour answered, and whether that was
allowed. A *violation* is a request whose first byte was sent after the generator had itself read that node's report
of the new version and that the old side answered all the same.

    python -m tests.support.ledger --nodes 3 --switches 100 --rate 1000
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from tests.support.history import History, Write, of_fleet
from tests.support.load import Destination, OpenLoop, Record
from tests.support.patience import PREFER
from tests.support.processes import Fleet

HOST = "example.domain.com"
WEIGHTS: Mapping[str, Mapping[str, int]] = {
    "blue": {"blue-1": 100, "blue-2": 50},
    "green": {"green-1": 100, "green-2": 100},
}


@dataclass(slots=True)
class Switch:
    """One switch and when it was seen. Times are seconds of `time.monotonic`."""

    to: str
    version: int
    asked: float
    answered: float
    reported: dict[int, float] = field(default_factory=dict)  # node -> its report of the version was read
    first_new_ms: dict[int, float] = field(default_factory=dict)  # node -> PATCH to its first answer by the new side
    last_old_ms: dict[int, float] = field(default_factory=dict)  # node -> PATCH to its last answer by the old side
    rollout: dict[str, Any] | None = None  # the Admin API's word, of a switch in two phases
    mixed: bool = False  # a canary that ended on `to`: until nodes report that, either side may answer

    @property
    def skew_ms(self) -> float:
        """From the first node's activation to the last one's, by the nodes' own words."""
        return float(self.rollout["skew_us"] or 0) / 1000 if self.rollout is not None else float("nan")

    @property
    def late_ms(self) -> list[float]:
        """How late each worker was, against the instant it was armed with."""
        nodes = self.rollout["nodes"] if self.rollout is not None else []
        return [late / 1000 for node in nodes for late in node["late_us"] or ()]

    @property
    def clock_error_ms(self) -> float:
        """The largest doubt of a node about the control plane's clock."""
        nodes = self.rollout["nodes"] if self.rollout is not None else []
        return max((float(node["clock_error_us"] or 0) for node in nodes), default=0.0) / 1000


@dataclass(slots=True)
class Ledger:
    """What became of all requests; `failures` is empty when the promise was kept."""

    sent: int = 0
    answered_once: int = 0
    lost: list[Record] = field(default_factory=list)
    doubled: int = 0
    stray: int = 0
    bad_answers: int = 0  # the side's own 500, brought to the client as it was
    bad_outside: int = 0  # of those, the ones that no canary was on its way for
    in_canaries: int = 0  # requests that were due while a canary was on its way
    by_status: Counter[int] = field(default_factory=Counter)
    by_instance: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[Record, Switch]] = field(default_factory=list)
    weight_errors: list[str] = field(default_factory=list)
    latencies_ms: list[float] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    history: History | None = None  # what store, nodes and generator wrote down, each by itself

    @property
    def failures(self) -> list[str]:
        found = []
        if self.lost:
            found.append(f"{len(self.lost)} requests lost, first: {self.lost[0].problem}")
        if self.doubled or self.stray:
            found.append(f"{self.doubled} requests doubled, {self.stray} answers without a request")
        if self.bad_outside:
            found.append(f"{self.bad_outside} requests saw a bad side while no canary was on its way")
        if self.violations:
            record, switch = self.violations[0]
            found.append(
                f"{len(self.violations)} violations of order, first: request {record.id} was sent "
                f"{(record.sent - switch.reported[record.node]) * 1000:.2f} ms after node {record.node + 1} reported "
                f"version {switch.version} and was answered by {record.colour}"
            )
        if self.history is not None:
            found += self.history.failures()
        return found + self.weight_errors


def configuration(fleet: Fleet) -> dict[str, object]:
    """The example of the README with the upstream servers' own addresses."""
    return {
        "_format_version": "3.0",
        "services": [
            {
                "name": "example-service",
                "host": "blue",
                "path": "/anything",
                "routes": [{"name": "example-route", "hosts": [HOST]}],
            }
        ],
        "upstreams": [
            {
                "name": colour,
                "targets": [
                    {"target": fleet.upstreams[instance].address, "weight": weight}
                    for instance, weight in WEIGHTS[colour].items()
                ],
            }
            for colour in WEIGHTS
        ],
    }


async def apply_example(fleet: Fleet) -> None:
    """Applies the example and waits until every node serves it."""
    answer = await fleet.admin("POST", "/config/sync", configuration(fleet), {"Prefer": PREFER})
    assert answer.status in {200, 202}, f"sync was answered {answer.status}: {answer.body}"
    await fleet.until_ready()


async def _watch(fleet: Fleet, switch: Switch) -> None:
    """Reads each node's own report until all have the switch's version, noting when each report was read."""

    async def one(index: int) -> None:
        while await fleet.node_version(fleet.nodes[index]) < switch.version:
            await asyncio.sleep(0.002)
        switch.reported[index] = time.monotonic()

    await asyncio.gather(*(one(index) for index in range(len(fleet.nodes))))


async def switch_to(fleet: Fleet, colour: str, *, wait_s: int = 60, rollout: bool = False) -> Switch:
    """One PATCH that waits for the fleet, then each node's own word; `rollout` = in two phases, at one instant."""
    prefer = f"wait={wait_s}, rollout" if rollout else f"wait={wait_s}"
    asked = time.monotonic()
    answer = await fleet.admin("PATCH", "/services/example-service", {"host": colour}, {"Prefer": prefer})
    answered = time.monotonic()
    assert answer.status == 200, f"switch to {colour} was answered {answer.status}: {answer.body}"
    switch = Switch(colour, int(answer.headers["X-Pointsman-Version"]), asked, answered)
    if rollout:
        number = answer.headers["X-Pointsman-Rollout"]
        view = (await fleet.admin("GET", f"/fleet/rollouts/{number}")).body
        assert isinstance(view, dict)
        assert view["state"] == "confirmed", view
        switch.rollout = view
    await _watch(fleet, switch)
    return switch


async def switch_by_verb(fleet: Fleet, path: str, body: Mapping[str, object], colour: str) -> tuple[Switch, Any]:
    """A switch or an undo, with the proof that the Admin API answers; the same books as of any other switch."""
    asked = time.monotonic()
    answer = await fleet.admin("POST", path, body, {"Prefer": PREFER})
    answered = time.monotonic()
    assert answer.status == 200, f"{path} was answered {answer.status}: {answer.body}"
    switch = Switch(colour, int(answer.headers["X-Pointsman-Version"]), asked, answered)
    await _watch(fleet, switch)
    return switch, answer.body


async def canary_by_verb(fleet: Fleet, body: Mapping[str, object], ends_on: str) -> tuple[Switch, Any]:
    """A canary until it rests, whatever its end; the same books."""
    asked = time.monotonic()
    answer = await fleet.admin("POST", "/switches", body, {"Prefer": PREFER})
    view: Any = answer.body
    back, forth = view["canary"]["back_version"], view["version"]
    version = forth if ends_on == body["to"] else back
    assert version is not None, f"the canary did not end on {ends_on}: {answer.status} {view}"
    switch = Switch(ends_on, int(version), asked, 0.0, mixed=True)
    await _watch(fleet, switch)
    switch.answered = time.monotonic()
    return switch, view


def settle(
    load: OpenLoop, switches: Sequence[Switch], *, revolutions: int, duplicates: int, check_weights: bool = True
) -> Ledger:
    """Makes the ledger of a finished run. `revolutions` = workers over all nodes, each allowed one open revolution."""
    ledger = Ledger(doubled=duplicates, stray=load.stray, switches=list(switches))
    for record in load.records:
        ledger.sent += 1
        if record.problem or record.answers == 0:
            ledger.lost.append(record)
        elif record.answers > 1:
            ledger.doubled += 1
        else:
            ledger.answered_once += 1
            ledger.bad_answers += record.status == 500
            ledger.by_instance[record.instance] += 1
            ledger.latencies_ms.append((record.answered - record.due) * 1000)
        if record.status:
            ledger.by_status[record.status] += 1
    ledger.latencies_ms.sort()
    ledger.in_canaries = sum(
        switch.mixed and switch.asked <= record.due <= switch.answered for switch in switches for record in load.records
    )
    _account(switches, load.records, ledger)
    if check_weights:
        ledger.weight_errors = _weight_errors(ledger.by_instance, revolutions)
    return ledger


def _account(switches: Sequence[Switch], records: Sequence[Record], ledger: Ledger) -> None:
    """Books each answered request under the switches it overlapped: who answered when, and what must not be."""
    asked = [switch.asked for switch in switches]
    for record in records:
        if not record.colour:
            continue
        # From the last switch asked for before the answer, back to the one in force when the request was sent.
        # A colour that a later switch asked for meanwhile is no violation of an earlier one.
        allowed = False
        for position in range(bisect_right(asked, record.answered) - 1, -1, -1):
            switch = switches[position]
            elapsed_ms = (record.answered - switch.asked) * 1000
            book = switch.first_new_ms if record.colour == switch.to else switch.last_old_ms
            choose = min if record.colour == switch.to else max
            book[record.node] = choose(book.get(record.node, elapsed_ms), elapsed_ms)
            allowed = allowed or record.colour == switch.to or (switch.mixed and not _is_after(record, switch))
            if not allowed and _is_after(record, switch):
                ledger.violations.append((record, switch))
            if record.sent >= switch.asked:
                break


def _is_after(record: Record, switch: Switch) -> bool:
    """Whether it was sent after its node had reported the switch."""
    return record.sent > switch.reported.get(record.node, float("inf"))


def _weight_errors(counts: Counter[str], revolutions: int) -> list[str]:
    errors = []
    for colour, weights in WEIGHTS.items():
        total = sum(counts[instance] for instance in weights)
        whole = sum(weights.values())
        unit = min(weights.values())
        for instance, weight in weights.items():
            exact = total * weight / whole
            allowed = revolutions * weight / unit
            if abs(counts[instance] - exact) > allowed:
                errors.append(
                    f"{colour}: {instance} got {counts[instance]} requests, "
                    f"its weight says {exact:.0f} give or take {allowed:.0f}"
                )
    return errors


async def run(
    folder: Path,
    *,
    nodes: int,
    workers: int,
    switches: int,
    rate: float,
    pause_s: float,
    rollouts: bool = False,
    more: Callable[[Fleet], Awaitable[Sequence[Switch]]] | None = None,
) -> Ledger:
    """A whole run in `folder`: start, apply, load, switch, `more` under the same load, stop, settle."""
    async with Fleet(folder, nodes=nodes, workers=workers) as fleet:
        await fleet.start({colour: len(weights) for colour, weights in WEIGHTS.items()})
        await apply_example(fleet)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=rate, host=HOST)
        load.start()
        await asyncio.sleep(1.0)
        done = []
        for number in range(switches):
            done.append(await switch_to(fleet, "green" if number % 2 == 0 else "blue", rollout=rollouts))
            await asyncio.sleep(pause_s)
        if more is not None:
            done += await more(fleet)
        await load.stop()
        ledger = settle(load, done, revolutions=nodes * workers, duplicates=await count_duplicates(fleet))
        writes = [Write(switch.version, switch.asked, switch.answered) for switch in done]
        ledger.history = of_fleet(fleet, load.records, writes)
        return ledger


async def books(fleet: Fleet, load: OpenLoop, switches: Sequence[Switch] = ()) -> Ledger:
    """Ends the load on a fleet that has come to rest, and makes the ledger with the history of all that was written.

    Weights are not checked: a part that was killed takes its revolution with it.
    """
    await load.stop()
    ledger = settle(load, switches, revolutions=0, duplicates=await count_duplicates(fleet), check_weights=False)
    ledger.history = of_fleet(fleet, load.records)
    return ledger


async def count_duplicates(fleet: Fleet) -> int:
    """Requests that upstream servers served more than once, by their own books."""
    total = 0
    for upstream in fleet.upstreams.values():
        if upstream.running:
            books = await fleet.call("GET", f"http://{upstream.address}/books", None)
            assert isinstance(books.body, dict)
            total += len(books.body["duplicates"])
    return total


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the sorted values lie; nan when there are none."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def report(ledger: Ledger) -> str:
    """The ledger as text at 100 columns."""
    lines = [
        f"sent {ledger.sent}   answered once {ledger.answered_once}   lost {len(ledger.lost)}   "
        f"doubled {ledger.doubled + ledger.stray}   violations of order {len(ledger.violations)}",
        "by status    " + "   ".join(f"{status}: {count}" for status, count in sorted(ledger.by_status.items())),
    ]
    for weights in WEIGHTS.values():
        total = sum(ledger.by_instance[instance] for instance in weights)
        whole = sum(weights.values())
        lines.append(
            "by target    "
            + "   ".join(
                f"{instance}: {ledger.by_instance[instance]} (weight {weight}: {total * weight / whole:.0f})"
                for instance, weight in weights.items()
            )
        )
    latencies = ledger.latencies_ms
    lines.append(
        f"latency      p50 {percentile(latencies, 0.5):.1f} ms   p99 {percentile(latencies, 0.99):.1f} ms   "
        f"max {latencies[-1] if latencies else float('nan'):.1f} ms (from the scheduled start)"
    )
    lines += _canary_lines(ledger)
    answered = sorted((switch.answered - switch.asked) * 1000 for switch in ledger.switches if not switch.mixed)
    if answered:
        lines.append(
            f"switches     {len(answered)}: PATCH to all nodes switched p50 "
            f"{percentile(answered, 0.5):.1f} ms   p99 {percentile(answered, 0.99):.1f} ms   max {answered[-1]:.1f} ms"
        )
    lines += _rollout_lines([switch for switch in ledger.switches if switch.rollout is not None])
    if ledger.history is not None:
        wrong = ledger.history.failures()
        checked = ", ".join(f"{count} {what}" for what, count in ledger.history.checked.items())
        lines.append(f"history      {checked}: {len(wrong)} contradictions")
    return "\n".join(lines)


def _canary_lines(ledger: Ledger) -> list[str]:
    """Who saw a bad side before its canary went back."""
    canaries = sum(switch.mixed for switch in ledger.switches)
    if not canaries:
        return []
    share = 100 * ledger.bad_answers / ledger.in_canaries if ledger.in_canaries else 0.0
    seen = f"{ledger.bad_answers} of {ledger.in_canaries} requests ({share:.1f} %) saw a bad side in their time"
    return [f"canaries     {canaries}: {seen}, {ledger.bad_outside} at another"]


def _rollout_lines(switches: Sequence[Switch]) -> list[str]:
    """What the two phases add: how far apart the nodes switched, how late workers were, how sure clocks were."""
    if not switches:
        return []
    late = [value for switch in switches for value in switch.late_ms]
    early = sum(value < 0 for value in late)
    rows = (
        ("skew", "first to last activation", [switch.skew_ms for switch in switches]),
        ("lateness", "a worker against its instant", late),
        ("clocks", "largest doubt of a node", [switch.clock_error_ms for switch in switches]),
    )
    lines = []
    for name, what, unsorted in rows:
        values = sorted(unsorted)
        lines.append(
            f"{name:<12} {what}: p50 {percentile(values, 0.5):.2f} ms   p99 {percentile(values, 0.99):.2f} ms   "
            f"max {values[-1] if values else float('nan'):.2f} ms"
        )
    lines.append(f"rollouts     {len(switches)} confirmed by every node, {early} activations before the instant")
    return lines


def switch_table(ledger: Ledger, names: Sequence[str]) -> str:
    """One line a switch: per node, PATCH to the first answer by the new side and to the last by the old one."""
    header = "switch        all nodes   " + "   ".join(f"{name:>20}" for name in names)
    lines = [header, " " * 26 + "   ".join(f"{'first new | last old':>20}" for _ in names)]
    for number, switch in enumerate(ledger.switches, 1):
        if switch.mixed:
            continue
        cells = []
        for index in range(len(names)):
            new, old = switch.first_new_ms.get(index), switch.last_old_ms.get(index)
            cells.append(f"{_ms(new):>9} | {_ms(old):>8}")
        total = (switch.answered - switch.asked) * 1000
        lines.append(f"{number:>3} -> {switch.to:<6} {total:>8.1f} ms   " + "   ".join(cells))
    return "\n".join(lines)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="workers a node")
    parser.add_argument("--switches", type=int, default=10)
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second over all nodes")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between switches")
    parser.add_argument("--rollouts", action="store_true", help="switch in two phases, at one instant")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pointsman-ledger-") as folder:
        ledger = uvloop.run(
            run(
                Path(folder),
                nodes=options.nodes,
                workers=options.workers,
                switches=options.switches,
                rate=options.rate,
                pause_s=options.pause,
                rollouts=options.rollouts,
            )
        )
    names = [f"node-{number}" for number in range(1, options.nodes + 1)]
    print(switch_table(ledger, names) if options.switches <= 20 else "")
    print(report(ledger))
    if ledger.failures:
        sys.exit("FAILED: " + "; ".join(ledger.failures))


if __name__ == "__main__":
    main()
