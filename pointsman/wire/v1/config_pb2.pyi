import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProbeSampling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROBE_SAMPLING_AUTO: _ClassVar[ProbeSampling]
    PROBE_SAMPLING_ON: _ClassVar[ProbeSampling]
    PROBE_SAMPLING_OFF: _ClassVar[ProbeSampling]
PROBE_SAMPLING_AUTO: ProbeSampling
PROBE_SAMPLING_ON: ProbeSampling
PROBE_SAMPLING_OFF: ProbeSampling

class Entity(_message.Message):
    __slots__ = ("service", "route", "upstream", "target", "certificate", "sni", "ca_certificate", "upstream_settings", "service_settings")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    SNI_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    SERVICE_SETTINGS_FIELD_NUMBER: _ClassVar[int]
    service: Service
    route: Route
    upstream: Upstream
    target: Target
    certificate: Certificate
    sni: Sni
    ca_certificate: CaCertificate
    upstream_settings: UpstreamSettings
    service_settings: ServiceSettings
    def __init__(self, service: _Optional[_Union[Service, _Mapping]] = ..., route: _Optional[_Union[Route, _Mapping]] = ..., upstream: _Optional[_Union[Upstream, _Mapping]] = ..., target: _Optional[_Union[Target, _Mapping]] = ..., certificate: _Optional[_Union[Certificate, _Mapping]] = ..., sni: _Optional[_Union[Sni, _Mapping]] = ..., ca_certificate: _Optional[_Union[CaCertificate, _Mapping]] = ..., upstream_settings: _Optional[_Union[UpstreamSettings, _Mapping]] = ..., service_settings: _Optional[_Union[ServiceSettings, _Mapping]] = ...) -> None: ...

class Service(_message.Message):
    __slots__ = ("id", "name", "protocol", "host", "port", "path", "retries", "connect_timeout", "write_timeout", "read_timeout", "tls_verify", "tls_verify_depth", "ca_certificates", "client_certificate")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    CONNECT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    WRITE_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    READ_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    TLS_VERIFY_FIELD_NUMBER: _ClassVar[int]
    TLS_VERIFY_DEPTH_FIELD_NUMBER: _ClassVar[int]
    CA_CERTIFICATES_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    protocol: str
    host: str
    port: int
    path: str
    retries: int
    connect_timeout: _duration_pb2.Duration
    write_timeout: _duration_pb2.Duration
    read_timeout: _duration_pb2.Duration
    tls_verify: bool
    tls_verify_depth: int
    ca_certificates: _containers.RepeatedScalarFieldContainer[str]
    client_certificate: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., protocol: _Optional[str] = ..., host: _Optional[str] = ..., port: _Optional[int] = ..., path: _Optional[str] = ..., retries: _Optional[int] = ..., connect_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., write_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., read_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., tls_verify: _Optional[bool] = ..., tls_verify_depth: _Optional[int] = ..., ca_certificates: _Optional[_Iterable[str]] = ..., client_certificate: _Optional[str] = ...) -> None: ...

