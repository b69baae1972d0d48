"""A fleet that says what a test wants it to say."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from control_plane.entities.types import EntityBody
from control_plane.fleet.nodes import NodeView
from control_plane.fleet.waiting import NodeProgress, WaitReport


@dataclass(slots=True)
class FakeFleet:
    """Answers waits with `progress`; with `hang` only after the time asked for, which never passes here."""

    views: tuple[NodeView, ...] = ()
    kong: tuple[EntityBody, ...] = ()
    progress: tuple[NodeProgress, ...] = ()
    hang: bool = False
    waits: list[tuple[int, float]] = field(default_factory=list)

    def nodes(self) -> Sequence[NodeView]:
        return self.views

    def data_planes(self) -> Sequence[EntityBody]:
        return self.kong

    async def wait_for(self, version: int, timeout_s: float) -> WaitReport:
        self.waits.append((version, timeout_s))
        if self.hang and timeout_s > 0:
            await asyncio.Event().wait()
        return WaitReport(version, 0.25, self.progress)
