"""The ledger's run with health checks on, while a blue target is ended and started again all the time.

Switches between `blue` and `green` as in `tests/support/ledger.py`; `blue-1` is away half of the time, and probes and
traffic take it out and in. *Lost* is a request that may be sent again (GET) without its one good answer, and with a
target that drains (`ends=SIGTERM`) any request at all. A target that is killed takes the POSTs in its hands with it:
those that it had read (a journal that outlives it has them, see `tests/support/moody_upstream.py`) and those that only
its kernel had taken in. The reset that follows does not tell the two apart, so nobody may send them again, and they
fail. They are counted apart, and each must have been under way at the instant of a kill.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import ledger
from tests.support.load import Destination, OpenLoop, Record
from tests.support.moody_upstream import MoodyUpstream
from tests.support.patience import PREFER
from tests.support.processes import Fleet
from tests.support.target_faults import PASSIVE, POST_EVERY

VICTIM = "blue-1"
IN_HAND_S = 0.1
"""A POST that was written as soon as this after the process was gone may have been in its hands."""

# One late answer is no illness: on a busy machine a well target may not get to run for some tenths of a second. Where
# nobody is asked when all are ill, as in Kong, a threshold of one would turn that into an outage.
ACTIVE: Mapping[str, object] = {
    "http_path": "/well",
    "timeout": 1,
    "healthy": {"interval": 0.2, "successes": 1},
    "unhealthy": {"interval": 0.2, "tcp_failures": 1, "timeouts": 3, "http_failures": 1},
}

_FOUND_ILL = re.compile(r"(127\.0\.0\.1:\d+) of upstream \w+ is unhealthy: (.*)")


@dataclass(frozen=True, slots=True)
class SickLedger:
    """The ledger of a run, and how often the victim was killed."""

    ledger: ledger.Ledger
    kills: int
    lost_gets: Sequence[Record]
    failed_posts: Sequence[Record]
    read_posts: Sequence[Record]
    """Those of the failed that the journals show as read: they were in the hands of the process that was killed."""
    unexplained_posts: Sequence[Record]
    """Those of the failed that were not under way when the victim was killed. There must be none."""
    wrongly_ill: Mapping[str, int]
    """How often nodes thought ill of a target that was well, by what they gave as the reason: a slow machine shows."""

    def report(self) -> str:
        """The figures."""
        return "\n".join(
            [
                ledger.report(self.ledger),
                f"{VICTIM} was ended and started again {self.kills} times   GET lost {len(self.lost_gets)}",
                f"POST failed {len(self.failed_posts)} ({len(self.read_posts)} of them read by the killed process, "
                f"{len(self.unexplained_posts)} not in its hands)   served twice {self.ledger.doubled}",
                f"well targets thought ill: {dict(self.wrongly_ill) or 'never'}",
            ]
        )


async def run(
    folder: Path,
    *,
    nodes: int,
    switches: int,
    rate: float,
    pause_s: float,
    dead_s: float,
    alive_s: float,
    ends: signal.Signals = signal.SIGKILL,
) -> SickLedger:
    """One whole run."""
    async with Fleet(folder, nodes=nodes) as fleet:
        targets = {
            instance: MoodyUpstream(colour, instance, folder)
            for colour, weights in ledger.WEIGHTS.items()
            for instance in weights
        }
        fleet.upstreams.update(targets)
        await fleet.start({})
        await _apply(fleet)
        load = OpenLoop([Destination(*node.proxy_address) for node in fleet.nodes], rate=rate, host=ledger.HOST)
        load.start()
        killer = Killer(targets[VICTIM], dead_s=dead_s, alive_s=alive_s, ends=ends)
        killing = asyncio.create_task(killer.run())
        await asyncio.sleep(1.0)
        done = []
        for number in range(switches):
            done.append(await ledger.switch_to(fleet, "green" if number % 2 == 0 else "blue"))
            await asyncio.sleep(pause_s)
        killer.over = True
        await killing
        await load.stop()
        posts = Counter(post for target in targets.values() for post in target.posts())
        doubled = sum(count > 1 for count in posts.values())
        wrongly_ill = _wrongly_ill(fleet, targets[VICTIM])
        settled = ledger.settle(load, done, revolutions=nodes, duplicates=doubled, check_weights=False)
    failed_posts = [record for record in settled.lost if not record.id % POST_EVERY]
    return SickLedger(
        settled,
        len(killer.kills),
        [record for record in settled.lost if record.id % POST_EVERY],
        failed_posts,
        [record for record in failed_posts if str(record.id) in posts],
        [record for record in failed_posts if not killer.had_in_hand(record)],
        wrongly_ill,
    )


class Killer:
    """Ends one target again and again, and leaves it alive at the end."""

    def __init__(self, target: MoodyUpstream, *, dead_s: float, alive_s: float, ends: signal.Signals) -> None:
        self.over = False
        self.kills: list[tuple[float, float]] = []  # from the signal until the process was gone
        self._target = target
        self._dead_s = dead_s
        self._alive_s = alive_s
        self._ends = ends

    async def run(self) -> None:
        while not self.over:
            await asyncio.sleep(self._alive_s)
            began = time.monotonic()
            self._target.kill(self._ends)
            await self._target.wait()
            self.kills.append((began, time.monotonic()))
            await asyncio.sleep(self._dead_s)
            await self._target.up()

    def had_in_hand(self, record: Record) -> bool:
        """Tell whether the request was under way when the target was killed."""
        if self._ends is not signal.SIGKILL:
            return False
        return any(record.sent <= gone + IN_HAND_S and record.answered >= began for began, gone in self.kills)


def _wrongly_ill(fleet: Fleet, victim: MoodyUpstream) -> Counter[str]:
    """What the nodes' logs say of all targets but the victim."""
    found = (match for node in fleet.nodes for match in _FOUND_ILL.finditer(node.log.read_text()))
    return Counter(match[2] for match in found if match[1] != victim.address)


async def _apply(fleet: Fleet) -> None:
    config = ledger.configuration(fleet)
    upstreams = config["upstreams"]
    assert isinstance(upstreams, list)
    for upstream in upstreams:
        upstream["healthchecks"] = {"active": ACTIVE, "passive": PASSIVE}
    answer = await fleet.admin("POST", "/config/sync", config, {"Prefer": PREFER})
    assert answer.status in {200, 202}, f"sync was answered {answer.status}: {answer.body}"
    await fleet.until_ready()