class Route(_message.Message):
    __slots__ = ("id", "name", "protocols", "methods", "hosts", "paths", "headers", "snis", "sources", "destinations", "https_redirect_status_code", "regex_priority", "strip_path", "path_handling", "preserve_host", "request_buffering", "response_buffering", "service", "created_at")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PROTOCOLS_FIELD_NUMBER: _ClassVar[int]
    METHODS_FIELD_NUMBER: _ClassVar[int]
    HOSTS_FIELD_NUMBER: _ClassVar[int]
    PATHS_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    SNIS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    DESTINATIONS_FIELD_NUMBER: _ClassVar[int]
    HTTPS_REDIRECT_STATUS_CODE_FIELD_NUMBER: _ClassVar[int]
    REGEX_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    STRIP_PATH_FIELD_NUMBER: _ClassVar[int]
    PATH_HANDLING_FIELD_NUMBER: _ClassVar[int]
    PRESERVE_HOST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_BUFFERING_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_BUFFERING_FIELD_NUMBER: _ClassVar[int]
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    CREATED_AT_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    protocols: _containers.RepeatedScalarFieldContainer[str]
    methods: _containers.RepeatedScalarFieldContainer[str]
    hosts: _containers.RepeatedScalarFieldContainer[str]
    paths: _containers.RepeatedScalarFieldContainer[str]
    headers: _containers.RepeatedCompositeFieldContainer[HeaderCondition]
    snis: _containers.RepeatedScalarFieldContainer[str]
    sources: _containers.RepeatedCompositeFieldContainer[Peer]
    destinations: _containers.RepeatedCompositeFieldContainer[Peer]
    https_redirect_status_code: int
    regex_priority: int
    strip_path: bool
    path_handling: str
    preserve_host: bool
    request_buffering: bool
    response_buffering: bool
    service: str
    created_at: int
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., protocols: _Optional[_Iterable[str]] = ..., methods: _Optional[_Iterable[str]] = ..., hosts: _Optional[_Iterable[str]] = ..., paths: _Optional[_Iterable[str]] = ..., headers: _Optional[_Iterable[_Union[HeaderCondition, _Mapping]]] = ..., snis: _Optional[_Iterable[str]] = ..., sources: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., destinations: _Optional[_Iterable[_Union[Peer, _Mapping]]] = ..., https_redirect_status_code: _Optional[int] = ..., regex_priority: _Optional[int] = ..., strip_path: _Optional[bool] = ..., path_handling: _Optional[str] = ..., preserve_host: _Optional[bool] = ..., request_buffering: _Optional[bool] = ..., response_buffering: _Optional[bool] = ..., service: _Optional[str] = ..., created_at: _Optional[int] = ...) -> None: ...

class HeaderCondition(_message.Message):
    __slots__ = ("name", "values")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    name: str
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., values: _Optional[_Iterable[str]] = ...) -> None: ...

class Peer(_message.Message):
    __slots__ = ("ip", "port")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    ip: str
    port: int
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ...) -> None: ...

class Upstream(_message.Message):
    __slots__ = ("id", "name", "algorithm", "hash_on", "hash_fallback", "hash_on_header", "hash_fallback_header", "hash_on_cookie", "hash_on_cookie_path", "hash_on_query_arg", "hash_fallback_query_arg", "hash_on_uri_capture", "hash_fallback_uri_capture", "slots", "host_header", "client_certificate", "use_srv_name", "healthchecks", "sticky_sessions_cookie", "sticky_sessions_cookie_path")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    HASH_ON_FIELD_NUMBER: _ClassVar[int]
    HASH_FALLBACK_FIELD_NUMBER: _ClassVar[int]
    HASH_ON_HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_FALLBACK_HEADER_FIELD_NUMBER: _ClassVar[int]
    HASH_ON_COOKIE_FIELD_NUMBER: _ClassVar[int]
    HASH_ON_COOKIE_PATH_FIELD_NUMBER: _ClassVar[int]
    HASH_ON_QUERY_ARG_FIELD_NUMBER: _ClassVar[int]
    HASH_FALLBACK_QUERY_ARG_FIELD_NUMBER: _ClassVar[int]
    HASH_ON_URI_CAPTURE_FIELD_NUMBER: _ClassVar[int]
    HASH_FALLBACK_URI_CAPTURE_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    HOST_HEADER_FIELD_NUMBER: _ClassVar[int]
    CLIENT_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    USE_SRV_NAME_FIELD_NUMBER: _ClassVar[int]
    HEALTHCHECKS_FIELD_NUMBER: _ClassVar[int]
    STICKY_SESSIONS_COOKIE_FIELD_NUMBER: _ClassVar[int]
    STICKY_SESSIONS_COOKIE_PATH_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    algorithm: str
    hash_on: str
    hash_fallback: str
    hash_on_header: str
    hash_fallback_header: str
    hash_on_cookie: str
    hash_on_cookie_path: str
    hash_on_query_arg: str
    hash_fallback_query_arg: str
    hash_on_uri_capture: str
    hash_fallback_uri_capture: str
    slots: int
    host_header: str
    client_certificate: str
    use_srv_name: bool
    healthchecks: Healthchecks
    sticky_sessions_cookie: str
    sticky_sessions_cookie_path: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., algorithm: _Optional[str] = ..., hash_on: _Optional[str] = ..., hash_fallback: _Optional[str] = ..., hash_on_header: _Optional[str] = ..., hash_fallback_header: _Optional[str] = ..., hash_on_cookie: _Optional[str] = ..., hash_on_cookie_path: _Optional[str] = ..., hash_on_query_arg: _Optional[str] = ..., hash_fallback_query_arg: _Optional[str] = ..., hash_on_uri_capture: _Optional[str] = ..., hash_fallback_uri_capture: _Optional[str] = ..., slots: _Optional[int] = ..., host_header: _Optional[str] = ..., client_certificate: _Optional[str] = ..., use_srv_name: _Optional[bool] = ..., healthchecks: _Optional[_Union[Healthchecks, _Mapping]] = ..., sticky_sessions_cookie: _Optional[str] = ..., sticky_sessions_cookie_path: _Optional[str] = ...) -> None: ...

