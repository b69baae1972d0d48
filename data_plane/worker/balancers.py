"""The live balancers of a worker, by ids that survive any change of the configuration, and plans to change them.

A staged config must not touch what serves, so staging only writes a plan: which balancers are new (they are made and
filled at once, nobody uses them yet), which get other targets, which go. The plan is carried out at the swap. A service
that is repointed from one upstream to another therefore changes no balancer at all, and coming back finds the first one
as it was: its position, its idle connections, its verdicts.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from data_plane.balancer import DirectHost, Endpoint, Upstream
from data_plane.balancer.policy import Steps, at_once
from data_plane.balancer.upstream import Report
from data_plane.model import ServiceConfig, TargetConfig, UpstreamConfig
from data_plane.resolve.system import as_address
from data_plane.worker.answers import Answers

DirectKey = tuple[str, int]
"""Host and port as the service names them; services that share both share the connections."""


ENDPOINTS_AT_ONCE_MAX = 400
"""Targets and endpoints of an upstream that are reconciled without a pause: a millisecond or two."""


class BalancerPlan:
    """What an activation changes about balancers. `filled` are upstreams with their new config and targets."""

    def __init__(self) -> None:
        self.filled: dict[str, tuple[UpstreamConfig, tuple[TargetConfig, ...]]] = {}
        self.new_upstreams: dict[str, Upstream] = {}
        self.gone_upstreams: list[str] = []
        self.new_directs: dict[DirectKey, DirectHost] = {}
        self.directs_of: dict[str, DirectKey | None] = {}  # by service; None = needs none any more
        self.walks = 0  # new upstreams that are still following names in slices; not to be carried out before


class Balancers:
    """All balancers in use, and who depends on which name."""

    def __init__(
        self,
        *,
        on_retire: Callable[[Endpoint], None] | None = None,
        report: Report | None = None,
        defer: Callable[[Steps], None] = at_once,
        rng: random.Random | None = None,
    ) -> None:
        self._on_retire = on_retire
        self._report = report
        self._defer = defer
        self._walking: Counter[str] = Counter()  # how often an upstream is yet to be reconciled in slices
        self._secret = b""
        # Verdicts stand apart from the upstreams they are about: they may come first.
        self._down: dict[str, set[str]] = {}
        # Workers begin their revolutions at places of their own: a fleet that starts together would else send its
        # first requests to the same endpoint.
        self._rng = rng or random.Random()  # noqa: S311 - nothing is secret about it
        self._upstreams: dict[str, Upstream] = {}
        self._filled: dict[str, tuple[UpstreamConfig, tuple[TargetConfig, ...]]] = {}
        self._directs: dict[DirectKey, DirectHost] = {}
        self._directs_of: dict[str, DirectKey] = {}
        self._direct_uses: Counter[DirectKey] = Counter()
        self._upstreams_by_name: dict[str, set[str]] = {}

    def upstream_name(self, balancer: object) -> str:
        """The name of the upstream that a balancer belongs to; empty for a direct host."""
        for upstream_id, (config, _) in self._filled.items():
            if self._upstreams.get(upstream_id) is balancer:
                return config.name
        return ""

    def names(self) -> set[str]:
        """The names whose answers matter here."""
        return {*self._upstreams_by_name, *(host for host, _ in self._directs)}

    def plan_upstream(
        self, plan: BalancerPlan, config: UpstreamConfig, targets: tuple[TargetConfig, ...], answers: Answers
    ) -> Steps:
        """Write down that an upstream is new or differs; a new one is made here, where slices are cheap."""
        plan.filled[config.id] = (config, targets)
        if config.id not in self._upstreams:
            upstream = Upstream(
                config.id,
                rng=self._rng,
                on_retire=self._on_retire,
                report=self._report,
                down=self._down.setdefault(config.id, set()),
                secret=_secret_of(self._secret, config.id),
            )
            yield from upstream.reconcile_steps(config, targets, answers)
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

    def plan_unbind(self, plan: BalancerPlan, service_id: str) -> None:
        """The service uses no direct host in the next version."""
        if service_id in self._directs_of:
            plan.directs_of[service_id] = None

    def upstream(self, plan: BalancerPlan, upstream_id: str) -> Upstream:
        """The balancer of an upstream of the next version."""
        return plan.new_upstreams.get(upstream_id) or self._upstreams[upstream_id]

    def carry_out(self, plan: BalancerPlan, answers: Answers) -> bool:
        """Make the plan real. Runs inside the swap: it costs what changed, not what is there.

        True when some upstreams are too large for that and follow in slices: they are done when all is that was
        deferred by now.
        """
        deferred = False
        for upstream in plan.new_upstreams.values():
            upstream.follow_verdicts()
        self._upstreams.update(plan.new_upstreams)
        for upstream_id, (config, targets) in plan.filled.items():
            self._follow_names(upstream_id, targets)
            self._filled[upstream_id] = (config, targets)
            if upstream_id not in plan.new_upstreams:
                deferred |= self._reconcile(upstream_id, answers)
        for upstream_id in plan.gone_upstreams:
            self._follow_names(upstream_id, ())
            self._filled.pop(upstream_id, None)
            gone = self._upstreams.pop(upstream_id, None)
            if gone is not None:
                gone.retire()
            self._down.pop(upstream_id, None)
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
        return deferred

    def answers_changed(self, names: Iterable[str], answers: Answers, staged: BalancerPlan | None) -> None:
        """Some names resolve to something else, now or for the first time."""
        for name in names:
            for upstream_id in self._upstreams_by_name.get(name, ()):
                self._reconcile(upstream_id, answers)
            for (host, _), direct in self._directs.items():
                if host == name:
                    direct.reconcile(answers)
        if staged is not None:
            changed = set(names)
            for upstream_id, upstream in staged.new_upstreams.items():
                config, targets = staged.filled[upstream_id]
                if not any(target.host in changed for target in targets):
                    continue
                if len(targets) + len(upstream.endpoints) <= ENDPOINTS_AT_ONCE_MAX and not staged.walks:
                    upstream.reconcile(config, targets, answers)
                else:
                    staged.walks += 1
                    self._defer(_walk_staged(staged, upstream, answers))
            for (host, _), direct in staged.new_directs.items():
                if host in changed:
                    direct.reconcile(answers)

    def _reconcile(self, upstream_id: str, answers: Answers) -> bool:
        """Let an upstream follow its config and names: at once, or in slices when it is large. True = in slices.

        One that is on its way already goes another way after that, by what is true then.
        """
        upstream = self._upstreams[upstream_id]
        config, targets = self._filled[upstream_id]
        if len(targets) + len(upstream.endpoints) <= ENDPOINTS_AT_ONCE_MAX and not self._walking[upstream_id]:
            upstream.reconcile(config, targets, answers)
            return False
        self._walking[upstream_id] += 1
        self._defer(self._walk(upstream_id, answers))
        return True

    def _walk(self, upstream_id: str, answers: Answers) -> Steps:
        upstream = self._upstreams.get(upstream_id)
        if upstream is not None:
            config, targets = self._filled[upstream_id]
            yield from upstream.reconcile_steps(config, targets, answers)
        self._walking[upstream_id] -= 1
        if not self._walking[upstream_id]:
            del self._walking[upstream_id]

    def verdicts(self, verdicts: Iterable[tuple[str, str, bool]], *, whole: bool, staged: BalancerPlan | None) -> None:
        """Take over what the node process thinks of endpoints: upstream, key, available. `whole` = of all there are."""
        told = list(verdicts)
        if whole:
            ill = {(upstream_id, key) for upstream_id, key, available in told if not available}
            recovered = [
                (upstream_id, key, True)
                for upstream_id, keys in self._down.items()
                for key in keys
                if (upstream_id, key) not in ill
            ]
            told = recovered + told
        for upstream_id, key, available in told:
            down = self._down.setdefault(upstream_id, set())
            if available:
                down.discard(key)
            else:
                down.add(key)
            upstream = self._upstreams.get(upstream_id)
            if upstream is not None:
                upstream.set_available(key, available=available)
            if staged is not None and (coming := staged.new_upstreams.get(upstream_id)) is not None:
                coming.set_available(key, available=available)

    def use_epoch(self, epoch: bytes) -> None:
        """The configuration is of this history; what names sessions to clients is derived from it."""
        if epoch != self._secret:
            self._secret = epoch
            for upstream_id, upstream in self._upstreams.items():
                upstream.use_secret(_secret_of(epoch, upstream_id))

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


def _walk_staged(plan: BalancerPlan, upstream: Upstream, answers: Answers) -> Steps:
    config, targets = plan.filled[upstream.id]
    yield from upstream.reconcile_steps(config, targets, answers)
    plan.walks -= 1


def _secret_of(epoch: bytes, upstream_id: str) -> bytes:
    """What all nodes share and clients don't know: the random name of the history, mixed with the upstream's id."""
    return hashlib.sha256(epoch + upstream_id.encode()).digest()
