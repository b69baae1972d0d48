"""A node's verdicts over random histories of configs, traffic, time and words, against a model without any indexes.

Whatever happens, the workers that heard every flip know exactly what the model calls down, a worker that starts late is
told the same, and the rows that are reported say it too.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.health import Event, State
from data_plane.health.state import EndpointHealth
from pointsman.wire.v1 import config_pb2
from tests.support.examples import examples
from tests.unit.data_plane.node import test_health as node

KEYS = ("10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80")
KEPT_S = 300.0

steps = st.lists(
    st.one_of(
        st.tuples(st.just("targets"), st.sets(st.sampled_from(KEYS))),
        st.tuples(st.just("refused"), st.sampled_from(KEYS)),
        st.tuples(st.just("answered"), st.sampled_from(KEYS)),
        st.tuples(st.just("failed"), st.sampled_from(KEYS)),
        st.tuples(st.just("time"), st.sampled_from((1.0, 200.0))),
        st.tuples(st.just("word"), st.sampled_from((None, True, False))),
        st.tuples(st.just("checks"), st.booleans()),
    ),
    max_size=40,
)


class Model:
    """Everything that was ever known of an endpoint, and until when it counts."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.checks = True
        self.targets: set[str] = set()
        self.word: bool | None = None  # on the first key
        self.known: dict[str, EndpointHealth] = {}
        self.gone: dict[str, float] = {}

    def become(self, targets: set[str], *, checks: bool) -> None:
        self.targets, self.checks = targets, checks
        if not checks:
            self.known.clear()
            self.gone.clear()
            return
        for key in set(self.known) - targets:
            self.gone.setdefault(key, self.now + KEPT_S)
        for key in targets:
            if key not in self.known or self.gone.get(key, float("inf")) <= self.now:
                self.known[key] = EndpointHealth()
            self.gone.pop(key, None)

    def see(self, key: str, event: Event, limit: int) -> None:
        if self.checks and key in self.targets:
            self.known[key].observe(event, limit)

    def down(self) -> set[str]:
        ill = {
            key
            for key in self.targets
            if self.checks and self.known[key].state in (State.UNHEALTHY, State.MOSTLY_UNHEALTHY)
        }
        first = KEYS[0]
        if self.word is not None and first in self.targets:
            return ill - {first} if self.word else ill | {first}
        return ill


@settings(max_examples=examples(50), deadline=None)
@given(history=steps)
def test_workers_late_workers_and_the_report_agree_with_the_model(history: list[tuple[str, object]]) -> None:
    rig, model = node.Rig(), Model()
    told: set[str] = set()
    for what, value in history:
        if what == "time":
            assert isinstance(value, float)
            model.now += value
            rig.now += value
            rig.health.tick()
        elif what in ("refused", "answered", "failed"):
            key = str(value)
            if what == "refused":
                rig.refuse("u1", key)
                model.see(key, Event.TCP, 1)
            else:
                status, event = (200, Event.SUCCESS) if what == "answered" else (500, Event.HTTP)
                rig.see("u1", key, 1, status=status)
                model.see(key, event, 1 if what == "answered" else 2)
        else:
            if what == "word":
                assert value is None or isinstance(value, bool)
                if value and not model.word and model.checks and KEYS[0] in model.targets:
                    model.known[KEYS[0]].put(available=True)  # a word of health lets the checks begin anew
                model.word = value
            targets = set(value) if isinstance(value, set) else model.targets
            model.become(targets, checks=bool(value) if what == "checks" else model.checks)
            put(rig, model)
        for _, key, available in rig.taken():
            (told.discard if available else told.add)(key)
        assert told == model.down()
        assert {key for _, key, _ in rig.whole()} == told
        said = {each[0] for key in model.targets for each in rig.said("u1", f"t-{key}") if each[1] == "UNHEALTHY"}
        assert said == told


def put(rig: node.Rig, model: Model) -> None:
    words = [] if model.word is None else [config_pb2.ManualHealth(target=f"t-{KEYS[0]}", healthy=model.word)]
    rig.put(
        node.upstream("u1", "blue", node.PASSIVE if model.checks else None),
        node.settings("u1", *words),
        *(node.target(f"t-{key}", "u1", key) for key in sorted(model.targets)),
    )
