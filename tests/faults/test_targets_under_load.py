"""Targets that fall ill under load, with the clocks shortened; tests/prove has the same runs at full length.

Goal: while one healthy target is left and retries remain, no GET is lost; a POST never reaches two targets; nothing is
spliced. Method: three targets of which one falls ill and recovers, a few hundred requests a second, and the targets'
own journals; one gateway for all.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.dns_server import Failure
from tests.support.moody_upstream import Mood
from tests.support.target_faults import ACTIVE, PASSIVE, SICK, Gateway, Outcome, bench_on, gateway

RATE = 150.0
ILL_S = 1.5
WELL_S = 0.7
CHECKS = {"active": ACTIVE, "passive": PASSIVE}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """For all tests of this module, which therefore run in one event loop; each brings targets of its own."""
    async with gateway(tmp_path_factory.mktemp("gateway")) as made:
        yield made


async def ill(shared: Gateway, folder: Path, mood: Mood, checks: dict[str, object] | None = None) -> Outcome:
    async with bench_on(shared, folder, checks=CHECKS if checks is None else checks) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.mood(mood)
        await asyncio.sleep(ILL_S)
        await made.mood(Mood.WELL)
        await asyncio.sleep(WELL_S)
        return await made.outcome()


@pytest.mark.parametrize("mood", [Mood.HANG, Mood.RESET_HEAD])
async def test_no_get_is_lost_to_a_target_that_fails_before_its_answer(
    shared: Gateway, tmp_path: Path, mood: Mood
) -> None:
    outcome = await ill(shared, tmp_path, mood)
    assert outcome.wrongs == ()
    assert outcome.lost_gets == []
    # A POST that the target may have read is not repeated: it fails, and says so.
    assert all(record.status in (502, 504) for record in outcome.lost_posts)


async def test_an_answer_that_breaks_off_is_cut_and_never_completed_by_another(shared: Gateway, tmp_path: Path) -> None:
    outcome = await ill(shared, tmp_path, Mood.RESET_BODY)
    assert outcome.wrongs == ()
    # Its head had gone to the client: nothing can repair that. The checks see to it that it does not get its share.
    assert all("connection lost" in record.problem for record in [*outcome.lost_gets, *outcome.lost_posts])
    assert len(outcome.lost_gets) < RATE * ILL_S / 3


async def test_a_target_that_answers_500_half_the_time_is_taken_out(shared: Gateway, tmp_path: Path) -> None:
    outcome = await ill(shared, tmp_path, Mood.HALF_500, {"passive": PASSIVE})
    assert outcome.wrongs == ()
    assert set(outcome.statuses()) <= {200, 500}
    # Three are needed for the verdict; a few more were on their way before it.
    assert 3 <= len(outcome.lost_gets) + len(outcome.lost_posts) <= 10


async def test_without_checks_too_no_get_is_lost_to_a_target_that_refuses(shared: Gateway, tmp_path: Path) -> None:
    async with bench_on(shared, tmp_path) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.kill()
        await asyncio.sleep(ILL_S)
        await made.revive()
        revived = time.monotonic()
        await asyncio.sleep(WELL_S)
        outcome = await made.outcome()
    assert outcome.wrongs == ()
    assert outcome.lost_gets == []
    assert outcome.instances(since=revived + 0.1)[SICK] > 0


async def test_no_get_is_lost_to_a_target_that_flaps(shared: Gateway, tmp_path: Path) -> None:
    async with bench_on(shared, tmp_path, checks=CHECKS) as made:
        made.start_load(RATE)
        for _ in range(2):
            await asyncio.sleep(0.5)
            await made.kill()
            await asyncio.sleep(0.5)
            await made.revive()
        outcome = await made.outcome()
    assert outcome.wrongs == ()
    assert outcome.lost_gets == []


async def test_all_targets_down_is_said_at_once_and_ends_when_they_are_back(shared: Gateway, tmp_path: Path) -> None:
    async with bench_on(shared, tmp_path, checks=CHECKS) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        await made.kill(*made.targets)
        down = time.monotonic()
        await asyncio.sleep(ILL_S)
        await made.revive(*made.targets)
        await asyncio.sleep(0.2)
        back = time.monotonic()
        await asyncio.sleep(1.5)
        outcome = await made.outcome()
    assert outcome.wrongs == ()
    assert set(outcome.statuses()) <= {200, 502, 503}
    during = [record for record in outcome.records if down + 0.5 < record.sent < down + ILL_S]
    assert {record.status for record in during} == {503}
    # Probes find the targets again within an interval and a timeout.
    after = [record for record in outcome.records if record.sent > back + 1.0]
    assert after
    assert {record.status for record in after} == {200}


async def test_a_nameserver_that_is_gone_changes_nothing(shared: Gateway, tmp_path: Path) -> None:
    async with bench_on(shared, tmp_path, named=True) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        made.dns.fail(made.name, Failure.SILENCE)
        await asyncio.sleep(2.5)  # the answer's time to live is a second
        still = time.monotonic()
        await asyncio.sleep(WELL_S)
        outcome = await made.outcome()
    assert outcome.wrongs == ()
    assert outcome.lost_gets == outcome.lost_posts == []
    assert outcome.instances(since=still)[SICK] > 0


async def test_a_name_that_ceases_to_exist_keeps_its_last_addresses(shared: Gateway, tmp_path: Path) -> None:
    async with bench_on(shared, tmp_path, named=True) as made:
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        made.dns.remove(made.name)
        await asyncio.sleep(2.5)
        gone = time.monotonic()
        await asyncio.sleep(WELL_S)
        outcome = await made.outcome()
    assert outcome.wrongs == ()
    assert outcome.lost_gets == outcome.lost_posts == []
    # A record that is deleted by mistake takes nothing down: old addresses beat none.
    assert outcome.instances(since=gone)[SICK] > 0


async def test_a_name_that_moves_is_followed_without_a_loss(shared: Gateway, tmp_path: Path) -> None:
    async with bench_on(shared, tmp_path, named=True) as made:
        moved = await made.twin_of_sick()
        made.start_load(RATE)
        await asyncio.sleep(WELL_S)
        made.dns.set(made.name, "A", [moved.host], ttl=1)
        await asyncio.sleep(2.5)
        later = time.monotonic()
        await asyncio.sleep(WELL_S)
        outcome = await made.outcome()
    assert outcome.wrongs == ()
    assert outcome.lost_gets == outcome.lost_posts == []
    instances = outcome.instances(since=later)
    assert instances[SICK] == 0
    assert instances[moved.name] > 0
