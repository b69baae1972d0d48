"""Entities as the store keeps them -> the bytes that travel to the nodes.

Each entity is encoded once, here, and hashed over these bytes. The encoding is deterministic: equal content gives equal
bytes in this version of the software, so that a change of what nodes never see (tags, `updated_at`) leaves the
snapshot's hash as it was. Fields that an operator set to null although they have a default travel as the default, which
is how Kong treats them at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from google.protobuf.duration_pb2 import Duration

from control_plane.entities.service_settings import COLLECTION as SERVICE_SETTINGS
from control_plane.entities.service_settings import fence_after_s
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.entities.upstream_settings import COLLECTION as UPSTREAM_SETTINGS
from control_plane.entities.upstream_settings import ManualHealth, manual_health, split_address
from pointsman.wire.v1 import config_pb2 as wire


class Unencodable(ValueError):
    """An entity's value does not fit the wire; `field` names it, empty when it is the whole."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


def encode(collection: str, body: EntityBody) -> bytes:
    """Return the `Entity` bytes of a complete, validated entity.

    Raises:
        Unencodable: a value is out of the range that the wire has for it.
    """
    encoder = ENCODERS[collection]
    try:
        return encoder(body).SerializeToString(deterministic=True)
    except (ValueError, TypeError) as error:
        field = _culprit(encoder, body)
        raise Unencodable(field, f"cannot be sent to the nodes: {error}") from error


def _culprit(encoder: Callable[[EntityBody], wire.Entity], body: EntityBody) -> str:
    """The field without which the rest encodes. Protobuf's errors name none."""
    for field in body:
        try:
            encoder({**body, field: None}).SerializeToString()
        except (ValueError, TypeError):
            continue
        return field
    return ""


def _service(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        service=wire.Service(
            id=_text(body, "id"),
            name=_text(body, "name"),
            protocol=_text(body, "protocol"),
            host=_text(body, "host"),
            port=_whole(body, "port", 80),
            path=_text(body, "path"),
            retries=_whole(body, "retries", 5),
            connect_timeout=_milliseconds(body, "connect_timeout", 60000),
            write_timeout=_milliseconds(body, "write_timeout", 60000),
            read_timeout=_milliseconds(body, "read_timeout", 60000),
            tls_verify=_optional_flag(body, "tls_verify"),
            tls_verify_depth=_optional_whole(body, "tls_verify_depth"),
            ca_certificates=_texts(body.get("ca_certificates")),
            client_certificate=_foreign(body, "client_certificate"),
        )
    )


def _route(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        route=wire.Route(
            id=_text(body, "id"),
            name=_text(body, "name"),
            protocols=_texts(body.get("protocols")),
            methods=_texts(body.get("methods")),
            hosts=_texts(body.get("hosts")),
            paths=_texts(body.get("paths")),
            headers=_headers(body.get("headers")),
            snis=_texts(body.get("snis")),
            sources=_peers(body.get("sources")),
            destinations=_peers(body.get("destinations")),
            https_redirect_status_code=_whole(body, "https_redirect_status_code", 426),
            regex_priority=_whole(body, "regex_priority", 0),
            strip_path=_flag(body, "strip_path"),
            path_handling=_text(body, "path_handling"),
            preserve_host=_flag(body, "preserve_host"),
            request_buffering=_flag(body, "request_buffering"),
            response_buffering=_flag(body, "response_buffering"),
            service=_foreign(body, "service"),
            created_at=_whole(body, "created_at", 0),
        )
    )


