"""The live balancers of a worker, by ids that survive any change of the configuration, and plans to change them.

A staged config must not touch what serves, so staging only writes a plan: which balancers are new (they are made and
filled at once, nobody uses them yet), which get other targets, which go. The plan is carried out at the swap. A service
that is repointed from one upstream to another therefore changes no balancer at all, and coming back finds the first one
as it was: its position, its idle connections, its verdicts.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from data_plane.balancer import DirectHost, Endpoint, Upstream
from data_plane.model import ServiceConfig, TargetConfig, UpstreamConfig
from data_plane.resolve.system import as_address
from data_plane.worker.answers import Answers

DirectKey = tuple[str, int]
"""Host and port as the service names them; services that share both share the connections."""


class BalancerPlan:
    """What an activation changes about balancers. `filled` are upstreams with their new config and targets."""

    def __init__(self) -> None:
        self.filled: dict[str, tuple[UpstreamConfig, tuple[TargetConfig, ...]]] = {}
        self.new_upstreams: dict[str, Upstream] = {}
        self.gone_upstreams: list[str] = []
        self.new_directs: dict[DirectKey, DirectHost] = {}
        self.directs_of: dict[str, DirectKey | None] = {}  # by service; None = needs none any more

    def unbind(self, service_id: str) -> None:
        """The service uses no direct host in the next version."""
        self.directs_of[service_id] = None


class Balancers:
    """All balancers in use, and who depends on which name."""

    def __init__(
        self, *, on_retire: Callable[[Endpoint], None] | None = None, rng: random.Random | None = None
    ) -> None:
        self._on_retire = on_retire
        # Workers begin their revolutions at places of their own: a fleet that starts together would else send its
        # first requests to the same endpoint.
        self._rng = rng or random.Random()  # noqa: S311 - nothing is secret about it
        self._upstreams: dict[str, Upstream] = {}
        self._filled: dict[str, tuple[UpstreamConfig, tuple[TargetConfig, ...]]] = {}
        self._directs: dict[DirectKey, DirectHost] = {}
        self._directs_of: dict[str, DirectKey] = {}
        self._direct_uses: Counter[DirectKey] = Counter()
        self._upstreams_by_name: dict[str, set[str]] = {}

    def names(self) -> set[str]:
        """The names whose answers matter here."""
        return {*self._upstreams_by_name, *(host for host, _ in self._directs)}

    def plan_upstream(
        self, plan: BalancerPlan, config: UpstreamConfig, targets: tuple[TargetConfig, ...], answers: Answers
    ) -> None:
        """Write down that an upstream is new or differs; a new one is made here, where slices are cheap."""
        plan.filled[config.id] = (config, targets)
        if config.id not in self._upstreams:
            upstream = Upstream(config.id, rng=self._rng, on_retire=self._on_retire)
            upstream.reconcile(config, targets, answers)
            plan.new_upstreams[config.id] = upstream

    def plan_direct(self, plan: BalancerPlan, service: ServiceConfig, answers: Answers) -> DirectHost:
        """The balancer of a service whose host is no upstream's name."""
        key = (service.host, service.port)
        plan.directs_of[service.id] = key
        direct = self._directs.get(key) or plan.new_directs.get(key)
        if direct is None:
            direct = plan.new_directs[key] = DirectHost(service.host, service.port, on_retire=self._on_retire)
            direct.reconcile(answers)
        return direct

    def upstream(self, plan: BalancerPlan, upstream_id: str) -> Upstream:
        """The balancer of an upstream of the next version."""
        return plan.new_upstreams.get(upstream_id) or self._upstreams[upstream_id]

    def carry_out(self, plan: BalancerPlan, answers: Answers) -> None:
        """Make the plan real. Runs inside the swap: it costs what changed, not what is there."""
        self._upstreams.update(plan.new_upstreams)
        for upstream_id, (config, targets) in plan.filled.items():
            self._follow_names(upstream_id, targets)
            self._filled[upstream_id] = (config, targets)
            if upstream_id not in plan.new_upstreams:
                self._upstreams[upstream_id].reconcile(config, targets, answers)
        for upstream_id in plan.gone_upstreams:
            self._follow_names(upstream_id, ())
            self._filled.pop(upstream_id, None)
            upstream = self._upstreams.pop(upstream_id, None)
            if upstream is not None:
                upstream.retire()
        self._directs.update(plan.new_directs)
        for service_id, key in plan.directs_of.items():
            if key is not None:
                self._direct_uses[key] += 1
            before = self._directs_of.pop(service_id, None)
            if key is not None:
                self._directs_of[service_id] = key
            if before is not None:
                self._direct_uses[before] -= 1
                if not self._direct_uses[before]:
                    del self._direct_uses[before]
                    self._directs.pop(before).retire()

    def answers_changed(self, names: Iterable[str], answers: Answers, staged: BalancerPlan | None) -> None:
        """Some names resolve to something else, now or for the first time."""
        for name in names:
            for upstream_id in self._upstreams_by_name.get(name, ()):
                config, targets = self._filled[upstream_id]
                self._upstreams[upstream_id].reconcile(config, targets, answers)
            for (host, _), direct in self._directs.items():
                if host == name:
                    direct.reconcile(answers)
        if staged is not None:
            changed = set(names)
            for upstream_id, upstream in staged.new_upstreams.items():
                config, targets = staged.filled[upstream_id]
                if any(target.host in changed for target in targets):
                    upstream.reconcile(config, targets, answers)
            for (host, _), direct in staged.new_directs.items():
                if host in changed:
                    direct.reconcile(answers)

    def _follow_names(self, upstream_id: str, targets: Sequence[TargetConfig]) -> None:
        before = self._filled.get(upstream_id)
        if before is not None:
            for target in before[1]:
                users = self._upstreams_by_name.get(target.host)
                if users is not None:
                    users.discard(upstream_id)
                    if not users:
                        del self._upstreams_by_name[target.host]
        for target in targets:
            if as_address(target.host) is None:
                self._upstreams_by_name.setdefault(target.host, set()).add(upstream_id)
