"""The ledger's run with health checks on, while a blue target is killed and started again all the time.

Switches between `blue` and `green` as in `tests/support/ledger.py`; `blue-1` is dead half of the time, and probes and
traffic take it out and in. No GET may be lost and no switch may come late; a POST that the killed target may have read
fails, and no POST is served twice (`tests/support/moody_upstream.py` keeps a journal that survives the kill). A failed
POST that no journal has was in the killed process' socket: taken in by its kernel, not read, and the reset that follows
does not tell that from one that was.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support import ledger
from tests.support.load import Destination, OpenLoop, Record
from tests.support.moody_upstream import MoodyUpstream
from tests.support.processes import Fleet
from tests.support.target_faults import ACTIVE, PASSIVE, POST_EVERY

VICTIM = "blue-1"


@dataclass(frozen=True, slots=True)
class SickLedger:
    """The ledger of a run, and how often the victim was killed."""

    ledger: ledger.Ledger
    kills: int
    lost_gets: Sequence[Record]
    failed_posts: Sequence[Record]
    read_posts: Sequence[Record]
    """Those of the failed that the journals show as read: they were in the hands of the process that was killed."""

    def report(self) -> str:
        """The figures."""
        return (
            f"{ledger.report(self.ledger)}\n{VICTIM} was killed and started again {self.kills} times   GET lost "
            f"{len(self.lost_gets)}   POST failed {len(self.failed_posts)} ({len(self.read_posts)} of them read by the "
            f"killed process)   POST served twice {self.ledger.doubled}"
        )


async def run(
    folder: Path, *, nodes: int, switches: int, rate: float, pause_s: float, dead_s: float, alive_s: float
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
        killer = Killer(targets[VICTIM], dead_s=dead_s, alive_s=alive_s)
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
        settled = ledger.settle(load, done, revolutions=nodes, duplicates=doubled, check_weights=False)
    failed_posts = [record for record in settled.lost if not record.id % POST_EVERY]
    return SickLedger(
        settled,
        killer.kills,
        [record for record in settled.lost if record.id % POST_EVERY],
        failed_posts,
        [record for record in failed_posts if str(record.id) in posts],
    )


class Killer:
    """Kills one target again and again, and leaves it alive at the end."""

    def __init__(self, target: MoodyUpstream, *, dead_s: float, alive_s: float) -> None:
        self.over = False
        self.kills = 0
        self._target = target
        self._dead_s = dead_s
        self._alive_s = alive_s

    async def run(self) -> None:
        while not self.over:
            await asyncio.sleep(self._alive_s)
            self._target.kill()
            await self._target.wait()
            self.kills += 1
            await asyncio.sleep(self._dead_s)
            await self._target.up()


async def _apply(fleet: Fleet) -> None:
    config = ledger.configuration(fleet)
    upstreams = config["upstreams"]
    assert isinstance(upstreams, list)
    for upstream in upstreams:
        upstream["healthchecks"] = {"active": ACTIVE, "passive": PASSIVE}
    answer = await fleet.admin("POST", "/config/sync", config, {"Prefer": "wait=20"})
    assert answer.status in {200, 202}, f"sync was answered {answer.status}: {answer.body}"
    await fleet.until_ready()
