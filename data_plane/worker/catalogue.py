"""The entities of the active version, and a layer of changes over them that becomes the next one.

The layer is read through while tables are built from it, so staging a version copies nothing: one changed target among
100,000 entities costs one entry. Once the version is active the layer is merged down in slices, which is also how old
values are let go of: a few at a time, never all at once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from data_plane.kinds import COLLECTIONS
from data_plane.model import (
    CaCertificateConfig,
    CertificateConfig,
    RouteConfig,
    ServiceConfig,
    ServiceSettings,
    SniConfig,
    TargetConfig,
    UpstreamConfig,
    UpstreamSettings,
)
from data_plane.worker.decode import EntityConfig

V = TypeVar("V", bound=EntityConfig)

_COLLECTION_OF = MappingProxyType(
    {
        ServiceConfig: "services",
        RouteConfig: "routes",
        UpstreamConfig: "upstreams",
        TargetConfig: "targets",
        UpstreamSettings: "upstream_settings",
        ServiceSettings: "service_settings",
        CertificateConfig: "certificates",
        SniConfig: "snis",
        CaCertificateConfig: "ca_certificates",
    }
)


class Layer(Generic[V]):
    """One collection: `base` with `upserts` laid over it and `deletes` taken out. The two never name the same id."""

    __slots__ = ("base", "deletes", "upserts")

    def __init__(self, base: dict[str, V]) -> None:
        self.base: dict[str, V] = base
        self.upserts: dict[str, V] = {}
        self.deletes: set[str] = set()

    def get(self, entity_id: str) -> V | None:
        found = self.upserts.get(entity_id)
        if found is not None or entity_id in self.deletes:
            return found
        return self.base.get(entity_id)

    def before(self, entity_id: str) -> V | None:
        """The value in the active version."""
        return self.base.get(entity_id)

    def __contains__(self, entity_id: str) -> bool:
        return entity_id in self.upserts or (entity_id in self.base and entity_id not in self.deletes)

    def __iter__(self) -> Iterator[V]:
        upserts, deletes = self.upserts, self.deletes
        for entity_id, value in self.base.items():
            if entity_id not in upserts and entity_id not in deletes:
                yield value
        yield from upserts.values()

    def put(self, value: V) -> None:
        self.deletes.discard(value.id)
        self.upserts[value.id] = value

    def delete(self, entity_id: str) -> None:
        self.upserts.pop(entity_id, None)
        if entity_id in self.base:
            self.deletes.add(entity_id)

    @property
    def changed(self) -> bool:
        return bool(self.upserts or self.deletes)

    def changed_ids(self) -> Iterator[str]:
        yield from self.upserts
        yield from self.deletes


class Catalogue:
    """All entities of one version as values, by id; `targets_of` and `upstream_ids` are its two indexes."""

    def __init__(self) -> None:
        self.services: dict[str, ServiceConfig] = {}
        self.routes: dict[str, RouteConfig] = {}
        self.upstreams: dict[str, UpstreamConfig] = {}
        self.targets: dict[str, TargetConfig] = {}
        self.upstream_settings: dict[str, UpstreamSettings] = {}
        self.service_settings: dict[str, ServiceSettings] = {}
        self.certificates: dict[str, CertificateConfig] = {}
        self.snis: dict[str, SniConfig] = {}
        self.ca_certificates: dict[str, CaCertificateConfig] = {}
        self.targets_of: dict[str, dict[str, TargetConfig]] = {}
        self.upstream_ids: dict[str, str] = {}


class StagedCatalogue:
    """The next version: a catalogue seen through its changes."""

    def __init__(self, base: Catalogue) -> None:
        self.base = base
        self.services = Layer(base.services)
        self.routes = Layer(base.routes)
        self.upstreams = Layer(base.upstreams)
        self.targets = Layer(base.targets)
        self.upstream_settings = Layer(base.upstream_settings)
        self.service_settings = Layer(base.service_settings)
        self.certificates = Layer(base.certificates)
        self.snis = Layer(base.snis)
        self.ca_certificates = Layer(base.ca_certificates)
        self._layers: dict[str, Layer[Any]] = {
            "services": self.services,
            "routes": self.routes,
            "upstreams": self.upstreams,
            "targets": self.targets,
            "upstream_settings": self.upstream_settings,
            "service_settings": self.service_settings,
            "certificates": self.certificates,
            "snis": self.snis,
            "ca_certificates": self.ca_certificates,
        }
        assert self._layers.keys() == set(COLLECTIONS.values()), "every kind that a node lets in has its layer"
        self._targets_of: dict[str, dict[str, TargetConfig]] = {}  # only upstreams whose set changed
        self._changed_names: dict[str, str] = {}

    def put(self, value: EntityConfig) -> None:
        """Add or replace one entity."""
        if isinstance(value, TargetConfig):
            before = self.targets.get(value.id)
            if before is not None and before.upstream != value.upstream:
                self._own_targets(before.upstream).pop(value.id, None)
            self._own_targets(value.upstream)[value.id] = value
        elif isinstance(value, UpstreamConfig):
            self._changed_names[value.name] = value.id
        self._layers[_COLLECTION_OF[type(value)]].put(value)

    def delete(self, collection: str, entity_id: str) -> bool:
        """Take one entity out; False when this worker knows no such collection."""
        layer = self._layers.get(collection)
        if layer is None:
            return False
        if collection == "targets" and (before := self.targets.get(entity_id)) is not None:
            self._own_targets(before.upstream).pop(entity_id, None)
        layer.delete(entity_id)
        return True

    def delete_unmentioned(self) -> Generator[None, None, None]:
        """Make the next version hold nothing but what was put: for a set that is sent from nothing."""
        for target_id, target in self.base.targets.items():
            if target_id not in self.targets.upserts:
                self._own_targets(target.upstream).pop(target_id, None)
                self.targets.deletes.add(target_id)
            yield
        for layer in self._layers.values():
            if layer is self.targets:
                continue
            for entity_id in layer.base:
                if entity_id not in layer.upserts:
                    layer.deletes.add(entity_id)
                yield

    def targets_of(self, upstream_id: str) -> tuple[TargetConfig, ...]:
        """The targets of an upstream in the next version, in an order that is the same in every worker of the fleet."""
        own = self._targets_of.get(upstream_id)
        if own is None:
            own = self.base.targets_of.get(upstream_id, {})
        return tuple(sorted(own.values(), key=lambda target: (target.host, target.port, target.id)))

    def changed_upstreams(self) -> list[str]:
        """Ids of the upstreams that the next version has and that differ in themselves, their targets or settings."""
        changed = dict.fromkeys(self.upstreams.upserts)
        changed.update(dict.fromkeys(of for of in self.upstream_settings.changed_ids() if of in self.upstreams))
        changed.update(dict.fromkeys(upstream_id for upstream_id in self._targets_of if upstream_id in self.upstreams))
        return list(changed)

    def upstream_config(self, upstream_id: str) -> UpstreamConfig:
        """An upstream of the next version with what its settings say about balancing."""
        config = self.upstreams.get(upstream_id)
        assert config is not None, "only asked of upstreams that are there"
        settings = self.upstream_settings.get(upstream_id)
        if settings is None or not settings.slow_start_s:
            return config
        return replace(config, slow_start_s=settings.slow_start_s)

    def upstream_named(self, name: str) -> UpstreamConfig | None:
        """The upstream that carries `name` in the next version."""
        for upstream_id in (self._changed_names.get(name), self.base.upstream_ids.get(name)):
            if upstream_id is not None:
                upstream = self.upstreams.get(upstream_id)
                # The indexes may be behind: an upstream found by its former name is not the one asked for.
                if upstream is not None and upstream.name == name:
                    return upstream
        return None

    def side_upstreams(self, service_id: str) -> tuple[UpstreamConfig, ...]:
        """The upstreams that a service's settings name in the next version; one that is not there is left out."""
        settings = self.service_settings.get(service_id)
        if settings is None:
            return ()
        found = (self.upstreams.get(upstream_id) for upstream_id in settings.upstreams())
        return tuple(upstream for upstream in found if upstream is not None)

    def merge(self) -> Generator[None, None, None]:
        """Make the layer part of the catalogue; the version must be active. Nothing may be staged before the end."""
        base = self.base
        yield from _merge_names(base, self.upstreams)
        for layer in self._layers.values():
            yield from _merge(layer)
        while self._targets_of:
            upstream_id, targets = self._targets_of.popitem()
            if targets:
                base.targets_of[upstream_id] = targets
            else:
                base.targets_of.pop(upstream_id, None)
            yield

    def _own_targets(self, upstream_id: str) -> dict[str, TargetConfig]:
        own = self._targets_of.get(upstream_id)
        if own is None:
            own = self._targets_of[upstream_id] = dict(self.base.targets_of.get(upstream_id, {}))
        return own


def _merge_names(base: Catalogue, upstreams: Layer[UpstreamConfig]) -> Generator[None, None, None]:
    for upstream_id in upstreams.changed_ids():
        before = upstreams.base.get(upstream_id)
        if before is not None and base.upstream_ids.get(before.name) == upstream_id:
            del base.upstream_ids[before.name]
        yield
    for upstream_id, upstream in upstreams.upserts.items():
        base.upstream_ids[upstream.name] = upstream_id
        yield


def _merge(layer: Layer[V]) -> Generator[None, None, None]:
    while layer.deletes:
        layer.base.pop(layer.deletes.pop(), None)
        yield
    while layer.upserts:
        entity_id, value = layer.upserts.popitem()
        layer.base[entity_id] = value
        yield
