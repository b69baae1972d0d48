"""The node's verdicts joined to its configuration: who is told what and when, and what survives.

Everything around is replaced: workers are a list of messages, time is a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from data_plane.health import Event
from data_plane.node.diff import Diff
from data_plane.node.health import NodeHealth, TargetKey
from data_plane.node.probes import ProbePlan
from data_plane.node.snapshot import NodeSnapshot
from data_plane.resolve.answers import NAME_ERROR, Answer, Record
from pointsman.wire.v1 import config_pb2, fleet_pb2
from pointsman.wire.v1 import worker_pb2 as wire
from tests.unit.data_plane.node.entities import Entities, snapshot

PASSIVE = config_pb2.Healthchecks(
    passive=config_pb2.PassiveCheck(
        healthy=config_pb2.Thresholds(http_statuses=[200], successes=1),
        unhealthy=config_pb2.Thresholds(http_statuses=[500], http_failures=2, tcp_failures=1, timeouts=1),
    )
)
ACTIVE = config_pb2.Healthchecks(
    active=config_pb2.ActiveCheck(
        type="http",
        timeout=Duration(seconds=1),
        concurrency=10,
        http_path="/",
        healthy=config_pb2.Thresholds(interval=Duration(seconds=1), http_statuses=[200], successes=1),
        unhealthy=config_pb2.Thresholds(
            interval=Duration(seconds=1), http_statuses=[500], http_failures=1, tcp_failures=1, timeouts=1
        ),
    )
)


def upstream(upstream_id: str, name: str, checks: config_pb2.Healthchecks | None = PASSIVE) -> Entities:
    entity = config_pb2.Entity(upstream=config_pb2.Upstream(id=upstream_id, name=name, healthchecks=checks))
    return {("upstreams", upstream_id): entity.SerializeToString()}


def target(target_id: str, upstream_id: str, text: str, weight: int = 100) -> Entities:
    entity = config_pb2.Entity(target=config_pb2.Target(id=target_id, upstream=upstream_id, target=text, weight=weight))
    return {("targets", target_id): entity.SerializeToString()}


def settings(upstream_id: str, *words: config_pb2.ManualHealth, sampling: str = "PROBE_SAMPLING_AUTO") -> Entities:
    entity = config_pb2.Entity(
        upstream_settings=config_pb2.UpstreamSettings(
            id=upstream_id,
            manual_health=words,
            probe_sampling=sampling,
        )
    )
    return {("upstream_settings", upstream_id): entity.SerializeToString()}


class Rig:
    """A node's health with nothing around it. `flips` are what workers were told, in order."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.flips: list[tuple[str, str, bool]] = []
        self.marked: list[TargetKey] = []
        self.plans: dict[str, ProbePlan | None] = {}
        self.answers: dict[str, Answer] = {}
        self.running: NodeSnapshot | None = None
        self.version = 0
        self.health = NodeHealth(
            "node-1",
            answers=self.answers.get,
            broadcast=self._hear,
            on_target=self.marked.append,
            on_plan=self.plans.__setitem__,
            clock=lambda: self.now,
            wall=lambda: self.now,
        )

    def _hear(self, message: bytes) -> None:
        self.flips += _verdicts(message)

    def put(self, *parts: Entities, active: bool = True) -> None:
        self.version += 1
        after = snapshot(self.version, *parts)
        self.health.deciding(Diff.between(self.running, after))
        self.running = after
        if active:
            self.health.active()

    def see(self, upstream_id: str, key: str, kind: int, *, status: int = 0, count: int = 1) -> None:
        observations = wire.Observations()
        observations.observations.add(
            endpoint=wire.EndpointId(upstream=upstream_id, key=key),
            kind=wire.ObservationKind.ValueType(kind),
            status=status,
            count=count,
        )
        self.health.observed(observations)

    def refuse(self, upstream_id: str, key: str) -> None:
        self.see(upstream_id, key, wire.OBSERVATION_TCP_FAILURE)

    def taken(self) -> list[tuple[str, str, bool]]:
        flips, self.flips = self.flips, []
        return flips

    def whole(self) -> list[tuple[str, str, bool]]:
        return [flip for message in self.health.whole() for flip in _verdicts(message)]

    def said(self, upstream_id: str, target_id: str) -> list[tuple[str, str, str]]:
        """Address, state and reason of each address of a target."""
        row = self.health.row((upstream_id, target_id))
        assert row is not None
        names = fleet_pb2.HealthState.Name
        return [
            (f"{each.ip}:{each.port}", names(each.state).removeprefix("HEALTH_STATE_"), each.reason)
            for each in row.addresses
        ]


