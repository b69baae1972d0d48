"""The control plane's own log against what its callers saw: the order of versions is the order of commits.

Method: writers race over HTTP; each notes when it asked, when it was answered, and the version it was told. Afterwards
the versions the control plane lists must be those, once each and without a gap, in the order of their times, and no
write may have a smaller version than one that was answered before it was asked.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.processes import Fleet

WRITERS, WRITES = 6, 12


@dataclass(frozen=True, slots=True)
class Write:
    """One acknowledged write as its caller saw it; times of CLOCK_MONOTONIC."""

    asked: float
    answered: float
    version: int


def out_of_order(writes: list[Write]) -> list[tuple[Write, Write]]:
    """Pairs of which the first was answered before the second was asked, and has the larger version all the same."""
    by_answer = sorted(writes, key=lambda write: write.answered)
    found: list[tuple[Write, Write]] = []
    newest: Write | None = None
    at = 0
    for write in sorted(writes, key=lambda write: write.asked):
        while at < len(by_answer) and by_answer[at].answered < write.asked:
            if newest is None or by_answer[at].version > newest.version:
                newest = by_answer[at]
            at += 1
        if newest is not None and newest.version > write.version:
            found.append((newest, write))
    return found


@pytest.mark.parametrize(("versions", "wrong"), [((1, 2, 3), 0), ((1, 3, 2), 1), ((3, 1, 2), 2)])
def test_the_checker_finds_what_it_looks_for(versions: tuple[int, ...], wrong: int) -> None:
    writes = [Write(at, at + 0.5, version) for at, version in enumerate(versions)]
    assert len(out_of_order(writes)) == wrong
    overlapping = [Write(0.0, 9.0, version) for version in versions]
    assert out_of_order(overlapping) == []


async def test_versions_are_in_the_order_of_commits(tmp_path: Path) -> None:
    async with Fleet(tmp_path, nodes=0) as fleet:
        await fleet.start({})
        writes: list[Write] = []

        async def writer(number: int) -> None:
            for turn in range(WRITES):
                asked = time.monotonic()
                answer = await fleet.admin("PUT", f"/upstreams/u{number}", {"slots": 10 + turn})
                assert answer.status in (200, 201), answer
                writes.append(Write(asked, time.monotonic(), int(answer.headers["X-Pointsman-Version"])))

        await asyncio.gather(*(writer(number) for number in range(WRITERS)))
        assert out_of_order(writes) == []
        listed = (await fleet.admin("GET", f"/versions?size={WRITERS * WRITES * 2}")).body
        assert isinstance(listed, dict)
        log = sorted((row["version"], row["committed_at"]) for row in listed["data"])
        told = sorted(write.version for write in writes)
        assert [version for version, _ in log][-len(told) :] == told == list(range(told[0], told[0] + len(told)))
        times = [at for _, at in log]
        assert times == sorted(times)
