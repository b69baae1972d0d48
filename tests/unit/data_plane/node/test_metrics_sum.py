"""Summing over workers: nothing is counted twice, nothing falls when a worker ends, and the limit holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from data_plane.node.metrics_sum import MetricsSum, RouteKey, RouteSums, WorkerSums
from data_plane.observe.traffic import OVERFLOW, TrafficBook
from data_plane.worker.telling import ROUTES_PER_MESSAGE, tell_traffic
from pointsman.wire.v1 import worker_pb2 as wire


@dataclass
class FakeWorker:
    """A worker that tells by the very messages."""

    alive: bool = True
    sums: WorkerSums = field(default_factory=WorkerSums)
    book: TrafficBook = field(default_factory=TrafficBook)
    messages: int = 0

    def serve(self, route: str, times: int = 1, *, status: int = 200) -> None:
        for _ in range(times):
            traffic = self.book.of("s", route)
            traffic.settled(status << 1, 0.0005, 0.002, 0.003)
            traffic.bytes_out += 20

    def tell(self, *, requests: int = 0) -> None:
        def send(message: wire.FromWorker) -> None:
            self.messages += 1
            self.sums.told(wire.FromWorker.FromString(message.SerializeToString()).traffic)

        for _ in tell_traffic(self.book, send):
            pass
        self.sums.counted(wire.Counters(requests=requests, folded=self.book.folded_total))


def routes_of(sums: MetricsSum) -> Mapping[RouteKey, RouteSums]:
    last: Mapping[RouteKey, RouteSums] = {}
    for step in sums.routes():
        last = step if step is not None else last
    return last


def test_workers_are_added_up_however_often_they_tell() -> None:
    sums, one, two = MetricsSum(), FakeWorker(), FakeWorker()
    sums.watch(one)
    sums.watch(two)
    one.serve("a", 3)
    one.tell(requests=3)
    one.serve("a", 2)
    one.tell(requests=5)
    two.serve("a", 1)
    two.serve("b", 1, status=404)
    two.tell(requests=2)
    routes = routes_of(sums)
    assert routes["s", "a"].codes == {400: 6}
    assert routes["s", "a"].kong_ms[0] == 6
    assert routes["s", "a"].bytes_out == 120
    assert routes["s", "b"].codes == {808: 1}
    assert sums.plain().requests == 7


def test_a_worker_that_ended_is_remembered_once() -> None:
    sums, one, two = MetricsSum(), FakeWorker(), FakeWorker()
    sums.watch(one)
    one.serve("a", 4)
    one.tell(requests=4)
    one.alive = False
    sums.watch(two)
    two.serve("a", 1)
    two.tell(requests=1)
    for _ in range(3):
        assert routes_of(sums)["s", "a"].codes == {400: 5}
        assert sums.plain().requests == 5


def test_many_routes_go_in_several_messages() -> None:
    worker = FakeWorker()
    for number in range(ROUTES_PER_MESSAGE + 1):
        worker.serve(str(number))
    worker.tell()
    assert worker.messages == 2
    assert len(worker.sums.routes) == ROUTES_PER_MESSAGE + 1
    worker.tell()
    assert worker.messages == 2, "nothing changed"


def test_the_limit_holds_over_all_workers() -> None:
    sums = MetricsSum(series_max=2)
    for number in range(4):
        worker = FakeWorker()
        worker.serve(str(number), 2)
        worker.tell()
        worker.alive = False
        sums.watch(worker)
    routes = routes_of(sums)
    assert set(routes) == {("s", "0"), ("s", "1"), (OVERFLOW, OVERFLOW)}
    assert sum(sum(route.codes.values()) for route in routes.values()) == 8
    assert sums.plain().folded == 4
