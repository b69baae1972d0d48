"""Targets and nameservers on bad days, at full length and with figures; tests/faults has the short forms."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support import sick_ledger
from tests.support.dns_server import Failure
from tests.support.moody_upstream import Mood
from tests.support.target_faults import ACTIVE, PASSIVE, RESUMES_S, SICK, Outcome, bench

RATE = 500.0
ILL_S = 20.0
WELL_S = 5.0
CHECKS = {"active": ACTIVE, "passive": PASSIVE}

pytestmark = [pytest.mark.prove, pytest.mark.timeout(300)]


def settled(outcome: Outcome, name: str) -> Outcome:
    print("\n" + outcome.summary(name))
    assert outcome.wrongs == ()
    return outcome


@pytest.mark.parametrize("mood", [Mood.HANG, Mood.RESET_HEAD, Mood.RESET_BODY])
@pytest.mark.parametrize("checks", [CHECKS, {}], ids=["checked", "unchecked"])
async def test_a_target_falls_ill(tmp_path: Path, mood: Mood, checks: dict[str, object]) -> None:
    async with bench(tmp_path, checks=checks) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.mood(mood)
        await asyncio.sleep(ILL_S)
        await made.mood(Mood.WELL)
        await asyncio.sleep(WELL_S)
        outcome = settled(await made.outcome(), f"{mood.value}, {'checks on' if checks else 'no checks'}")
    if mood is not Mood.RESET_BODY:  # an answer that has begun cannot be repaired
        assert outcome.lost_gets == []


async def test_a_target_answers_500_half_the_time(tmp_path: Path) -> None:
    async with bench(tmp_path, checks={"passive": PASSIVE}) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.mood(Mood.HALF_500)
        await asyncio.sleep(ILL_S)
        outcome = settled(await made.outcome(), "500 half the time")
    assert len(outcome.lost_gets) + len(outcome.lost_posts) <= 12


@pytest.mark.parametrize("checks", [CHECKS, {}], ids=["checked", "unchecked"])
async def test_a_target_refuses_and_comes_back(tmp_path: Path, checks: dict[str, object]) -> None:
    async with bench(tmp_path, checks=checks) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.kill()
        await asyncio.sleep(ILL_S)
        await made.revive()
        await asyncio.sleep(WELL_S)
        outcome = settled(await made.outcome(), f"refuses, {'checks on' if checks else 'no checks'}")
    assert outcome.lost_gets == []


async def test_a_target_flaps_each_second(tmp_path: Path) -> None:
    async with bench(tmp_path, checks=CHECKS) as made:
        made.start_load(RATE)
        for _ in range(int(ILL_S)):
            await made.kill()
            await asyncio.sleep(0.5)
            await made.revive()
            await asyncio.sleep(0.5)
        outcome = settled(await made.outcome(), "flaps each second")
    assert outcome.lost_gets == []


async def test_all_targets_go_down_and_come_back(tmp_path: Path) -> None:
    async with bench(tmp_path, checks=CHECKS) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.kill(*made.targets)
        await asyncio.sleep(ILL_S)
        await made.revive(*made.targets)
        back = time.monotonic()
        await asyncio.sleep(WELL_S)
        outcome = settled(await made.outcome(), "all down and back")
    assert set(outcome.statuses()) <= {200, 502, 503}
    assert {record.status for record in outcome.records if record.sent > back + RESUMES_S} == {200}


@pytest.mark.parametrize("failure", [Failure.SILENCE, Failure.SERVFAIL, None], ids=["silent", "servfail", "nxdomain"])
async def test_the_nameserver_fails_for_a_minute(tmp_path: Path, failure: Failure | None) -> None:
    async with bench(tmp_path, named=True) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        if failure is None:
            made.dns.remove(made.name)
        else:
            made.dns.fail(made.name, failure)
        await asyncio.sleep(60.0)
        outcome = settled(await made.outcome(), f"nameserver: {failure.value if failure else 'no such name'}")
    assert outcome.lost_gets == outcome.lost_posts == []


async def test_a_name_moves_again_and_again(tmp_path: Path) -> None:
    async with bench(tmp_path, named=True) as made:
        twin = await made.twin_of_sick()
        made.start_load(RATE)
        for number in range(10):
            made.dns.set(made.name, "A", [twin.host if number % 2 == 0 else "127.0.0.1"], ttl=1)
            await asyncio.sleep(2.5)
        outcome = settled(await made.outcome(), "name moves 10 times")
    assert outcome.lost_gets == outcome.lost_posts == []
    assert min(outcome.instances()[SICK], outcome.instances()[twin.name]) > 0


@pytest.mark.parametrize("ends", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "drained"])
async def test_blue_green_with_checks_on_while_a_blue_target_ends(tmp_path: Path, ends: signal.Signals) -> None:
    result = await sick_ledger.run(
        tmp_path, nodes=3, switches=60, rate=600, pause_s=1.0, dead_s=1.0, alive_s=1.0, ends=ends
    )
    print("\n" + result.report())
    assert result.lost_gets == []
    assert all(record.status in (502, 504) for record in result.failed_posts)
    assert result.unexplained_posts == []
    assert result.ledger.doubled == result.ledger.stray == 0
    assert result.ledger.violations == []