class Healthchecks(_message.Message):
    __slots__ = ("threshold", "active", "passive")
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    PASSIVE_FIELD_NUMBER: _ClassVar[int]
    threshold: float
    active: ActiveCheck
    passive: PassiveCheck
    def __init__(self, threshold: _Optional[float] = ..., active: _Optional[_Union[ActiveCheck, _Mapping]] = ..., passive: _Optional[_Union[PassiveCheck, _Mapping]] = ...) -> None: ...

class ActiveCheck(_message.Message):
    __slots__ = ("type", "timeout", "concurrency", "http_path", "https_sni", "https_verify_certificate", "headers", "healthy", "unhealthy")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    HTTP_PATH_FIELD_NUMBER: _ClassVar[int]
    HTTPS_SNI_FIELD_NUMBER: _ClassVar[int]
    HTTPS_VERIFY_CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_FIELD_NUMBER: _ClassVar[int]
    type: str
    timeout: _duration_pb2.Duration
    concurrency: int
    http_path: str
    https_sni: str
    https_verify_certificate: bool
    headers: _containers.RepeatedCompositeFieldContainer[HeaderCondition]
    healthy: Thresholds
    unhealthy: Thresholds
    def __init__(self, type: _Optional[str] = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., concurrency: _Optional[int] = ..., http_path: _Optional[str] = ..., https_sni: _Optional[str] = ..., https_verify_certificate: _Optional[bool] = ..., headers: _Optional[_Iterable[_Union[HeaderCondition, _Mapping]]] = ..., healthy: _Optional[_Union[Thresholds, _Mapping]] = ..., unhealthy: _Optional[_Union[Thresholds, _Mapping]] = ...) -> None: ...

class PassiveCheck(_message.Message):
    __slots__ = ("type", "healthy", "unhealthy")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    UNHEALTHY_FIELD_NUMBER: _ClassVar[int]
    type: str
    healthy: Thresholds
    unhealthy: Thresholds
    def __init__(self, type: _Optional[str] = ..., healthy: _Optional[_Union[Thresholds, _Mapping]] = ..., unhealthy: _Optional[_Union[Thresholds, _Mapping]] = ...) -> None: ...

class Thresholds(_message.Message):
    __slots__ = ("interval", "http_statuses", "successes", "tcp_failures", "timeouts", "http_failures")
    INTERVAL_FIELD_NUMBER: _ClassVar[int]
    HTTP_STATUSES_FIELD_NUMBER: _ClassVar[int]
    SUCCESSES_FIELD_NUMBER: _ClassVar[int]
    TCP_FAILURES_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_FIELD_NUMBER: _ClassVar[int]
    HTTP_FAILURES_FIELD_NUMBER: _ClassVar[int]
    interval: _duration_pb2.Duration
    http_statuses: _containers.RepeatedScalarFieldContainer[int]
    successes: int
    tcp_failures: int
    timeouts: int
    http_failures: int
    def __init__(self, interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., http_statuses: _Optional[_Iterable[int]] = ..., successes: _Optional[int] = ..., tcp_failures: _Optional[int] = ..., timeouts: _Optional[int] = ..., http_failures: _Optional[int] = ...) -> None: ...

class Target(_message.Message):
    __slots__ = ("id", "upstream", "target", "weight", "failover")
    ID_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    FAILOVER_FIELD_NUMBER: _ClassVar[int]
    id: str
    upstream: str
    target: str
    weight: int
    failover: bool
    def __init__(self, id: _Optional[str] = ..., upstream: _Optional[str] = ..., target: _Optional[str] = ..., weight: _Optional[int] = ..., failover: _Optional[bool] = ...) -> None: ...

