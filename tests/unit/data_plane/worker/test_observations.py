"""What a worker tells of its traffic: gathered, counted in runs, bounded."""

from __future__ import annotations

from collections.abc import Callable

from data_plane.balancer import Endpoint
from data_plane.health import Sighting
from data_plane.worker import observations
from data_plane.worker.observations import Observations
from pointsman.wire.v1 import worker_pb2 as wire


def endpoint(number: int) -> Endpoint:
    return Endpoint(key=f"10.0.0.{number}:80", ip=f"10.0.0.{number}", port=80, host="x", weight=1, upstream="u1")


class Rig:
    def __init__(self) -> None:
        self.said: list[wire.FromWorker] = []
        self.waiting: list[Callable[[], None]] = []
        self.congested = False
        self.observations = Observations(
            self._hear,
            congested=lambda: self.congested,
            call_later=lambda seconds, step: self.waiting.append(step),
        )

    def _hear(self, message: wire.FromWorker) -> None:
        self.said.append(message)

    def pass_time(self) -> list[tuple[str, int, int, int]]:
        waiting, self.waiting = self.waiting, []
        for step in waiting:
            step()
        said, self.said = self.said, []
        return [
            (each.endpoint.key, each.kind, each.status, each.count)
            for message in said
            for each in message.observations.observations
        ]


def test_equal_sightings_of_an_endpoint_travel_as_one_whatever_else_is_seen_between() -> None:
    rig = Rig()
    one, two = endpoint(1), endpoint(2)
    for _ in range(3):
        rig.observations.report(one, Sighting.STATUS, 500)
        rig.observations.report(two, Sighting.TIMEOUT, 0)
    rig.observations.report(one, Sighting.TCP_FAILURE, 0)
    rig.observations.report(one, Sighting.STATUS, 500)
    assert len(rig.waiting) == 1
    assert rig.pass_time() == [
        ("10.0.0.1:80", wire.OBSERVATION_STATUS, 500, 3),
        ("10.0.0.1:80", wire.OBSERVATION_TCP_FAILURE, 0, 1),
        ("10.0.0.1:80", wire.OBSERVATION_STATUS, 500, 1),
        ("10.0.0.2:80", wire.OBSERVATION_TIMEOUT, 0, 3),
    ]
    assert rig.pass_time() == []


def test_what_waits_is_bounded_while_the_node_process_does_not_read() -> None:
    rig = Rig()
    rig.congested = True
    one = endpoint(1)
    for number in range(observations.RUNS_MAX + 10):
        rig.observations.report(one, Sighting.STATUS, number)
    assert rig.pass_time() == []
    assert rig.observations.dropped == 10
    rig.congested = False
    assert len(rig.pass_time()) == observations.RUNS_MAX


def test_many_runs_are_several_messages() -> None:
    rig = Rig()
    for number in range(2500):
        rig.observations.report(
            Endpoint(key=f"k{number}", ip="10.0.0.1", port=80, host="x", weight=1, upstream="u"), Sighting.TIMEOUT, 0
        )
    for step in rig.waiting:
        step()
    assert len(rig.said) == 3
