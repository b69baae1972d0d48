"""A fleet that says what a test wants it to say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from control_plane.entities.types import EntityBody
from control_plane.fleet.health import HealthBook, TargetVerdict
from control_plane.fleet.nodes import NodeView
from control_plane.fleet.own_settings import Fence
from control_plane.fleet.rollouts import Rollouts
from control_plane.fleet.side_figures import SideRate
from control_plane.fleet.timing import Times
from control_plane.fleet.tracing import NoNode, Question
from control_plane.fleet.waiting import NodeProgress, WaitReport
from control_plane.identity.refusals import RefusedCaller


@dataclass(slots=True)
class FakeFleet:
    """Answers waits with `progress`; with `hang` only after the time asked for, which never passes here."""

    rollouts: Rollouts | None = None

    views: tuple[NodeView, ...] = ()
    kong: tuple[EntityBody, ...] = ()
    fenced: tuple[Fence, ...] = ()
    progress: tuple[NodeProgress, ...] = ()
    hang: bool = False
    traced: EntityBody | None = None
    questions: list[tuple[Question, str | None]] = field(default_factory=list)
    rates: tuple[SideRate, ...] = ()
    live: dict[str, str] = field(default_factory=dict)
    book: HealthBook = field(default_factory=HealthBook)
    waits: list[tuple[int, float]] = field(default_factory=list)

    def nodes(self) -> Sequence[NodeView]:
        return self.views

    def fences(self) -> Sequence[Fence]:
        return self.fenced

    def data_planes(self) -> Sequence[EntityBody]:
        return self.kong

    def live_nodes(self) -> Mapping[str, str]:
        return self.live

    def nodes_elsewhere(self) -> Mapping[str, str]:
        return {}

    def returning(self) -> Sequence[str]:
        return ()

    def verdict(self, upstream: str, target: str) -> TargetVerdict | None:
        return self.book.verdict(upstream, target, self.live)

    def side_rates(self) -> Sequence[SideRate]:
        return self.rates

    def refusals(self) -> Mapping[str, int]:
        return {"unknown_token": 1}

    def refused(self) -> Sequence[RefusedCaller]:
        return ()

    def loads_age_s(self) -> float | None:
        return 0.5 if self.live else None

    @property
    def published(self) -> int:
        return 7

    @property
    def gather_times(self) -> Times:
        return Times()

    async def trace(self, question: Question, *, node: str | None, timeout_s: float) -> tuple[str, str, EntityBody]:
        self.questions.append((question, node))
        if not self.views and self.traced is None:
            raise NoNode("no node is live")
        return "n", "dp-1", self.traced or {}

    async def wait_for(self, version: int, timeout_s: float) -> WaitReport:
        self.waits.append((version, timeout_s))
        if self.hang and timeout_s > 0:
            await asyncio.Event().wait()
        return WaitReport(version, 0.25, self.progress)
