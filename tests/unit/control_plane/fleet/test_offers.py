"""A plain change reaches every node, a few at a time, whatever some of them do."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from control_plane.fleet.pace import AT_FIRST
from control_plane.store.contract import Store
from tests.support.patience import until
from tests.unit.control_plane.fleet.rollout_rig import RigPlane, Talker, create, slots, started


@pytest.fixture
async def plane(store: Store) -> AsyncIterator[RigPlane]:
    async with started(RigPlane(store)) as plane:
        await plane.write(create("blue"))
        yield plane


async def test_silent_nodes_keep_no_other_from_a_change(plane: RigPlane) -> None:
    talkers = [Talker(f"node-{number}") for number in range(12)]
    await plane.join(*talkers)
    silent = talkers[1 : 2 + 2 * AT_FIRST]  # the first in the row after the one that tries it
    for talker in silent:
        talker.applies = False
    version = await plane.write(slots("blue", 11))
    await until(lambda: all(talker.running.version == version for talker in talkers if talker not in silent))
    await until(lambda: all(talker.offered[-1][0] == version for talker in silent))


async def test_a_node_that_goes_away_gives_its_turn_to_the_next(plane: RigPlane) -> None:
    talkers = [Talker(f"node-{number}") for number in range(5)]
    await plane.join(*talkers)
    talkers[1].applies = talkers[2].applies = False
    version = await plane.write(slots("blue", 11))
    await until(lambda: all(talker.offered[-1][0] == version for talker in talkers[1:3]))
    for talker in talkers[1:3]:
        plane.talkers.remove(talker)
        await talker.leave_off()
    await until(lambda: all(talker.running.version == version for talker in plane.talkers))
