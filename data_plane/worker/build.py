"""The next tables, made beside the live ones: entities decoded, references checked, router and services built.

Nothing here touches what serves. Live balancers are only looked at; what an activation will change about them is
written down as a plan (`balancers.py`) and carried out at the swap. All steps are generators that yield every few
microseconds' worth of work. A config with a fault is never finished: all its faults are collected and refused together.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

from data_plane.model import RouteConfig, ServiceConfig, ServiceSettings, UpstreamConfig
from data_plane.proxy.sides import Sides
from data_plane.proxy.tables import ServiceRuntime, Tables
from data_plane.router import TRADITIONAL_COMPATIBLE, BadRoute, build_router
from data_plane.sharded import Sharded
from data_plane.worker.answers import Answers
from data_plane.worker.balancers import BalancerPlan, Balancers
from data_plane.worker.catalogue import Catalogue, StagedCatalogue
from data_plane.worker.certificates import Credentials, services_concerned
from data_plane.worker.decode import Undecodable, decode
from data_plane.worker.faults import (
    BAD_REGEX,
    DANGLING_REFERENCE,
    DUPLICATE_NAME,
    OUT_OF_STEP,
    UNKNOWN_ENTITY,
    BuildFault,
    BuildFaults,
)

Work = Generator[None, None, None]


class Staging:
    """One version on its way: fed with entities, then finished. `tables` and `plan` are there once it is prepared."""

    def __init__(
        self,
        version: int,
        base: Catalogue,
        *,
        from_nothing: bool,
        credentials: Credentials | None = None,
        router_flavour: str = TRADITIONAL_COMPATIBLE,
    ) -> None:
        self._router_flavour = router_flavour
        self.version = version
        self.catalogue = StagedCatalogue(base)
        self.faults = BuildFaults()
        self.tables: Tables | None = None
        self.plan: BalancerPlan | None = None
        self.discarded = False
        self.epoch = b""
        self.moves = Moves()
        self._from_nothing = from_nothing
        self._credentials = credentials or Credentials()

    def out_of_step(self, base_version: int, active_version: int) -> None:
        """Note that the changes are over a version this worker does not serve."""
        text = f"the changes are over version {base_version}, this worker serves version {active_version}"
        self.faults.add(BuildFault(OUT_OF_STEP, text))

    def add(self, upserts: Sequence[bytes], deletes: Sequence[tuple[str, str]]) -> Work:
        """Take in one batch of changes."""
        catalogue = self.catalogue
        for collection, entity_id in deletes:
            if not catalogue.delete(collection, entity_id):
                self.faults.add(
                    BuildFault(UNKNOWN_ENTITY, "this node does not know this collection", collection, entity_id)
                )
            yield
        for data in upserts:
            if self.discarded:
                return
            try:
                catalogue.put(decode(data))
            except Undecodable as error:
                self.faults.add(error.fault)
            yield

    def finish(self, previous: Tables | None, balancers: Balancers, answers: Answers) -> Work:
        """Check the whole and build from it; afterwards either `faults` or `tables` and `plan` are set."""
        catalogue = self.catalogue
        if self._from_nothing:
            yield from catalogue.delete_unmentioned()
        yield from self._check()
        if self.faults or self.discarded:
            return
        if previous is None or catalogue.routes.changed:
            try:
                router = yield from build_router(
                    catalogue.routes,
                    flavour=self._router_flavour,
                    previous=previous.router if previous is not None else None,
                )
            except BadRoute as error:
                route = error.route
                self.faults.add(BuildFault(BAD_REGEX, error.message, "routes", route.id, route.name, error.field))
                return
        else:
            router = previous.router
        plan = BalancerPlan()
        yield from self._plan_upstreams(plan, balancers, answers)
        services = yield from self._services(previous, plan, balancers, answers)
        names = yield from self._credentials.server_names(
            previous.server_names if previous is not None else None, catalogue
        )
        if self.discarded or self.faults:
            return
        self.plan = plan
        self.tables = Tables(self.version, router, services, names)

    def _check(self) -> Work:
        yield from self._credentials.check(self.catalogue, self.faults)
        yield from self._check_upstreams()
        yield from self._check_targets()
        yield from self._check_sides()
        services = self.catalogue.services
        for route in self.catalogue.routes.upserts.values():
            if route.service and route.service not in services:
                self.faults.add(_dangling(route, "service", f"the service {route.service} does not exist"))
            yield
        if services.deletes:
            for route in self.catalogue.routes:
                if route.service in services.deletes:
                    self.faults.add(_dangling(route, "service", f"the service {route.service} is removed"))
                yield

    def _check_upstreams(self) -> Work:
        names: dict[str, str] = {}
        for upstream in self.catalogue.upstreams.upserts.values():
            other = names.setdefault(upstream.name, upstream.id)
            if other == upstream.id:
                other = self.catalogue.base.upstream_ids.get(upstream.name, upstream.id)
                still = self.catalogue.upstreams.get(other)
                if still is None or still.name != upstream.name:
                    other = upstream.id
            if other != upstream.id:
                text = f"the name is that of upstream {other}, too"
                self.faults.add(BuildFault(DUPLICATE_NAME, text, "upstreams", upstream.id, upstream.name, "name"))
            yield

    def _check_sides(self) -> Work:
        """Every upstream that a service's settings name is there."""
        upstreams, settings = self.catalogue.upstreams, self.catalogue.service_settings
        looked_at = settings if upstreams.deletes else settings.upserts.values()
        for each in looked_at:
            for upstream_id in each.upstreams():
                if upstream_id not in upstreams:
                    service = self.catalogue.services.get(each.id)
                    text = f"the upstream {upstream_id} does not exist"
                    name = service.name if service is not None else ""
                    self.faults.add(BuildFault(DANGLING_REFERENCE, text, "service_settings", each.id, name, "to"))
            yield

    def _check_targets(self) -> Work:
        upstreams = self.catalogue.upstreams
        for target in self.catalogue.targets.upserts.values():
            if target.upstream not in upstreams:
                self._dangling_target(target.id, f"{target.host}:{target.port}", target.upstream)
            yield
        for upstream_id in upstreams.deletes:
            for target in self.catalogue.targets_of(upstream_id):
                if target.id not in self.catalogue.targets.upserts:  # else reported above
                    self._dangling_target(target.id, f"{target.host}:{target.port}", upstream_id)
                yield

    def _dangling_target(self, target_id: str, name: str, upstream_id: str) -> None:
        text = f"the upstream {upstream_id} does not exist"
        self.faults.add(BuildFault(DANGLING_REFERENCE, text, "targets", target_id, name, "upstream"))

    def _plan_upstreams(self, plan: BalancerPlan, balancers: Balancers, answers: Answers) -> Work:
        catalogue = self.catalogue
        for upstream_id in catalogue.changed_upstreams():
            config = catalogue.upstream_config(upstream_id)
            yield from balancers.plan_upstream(plan, config, catalogue.targets_of(upstream_id), answers)
            yield
        for upstream_id in catalogue.upstreams.deletes:
            plan.gone_upstreams.append(upstream_id)
            yield

    def _services(
        self, previous: Tables | None, plan: BalancerPlan, balancers: Balancers, answers: Answers
    ) -> Generator[None, None, Sharded[str, ServiceRuntime]]:
        """Services by id: what did not change is the same object as before, with all it remembers."""
        catalogue = self.catalogue
        services: Sharded[str, ServiceRuntime] = Sharded()
        if previous is not None:
            before = previous.services
            services = before.copy() if isinstance(before, Sharded) else Sharded(before)
        for service_id in catalogue.services.deletes:
            self.moves.back.append((service_id, None))
            if service_id in services:
                services.drop(service_id)
            balancers.plan_unbind(plan, service_id)
            yield
        again: set[str] = set()
        rebound = self._changed_upstream_names() if catalogue.base.services else None
        if rebound:
            for service in catalogue.services:
                if service.host in rebound:
                    again.add(service.id)
                yield
            for settings in catalogue.service_settings:
                if any(upstream.name in rebound for upstream in catalogue.side_upstreams(settings.id)):
                    again.add(settings.id)
                yield
        concerned = yield from services_concerned(catalogue)
        again.update(service.id for service in concerned)
        for service in catalogue.services.upserts.values():
            again.discard(service.id)
            services.put(service.id, self._renewed(service, previous, plan, balancers, answers))
            yield
        for service_id in catalogue.service_settings.changed_ids():
            if service_id not in catalogue.services.upserts:
                again.add(service_id)
            yield
        for service_id in again:
            changed = catalogue.services.get(service_id)
            if changed is not None:
                services.put(service_id, self._renewed(changed, previous, plan, balancers, answers))
            yield
        return services

    def _renewed(
        self,
        service: ServiceConfig,
        previous: Tables | None,
        plan: BalancerPlan,
        balancers: Balancers,
        answers: Answers,
    ) -> ServiceRuntime:
        """Make the runtime of a service that is new or differs, and note which sides it leaves by that."""
        runtime = self._service(service, plan, balancers, answers)
        before = previous.services.get(service.id) if previous is not None else None
        if before is not None:
            self.moves.add(before, runtime, self.catalogue.service_settings.get(service.id))
        return runtime

    def _service(
        self, service: ServiceConfig, plan: BalancerPlan, balancers: Balancers, answers: Answers
    ) -> ServiceRuntime:
        upstream = self.catalogue.upstream_named(service.host)
        settings = self.catalogue.service_settings.get(service.id)
        sides = self._sides(service, settings, plan, balancers) if settings is not None else None
        if upstream is not None:
            balancers.plan_unbind(plan, service.id)
            return self._side(service, upstream, plan, balancers, sides)
        tls = self._credentials.service(service, upstream, self.catalogue, self.faults)
        direct = balancers.plan_direct(plan, service, answers)
        return ServiceRuntime(service, direct, host_header=service.host, tls=tls, sides=sides)

    def _side(
        self,
        service: ServiceConfig,
        upstream: UpstreamConfig,
        plan: BalancerPlan,
        balancers: Balancers,
        sides: Sides | None = None,
    ) -> ServiceRuntime:
        """The service with its requests going to that upstream."""
        return ServiceRuntime(
            service,
            balancers.upstream(plan, upstream.id),
            host_header=upstream.host_header,
            tls=self._credentials.service(service, upstream, self.catalogue, self.faults),
            side=upstream.id,
            side_name=upstream.name,
            sides=sides,
        )

    def _sides(
        self, service: ServiceConfig, settings: ServiceSettings, plan: BalancerPlan, balancers: Balancers
    ) -> Sides | None:
        """The other sides of a service; None when its settings name none."""
        made: dict[str, ServiceRuntime] = {}
        for upstream in self.catalogue.side_upstreams(service.id):
            if upstream.id not in made:
                made[upstream.id] = self._side(service, upstream, plan, balancers)
        if not made:
            return None
        preview, split, mirror = settings.preview, settings.split, settings.mirror
        return Sides(
            service.id,
            preview=(preview, made[preview.to]) if preview is not None else None,
            split=(split, made[split.to]) if split is not None else None,
            mirror=(mirror, made[mirror.to]) if mirror is not None else None,
        )

    def _changed_upstream_names(self) -> set[str]:
        """Names that mean another upstream, Host field or client certificate than in the active version."""
        upstreams = self.catalogue.upstreams
        names: set[str] = set()
        for upstream_id in upstreams.changed_ids():
            before, after = upstreams.before(upstream_id), upstreams.get(upstream_id)
            if before is not None and after is not None:
                same = before.host_header == after.host_header and before.client_certificate == after.client_certificate
                if before.name == after.name and same:
                    continue
                names |= {before.name, after.name}
            elif before is not None:
                names.add(before.name)
            elif after is not None:
                names.add(after.name)
        return names


