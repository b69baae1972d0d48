"""Any history of changes, lost reports, disconnects and restarts ends with two equal tables, the node's and ours.

A model node keeps a table and its digest and reports changes over a link that loses what it likes, but, as the fleet
link does, loses the end of a stream and nothing before it. Once the link is whole, a few beats must mend everything.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.fleet.health import PATIENCE_BEATS, AddressReport, AddressState, HealthBook, Key, TargetReport
from tests.support.examples import examples

NODE = "n"


@dataclass
class ModelNode:
    """Reports to a book; while `cut`, whatever it says is lost."""

    book: HealthBook
    table: dict[Key, TargetReport] = field(default_factory=dict)
    cut: bool = False

    def say(self, *targets: TargetReport, full: bool = False) -> None:
        if not self.cut:
            self.book.report(NODE, targets, full=full)

    def put(self, target: TargetReport) -> None:
        self.table[target.key] = target
        self.say(target)

    def remove(self, key: Key) -> None:
        if self.table.pop(key, None) is not None:
            self.say(TargetReport(*key, removed=True))

    def digest(self) -> int:
        other = HealthBook()
        other.report(NODE, self.table.values(), full=True)
        return other.digest(NODE)

    def beat(self, *, parts: int) -> None:
        """Says its digest, and answers when it is asked for everything, in several messages."""
        if self.cut or not self.book.beat(NODE, self.digest(), {}, now=0.0):
            return
        targets = list(self.table.values())
        self.say(*targets[:parts], full=True)
        for target in targets[parts:]:
            self.say(target)


KEYS = st.tuples(st.sampled_from("uv"), st.sampled_from("abcd"))
TARGETS = st.builds(
    lambda key, state, since, error, count: TargetReport(
        upstream=key[0],
        target=key[1],
        error=error,
        record_type="A",
        addresses=tuple(AddressReport(f"10.0.0.{at}", 80, 100, state, since) for at in range(count)),
    ),
    KEYS,
    st.sampled_from(AddressState),
    st.integers(0, 3),
    st.sampled_from(["", "3 name error"]),
    st.integers(0, 2),
)
EVENTS = st.one_of(
    st.tuples(st.just("put"), TARGETS),
    st.tuples(st.just("remove"), KEYS),
    st.tuples(st.just("beat"), st.integers(0, 4)),
    st.tuples(st.sampled_from(["cut", "mend", "restart", "forget", "plane restarts"]), st.none()),
)


@given(st.lists(EVENTS, max_size=60), st.integers(0, 4))
@settings(max_examples=examples(100), deadline=None)
def test_the_tables_end_equal(events: list[tuple[str, object]], parts: int) -> None:
    node = ModelNode(HealthBook())
    for event, value in events:
        if event == "put":
            assert isinstance(value, TargetReport)
            node.put(value)
        elif event == "remove":
            assert isinstance(value, tuple)
            node.remove(value)
        elif event == "beat":
            assert isinstance(value, int)
            node.beat(parts=value)
        elif event == "cut":
            node.cut = True
        elif event == "mend":
            node.cut = False
        elif event == "restart":
            node.table.clear()
        elif event == "forget":
            node.book.keep_only(())
        else:
            node.book = HealthBook()
    node.cut = False
    for _ in range(PATIENCE_BEATS + 2):
        node.beat(parts=parts)
    assert node.book.table(NODE) == node.table
    assert node.book.digest(NODE) == node.digest()
    assert not node.book.beat(NODE, node.digest(), {}, now=0.0)
