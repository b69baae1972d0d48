"""The state machine equals a naive model over random histories, which keeps events and counts them each time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_plane.health import EndpointHealth, Event, State

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(Event), st.integers(min_value=0, max_value=4)),
        st.tuples(st.sampled_from(("up", "down")), st.just(0)),
    ),
    max_size=60,
)


class Naive:
    """Remembers counted events since the counters were last zeroed and derives everything from them."""

    def __init__(self) -> None:
        self.state = State.HEALTHY
        self.counted: list[Event] = []

    def see(self, event: Event, limit: int) -> None:
        good = event is Event.SUCCESS
        if limit == 0 or self.state is (State.HEALTHY if good else State.UNHEALTHY):
            return
        self.counted = [old for old in self.counted if (old is Event.SUCCESS) == good] + [event]
        if self.counted.count(event) >= limit:
            self.state = State.HEALTHY if good else State.UNHEALTHY
        elif self.state is State.HEALTHY:
            self.state = State.MOSTLY_HEALTHY
        elif self.state is State.UNHEALTHY:
            self.state = State.MOSTLY_UNHEALTHY


@given(history=steps)
def test_the_machine_equals_the_model(history: list[tuple[Event | str, int]]) -> None:
    health, naive = EndpointHealth(), Naive()
    for what, limit in history:
        before = health.available
        if isinstance(what, Event):
            changed = health.observe(what, limit)
            naive.see(what, limit)
        else:
            changed = health.put(available=what == "up")
            naive.state = State.HEALTHY if what == "up" else State.UNHEALTHY
            naive.counted = []
        assert health.state is naive.state
        assert changed == (health.available != before)
