"""Upstreams, their targets, and our own settings off the wire: what the node process and its workers both read.

Both must make the same endpoints of the same entities, or a verdict would name one that no worker has; and neither may
import the other's rooms, so this stands beside both.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from data_plane.model import (
    ActiveCheck,
    HeaderCondition,
    Healthchecks,
    ManualHealth,
    Mirror,
    PassiveCheck,
    Preview,
    ProbeSampling,
    ServiceSettings,
    Split,
    Sticky,
    TargetConfig,
    Thresholds,
    UpstreamConfig,
    UpstreamSettings,
)
from pointsman.wire.v1 import config_pb2 as wire

_SAMPLING = {
    wire.PROBE_SAMPLING_ON: ProbeSampling.ON,
    wire.PROBE_SAMPLING_OFF: ProbeSampling.OFF,
}


def seconds(duration: Duration) -> float:
    """A duration as the floats used everywhere here."""
    return duration.seconds + duration.nanos / 1e9


def target_config(target: wire.Target) -> TargetConfig:
    """The target; raises ValueError when its text is not `host:port`."""
    host, colon, port = target.target.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) <= 65535:
        raise ValueError(f"{target.target!r} is not of the form host:port")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return TargetConfig(
        id=target.id,
        upstream=target.upstream,
        host=host,
        port=int(port),
        weight=target.weight,
        failover=target.failover,
    )


def upstream_config(upstream: wire.Upstream) -> UpstreamConfig:
    """The upstream, defaults filled in."""
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
        sticky_sessions_cookie=upstream.sticky_sessions_cookie,
        sticky_sessions_cookie_path=upstream.sticky_sessions_cookie_path or "/",
    )


def upstream_settings(settings: wire.UpstreamSettings) -> UpstreamSettings:
    """The settings; a way of sampling that a later version brought is left to the control plane."""
    return UpstreamSettings(
        id=settings.id,
        slow_start_s=seconds(settings.slow_start),
        probe_sampling=_SAMPLING.get(settings.probe_sampling, ProbeSampling.AUTO),
        manual_health=tuple(
            ManualHealth(word.target, word.ip, word.port, word.healthy, word.until) for word in settings.manual_health
        ),
    )


def service_settings(settings: wire.ServiceSettings) -> ServiceSettings:
    """The settings of a service."""
    split, preview, mirror = settings.split, settings.preview, settings.mirror
    return ServiceSettings(
        settings.id,
        fence_after_s=seconds(settings.fence_after) if settings.HasField("fence_after") else None,
        split=Split(
            split.to,
            split.share,
            Sticky(split.sticky.on, split.sticky.name) if split.HasField("sticky") else None,
        )
        if settings.HasField("split")
        else None,
        preview=Preview(preview.to, preview.header, preview.cookie, preview.value)
        if settings.HasField("preview")
        else None,
        mirror=Mirror(mirror.to, mirror.share) if settings.HasField("mirror") else None,
        drain_deadline_s=seconds(settings.drain_deadline) if settings.HasField("drain_deadline") else None,
    )


def _healthchecks(checks: wire.Healthchecks) -> Healthchecks:
    active, passive = checks.active, checks.passive
    return Healthchecks(
        threshold=checks.threshold,
        active=ActiveCheck(
            type=active.type or "http",
            timeout_s=seconds(active.timeout),
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
        interval_s=seconds(thresholds.interval),
        http_statuses=frozenset(thresholds.http_statuses),
        successes=thresholds.successes,
        tcp_failures=thresholds.tcp_failures,
        timeouts=thresholds.timeouts,
        http_failures=thresholds.http_failures,
    )
