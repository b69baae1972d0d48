"""The parts of a node that know about health, put together: verdicts, probes, the report, and their one clock.

Verdicts exist from the start, because a config may be restored before anything else is up; probes begin with `start`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from data_plane.node.health import NodeHealth, TargetKey
from data_plane.node.health_report import HealthReports
from data_plane.node.probe_engine import ProbeEngine
from data_plane.node.probes import ProbePlan, Prober
from data_plane.node.workers import WorkerCounters
from data_plane.resolve.answers import Answer

TICK_S = 1.0


class HealthCare:
    """See the module. `verdicts` is what applying and the workers deal with, `reports` what the link carries."""

    def __init__(
        self,
        node_id: str,
        *,
        answers: Callable[[str], Answer | None],
        broadcast: Callable[[bytes], None],
    ) -> None:
        self.verdicts = NodeHealth(
            node_id,
            answers=answers,
            broadcast=broadcast,
            on_target=self._mark,
            on_plan=self._follow,
        )
        self.reports = HealthReports(self.verdicts, loads=self._loads_now)
        self._loads: dict[TargetKey, int] = {}
        self._plans: dict[str, ProbePlan] = {}
        self._prober: Prober | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to probe."""
        self._prober = Prober(
            self.verdicts.to_probe, self.verdicts.probed, engine=ProbeEngine(asyncio.get_running_loop())
        )
        for upstream_id, plan in self._plans.items():
            self._prober.follow(upstream_id, plan)
        self._task = asyncio.create_task(self._tick(), name="health")

    async def stop(self) -> None:
        """End all probes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._prober is not None:
            self._prober.stop()
            self._prober = None

    def counted(self, workers: Iterable[WorkerCounters]) -> None:
        """What the workers have open now."""
        loads: dict[TargetKey, int] = {}
        for worker in workers:
            for upstream_id, key, in_flight in worker.loads:
                target_id = self.verdicts.target_of(upstream_id, key)
                if target_id is not None:
                    loads[upstream_id, target_id] = loads.get((upstream_id, target_id), 0) + in_flight
        self._loads = loads

    def _loads_now(self) -> Sequence[tuple[TargetKey, int]]:
        return list(self._loads.items())

    def _mark(self, key: TargetKey) -> None:
        self.reports.mark(key)

    def _follow(self, upstream_id: str, plan: ProbePlan | None) -> None:
        if plan is None:
            self._plans.pop(upstream_id, None)
        else:
            self._plans[upstream_id] = plan
        if self._prober is not None:
            self._prober.follow(upstream_id, plan)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self.verdicts.tick()
