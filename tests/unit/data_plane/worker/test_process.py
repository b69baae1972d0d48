"""What a worker does with what it is told: stage, refuse, swap, keep what survives, drain."""

from __future__ import annotations

import asyncio
import math
import time
from typing import cast

import pytest

from data_plane.balancer import NoEndpoint
from data_plane.channel import Channel
from data_plane.worker.process import LAST_RESORT_S, Phase
from pointsman.wire.v1 import worker_pb2 as wire
from tests.unit.data_plane.worker.wires import Rig, route, service, target, upstream

BLUE_AND_GREEN = (
    upstream("u1", "blue"),
    upstream("u2", "green"),
    target("t1", "u1", "10.0.0.1:80"),
    target("t2", "u2", "10.0.0.2:80"),
    service("s1", "blue"),
    route("r1", "s1"),
)


@pytest.fixture
async def rig() -> Rig:
    return Rig()


async def test_the_first_config_opens_the_listeners_and_then_is_active(rig: Rig) -> None:
    assert (await rig.stage(1, 0, BLUE_AND_GREEN)).prepared.version == 1
    assert rig.active.tables is None
    assert rig.factory.steps == []
    assert (await rig.activate(1)).activated.version == 1
    assert rig.factory.steps == ["open"]
    assert rig.worker.phase is Phase.SERVING
    assert rig.tables.version == 1
    assert rig.pick("s1") == "10.0.0.1:80"


