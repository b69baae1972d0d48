"""Upstreams of thousands of targets change in slices: the old set serves until the new one is whole, and `activated`
is said after that."""

from __future__ import annotations

import pytest

from data_plane.balancer import Endpoint, Upstream
from pointsman.wire.v1 import worker_pb2 as wire
from tests.unit.data_plane.worker.wires import Rig, route, service, target, upstream

MANY = 3000


def address(number: int) -> str:
    return f"10.1.{number // 250}.{number % 250 + 1}:80"


LARGE = (
    upstream("u1", "blue"),
    service("s1", "blue"),
    route("r1", "s1"),
    *(target(f"t{number}", "u1", address(number)) for number in range(MANY)),
)


def balancer(rig: Rig) -> Upstream:
    made = rig.tables.services["s1"].balancer
    assert isinstance(made, Upstream)
    return made


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.put(1, 0, LARGE)
    return rig


async def test_a_removed_target_is_picked_no_more_once_activated_is_said(rig: Rig) -> None:
    assert (await rig.stage(2, 1, deletes=[("targets", "t7")])).prepared.version == 2
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2)))
    assert rig.said == []  # not in one go
    assert len(balancer(rig).endpoints) == MANY
    assert rig.pick("s1")
    assert (await rig.next()).activated.version == 2
    assert address(7) not in balancer(rig).endpoints
    assert len(balancer(rig).endpoints) == MANY - 1


async def test_verdicts_that_come_in_between_count(rig: Rig) -> None:
    await rig.stage(2, 1, [target("t-new", "u1", "10.9.9.9:80")])
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2)))
    told = wire.Availability()
    for key in ("10.9.9.9:80", address(3)):
        told.verdicts.add(endpoint=wire.EndpointId(upstream="u1", key=key), available=False)
    rig.tell(wire.ToWorker(availability=told))
    assert (await rig.next()).activated.version == 2
    endpoints = balancer(rig).endpoints
    assert [endpoints[key].available for key in ("10.9.9.9:80", address(3), address(4))] == [False, False, True]
    picked = {balancer(rig).pick().key for _ in range(2 * MANY)}
    assert len(picked) == MANY - 1


async def test_two_versions_in_a_row_end_with_the_second(rig: Rig) -> None:
    await rig.stage(2, 1, deletes=[("targets", "t7")])
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2)))
    assert (await rig.next()).activated.version == 2
    await rig.put(3, 2, [target("t7", "u1", address(7))])
    assert len(balancer(rig).endpoints) == MANY


async def test_survivors_are_the_same_endpoints_and_the_gone_are_retired(rig: Rig) -> None:
    before: dict[str, Endpoint] = dict(balancer(rig).endpoints)
    await rig.put(2, 1, [target("t8", "u1", address(8), weight=7)], deletes=[("targets", "t7")])
    after = balancer(rig).endpoints
    assert all(after[key] is before[key] for key in after)
    assert before[address(7)].retired
    assert after[address(8)].weight == 7


async def test_a_whole_table_of_verdicts_replaces_what_was_known(rig: Rig) -> None:
    for ill in (3, 4):
        told = wire.Availability(whole=True)
        told.verdicts.add(endpoint=wire.EndpointId(upstream="u1", key=address(ill)), available=False)
        rig.tell(wire.ToWorker(availability=told))
    endpoints = balancer(rig).endpoints
    assert [endpoints[address(number)].available for number in (3, 4)] == [True, False]
