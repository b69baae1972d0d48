"""Sums of sides over the workers of a node, and what the control plane is told of them."""

from __future__ import annotations

from data_plane.node.side_sums import SIDES_MAX, SideReports, SidesSum, WorkerSides
from pointsman.rules.latency_buckets import BUCKETS
from pointsman.wire.v1 import fleet_pb2


def told(
    requests: int, *, service: str = "s", upstream: str = "green", opened: int = 0, watched: bool = False
) -> fleet_pb2.SideSums:
    return fleet_pb2.SideSums(
        service=service,
        upstream=upstream,
        requests=requests,
        latency=[requests, *[0] * (BUCKETS - 1)],
        open=opened,
        watched=watched,
        mirror=fleet_pb2.MirrorSums(sent=requests),
        service_name="shop",
    )


def node(count: int) -> tuple[SidesSum, list[WorkerSides]]:
    sums, workers = SidesSum(), [WorkerSides() for _ in range(count)]
    for worker in workers:
        sums.watch(worker)
    return sums, workers


def said(report: fleet_pb2.SideReport | None) -> dict[str, int]:
    assert report is not None
    return {row.service: row.requests for row in report.sides}


def test_workers_add_up_and_what_they_counted_outlives_them() -> None:
    sums, (one, two) = node(2)
    one.told([told(3, opened=2)])
    two.told([told(4, opened=1)])
    total = sums.of(("s", "green"))
    assert (total.requests, total.open, total.latency[0], total.mirror_sent) == (7, 3, 7, 7)
    sums.bury(one)
    two.told([told(5)])
    total = sums.of(("s", "green"))
    assert (total.requests, total.open, total.service_name) == (8, 0, "shop")


def test_the_first_answer_is_the_earliest_of_any_worker_and_the_last_the_latest_by_the_planes_clock() -> None:
    def answered(first_ns: int, last_ns: int) -> fleet_pb2.SideSums:
        sums = told(1)
        sums.first_answer_ns, sums.last_answer_ns = first_ns, last_ns
        return sums

    sums, (one, two) = node(2)
    reports = SideReports(sums, lambda at_ns: at_ns + 1000)

    def times() -> tuple[int, int]:
        reports.connected(lambda: None)
        report = reports.next_report()
        assert report is not None
        (row,) = report.sides
        return row.first_answer_ns, row.last_answer_ns

    one.told([answered(50, 90)])
    two.told([answered(0, 0)])
    assert times() == (1050, 1090)
    two.told([answered(40, 60)])
    assert times() == (1040, 1090)
    sums.bury(two)
    assert times() == (1050, 1090), "when a worker that ended answered first is not known to be of this use"
    one.told([answered(0, 0)])
    assert times() == (0, 1060)


def test_a_worker_that_tells_again_replaces_what_it_told() -> None:
    sums, (one,) = node(1)
    one.told([told(3)])
    one.told([told(5)])
    assert sums.of(("s", "green")).requests == 5
    one.told([fleet_pb2.SideSums(service="s", upstream="green", requests=9, latency=[1, 2])])
    assert sums.of(("s", "green")).requests == 5, "buckets that mean something else"


def test_only_what_changed_is_reported_and_after_a_hello_all() -> None:
    sums, (one,) = node(1)
    reports = SideReports(sums)
    woken: list[None] = []
    one.told([told(3), told(4, service="t")])
    assert reports.next_report() is None, "nobody counted yet"
    reports.connected(lambda: woken.append(None))
    first = reports.next_report()
    assert first is not None
    assert first.full
    assert said(first) == {"s": 3, "t": 4}
    assert reports.next_report() is None
    one.told([told(5)])
    reports.counted()
    second = reports.next_report()
    assert second is not None
    assert (second.full, second.since) == (False, first.since)
    assert said(second) == {"s": 5}
    reports.counted()
    assert reports.next_report() is None
    reports.disconnected()
    reports.counted()
    assert len(woken) == 3
    reports.connected(lambda: None)
    assert said(reports.next_report()) == {"s": 5, "t": 4}


def test_a_node_that_counted_nothing_says_so_once() -> None:
    reports = SideReports(SidesSum())
    reports.connected(lambda: None)
    report = reports.next_report()
    assert report is not None
    assert report.full
    assert not report.sides
    reports.counted()
    assert reports.next_report() is None


def test_two_starts_of_a_node_are_told_apart() -> None:
    tokens = set()
    for _ in range(2):
        reports = SideReports(SidesSum())
        reports.connected(lambda: None)
        report = reports.next_report()
        assert report is not None
        tokens.add(report.since)
    assert len(tokens) == 2


def test_of_too_much_what_is_switched_comes_first_then_the_busiest_and_the_rest_later() -> None:
    sums, (one,) = node(1)
    reports = SideReports(sums)
    reports.connected(lambda: None)
    reports.next_report()
    one.told(told(number, service=f"s{number}") for number in range(1, SIDES_MAX + 11))
    one.told([told(1, service="quiet", watched=True)])
    reports.counted()
    first = reports.next_report()
    assert first is not None
    assert (len(first.sides), first.omitted) == (SIDES_MAX, 11)
    assert first.sides[0].service == "quiet"
    assert first.sides[1].service == f"s{SIDES_MAX + 10}"
    reports.counted()
    second = reports.next_report()
    assert second is not None
    assert {row.service for row in second.sides} == {f"s{number}" for number in range(1, 12)}
