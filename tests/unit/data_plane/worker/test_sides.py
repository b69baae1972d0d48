"""What a worker makes of settings that name other sides, and what of them it drops again."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from data_plane.model import Mirror, Preview, ServiceSettings, Split, Sticky
from data_plane.observe.side_counts import SIDES_PER_SERVICE_MAX, SideBook
from data_plane.pools import service_settings
from data_plane.worker.faults import DANGLING_REFERENCE
from pointsman.wire.v1 import config_pb2 as wire
from tests.unit.data_plane.worker.wires import Rig, route, service, target, upstream

BLUE_AND_GREEN = (
    upstream("u1", "blue"),
    upstream("u2", "green", host_header="green.test"),
    target("t1", "u1", "10.0.0.1:80"),
    target("t2", "u2", "10.0.0.2:80"),
    service("s1", "blue"),
    route("r1", "s1"),
)


def settings(
    *, split: int | None = None, preview: bool = False, to: str = "u2", deadline_s: int | None = None
) -> bytes:
    return wire.Entity(
        service_settings=wire.ServiceSettings(
            id="s1",
            split=wire.Split(to=to, share=split) if split is not None else None,
            preview=wire.Preview(to=to, header="x", value="1") if preview else None,
            drain_deadline=Duration(seconds=deadline_s) if deadline_s is not None else None,
        )
    ).SerializeToString()


@pytest.fixture
async def rig() -> Rig:
    rig = Rig()
    await rig.put(1, 0, BLUE_AND_GREEN)
    return rig


def test_settings_off_the_wire() -> None:
    message = wire.ServiceSettings(
        id="s",
        split=wire.Split(to="u2", share=5, sticky=wire.Sticky(on="header", name="x")),
        preview=wire.Preview(to="u2", cookie="c", value="1"),
        mirror=wire.Mirror(to="u3", share=7),
        drain_deadline=Duration(nanos=500_000_000),
    )
    assert service_settings(message) == ServiceSettings(
        "s",
        split=Split("u2", 5, Sticky("header", "x")),
        preview=Preview("u2", "", "c", "1"),
        mirror=Mirror("u3", 7),
        drain_deadline_s=0.5,
    )
    assert service_settings(wire.ServiceSettings(id="s")) == ServiceSettings("s")
    assert service_settings(message).upstreams() == ("u2", "u2", "u3")


async def test_a_service_has_a_runtime_for_each_side_with_the_upstream_s_own_host(rig: Rig) -> None:
    assert rig.tables.services["s1"].sides is None
    await rig.put(2, 1, [settings(split=500)])
    runtime = rig.tables.services["s1"]
    assert (runtime.side, runtime.side_name) == ("u1", "blue")
    assert runtime.sides is not None
    (green,) = runtime.sides.runtimes()
    assert (green.side, green.side_name, green.host_header) == ("u2", "green", "green.test")
    assert green.balancer.pick(()).ip == "10.0.0.2"
    assert green.config is runtime.config
    await rig.put(3, 2, deletes=[("service_settings", "s1")])
    assert rig.tables.services["s1"].sides is None


async def test_a_side_follows_its_upstream(rig: Rig) -> None:
    await rig.put(2, 1, [settings(split=500)])
    await rig.put(3, 2, [upstream("u2", "green", host_header="other.test")])
    runtime = rig.tables.services["s1"]
    assert runtime.sides is not None
    assert [side.host_header for side in runtime.sides.runtimes()] == ["other.test"]


async def test_an_upstream_that_is_not_there_is_refused_by_name(rig: Rig) -> None:
    refused = (await rig.stage(2, 1, [settings(split=500, to="u9")])).refused
    (fault,) = refused.faults
    assert (fault.code, fault.collection, fault.entity_id) == (DANGLING_REFERENCE, "service_settings", "s1")
    assert "u9" in fault.message
    await rig.put(3, 1, [settings(preview=True)])
    gone = (await rig.stage(4, 3, deletes=[("upstreams", "u2"), ("targets", "t2")])).refused
    assert [fault.collection for fault in gone.faults] == ["service_settings"]


async def test_a_deadline_runs_for_a_side_that_was_left_and_not_for_one_that_was_taken_up_again(rig: Rig) -> None:
    await rig.put(2, 1, [settings(split=500, deadline_s=0)])
    await rig.put(3, 2, [service("s1", "green"), settings(deadline_s=0)])
    await rig.eventually(lambda: "close late [('s1', 'u1')]" in rig.factory.steps)
    await rig.put(4, 3, [service("s1", "blue"), settings(deadline_s=3600)])
    assert list(rig.worker._leaving._timers) == [("s1", "u2")]
    await rig.put(5, 4, [settings(split=1, deadline_s=3600)])
    assert list(rig.worker._leaving._timers) == []


async def test_a_side_s_first_answer_is_counted_anew_when_its_service_takes_it_up(rig: Rig) -> None:
    """A share or a preview of it before is another use: the switch to all of it has a first answer of its own."""
    book = rig.worker._counters.sides
    blue, green = book.of("s1", "u1"), book.of("s1", "u2")
    blue.first_at = green.first_at = 5.0
    await rig.put(2, 1, [settings(split=500)])
    assert (blue.first_at, green.first_at) == (5.0, 0.0)
    green.first_at = 6.0
    await rig.put(3, 2, [settings(split=600)])
    assert green.first_at == 6.0, "more of it is not another use"
    await rig.put(4, 3, [service("s1", "green"), settings()])
    assert (blue.first_at, green.first_at) == (5.0, 0.0)


async def test_without_a_deadline_nothing_is_closed(rig: Rig) -> None:
    await rig.put(2, 1, [settings(split=500)])
    await rig.put(3, 2, [settings(deadline_s=3600)])
    assert list(rig.worker._leaving._timers) == [("s1", "u2")]
    await rig.put(4, 3, [settings()])
    assert list(rig.worker._leaving._timers) == []
    await rig.put(5, 4, [service("s1", "green")])
    assert list(rig.worker._leaving._timers) == []


def test_a_service_that_is_pointed_here_and_there_forgets_where_it_was_first() -> None:
    book = SideBook()
    blue = book.of("s", "blue")
    for number in range(SIDES_PER_SERVICE_MAX - 1):
        book.of("s", f"u{number}")
    assert book.of("s", "blue") is blue
    book.of("s", "one more")
    assert "u0" not in book.sides["s"]
    assert book.of("s", "blue") is blue
    book.of("t", "blue")
    book.turns("s")
    for _ in book.keep_only({"t"}):
        pass
    assert list(book.sides) == ["t"]
