"""Snapshots for tests, from few words."""

from __future__ import annotations

import hashlib

from data_plane.node.snapshot import NodeSnapshot
from pointsman.wire.v1 import config_pb2 as wire

Entities = dict[tuple[str, str], bytes]


def service(service_id: str, host: str) -> Entities:
    entity = wire.Entity(service=wire.Service(id=service_id, host=host))
    return {("services", service_id): entity.SerializeToString()}


def route(route_id: str, service_id: str) -> Entities:
    entity = wire.Entity(route=wire.Route(id=route_id, service=service_id))
    return {("routes", route_id): entity.SerializeToString()}


def upstream(upstream_id: str, name: str) -> Entities:
    entity = wire.Entity(upstream=wire.Upstream(id=upstream_id, name=name))
    return {("upstreams", upstream_id): entity.SerializeToString()}


def target(target_id: str, upstream_id: str, text: str) -> Entities:
    entity = wire.Entity(target=wire.Target(id=target_id, upstream=upstream_id, target=text, weight=100))
    return {("targets", target_id): entity.SerializeToString()}


def snapshot(version: int, *parts: Entities) -> NodeSnapshot:
    """A snapshot whose hash names its content, if not in the way of the fleet."""
    entities: Entities = {}
    for part in parts:
        entities |= part
    digest = hashlib.sha256(b"".join(entities[key] for key in sorted(entities))).digest()
    return NodeSnapshot(b"e" * 16, version, digest, entities)