def _upstream(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        upstream=wire.Upstream(
            id=_text(body, "id"),
            name=_text(body, "name"),
            algorithm=_text(body, "algorithm"),
            hash_on=_text(body, "hash_on"),
            hash_fallback=_text(body, "hash_fallback"),
            hash_on_header=_text(body, "hash_on_header"),
            hash_fallback_header=_text(body, "hash_fallback_header"),
            hash_on_cookie=_text(body, "hash_on_cookie"),
            hash_on_cookie_path=_text(body, "hash_on_cookie_path"),
            hash_on_query_arg=_text(body, "hash_on_query_arg"),
            hash_fallback_query_arg=_text(body, "hash_fallback_query_arg"),
            hash_on_uri_capture=_text(body, "hash_on_uri_capture"),
            hash_fallback_uri_capture=_text(body, "hash_fallback_uri_capture"),
            slots=_whole(body, "slots", 10000),
            host_header=_text(body, "host_header"),
            client_certificate=_foreign(body, "client_certificate"),
            use_srv_name=_flag(body, "use_srv_name"),
            healthchecks=_healthchecks(_record(body.get("healthchecks"))),
            sticky_sessions_cookie=_text(body, "sticky_sessions_cookie"),
            sticky_sessions_cookie_path=_text(body, "sticky_sessions_cookie_path"),
        )
    )


def _target(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        target=wire.Target(
            id=_text(body, "id"),
            upstream=_foreign(body, "upstream"),
            target=_text(body, "target"),
            weight=_whole(body, "weight", 100),
            failover=_flag(body, "failover"),
        )
    )


_SAMPLING = MappingProxyType(
    {"auto": wire.PROBE_SAMPLING_AUTO, "on": wire.PROBE_SAMPLING_ON, "off": wire.PROBE_SAMPLING_OFF}
)


def _upstream_settings(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        upstream_settings=wire.UpstreamSettings(
            id=_text(body, "id"),
            slow_start=_seconds(body, "slow_start", 0.0),
            probe_sampling=_SAMPLING.get(_text(body, "probe_sampling"), wire.PROBE_SAMPLING_AUTO),
            manual_health=[_manual(word) for word in manual_health(body)],
        )
    )


def _manual(word: ManualHealth) -> wire.ManualHealth:
    ip, port = split_address(word.address)
    return wire.ManualHealth(target=word.target, ip=ip, port=port, healthy=word.healthy, until=word.until)


def _service_settings(body: EntityBody) -> wire.Entity:
    after_s = fence_after_s(body)
    split, preview, mirror = (_record(body.get(name)) for name in ("split", "preview", "mirror"))
    return wire.Entity(
        service_settings=wire.ServiceSettings(
            id=_text(body, "id"),
            fence_after=None if after_s is None else _duration(after_s),
            split=_split(split) if split else None,
            preview=wire.Preview(
                to=_text(preview, "to"),
                header=_text(preview, "header"),
                cookie=_text(preview, "cookie"),
                value=_text(preview, "value"),
            )
            if preview
            else None,
            mirror=wire.Mirror(to=_text(mirror, "to"), share=_whole(mirror, "share", 0)) if mirror else None,
            drain_deadline=None
            if body.get("drain_deadline") is None
            else _duration(_number(body, "drain_deadline", 0.0)),
        )
    )


def _split(split: EntityBody) -> wire.Split:
    sticky = _record(split.get("sticky"))
    return wire.Split(
        to=_text(split, "to"),
        share=_whole(split, "share", 0),
        sticky=wire.Sticky(on=_text(sticky, "on"), name=_text(sticky, "name")) if sticky else None,
    )


def _certificate(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        certificate=wire.Certificate(
            id=_text(body, "id"),
            cert=_text(body, "cert"),
            key=_text(body, "key"),
            cert_alt=_text(body, "cert_alt"),
            key_alt=_text(body, "key_alt"),
        )
    )


def _sni(body: EntityBody) -> wire.Entity:
    return wire.Entity(
        sni=wire.Sni(id=_text(body, "id"), name=_text(body, "name"), certificate=_foreign(body, "certificate"))
    )


def _ca_certificate(body: EntityBody) -> wire.Entity:
    return wire.Entity(ca_certificate=wire.CaCertificate(id=_text(body, "id"), cert=_text(body, "cert")))


ENCODERS: Mapping[str, Callable[[EntityBody], wire.Entity]] = MappingProxyType(
    {
        "certificates": _certificate,
        "snis": _sni,
        "ca_certificates": _ca_certificate,
        "services": _service,
        "routes": _route,
        "upstreams": _upstream,
        "targets": _target,
        UPSTREAM_SETTINGS: _upstream_settings,
        SERVICE_SETTINGS: _service_settings,
    }
)
"""The collections that nodes are sent."""