class Moves:
    """What an activation means for requests that are under way: sides that their services leave, and take up again.

    `left` are service, upstream and the seconds after which what is still open there is closed; `back` are those whose
    deadlines no longer count, with None for all sides of a service; `entered` are those that a service did not use, or
    only for a share of its requests.
    """

    def __init__(self) -> None:
        self.left: list[tuple[str, str, float]] = []
        self.back: list[tuple[str, str | None]] = []
        self.entered: list[tuple[str, str]] = []

    def add(self, before: ServiceRuntime, after: ServiceRuntime, settings: ServiceSettings | None) -> None:
        """Compare a service's sides in two versions."""
        service = after.config.id
        deadline_s = settings.drain_deadline_s if settings is not None else None
        used, uses = _sides_in_use(before), _sides_in_use(after)
        if deadline_s is None:
            self.back.append((service, None))
        else:
            self.left += [(service, side, deadline_s) for side in sorted(used - uses)]
        self.back += [(service, side) for side in sorted(uses)]
        whole = {after.side} if after.side != before.side else set()
        self.entered += [(service, side) for side in sorted(uses - used | whole)]


def _sides_in_use(service: ServiceRuntime) -> set[str]:
    return {service.side, *(service.sides.in_use() if service.sides is not None else ())}


def _dangling(route: RouteConfig, field: str, text: str) -> BuildFault:
    return BuildFault(DANGLING_REFERENCE, text, "routes", route.id, route.name, field)
