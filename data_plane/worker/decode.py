"""Entity bytes to the plain values of `data_plane/model.py`: the one door through which the wire comes in.

An entity this worker does not know is refused, not skipped: serving a config with a part missing would send requests
elsewhere than the operator said.
"""

from __future__ import annotations

from functools import lru_cache

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError

from data_plane.model import (
    ActiveCheck,
    HeaderCondition,
    Healthchecks,
    PassiveCheck,
    PeerCondition,
    RouteConfig,
    ServiceConfig,
    TargetConfig,
    Thresholds,
    UpstreamConfig,
)
from data_plane.worker.faults import BAD_VALUE, UNDECODABLE, UNKNOWN_ENTITY, BuildFault
from pointsman.wire.v1 import config_pb2 as wire

EntityConfig = ServiceConfig | RouteConfig | UpstreamConfig | TargetConfig


class Undecodable(Exception):
    """An entity that cannot become a value; `fault` says which and why."""

    def __init__(self, fault: BuildFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def decode(data: bytes) -> EntityConfig:
    """The entity in `data`; raises Undecodable."""
    try:
        entity = wire.Entity.FromString(data)
    except DecodeError:
        raise Undecodable(BuildFault(UNDECODABLE, "the entity's bytes are not a valid message")) from None
    kind = entity.WhichOneof("kind")
    if kind == "route":
        config: EntityConfig = _route(entity.route)
    elif kind == "service":
        config = _service(entity.service)
    elif kind == "target":
        config = _target(entity.target)
    elif kind == "upstream":
        config = _upstream(entity.upstream)
    else:
        raise Undecodable(
            BuildFault(
                UNKNOWN_ENTITY, "this node does not know this kind of entity; it needs a newer version of the software"
            )
        )
    if not config.id:
        raise Undecodable(BuildFault(BAD_VALUE, "the entity has no id", collection=f"{kind}s", field="id"))
    return config


@lru_cache(maxsize=4096)
def _shared(values: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all routes that say the same: most say `http, https`."""
    return values


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9


def _route(route: wire.Route) -> RouteConfig:
    # Most routes leave most lists empty; asking first is several times cheaper than walking an empty one.
    headers, sources, destinations, snis = route.headers, route.sources, route.destinations, route.snis
    return RouteConfig(
        id=route.id,
        name=route.name,
        protocols=_shared(tuple(route.protocols)),
        methods=_shared(tuple(route.methods)),
        hosts=tuple(route.hosts),
        paths=tuple(route.paths),
        headers=tuple(HeaderCondition(header.name, tuple(header.values)) for header in headers) if headers else (),
        snis=tuple(snis) if snis else (),
        sources=tuple(_peer(peer) for peer in sources) if sources else (),
        destinations=tuple(_peer(peer) for peer in destinations) if destinations else (),
        https_redirect_status_code=route.https_redirect_status_code or 426,
        regex_priority=route.regex_priority,
        strip_path=route.strip_path,
        path_handling="v1" if route.path_handling == "v1" else "v0",
        preserve_host=route.preserve_host,
        request_buffering=route.request_buffering,
        response_buffering=route.response_buffering,
        service=route.service,
        created_at=route.created_at,
    )


def _peer(peer: wire.Peer) -> PeerCondition:
    return PeerCondition(peer.ip or None, peer.port if peer.HasField("port") else None)


def _service(service: wire.Service) -> ServiceConfig:
    return ServiceConfig(
        id=service.id,
        name=service.name,
        protocol=service.protocol or "http",
        host=service.host,
        port=service.port or 80,
        path=service.path,
        retries=service.retries,
        connect_timeout_s=_seconds(service.connect_timeout),
        write_timeout_s=_seconds(service.write_timeout),
        read_timeout_s=_seconds(service.read_timeout),
        tls_verify=service.tls_verify if service.HasField("tls_verify") else None,
        tls_verify_depth=service.tls_verify_depth if service.HasField("tls_verify_depth") else None,
        ca_certificates=tuple(service.ca_certificates),
        client_certificate=service.client_certificate,
    )


def _target(target: wire.Target) -> TargetConfig:
    host, colon, port = target.target.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise Undecodable(
            BuildFault(
                BAD_VALUE,
                f"{target.target!r} is not of the form host:port",
                collection="targets",
                entity_id=target.id,
                entity_name=target.target,
                field="target",
            )
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return TargetConfig(id=target.id, upstream=target.upstream, host=host, port=int(port), weight=target.weight)


def _upstream(upstream: wire.Upstream) -> UpstreamConfig:
    return UpstreamConfig(
        id=upstream.id,
        name=upstream.name,
        algorithm=upstream.algorithm or "round-robin",
        hash_on=upstream.hash_on or "none",
        hash_fallback=upstream.hash_fallback or "none",
        hash_on_header=upstream.hash_on_header,
        hash_fallback_header=upstream.hash_fallback_header,
        hash_on_cookie=upstream.hash_on_cookie,
        hash_on_cookie_path=upstream.hash_on_cookie_path or "/",
        hash_on_query_arg=upstream.hash_on_query_arg,
        hash_fallback_query_arg=upstream.hash_fallback_query_arg,
        hash_on_uri_capture=upstream.hash_on_uri_capture,
        hash_fallback_uri_capture=upstream.hash_fallback_uri_capture,
        slots=upstream.slots or 10000,
        host_header=upstream.host_header,
        client_certificate=upstream.client_certificate,
        use_srv_name=upstream.use_srv_name,
        healthchecks=_healthchecks(upstream.healthchecks),
    )


def _healthchecks(checks: wire.Healthchecks) -> Healthchecks:
    active, passive = checks.active, checks.passive
    return Healthchecks(
        threshold=checks.threshold,
        active=ActiveCheck(
            type=active.type or "http",
            timeout_s=_seconds(active.timeout),
            concurrency=active.concurrency,
            http_path=active.http_path or "/",
            https_sni=active.https_sni,
            https_verify_certificate=active.https_verify_certificate,
            headers=tuple(HeaderCondition(header.name, tuple(header.values)) for header in active.headers),
            healthy=_thresholds(active.healthy),
            unhealthy=_thresholds(active.unhealthy),
        ),
        passive=PassiveCheck(
            type=passive.type or "http",
            healthy=_thresholds(passive.healthy),
            unhealthy=_thresholds(passive.unhealthy),
        ),
    )


def _thresholds(thresholds: wire.Thresholds) -> Thresholds:
    return Thresholds(
        interval_s=_seconds(thresholds.interval),
        http_statuses=frozenset(thresholds.http_statuses),
        successes=thresholds.successes,
        tcp_failures=thresholds.tcp_failures,
        timeouts=thresholds.timeouts,
        http_failures=thresholds.http_failures,
    )