async def test_a_repointed_service_finds_the_balancers_as_they_were(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    blue = rig.tables.services["s1"].balancer
    router = rig.tables.router
    await rig.put(2, 1, [service("s1", "green")])
    green = rig.tables.services["s1"].balancer
    assert rig.pick("s1") == "10.0.0.2:80"
    assert green is not blue
    assert rig.tables.router is router
    await rig.put(3, 2, [service("s1", "blue")])
    assert rig.tables.services["s1"].balancer is blue


async def test_staging_touches_nothing_that_serves(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    before = rig.tables
    assert (await rig.stage(2, 1, [target("t1", "u1", "10.0.0.9:80")])).prepared.version == 2
    assert rig.tables is before
    assert rig.pick("s1") == "10.0.0.1:80"
    await rig.activate(2)
    assert rig.pick("s1") == "10.0.0.9:80"


async def test_unchanged_services_stay_the_same_objects(rig: Rig) -> None:
    await rig.put(1, 0, [*BLUE_AND_GREEN, service("s2", "green")])
    runtime = rig.tables.services["s2"]
    await rig.put(2, 1, [service("s1", "green"), target("t1", "u1", "10.0.0.1:80", weight=3)])
    assert rig.tables.services["s2"] is runtime


async def test_equal_content_moves_the_version_and_keeps_the_router(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    router = rig.tables.router
    await rig.put(2, 1)
    assert (rig.tables.version, rig.worker.version) == (2, 2)
    assert rig.tables.router is router


async def test_a_new_set_from_nothing_replaces_everything(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    await rig.put(2, 0, [service("s9", "10.0.0.7", 8080)])
    assert list(rig.tables.services) == ["s9"]
    assert rig.pick("s9") == "10.0.0.7:8080"


async def test_an_upstream_takes_over_the_name_of_a_direct_host_and_gives_it_back(rig: Rig) -> None:
    await rig.put(1, 0, [service("s1", "blue.test", 8080), route("r1", "s1")])
    rig.names(blue_test=["10.0.0.5"])
    assert rig.pick("s1") == "10.0.0.5:8080"
    await rig.put(2, 1, [upstream("u1", "blue.test", host_header="h.test"), target("t1", "u1", "10.0.0.1:80")])
    assert rig.pick("s1") == "10.0.0.1:80"
    assert rig.tables.services["s1"].host_header == "h.test"
    await rig.put(3, 2, deletes=[("upstreams", "u1"), ("targets", "t1")])
    rig.names(blue_test=["10.0.0.6"])
    assert rig.pick("s1") == "10.0.0.6:8080"
    assert rig.tables.services["s1"].host_header == "blue.test"


async def test_services_that_name_one_host_share_its_balancer_until_the_last_goes(rig: Rig) -> None:
    await rig.put(1, 0, [service("s1", "10.0.0.1"), service("s2", "10.0.0.1"), service("s3", "10.0.0.1", 81)])
    first = rig.tables.services["s1"].balancer
    assert rig.tables.services["s2"].balancer is first
    assert rig.tables.services["s3"].balancer is not first
    endpoint = first.pick(())
    await rig.put(2, 1, deletes=[("services", "s1")])
    assert not endpoint.retired
    await rig.put(3, 2, deletes=[("services", "s2")])
    assert endpoint.retired


async def test_a_vanished_upstream_is_retired(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    endpoint = rig.tables.services["s1"].balancer.pick(())
    await rig.put(2, 1, [service("s1", "green")], [("upstreams", "u1"), ("targets", "t1")])
    assert endpoint.retired


async def test_names_are_followed_by_what_serves_and_by_what_is_staged(rig: Rig) -> None:
    rig.names(one_test=["10.0.0.1"])
    await rig.put(1, 0, [upstream("u1", "blue"), target("t1", "u1", "one.test:80"), service("s1", "blue")])
    assert rig.pick("s1") == "10.0.0.1:80"
    rig.names(one_test=["10.0.0.2"])
    assert rig.pick("s1") == "10.0.0.2:80"
    await rig.stage(2, 1, [upstream("u2", "green"), target("t2", "u2", "two.test:81"), service("s1", "green")])
    rig.names(two_test=["10.0.0.3"])
    await rig.activate(2)
    assert rig.pick("s1") == "10.0.0.3:81"


async def test_a_name_without_answer_is_no_endpoint_rather_than_an_error(rig: Rig) -> None:
    await rig.put(1, 0, [service("s1", "nowhere.test")])
    with pytest.raises(NoEndpoint):
        rig.pick("s1")


@pytest.mark.parametrize(
    ("upserts", "deletes", "fault"),
    [
        ([route("r2", "s9")], [], ("DANGLING_REFERENCE", "routes", "r2", "name-r2", "service")),
        ([], [("services", "s1")], ("DANGLING_REFERENCE", "routes", "r1", "name-r1", "service")),
        ([target("t9", "u9", "a:1")], [], ("DANGLING_REFERENCE", "targets", "t9", "a:1", "upstream")),
        ([], [("upstreams", "u1")], ("DANGLING_REFERENCE", "targets", "t1", "10.0.0.1:80", "upstream")),
        ([upstream("u9", "blue")], [], ("DUPLICATE_NAME", "upstreams", "u9", "blue", "name")),
        ([route("r2", "s1", paths=["~/a(b"])], [], ("BAD_REGEX", "routes", "r2", "name-r2", "paths")),
        ([b"\x4a\x00"], [], ("UNKNOWN_ENTITY", "", "", "", "")),
        ([], [("plugins", "p1")], ("UNKNOWN_ENTITY", "plugins", "p1", "", "")),
    ],
)
async def test_a_config_with_a_fault_is_refused_naming_entity_and_field(
    rig: Rig, upserts: list[bytes], deletes: list[tuple[str, str]], fault: tuple[str, ...]
) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    before = rig.tables
    refused = (await rig.stage(2, 1, upserts, deletes)).refused
    assert refused.version == 2
    told = refused.faults[0]
    assert (told.code, told.collection, told.entity_id, told.entity_name, told.field) == fault
    assert told.message
    assert rig.tables is before
    await rig.put(3, 1, [service("s1", "green")])


async def test_all_faults_are_told_up_to_a_bound(rig: Rig) -> None:
    refused = (await rig.stage(1, 0, [route(f"r{number}", "s9") for number in range(500)])).refused
    assert len(refused.faults) == 100


async def test_changes_over_another_version_are_refused(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    assert (await rig.stage(3, 2, [service("s1", "green")])).refused.faults[0].code == "OUT_OF_STEP"


async def test_a_renamed_upstream_may_take_a_name_that_becomes_free(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    await rig.put(2, 1, [upstream("u1", "green"), upstream("u2", "blue")])
    assert rig.pick("s1") == "10.0.0.2:80"


async def test_a_newer_set_replaces_one_that_was_not_activated(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    rig.begin(2, 1)
    rig.part([service("s1", "10.0.0.7")])
    assert (await rig.stage(3, 1, [service("s1", "green")])).prepared.version == 3
    await rig.activate(3)
    assert rig.pick("s1") == "10.0.0.2:80"


async def test_what_is_discarded_or_unknown_is_not_activated(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    await rig.stage(2, 1, [service("s1", "green")])
    rig.tell(wire.ToWorker(discard=wire.Discard(version=2)))
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2)))
    rig.tell(wire.ToWorker(activate=wire.Activate(version=9)))
    await asyncio.sleep(0)
    assert rig.said == []
    assert rig.worker.version == 1


async def test_an_activation_in_the_future_is_never_early_and_tells_how_late_it_was(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    await rig.stage(2, 1, [service("s1", "green")])
    at_ns = time.monotonic_ns() + 20_000_000
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2, at_monotonic_ns=at_ns)))
    assert rig.worker.version == 1
    activated = (await rig.next()).activated
    assert activated.at_monotonic_ns >= at_ns
    assert activated.late_us == (activated.at_monotonic_ns - at_ns) // 1000
    assert 0 < activated.ahead_us <= 20_000


async def test_a_request_at_the_instant_finds_the_new_tables_however_busy_the_loop_is(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    await rig.stage(2, 1, [service("s1", "green")])
    at_ns = time.monotonic_ns() + 1_000_000
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2, at_monotonic_ns=at_ns)))
    while (now := time.monotonic()) < rig.active.due:
        assert rig.tables.version == 1
    rig.active.turn()
    assert (rig.tables.version, now * 1e9 >= at_ns - 1) == (2, True)
    assert rig.active.due == math.inf
    assert (await rig.next()).activated.version == 2


async def test_what_can_wait_is_done_after_the_instant_or_before_the_next_stage(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    for version, host in ((2, "green"), (3, "blue"), (4, "green")):  # each at once after the one before
        await rig.stage(version, version - 1, [service("s1", host)])
        rig.tell(wire.ToWorker(activate=wire.Activate(version=version, at_monotonic_ns=1)))
        activated = (await rig.next()).activated
        assert (activated.version, activated.ahead_us) == (version, 0)
        assert activated.late_us > 0, "an instant of long ago, further than the field can say"
        assert rig.pick("s1") == ("10.0.0.1:80" if host == "blue" else "10.0.0.2:80")


async def test_an_armed_activation_can_be_discarded(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    await rig.stage(2, 1, [service("s1", "green")])
    rig.tell(wire.ToWorker(activate=wire.Activate(version=2, at_monotonic_ns=time.monotonic_ns() + 5_000_000)))
    rig.tell(wire.ToWorker(discard=wire.Discard(version=2)))
    await rig.put(3, 1, [service("s1", "green")])
    assert rig.worker.version == 3
    assert rig.said == []


class FakeChannel:
    """A channel that notes whether it is read."""

    closed = False

    def __init__(self) -> None:
        self.history: list[str] = ["reading"]

    def pause_reading(self) -> None:
        if self.history[-1] != "paused":
            self.history.append("paused")

    def resume_reading(self) -> None:
        if self.history[-1] != "reading":
            self.history.append("reading")


async def test_more_than_can_be_built_makes_the_channel_wait(rig: Rig) -> None:
    channel = FakeChannel()
    rig.worker.attach(cast("Channel", channel))
    assert (await rig.next()).started.pid > 0
    rig.begin(1, 0)
    for batch in range(30):
        rig.part([service(f"s{batch}-{number}", "x" * 2000) for number in range(100)])
    assert channel.history == ["reading", "paused"]
    rig.tell(wire.ToWorker(stage_end=wire.StageEnd()))
    assert (await rig.next()).prepared.version == 1
    assert channel.history == ["reading", "paused", "reading"]
    rig.worker.on_channel_lost(None)
    await rig.worker.run()


async def test_figures_are_told_with_their_sequence(rig: Rig) -> None:
    await rig.put(4, 0, BLUE_AND_GREEN)
    rig.counters.requests = 12
    rig.factory.in_flight, rig.factory.connections, rig.factory.reading = 3, 5, 1
    rig.tell(wire.ToWorker(counters_request=wire.CountersRequest(sequence=9)))
    told = (await rig.next()).counters
    assert (told.sequence, told.requests, told.in_flight, told.connections_active, told.version) == (9, 12, 3, 5, 4)
    assert told.connections_reading == 1
    assert told.rss_bytes > 0


async def test_a_drain_accepts_on_then_closes_then_finishes_then_tells(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    rig.factory.connections = 1
    rig.tell(wire.ToWorker(drain=wire.Drain(accept_for_ms=1, finish_within_ms=10_000)))
    assert rig.factory.steps == ["open", "begin_drain"]
    while "close" not in rig.factory.steps:
        await asyncio.sleep(0)
    assert rig.said == []
    rig.factory.connections = 0
    assert (await rig.next()).drained.cut == 0
    await rig.worker.run()
    assert rig.factory.steps == ["open", "begin_drain", "close", "end_idle", "cut greetings", "cut", "stop"]


async def test_the_deadline_of_a_drain_cuts_what_is_left(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    rig.factory.connections = 3
    rig.factory.in_flight = 2
    rig.tell(wire.ToWorker(drain=wire.Drain(accept_for_ms=0, finish_within_ms=1)))
    assert (await rig.next()).WhichOneof("kind") == "counters"  # the last counts come before the last word
    assert (await rig.next()).drained.cut == 2
    await rig.worker.run()
    (warning,) = (record.getMessage() for record in caplog.records if "cut" in record.getMessage())
    assert warning.startswith("3 connections were still open")
    assert warning.endswith("2 of them with a request: 3 in tunnels")


async def test_whatever_happens_in_a_drain_the_process_ends(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    assert rig.ends_by_s == []
    rig.tell(wire.ToWorker(drain=wire.Drain(accept_for_ms=1000, finish_within_ms=2000)))
    assert rig.ends_by_s == [3.0 + LAST_RESORT_S]
    rig.worker.on_channel_lost(None)
    await rig.worker.run()


async def test_what_it_can_not_go_on_after_is_said_once_with_its_reason(rig: Rig) -> None:
    rig.worker.on_message(b"\xff")
    assert rig.gave_up == ["the node process sent what is no message: None"]


async def test_without_its_node_a_worker_closes_its_listeners_at_once_and_ends(rig: Rig) -> None:
    await rig.put(1, 0, BLUE_AND_GREEN)
    rig.worker.on_channel_lost(None)
    await rig.worker.run()
    assert rig.factory.steps == ["open", "begin_drain", "close", "end_idle", "cut greetings", "cut", "stop"]
    assert rig.worker.phase is Phase.ENDED