def _verdicts(message: bytes) -> Iterable[tuple[str, str, bool]]:
    told = wire.ToWorker.FromString(message).availability
    return [(each.endpoint.upstream, each.endpoint.key, each.available) for each in told.verdicts]


BLUE = (upstream("u1", "blue"), target("t1", "u1", "10.0.0.1:80"), target("t2", "u1", "10.0.0.2:80"))


def test_a_refused_connection_is_a_flip_for_every_worker_and_a_changed_row() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.marked.clear()
    rig.refuse("u1", "10.0.0.1:80")
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]
    assert rig.marked == [("u1", "t1")]
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "UNHEALTHY", "passive tcp failure")]
    assert rig.whole() == [("u1", "10.0.0.1:80", False)]
    rig.refuse("u1", "10.0.0.1:80")
    assert rig.taken() == []


def test_a_run_counts_as_often_as_it_was_seen() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.see("u1", "10.0.0.1:80", wire.OBSERVATION_STATUS, status=500, count=1)
    assert rig.taken() == []
    rig.see("u1", "10.0.0.2:80", wire.OBSERVATION_STATUS, status=500, count=1000)
    assert rig.taken() == [("u1", "10.0.0.2:80", False)]
    assert rig.said("u1", "t2") == [("10.0.0.2:80", "UNHEALTHY", "passive status 500")]


def test_what_is_not_in_the_configuration_is_not_judged() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.9:80")
    rig.refuse("u9", "10.0.0.1:80")
    rig.health.probed("u9", "10.0.0.1:80", Event.TCP)
    assert rig.taken() == []


def test_a_verdict_survives_what_does_not_touch_the_endpoint() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    rig.taken()
    renamed = (upstream("u1", "azure"), target("t9", "u1", "10.0.0.1:80", 7), target("t2", "u1", "10.0.0.2:80"))
    rig.put(*renamed)
    assert rig.taken() == []
    assert rig.said("u1", "t9") == [("10.0.0.1:80", "UNHEALTHY", "passive tcp failure")]
    assert rig.health.row(("u1", "t1")) is None


def test_an_endpoint_that_goes_is_forgotten_only_when_the_new_config_is_active() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    rig.taken()
    rig.put(BLUE[0], BLUE[2], active=False)
    assert rig.taken() == []
    rig.health.active()
    assert rig.taken() == [("u1", "10.0.0.1:80", True)]
    assert rig.whole() == []


def test_an_endpoint_that_comes_back_within_five_minutes_is_as_ill_as_before() -> None:
    for away_s, flips in ((299.0, [("u1", "10.0.0.1:80", False)]), (301.0, [])):
        rig = Rig()
        rig.put(*BLUE)
        rig.refuse("u1", "10.0.0.1:80")
        rig.put(BLUE[0], BLUE[2])
        rig.taken()
        rig.now += away_s
        rig.health.tick()
        rig.put(*BLUE, active=False)
        assert rig.taken() == flips, away_s


def test_an_upstream_made_again_under_its_name_takes_its_verdicts_over() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    rig.taken()
    rig.put(upstream("u2", "blue"), target("t5", "u2", "10.0.0.1:80"))
    assert ("u2", "10.0.0.1:80", False) in rig.taken()


def test_two_upstreams_that_swap_names_keep_their_own_verdicts() -> None:
    rig = Rig()
    green = (upstream("u2", "green"), target("t3", "u2", "10.0.0.1:80"))
    rig.put(*BLUE, *green)
    rig.refuse("u1", "10.0.0.1:80")
    rig.put(upstream("u1", "green"), *BLUE[1:], upstream("u2", "blue"), green[1])
    assert rig.whole() == [("u1", "10.0.0.1:80", False)]


def test_checks_off_means_available_and_says_so() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    rig.taken()
    rig.put(upstream("u1", "blue", None), *BLUE[1:])
    assert rig.taken() == [("u1", "10.0.0.1:80", True)]
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "OFF", "")]


def test_weight_0_is_neither_judged_nor_probed() -> None:
    rig = Rig()
    rig.put(upstream("u1", "blue", ACTIVE), target("t1", "u1", "10.0.0.1:80", 0))
    assert rig.plans == {}
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "OFF", "")]
    rig.put(upstream("u1", "blue", ACTIVE), target("t1", "u1", "10.0.0.1:80", 1))
    assert [address.key for address in rig.health.to_probe("u1", True)] == ["10.0.0.1:80"]
    assert isinstance(rig.plans["u1"], ProbePlan)
    rig.put(upstream("u1", "blue", ACTIVE), target("t1", "u1", "10.0.0.1:80", 0))
    assert rig.plans["u1"] is None


