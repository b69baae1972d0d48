"""Whatever comes in whatever order: no more are told at once than may be, and all who joined are told in the end."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from control_plane.fleet.pace import AT_FIRST, WIDEN_BY, Pace

NODES = st.sampled_from([f"n{number}" for number in range(12)])


class Rows(RuleBasedStateMachine):
    """A pace and what must be so: `owed` have joined and not been told since, `open` were told and are silent."""

    def __init__(self) -> None:
        super().__init__()
        self.pace = Pace(widen_s=1.0)
        self.now = 0.0
        self.owed: list[str] = []
        self.open: set[str] = set()
        self.at_once = AT_FIRST

    def told(self, nodes: Sequence[str]) -> None:
        assert list(nodes) == self.owed[: len(nodes)], "in the order in which they joined"
        self.owed = self.owed[len(nodes) :]
        self.open.update(nodes)

    @rule(nodes=st.lists(NODES, unique=True))
    def join(self, nodes: list[str]) -> None:
        if not self.owed:
            self.open.clear()
            self.at_once = AT_FIRST
        self.owed += [node for node in nodes if node not in self.owed]
        self.told(self.pace.join(nodes, now=self.now))

    @rule(node=NODES)
    def answer(self, node: str) -> None:
        self.open.discard(node)
        self.told(self.pace.answered(node))

    @rule(after=st.sampled_from([0.1, 1.0, 7.0]))
    def wait(self, after: float) -> None:
        self.now += after
        due = self.pace.due
        if due is not None and due <= self.now:
            self.at_once *= WIDEN_BY
        self.told(self.pace.overdue(now=self.now))

    @invariant()
    def only_so_many_at_once_and_nobody_waits_for_no_reason(self) -> None:
        assert len(self.open) <= self.at_once
        assert not self.owed or len(self.open) == self.at_once

    @invariant()
    def who_waits_has_a_time(self) -> None:
        assert (self.pace.due is not None) == bool(self.owed)


TestRows = Rows.TestCase
