"""Never before the instant. The margin is not asserted: it is the machine's."""

from __future__ import annotations

import asyncio
import time

from data_plane.worker.moment import Moment


async def fired_at(at_ns: int) -> int:
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    moment = Moment(at_ns, lambda: done.set_result(time.monotonic_ns()))
    try:
        return await done
    finally:
        moment.cancel()


async def test_a_moment_comes_at_or_after_its_instant() -> None:
    for ahead_us in (0, 1, 100, 900, 1500, 3000):
        at_ns = time.monotonic_ns() + ahead_us * 1000
        assert await fired_at(at_ns) >= at_ns


async def test_a_moment_in_the_past_comes_from_the_loop_not_from_the_caller() -> None:
    log: list[str] = []
    Moment(time.monotonic_ns() - 1, lambda: log.append("fired"))
    assert log == []
    await asyncio.sleep(0.001)
    assert log == ["fired"]


async def test_who_has_read_the_clock_can_let_a_moment_come_before_the_loop_looks_at_its_timer() -> None:
    log: list[str] = []
    at_ns = time.monotonic_ns() + 1_000_000
    moment = Moment(at_ns, lambda: log.append("fired"))
    moment.come()
    assert log == [], "its time has not come"
    while time.monotonic_ns() < at_ns:
        pass  # the loop is busy
    moment.come()
    assert log == ["fired"]
    await asyncio.sleep(0.002)
    assert log == ["fired"], "only once"


async def test_a_cancelled_moment_never_comes() -> None:
    log: list[str] = []
    past = Moment(0, lambda: log.append("past"))
    future = Moment(time.monotonic_ns() + 1_000_000, lambda: log.append("future"))
    past.cancel()
    future.cancel()
    future.cancel()
    await asyncio.sleep(0.003)
    assert log == []
