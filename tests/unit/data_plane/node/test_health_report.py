"""What the control plane is told: a model of its side follows every report and must end with the node's own table."""

from __future__ import annotations

from data_plane.node import health_report
from data_plane.node.health_report import HealthReports
from pointsman.rules.health_digest import TableDigest, row_digest
from pointsman.wire.v1 import fleet_pb2
from tests.unit.data_plane.node.test_health import BLUE, Rig, target, upstream


class Plane:
    """The control plane's half of the conversation, as `proto/` says it."""

    def __init__(self, reports: HealthReports) -> None:
        self.reports = reports
        self.rows: dict[tuple[str, str], fleet_pb2.TargetHealth] = {}
        self.woken = 0
        self.messages = 0
        reports.connected(self._wake, beat_interval_s=5.0)

    def _wake(self) -> None:
        self.woken += 1

    def read(self) -> int:
        """Take all there is; returns how many rows that was."""
        rows = 0
        while (report := self.reports.next_report()) is not None:
            self.messages += 1
            assert report.ByteSize() < 60_000
            if report.full:
                self.rows.clear()
            for row in report.targets:
                rows += 1
                if row.removed:
                    del self.rows[row.upstream, row.target]
                else:
                    self.rows[row.upstream, row.target] = row
            assert report.digest == self.digest()
        return rows

    def digest(self) -> int:
        table: TableDigest[tuple[str, str]] = TableDigest()
        for key, row in self.rows.items():
            addresses = ((each.ip, each.port, each.weight, int(each.state), each.since) for each in row.addresses)
            table.put(key, row_digest(*key, error=row.error, record_type=row.record_type, addresses=addresses))
        return table.value


def reporting() -> tuple[Rig, HealthReports]:
    rig = Rig()
    reports = HealthReports(rig.health, loads=lambda: [(("u1", "t1"), 2), (("u1", "t2"), 7)])
    rig.health._on_target = reports.mark
    return rig, reports


def test_a_small_table_is_told_at_once_and_then_only_what_changes() -> None:
    rig, reports = reporting()
    rig.put(*BLUE)
    plane = Plane(reports)
    assert plane.read() == 2
    assert plane.read() == 0
    before = plane.woken
    rig.refuse("u1", "10.0.0.1:80")
    assert plane.woken == before + 1
    assert plane.read() == 1
    row = plane.rows["u1", "t1"]
    assert [(each.state, each.reason, each.since) for each in row.addresses] == [
        (fleet_pb2.HEALTH_STATE_UNHEALTHY, "passive tcp failure", 1000)
    ]
    rig.put(BLUE[0], BLUE[2])
    assert plane.read() == 1
    assert list(plane.rows) == [("u1", "t2")]
    assert reports.digest == plane.digest()


def test_rows_that_change_back_and_forth_before_they_are_taken_cost_one() -> None:
    rig, reports = reporting()
    rig.put(*BLUE)
    plane = Plane(reports)
    plane.read()
    for _ in range(50):
        rig.refuse("u1", "10.0.0.1:80")
        rig.put(upstream("u1", "blue", None), *BLUE[1:])
        rig.put(*BLUE)
    assert plane.read() <= 2


def test_what_got_lost_is_told_again_when_asked() -> None:
    rig, reports = reporting()
    rig.put(*BLUE)
    plane = Plane(reports)
    plane.read()
    plane.rows.clear()
    rig.refuse("u1", "10.0.0.1:80")
    reports.asked()
    assert plane.read() == 2
    assert reports.digest == plane.digest()


def test_a_large_table_waits_to_be_asked_and_comes_in_pieces() -> None:
    rig, reports = reporting()
    targets = [target(f"t{n}", "u1", f"10.1.{n // 250}.{n % 250 + 1}:80") for n in range(3000)]
    rig.put(upstream("u1", "blue"), *targets)
    assert len(rig.health.targets()) > health_report.SMALL_TABLE
    reports.next_report()  # what happened before the conversation
    plane = Plane(reports)
    reports.asked()
    assert plane.read() == 3000
    assert plane.messages > 2
    assert reports.digest == plane.digest()


def test_an_empty_table_has_no_digest_and_loads_name_the_busiest_first() -> None:
    _, reports = reporting()
    assert reports.digest == 0
    assert [(load.target, load.in_flight) for load in reports.loads()] == [("t2", 7), ("t1", 2)]


def test_after_a_conversation_nobody_is_woken() -> None:
    rig, reports = reporting()
    rig.put(*BLUE)
    plane = Plane(reports)
    plane.read()
    reports.disconnected()
    before = plane.woken
    rig.refuse("u1", "10.0.0.1:80")
    assert plane.woken == before
    again = Plane(reports)
    again.read()
    assert reports.digest == again.digest()