def test_probes_take_down_and_bring_back() -> None:
    rig = Rig()
    rig.put(upstream("u1", "blue", ACTIVE), *BLUE[1:])
    rig.health.probed("u1", "10.0.0.1:80", Event.TIMEOUT)
    assert [address.key for address in rig.health.to_probe("u1", False)] == ["10.0.0.1:80"]
    rig.now += 5
    rig.health.probed("u1", "10.0.0.1:80", 200)
    assert rig.taken() == [("u1", "10.0.0.1:80", False), ("u1", "10.0.0.1:80", True)]
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "HEALTHY", "active status 200")]


def test_an_operators_word_is_above_all_checks_until_its_time_is_over() -> None:
    rig = Rig()
    word = config_pb2.ManualHealth(target="t1", healthy=False, until=1060)
    rig.put(*BLUE, settings("u1", word))
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "UNHEALTHY", "manual")]
    rig.now += 59
    rig.health.tick()
    assert rig.taken() == []
    rig.now += 1
    rig.health.tick()
    assert rig.taken() == [("u1", "10.0.0.1:80", True)]
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "HEALTHY", "")]


def test_a_word_of_health_covers_a_verdict_and_uncovers_it_again() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    word = config_pb2.ManualHealth(target="t1", ip="10.0.0.1", port=80, healthy=True)
    rig.put(*BLUE, settings("u1", word))
    rig.refuse("u1", "10.0.0.1:80")
    assert rig.taken() == [("u1", "10.0.0.1:80", False), ("u1", "10.0.0.1:80", True)]
    rig.put(*BLUE)
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]


def test_after_a_word_of_health_the_checks_begin_anew() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    word = config_pb2.ManualHealth(target="t1", healthy=True, until=1060)
    rig.put(*BLUE, settings("u1", word))
    rig.now += 60
    rig.health.tick()
    assert rig.taken() == [("u1", "10.0.0.1:80", False), ("u1", "10.0.0.1:80", True)]
    rig.refuse("u1", "10.0.0.1:80")
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]


def test_a_word_on_one_address_counts_before_the_word_on_its_target() -> None:
    rig = Rig()
    rig.answers["a.test"] = Answer("a.test", (Record("10.0.0.1"), Record("10.0.0.2")))
    words = (
        config_pb2.ManualHealth(target="t1", healthy=False),
        config_pb2.ManualHealth(target="t1", ip="10.0.0.2", healthy=True),
    )
    rig.put(upstream("u1", "blue", None), target("t1", "u1", "a.test:80"), settings("u1", *words))
    assert rig.taken() == [("u1", "a.test:80/10.0.0.1:80", False)]


def test_names_that_change_bring_and_take_endpoints() -> None:
    rig = Rig()
    rig.put(upstream("u1", "blue"), target("t1", "u1", "a.test:80"))
    row = rig.health.row(("u1", "t1"))
    assert row is not None
    assert (row.error, len(row.addresses)) == ("not resolved yet", 0)
    rig.answers["a.test"] = Answer("a.test", (Record("10.0.0.1"), Record("10.0.0.2")))
    rig.health.names_changed(["a.test"])
    rig.refuse("u1", "a.test:80/10.0.0.1:80")
    rig.answers["a.test"] = Answer("a.test", (Record("10.0.0.2"),))
    rig.health.names_changed(["a.test", "other.test"])
    assert [available for _, _, available in rig.taken()] == [False, True]
    rig.answers["a.test"] = Answer("a.test", (), NAME_ERROR)
    rig.health.names_changed(["a.test"])
    row = rig.health.row(("u1", "t1"))
    assert row is not None
    assert (row.error, row.record_type, len(row.addresses)) == (NAME_ERROR, "", 0)


def _hint(state: int, probers: Iterable[str] = ("node-9",), **targets: str) -> fleet_pb2.FleetHealth:
    health = fleet_pb2.FleetHealth(probers=probers)
    for target_id, ip in targets.items():
        told = health.targets.add(upstream="u1", target=target_id)
        told.addresses.add(ip=ip, port=80, state=fleet_pb2.HealthState.ValueType(state), reason="active timeout")
    return health


