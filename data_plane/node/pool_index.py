"""The upstreams of the configuration with their targets and settings, as the node process follows them.

Entities come as bytes and only what changed is read. The pools of upstreams that nothing touched are the same objects
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from data_plane.balancer.addresses import Address, addresses_of
from data_plane.model import TargetConfig, UpstreamConfig, UpstreamSettings
from data_plane.node.diff import Diff
from data_plane.pools import target_config, upstream_config, upstream_settings
from data_plane.resolve.answers import Answer
from pointsman.wire.v1 import config_pb2 as wire


@dataclass(slots=True)
class Pool:
    """One upstream. `addresses` are its endpoints by key, of the names' answers as of the last `resolve`."""

    id: str
    config: UpstreamConfig | None = None
    settings: UpstreamSettings | None = None
    targets: dict[str, TargetConfig] = field(default_factory=dict)
    addresses: dict[str, Address] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing of the configuration is left in it."""
        return self.config is None and self.settings is None and not self.targets

    def follow(self, diff: Diff) -> None:
        """Take in what a change says about this upstream; for a copy that shows how it will be."""
        for collection, entity_id in diff.deletes:
            if collection == "targets":
                self.targets.pop(entity_id, None)
            elif collection == "upstreams" and entity_id == self.id:
                self.config = None
        for (collection, entity_id), data in diff.upserts.items():
            if collection == "upstreams" and entity_id == self.id:
                self.config = upstream_config(wire.Entity.FromString(data).upstream)
            elif collection == "targets":
                told = wire.Entity.FromString(data).target
                self.targets.pop(entity_id, None)
                if told.upstream == self.id:
                    self.targets[entity_id] = target_config(told)

    def resolve(self, answers: Callable[[str], Answer | None]) -> None:
        """Find the addresses anew; those of a name without an answer yet stay."""
        ordered = sorted(self.targets.values(), key=lambda target: (target.host, target.port, target.id))
        use_srv_name = self.config is not None and self.config.use_srv_name
        found: dict[str, Address] = {}
        for key, address in addresses_of(ordered, answers, use_srv_name=use_srv_name).items():
            if isinstance(address, Address):
                found[key] = address
            else:
                of = address.target.id
                found.update((before, known) for before, known in self.addresses.items() if known.target_id == of)
        self.addresses = found


class PoolIndex:
    """All pools, and which of them depend on which name."""

    def __init__(self) -> None:
        self.pools: dict[str, Pool] = {}
        self._upstream_of: dict[str, str] = {}  # by target
        self._by_host: dict[str, set[str]] = {}
        self._targets_gone: list[tuple[str, str]] = []

    def apply(self, diff: Diff) -> list[str]:
        """Follow one change; returns the upstreams it touched, those that are gone too."""
        touched: dict[str, None] = {}
        for collection, entity_id in diff.deletes:
            self._delete(collection, entity_id, touched)
        for (collection, entity_id), data in diff.upserts.items():
            if collection not in ("upstreams", "targets", "upstream_settings"):
                continue
            try:
                entity = wire.Entity.FromString(data)
            except DecodeError:
                continue  # the workers refuse it with a reason
            if collection == "upstreams":
                self._pool(entity_id, touched).config = upstream_config(entity.upstream)
            elif collection == "upstream_settings":
                self._pool(entity_id, touched).settings = upstream_settings(entity.upstream_settings)
            else:
                self._put_target(entity.target, touched)
        for upstream_id in touched:
            pool = self.pools.get(upstream_id)
            if pool is not None and pool.empty:
                del self.pools[upstream_id]
        return list(touched)

    def take_targets_gone(self) -> list[tuple[str, str]]:
        """The targets, by upstream and id, that went or were replaced since the last call."""
        gone, self._targets_gone = self._targets_gone, []
        return gone

    def using(self, name: str) -> set[str]:
        """The upstreams with a target of that name."""
        return self._by_host.get(name, set())

    def _pool(self, upstream_id: str, touched: dict[str, None]) -> Pool:
        touched[upstream_id] = None
        pool = self.pools.get(upstream_id)
        if pool is None:
            pool = self.pools[upstream_id] = Pool(upstream_id)
        return pool

    def _put_target(self, told: wire.Target, touched: dict[str, None]) -> None:
        try:
            target = target_config(told)
        except ValueError:
            return  # as above
        self._delete("targets", target.id, touched)
        self._pool(target.upstream, touched).targets[target.id] = target
        self._upstream_of[target.id] = target.upstream
        self._by_host.setdefault(target.host, set()).add(target.upstream)

    def _delete(self, collection: str, entity_id: str, touched: dict[str, None]) -> None:
        if collection == "targets":
            upstream_id = self._upstream_of.pop(entity_id, None)
            if upstream_id is None:
                return
            pool = self._pool(upstream_id, touched)
            gone = pool.targets.pop(entity_id)
            self._targets_gone.append((upstream_id, entity_id))
            if all(target.host != gone.host for target in pool.targets.values()):
                users = self._by_host.get(gone.host, set())
                users.discard(upstream_id)
                if not users:
                    self._by_host.pop(gone.host, None)
        elif collection == "upstreams" and entity_id in self.pools:
            self._pool(entity_id, touched).config = None
        elif collection == "upstream_settings" and entity_id in self.pools:
            self._pool(entity_id, touched).settings = None