def _healthchecks(checks: EntityBody) -> wire.Healthchecks:
    active, passive = _record(checks.get("active")), _record(checks.get("passive"))
    return wire.Healthchecks(
        threshold=_number(checks, "threshold", 0.0),
        active=wire.ActiveCheck(
            type=_text(active, "type"),
            timeout=_seconds(active, "timeout", 1.0),
            concurrency=_whole(active, "concurrency", 10),
            http_path=_text(active, "http_path"),
            https_sni=_text(active, "https_sni"),
            https_verify_certificate=_flag(active, "https_verify_certificate"),
            headers=_headers(active.get("headers")),
            healthy=_thresholds(_record(active.get("healthy"))),
            unhealthy=_thresholds(_record(active.get("unhealthy"))),
        ),
        passive=wire.PassiveCheck(
            type=_text(passive, "type"),
            healthy=_thresholds(_record(passive.get("healthy"))),
            unhealthy=_thresholds(_record(passive.get("unhealthy"))),
        ),
    )


def _thresholds(limits: EntityBody) -> wire.Thresholds:
    statuses = limits.get("http_statuses")
    return wire.Thresholds(
        interval=_seconds(limits, "interval", 0.0),
        http_statuses=[int(status) for status in statuses if isinstance(status, int)]
        if isinstance(statuses, list)
        else None,
        successes=_whole(limits, "successes", 0),
        tcp_failures=_whole(limits, "tcp_failures", 0),
        timeouts=_whole(limits, "timeouts", 0),
        http_failures=_whole(limits, "http_failures", 0),
    )


# The readers below take what a validated body holds and turn null into what stands for it on the wire. Types were the
# schema's to check; what is left to refuse here is a number or text that the wire cannot carry.


def _text(body: EntityBody, field: str) -> str:
    value = body.get(field)
    return value if isinstance(value, str) else ""


def _whole(body: EntityBody, field: str, default: int) -> int:
    value = body.get(field)
    return int(value) if isinstance(value, int | float) else default


def _optional_whole(body: EntityBody, field: str) -> int | None:
    value = body.get(field)
    return int(value) if isinstance(value, int | float) else None


def _number(body: EntityBody, field: str, default: float) -> float:
    value = body.get(field)
    return float(value) if isinstance(value, int | float) else default


def _flag(body: EntityBody, field: str) -> bool:
    return body.get(field) is True


def _optional_flag(body: EntityBody, field: str) -> bool | None:
    value = body.get(field)
    return value if isinstance(value, bool) else None


def _milliseconds(body: EntityBody, field: str, default: int) -> Duration:
    whole = _whole(body, field, default)
    return Duration(seconds=whole // 1000, nanos=whole % 1000 * 1_000_000)


def _seconds(body: EntityBody, field: str, default: float) -> Duration:
    return _duration(_number(body, field, default))


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * 1_000_000_000)
    return Duration(seconds=nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _texts(value: JsonValue) -> list[str] | None:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else None


def _record(value: JsonValue) -> EntityBody:
    return value if isinstance(value, dict) else {}


def _foreign(body: EntityBody, field: str) -> str:
    value = body.get(field)
    return _text(value, "id") if isinstance(value, dict) else ""


def _headers(value: JsonValue) -> list[wire.HeaderCondition] | None:
    if not isinstance(value, dict):
        return None
    # By name: the order of an object's keys means nothing, and the bytes must not depend on it.
    return [wire.HeaderCondition(name=name, values=_texts(values)) for name, values in sorted(value.items())]


def _peers(value: JsonValue) -> list[wire.Peer] | None:
    return list(_each_peer(value)) if isinstance(value, list) else None


def _each_peer(value: list[JsonValue]) -> Iterator[wire.Peer]:
    for item in value:
        peer = _record(item)
        yield wire.Peer(ip=_text(peer, "ip"), port=_optional_whole(peer, "port"))