def test_a_node_that_does_not_probe_follows_the_hints_and_probes_when_they_grow_old() -> None:
    rig = Rig()
    rig.put(upstream("u1", "blue", ACTIVE), *BLUE[1:])
    rig.health.hinted(_hint(fleet_pb2.HEALTH_STATE_UNHEALTHY, t1="10.0.0.1"))
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]
    assert rig.said("u1", "t1") == [("10.0.0.1:80", "UNHEALTHY", "fleet: active timeout")]
    assert rig.health.to_probe("u1", False) == []
    assert [address.target_id for address in rig.health.to_probe("u1", True)] == ["t2"]  # nobody speaks of it
    rig.now += 2 * rig.health.lease_s + 1
    assert [address.target_id for address in rig.health.to_probe("u1", False)] == ["t1"]
    rig.health.hinted(_hint(fleet_pb2.HEALTH_STATE_HEALTHY, t1="10.0.0.1"))
    assert rig.taken() == [("u1", "10.0.0.1:80", True)]


def test_a_prober_and_an_upstream_without_sampling_probe_themselves() -> None:
    rig = Rig()
    rig.put(upstream("u1", "blue", ACTIVE), *BLUE[1:])
    rig.health.hinted(_hint(fleet_pb2.HEALTH_STATE_UNHEALTHY, ["node-1"], t1="10.0.0.1"))
    assert rig.taken() == []
    assert len(rig.health.to_probe("u1", True)) == 2
    rig.put(upstream("u1", "blue", ACTIVE), *BLUE[1:], settings("u1", sampling="PROBE_SAMPLING_OFF"))
    rig.health.hinted(_hint(fleet_pb2.HEALTH_STATE_UNHEALTHY, t1="10.0.0.1"))
    assert rig.taken() == []
    assert len(rig.health.to_probe("u1", True)) == 2


def test_own_traffic_contradicts_a_hint_for_a_while() -> None:
    rig = Rig()
    both = config_pb2.Healthchecks(active=ACTIVE.active, passive=PASSIVE.passive)
    rig.put(upstream("u1", "blue", both), *BLUE[1:])
    rig.refuse("u1", "10.0.0.1:80")
    rig.health.hinted(_hint(fleet_pb2.HEALTH_STATE_HEALTHY, t1="10.0.0.1"))
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]
    rig.now += 11
    rig.health.hinted(_hint(fleet_pb2.HEALTH_STATE_HEALTHY, t1="10.0.0.1"))
    assert rig.taken() == [("u1", "10.0.0.1:80", True)]


def test_a_config_taken_back_leaves_everything_as_it_was() -> None:
    rig = Rig()
    rig.put(*BLUE)
    rig.refuse("u1", "10.0.0.1:80")
    rig.taken()
    before, after = rig.running, snapshot(9, BLUE[0], BLUE[2])
    rig.health.deciding(Diff.between(before, after))
    rig.health.deciding(Diff.between(after, before))
    rig.health.active()
    assert rig.taken() == []
    assert rig.whole() == [("u1", "10.0.0.1:80", False)]


def test_a_whole_table_of_many_is_several_messages_and_only_the_first_replaces() -> None:
    rig = Rig()
    many: Mapping[str, str] = {f"t{number}": f"10.1.{number // 250}.{number % 250 + 1}:80" for number in range(2500)}
    rig.put(upstream("u1", "blue"), *(target(target_id, "u1", text) for target_id, text in many.items()))
    for key in many.values():
        rig.refuse("u1", key)
    messages = [wire.ToWorker.FromString(message).availability for message in rig.health.whole()]
    assert [message.whole for message in messages] == [True, False]
    assert sum(len(message.verdicts) for message in messages) == 2500


def test_what_an_operator_called_ill_is_still_so_when_it_is_made_again() -> None:
    rig = Rig()
    rig.put(*BLUE, settings("u1", config_pb2.ManualHealth(target="t1", healthy=False)))
    assert rig.taken() == [("u1", "10.0.0.1:80", False)]
    rig.put()
    rig.taken()
    rig.put(upstream("u2", "blue"), target("t2", "u2", "10.0.0.1:80"))
    assert ("u2", "10.0.0.1:80", False) in rig.taken()


def test_a_name_of_ttl_zero_is_told_as_such() -> None:
    rig = Rig()
    rig.answers["a.test"] = Answer("a.test", (Record("10.0.0.1"), Record("10.0.0.2")), unsteady=True)
    rig.put(upstream("u1", "blue"), target("t1", "u1", "a.test:80", 5))
    row = rig.health.row(("u1", "t1"))
    assert row is not None
    assert row.record_type == "ttl=0, virtual SRV"
    assert [address.weight for address in row.addresses] == [3, 2]