class Certificate(_message.Message):
    __slots__ = ("id", "cert", "key", "cert_alt", "key_alt")
    ID_FIELD_NUMBER: _ClassVar[int]
    CERT_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    CERT_ALT_FIELD_NUMBER: _ClassVar[int]
    KEY_ALT_FIELD_NUMBER: _ClassVar[int]
    id: str
    cert: str
    key: str
    cert_alt: str
    key_alt: str
    def __init__(self, id: _Optional[str] = ..., cert: _Optional[str] = ..., key: _Optional[str] = ..., cert_alt: _Optional[str] = ..., key_alt: _Optional[str] = ...) -> None: ...

class Sni(_message.Message):
    __slots__ = ("id", "name", "certificate")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    certificate: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., certificate: _Optional[str] = ...) -> None: ...

class CaCertificate(_message.Message):
    __slots__ = ("id", "cert")
    ID_FIELD_NUMBER: _ClassVar[int]
    CERT_FIELD_NUMBER: _ClassVar[int]
    id: str
    cert: str
    def __init__(self, id: _Optional[str] = ..., cert: _Optional[str] = ...) -> None: ...

class UpstreamSettings(_message.Message):
    __slots__ = ("id", "slow_start", "probe_sampling", "manual_health")
    ID_FIELD_NUMBER: _ClassVar[int]
    SLOW_START_FIELD_NUMBER: _ClassVar[int]
    PROBE_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MANUAL_HEALTH_FIELD_NUMBER: _ClassVar[int]
    id: str
    slow_start: _duration_pb2.Duration
    probe_sampling: ProbeSampling
    manual_health: _containers.RepeatedCompositeFieldContainer[ManualHealth]
    def __init__(self, id: _Optional[str] = ..., slow_start: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., probe_sampling: _Optional[_Union[ProbeSampling, str]] = ..., manual_health: _Optional[_Iterable[_Union[ManualHealth, _Mapping]]] = ...) -> None: ...

class ManualHealth(_message.Message):
    __slots__ = ("target", "ip", "port", "healthy", "until")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    target: str
    ip: str
    port: int
    healthy: bool
    until: int
    def __init__(self, target: _Optional[str] = ..., ip: _Optional[str] = ..., port: _Optional[int] = ..., healthy: _Optional[bool] = ..., until: _Optional[int] = ...) -> None: ...

class ServiceSettings(_message.Message):
    __slots__ = ("id", "fence_after", "split", "preview", "mirror", "drain_deadline")
    ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_FIELD_NUMBER: _ClassVar[int]
    MIRROR_FIELD_NUMBER: _ClassVar[int]
    DRAIN_DEADLINE_FIELD_NUMBER: _ClassVar[int]
    id: str
    fence_after: _duration_pb2.Duration
    split: Split
    preview: Preview
    mirror: Mirror
    drain_deadline: _duration_pb2.Duration
    def __init__(self, id: _Optional[str] = ..., fence_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., split: _Optional[_Union[Split, _Mapping]] = ..., preview: _Optional[_Union[Preview, _Mapping]] = ..., mirror: _Optional[_Union[Mirror, _Mapping]] = ..., drain_deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Split(_message.Message):
    __slots__ = ("to", "share", "sticky")
    TO_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    STICKY_FIELD_NUMBER: _ClassVar[int]
    to: str
    share: int
    sticky: Sticky
    def __init__(self, to: _Optional[str] = ..., share: _Optional[int] = ..., sticky: _Optional[_Union[Sticky, _Mapping]] = ...) -> None: ...

class Sticky(_message.Message):
    __slots__ = ("on", "name")
    ON_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    on: str
    name: str
    def __init__(self, on: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Preview(_message.Message):
    __slots__ = ("to", "header", "cookie", "value")
    TO_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    COOKIE_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    to: str
    header: str
    cookie: str
    value: str
    def __init__(self, to: _Optional[str] = ..., header: _Optional[str] = ..., cookie: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class Mirror(_message.Message):
    __slots__ = ("to", "share")
    TO_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    to: str
    share: int
    def __init__(self, to: _Optional[str] = ..., share: _Optional[int] = ...) -> None: ...
