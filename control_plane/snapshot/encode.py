"""From an entity as the Admin API shows it to the bytes that travel.

An entity is encoded once, when it changes. Tags and timestamps stay behind: nodes have no use for them, and a snapshot
hash that ignores them does not change when only they do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from google.protobuf.duration_pb2 import Duration

from control_plane.entities.schema import foreign_id
from control_plane.entities.types import EntityBody, JsonValue
from pointsman.wire.v1 import config_pb2

# What a null stands for where Kong's runtime fills it in (spec: retries and timeouts, defaults apply to null).
_RETRIES = 5
_TIMEOUT_MS = 60_000
_WEIGHT = 100
_SLOTS = 10_000


def encode(collection: str, body: EntityBody) -> bytes:
    """Return the entity's bytes; the same body always gives the same bytes. Raises KeyError for an unknown
    collection."""
    return _ENCODERS[collection](body).SerializeToString(deterministic=True)


def _service(body: EntityBody) -> config_pb2.Entity:
    service = config_pb2.Service(
        id=_text(body["id"]),
        name=_text(body["name"]),
        protocol=_text(body["protocol"]),
        host=_text(body["host"]),
        port=_integer(body["port"], 80),
        path=_text(body["path"]),
        retries=_integer(body["retries"], _RETRIES),
        connect_timeout=_milliseconds(body["connect_timeout"]),
        write_timeout=_milliseconds(body["write_timeout"]),
        read_timeout=_milliseconds(body["read_timeout"]),
        ca_certificates=_texts(body["ca_certificates"]),
        client_certificate=foreign_id(body["client_certificate"]) or "",
    )
    if isinstance(body["tls_verify"], bool):
        service.tls_verify = body["tls_verify"]
    if isinstance(body["tls_verify_depth"], int):
        service.tls_verify_depth = body["tls_verify_depth"]
    return config_pb2.Entity(service=service)


def _route(body: EntityBody) -> config_pb2.Entity:
    return config_pb2.Entity(
        route=config_pb2.Route(
            id=_text(body["id"]),
            name=_text(body["name"]),
            protocols=_texts(body["protocols"]),
            methods=_texts(body["methods"]),
            hosts=_texts(body["hosts"]),
            paths=_texts(body["paths"]),
            headers=_headers(body["headers"]),
            snis=_texts(body["snis"]),
            sources=_peers(body["sources"]),
            destinations=_peers(body["destinations"]),
            https_redirect_status_code=_integer(body["https_redirect_status_code"], 426),
            regex_priority=_integer(body["regex_priority"], 0),
            strip_path=body["strip_path"] is True,
            path_handling=_text(body["path_handling"]) or "v0",
            preserve_host=body["preserve_host"] is True,
            request_buffering=body["request_buffering"] is True,
            response_buffering=body["response_buffering"] is True,
            service=foreign_id(body["service"]) or "",
            created_at=_integer(body["created_at"], 0),
        )
    )


def _upstream(body: EntityBody) -> config_pb2.Entity:
    return config_pb2.Entity(
        upstream=config_pb2.Upstream(
            id=_text(body["id"]),
            name=_text(body["name"]),
            algorithm=_text(body["algorithm"]),
            hash_on=_text(body["hash_on"]),
            hash_fallback=_text(body["hash_fallback"]),
            hash_on_header=_text(body["hash_on_header"]),
            hash_fallback_header=_text(body["hash_fallback_header"]),
            hash_on_cookie=_text(body["hash_on_cookie"]),
            hash_on_cookie_path=_text(body["hash_on_cookie_path"]),
            hash_on_query_arg=_text(body["hash_on_query_arg"]),
            hash_fallback_query_arg=_text(body["hash_fallback_query_arg"]),
            hash_on_uri_capture=_text(body["hash_on_uri_capture"]),
            hash_fallback_uri_capture=_text(body["hash_fallback_uri_capture"]),
            slots=_integer(body["slots"], _SLOTS),
            host_header=_text(body["host_header"]),
            client_certificate=foreign_id(body["client_certificate"]) or "",
            use_srv_name=body["use_srv_name"] is True,
            healthchecks=_healthchecks(_record(body["healthchecks"])),
        )
    )


def _target(body: EntityBody) -> config_pb2.Entity:
    return config_pb2.Entity(
        target=config_pb2.Target(
            id=_text(body["id"]),
            upstream=foreign_id(body["upstream"]) or "",
            target=_text(body["target"]),
            weight=_integer(body["weight"], _WEIGHT),
        )
    )


_ENCODERS: Mapping[str, Callable[[EntityBody], config_pb2.Entity]] = {
    "services": _service,
    "routes": _route,
    "upstreams": _upstream,
    "targets": _target,
}


def _healthchecks(body: EntityBody) -> config_pb2.Healthchecks:
    active, passive = _record(body["active"]), _record(body["passive"])
    return config_pb2.Healthchecks(
        threshold=_number(body["threshold"], 0),
        active=config_pb2.ActiveCheck(
            type=_text(active["type"]),
            timeout=_seconds(active["timeout"], 1),
            concurrency=_integer(active["concurrency"], 10),
            http_path=_text(active["http_path"]) or "/",
            https_sni=_text(active["https_sni"]),
            https_verify_certificate=active["https_verify_certificate"] is True,
            headers=_headers(active["headers"]),
            healthy=_thresholds(_record(active["healthy"])),
            unhealthy=_thresholds(_record(active["unhealthy"])),
        ),
        passive=config_pb2.PassiveCheck(
            type=_text(passive["type"]),
            healthy=_thresholds(_record(passive["healthy"])),
            unhealthy=_thresholds(_record(passive["unhealthy"])),
        ),
    )


def _thresholds(body: EntityBody) -> config_pb2.Thresholds:
    statuses = body["http_statuses"]
    return config_pb2.Thresholds(
        interval=_seconds(body.get("interval"), 0),
        http_statuses=[status for status in statuses if isinstance(status, int)] if isinstance(statuses, list) else [],
        successes=_integer(body.get("successes"), 0),
        tcp_failures=_integer(body.get("tcp_failures"), 0),
        timeouts=_integer(body.get("timeouts"), 0),
        http_failures=_integer(body.get("http_failures"), 0),
    )


def _headers(value: JsonValue) -> list[config_pb2.HeaderCondition]:
    if not isinstance(value, dict):
        return []
    return [config_pb2.HeaderCondition(name=name, values=_texts(values)) for name, values in sorted(value.items())]


def _peers(value: JsonValue) -> list[config_pb2.Peer]:
    peers = []
    for item in value if isinstance(value, list) else []:
        record = _record(item)
        peer = config_pb2.Peer(ip=_text(record.get("ip")))
        port = record.get("port")
        if isinstance(port, int):
            peer.port = port
        peers.append(peer)
    return peers


def _record(value: JsonValue) -> EntityBody:
    return cast(EntityBody, value)


def _text(value: JsonValue) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _integer(value: JsonValue, default: int) -> int:
    return int(value) if isinstance(value, int | float) else default


def _number(value: JsonValue, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _milliseconds(value: JsonValue) -> Duration:
    milliseconds = _integer(value, _TIMEOUT_MS)
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)


def _seconds(value: JsonValue, default: float) -> Duration:
    nanos = round(_number(value, default) * 1e9)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)
