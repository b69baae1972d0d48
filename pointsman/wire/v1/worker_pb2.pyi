from pointsman.wire.v1 import fleet_pb2 as _fleet_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ObservationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBSERVATION_UNSPECIFIED: _ClassVar[ObservationKind]
    OBSERVATION_STATUS: _ClassVar[ObservationKind]
    OBSERVATION_TCP_FAILURE: _ClassVar[ObservationKind]
    OBSERVATION_TIMEOUT: _ClassVar[ObservationKind]
OBSERVATION_UNSPECIFIED: ObservationKind
OBSERVATION_STATUS: ObservationKind
OBSERVATION_TCP_FAILURE: ObservationKind
OBSERVATION_TIMEOUT: ObservationKind

class ToWorker(_message.Message):
    __slots__ = ("stage_begin", "stage_part", "stage_end", "activate", "discard", "names", "drain", "counters_request", "availability", "trace_request", "reopen_logs", "warm", "default_pairs", "fences")
    STAGE_BEGIN_FIELD_NUMBER: _ClassVar[int]
    STAGE_PART_FIELD_NUMBER: _ClassVar[int]
    STAGE_END_FIELD_NUMBER: _ClassVar[int]
    ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_REQUEST_FIELD_NUMBER: _ClassVar[int]
    AVAILABILITY_FIELD_NUMBER: _ClassVar[int]
    TRACE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    REOPEN_LOGS_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_PAIRS_FIELD_NUMBER: _ClassVar[int]
    FENCES_FIELD_NUMBER: _ClassVar[int]
    stage_begin: StageBegin
    stage_part: StagePart
    stage_end: StageEnd
    activate: Activate
    discard: Discard
    names: Names
    drain: Drain
    counters_request: CountersRequest
    availability: Availability
    trace_request: _fleet_pb2.TraceRequest
    reopen_logs: ReopenLogs
    warm: Warm
    default_pairs: DefaultPairs
    fences: Fences
    def __init__(self, stage_begin: _Optional[_Union[StageBegin, _Mapping]] = ..., stage_part: _Optional[_Union[StagePart, _Mapping]] = ..., stage_end: _Optional[_Union[StageEnd, _Mapping]] = ..., activate: _Optional[_Union[Activate, _Mapping]] = ..., discard: _Optional[_Union[Discard, _Mapping]] = ..., names: _Optional[_Union[Names, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., counters_request: _Optional[_Union[CountersRequest, _Mapping]] = ..., availability: _Optional[_Union[Availability, _Mapping]] = ..., trace_request: _Optional[_Union[_fleet_pb2.TraceRequest, _Mapping]] = ..., reopen_logs: _Optional[_Union[ReopenLogs, _Mapping]] = ..., warm: _Optional[_Union[Warm, _Mapping]] = ..., default_pairs: _Optional[_Union[DefaultPairs, _Mapping]] = ..., fences: _Optional[_Union[Fences, _Mapping]] = ...) -> None: ...

class StageBegin(_message.Message):
    __slots__ = ("snapshot", "base_version")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    BASE_VERSION_FIELD_NUMBER: _ClassVar[int]
    snapshot: _fleet_pb2.SnapshotRef
    base_version: int
    def __init__(self, snapshot: _Optional[_Union[_fleet_pb2.SnapshotRef, _Mapping]] = ..., base_version: _Optional[int] = ...) -> None: ...

class StagePart(_message.Message):
    __slots__ = ("upserts", "deletes")
    UPSERTS_FIELD_NUMBER: _ClassVar[int]
    DELETES_FIELD_NUMBER: _ClassVar[int]
    upserts: _containers.RepeatedScalarFieldContainer[bytes]
    deletes: _containers.RepeatedCompositeFieldContainer[_fleet_pb2.EntityKey]
    def __init__(self, upserts: _Optional[_Iterable[bytes]] = ..., deletes: _Optional[_Iterable[_Union[_fleet_pb2.EntityKey, _Mapping]]] = ...) -> None: ...

class StageEnd(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Activate(_message.Message):
    __slots__ = ("version", "at_monotonic_ns")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_MONOTONIC_NS_FIELD_NUMBER: _ClassVar[int]
    version: int
    at_monotonic_ns: int
    def __init__(self, version: _Optional[int] = ..., at_monotonic_ns: _Optional[int] = ...) -> None: ...

class Discard(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class Names(_message.Message):
    __slots__ = ("answers",)
    ANSWERS_FIELD_NUMBER: _ClassVar[int]
    answers: _containers.RepeatedCompositeFieldContainer[NameAnswer]
    def __init__(self, answers: _Optional[_Iterable[_Union[NameAnswer, _Mapping]]] = ...) -> None: ...

class NameAnswer(_message.Message):
    __slots__ = ("name", "records", "error", "unsteady")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    UNSTEADY_FIELD_NUMBER: _ClassVar[int]
    name: str
    records: _containers.RepeatedCompositeFieldContainer[NameRecord]
    error: str
    unsteady: bool
    def __init__(self, name: _Optional[str] = ..., records: _Optional[_Iterable[_Union[NameRecord, _Mapping]]] = ..., error: _Optional[str] = ..., unsteady: _Optional[bool] = ...) -> None: ...

class NameRecord(_message.Message):
    __slots__ = ("ip", "port", "weight", "name")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ip: str
    port: int
    weight: int
    name: str
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ..., weight: _Optional[int] = ..., name: _Optional[str] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("accept_for_ms", "finish_within_ms")
    ACCEPT_FOR_MS_FIELD_NUMBER: _ClassVar[int]
    FINISH_WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    accept_for_ms: int
    finish_within_ms: int
    def __init__(self, accept_for_ms: _Optional[int] = ..., finish_within_ms: _Optional[int] = ...) -> None: ...

class Fences(_message.Message):
    __slots__ = ("services",)
    SERVICES_FIELD_NUMBER: _ClassVar[int]
    services: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, services: _Optional[_Iterable[str]] = ...) -> None: ...

class CountersRequest(_message.Message):
    __slots__ = ("sequence", "traffic", "sides")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    SIDES_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    traffic: bool
    sides: bool
    def __init__(self, sequence: _Optional[int] = ..., traffic: _Optional[bool] = ..., sides: _Optional[bool] = ...) -> None: ...

class ReopenLogs(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DefaultPairs(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: _containers.RepeatedCompositeFieldContainer[KeyPair]
    def __init__(self, pairs: _Optional[_Iterable[_Union[KeyPair, _Mapping]]] = ...) -> None: ...

class KeyPair(_message.Message):
    __slots__ = ("certificate", "key")
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    certificate: str
    key: str
    def __init__(self, certificate: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class FromWorker(_message.Message):
    __slots__ = ("started", "prepared", "refused", "activated", "counters", "drained", "observations", "trace", "traffic", "warmed", "sides")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    DRAINED_FIELD_NUMBER: _ClassVar[int]
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_FIELD_NUMBER: _ClassVar[int]
    WARMED_FIELD_NUMBER: _ClassVar[int]
    SIDES_FIELD_NUMBER: _ClassVar[int]
    started: Started
    prepared: Prepared
    refused: Refused
    activated: Activated
    counters: Counters
    drained: Drained
    observations: Observations
    trace: _fleet_pb2.TraceAnswer
    traffic: Traffic
    warmed: Warmed
    sides: SidesCounted
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., prepared: _Optional[_Union[Prepared, _Mapping]] = ..., refused: _Optional[_Union[Refused, _Mapping]] = ..., activated: _Optional[_Union[Activated, _Mapping]] = ..., counters: _Optional[_Union[Counters, _Mapping]] = ..., drained: _Optional[_Union[Drained, _Mapping]] = ..., observations: _Optional[_Union[Observations, _Mapping]] = ..., trace: _Optional[_Union[_fleet_pb2.TraceAnswer, _Mapping]] = ..., traffic: _Optional[_Union[Traffic, _Mapping]] = ..., warmed: _Optional[_Union[Warmed, _Mapping]] = ..., sides: _Optional[_Union[SidesCounted, _Mapping]] = ...) -> None: ...

class Availability(_message.Message):
    __slots__ = ("verdicts", "whole")
    VERDICTS_FIELD_NUMBER: _ClassVar[int]
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    verdicts: _containers.RepeatedCompositeFieldContainer[EndpointVerdict]
    whole: bool
    def __init__(self, verdicts: _Optional[_Iterable[_Union[EndpointVerdict, _Mapping]]] = ..., whole: _Optional[bool] = ...) -> None: ...

class EndpointVerdict(_message.Message):
    __slots__ = ("endpoint", "available")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    endpoint: EndpointId
    available: bool
    def __init__(self, endpoint: _Optional[_Union[EndpointId, _Mapping]] = ..., available: _Optional[bool] = ...) -> None: ...

class EndpointId(_message.Message):
    __slots__ = ("upstream", "key")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    key: str
    def __init__(self, upstream: _Optional[str] = ..., key: _Optional[str] = ...) -> None: ...

class Observations(_message.Message):
    __slots__ = ("observations",)
    OBSERVATIONS_FIELD_NUMBER: _ClassVar[int]
    observations: _containers.RepeatedCompositeFieldContainer[Observation]
    def __init__(self, observations: _Optional[_Iterable[_Union[Observation, _Mapping]]] = ...) -> None: ...

class Observation(_message.Message):
    __slots__ = ("endpoint", "kind", "status", "count")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    endpoint: EndpointId
    kind: ObservationKind
    status: int
    count: int
    def __init__(self, endpoint: _Optional[_Union[EndpointId, _Mapping]] = ..., kind: _Optional[_Union[ObservationKind, str]] = ..., status: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("pid",)
    PID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    def __init__(self, pid: _Optional[int] = ...) -> None: ...

class Prepared(_message.Message):
    __slots__ = ("version", "took_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TOOK_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    took_ms: int
    def __init__(self, version: _Optional[int] = ..., took_ms: _Optional[int] = ...) -> None: ...

class Refused(_message.Message):
    __slots__ = ("version", "faults")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    faults: _containers.RepeatedCompositeFieldContainer[_fleet_pb2.Fault]
    def __init__(self, version: _Optional[int] = ..., faults: _Optional[_Iterable[_Union[_fleet_pb2.Fault, _Mapping]]] = ...) -> None: ...

class Activated(_message.Message):
    __slots__ = ("version", "at_monotonic_ns", "late_us", "ahead_us")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    AT_MONOTONIC_NS_FIELD_NUMBER: _ClassVar[int]
    LATE_US_FIELD_NUMBER: _ClassVar[int]
    AHEAD_US_FIELD_NUMBER: _ClassVar[int]
    version: int
    at_monotonic_ns: int
    late_us: int
    ahead_us: int
    def __init__(self, version: _Optional[int] = ..., at_monotonic_ns: _Optional[int] = ..., late_us: _Optional[int] = ..., ahead_us: _Optional[int] = ...) -> None: ...

class Counters(_message.Message):
    __slots__ = ("sequence", "requests", "connections_accepted", "connections_active", "in_flight", "version", "rss_bytes", "loads", "requests_malformed", "attempts_failed", "retries", "errors_internal", "upstream_connections_open", "upstream_connections_opened", "upstream_connections_reused", "folded", "log_lines", "log_lines_dropped", "connections_reading")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_ACTIVE_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    RSS_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_MALFORMED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FAILED_FIELD_NUMBER: _ClassVar[int]
    RETRIES_FIELD_NUMBER: _ClassVar[int]
    ERRORS_INTERNAL_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_CONNECTIONS_OPEN_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_CONNECTIONS_OPENED_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_CONNECTIONS_REUSED_FIELD_NUMBER: _ClassVar[int]
    FOLDED_FIELD_NUMBER: _ClassVar[int]
    LOG_LINES_FIELD_NUMBER: _ClassVar[int]
    LOG_LINES_DROPPED_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_READING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    requests: int
    connections_accepted: int
    connections_active: int
    in_flight: int
    version: int
    rss_bytes: int
    loads: _containers.RepeatedCompositeFieldContainer[EndpointLoad]
    requests_malformed: int
    attempts_failed: int
    retries: int
    errors_internal: int
    upstream_connections_open: int
    upstream_connections_opened: int
    upstream_connections_reused: int
    folded: int
    log_lines: int
    log_lines_dropped: int
    connections_reading: int
    def __init__(self, sequence: _Optional[int] = ..., requests: _Optional[int] = ..., connections_accepted: _Optional[int] = ..., connections_active: _Optional[int] = ..., in_flight: _Optional[int] = ..., version: _Optional[int] = ..., rss_bytes: _Optional[int] = ..., loads: _Optional[_Iterable[_Union[EndpointLoad, _Mapping]]] = ..., requests_malformed: _Optional[int] = ..., attempts_failed: _Optional[int] = ..., retries: _Optional[int] = ..., errors_internal: _Optional[int] = ..., upstream_connections_open: _Optional[int] = ..., upstream_connections_opened: _Optional[int] = ..., upstream_connections_reused: _Optional[int] = ..., folded: _Optional[int] = ..., log_lines: _Optional[int] = ..., log_lines_dropped: _Optional[int] = ..., connections_reading: _Optional[int] = ...) -> None: ...

class Traffic(_message.Message):
    __slots__ = ("routes",)
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    routes: _containers.RepeatedCompositeFieldContainer[RouteTraffic]
    def __init__(self, routes: _Optional[_Iterable[_Union[RouteTraffic, _Mapping]]] = ...) -> None: ...

class RouteTraffic(_message.Message):
    __slots__ = ("service", "route", "codes", "counts", "kong_ms", "upstream_ms", "request_ms", "kong_s", "upstream_s", "request_s", "bytes_in", "bytes_out")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    CODES_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    KONG_MS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_MS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_MS_FIELD_NUMBER: _ClassVar[int]
    KONG_S_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_S_FIELD_NUMBER: _ClassVar[int]
    REQUEST_S_FIELD_NUMBER: _ClassVar[int]
    BYTES_IN_FIELD_NUMBER: _ClassVar[int]
    BYTES_OUT_FIELD_NUMBER: _ClassVar[int]
    service: str
    route: str
    codes: _containers.RepeatedScalarFieldContainer[int]
    counts: _containers.RepeatedScalarFieldContainer[int]
    kong_ms: _containers.RepeatedScalarFieldContainer[int]
    upstream_ms: _containers.RepeatedScalarFieldContainer[int]
    request_ms: _containers.RepeatedScalarFieldContainer[int]
    kong_s: float
    upstream_s: float
    request_s: float
    bytes_in: int
    bytes_out: int
    def __init__(self, service: _Optional[str] = ..., route: _Optional[str] = ..., codes: _Optional[_Iterable[int]] = ..., counts: _Optional[_Iterable[int]] = ..., kong_ms: _Optional[_Iterable[int]] = ..., upstream_ms: _Optional[_Iterable[int]] = ..., request_ms: _Optional[_Iterable[int]] = ..., kong_s: _Optional[float] = ..., upstream_s: _Optional[float] = ..., request_s: _Optional[float] = ..., bytes_in: _Optional[int] = ..., bytes_out: _Optional[int] = ...) -> None: ...

class SidesCounted(_message.Message):
    __slots__ = ("sides",)
    SIDES_FIELD_NUMBER: _ClassVar[int]
    sides: _containers.RepeatedCompositeFieldContainer[_fleet_pb2.SideSums]
    def __init__(self, sides: _Optional[_Iterable[_Union[_fleet_pb2.SideSums, _Mapping]]] = ...) -> None: ...

class EndpointLoad(_message.Message):
    __slots__ = ("endpoint", "in_flight")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    endpoint: EndpointId
    in_flight: int
    def __init__(self, endpoint: _Optional[_Union[EndpointId, _Mapping]] = ..., in_flight: _Optional[int] = ...) -> None: ...

class Warm(_message.Message):
    __slots__ = ("version", "upstreams", "connections", "within_ms")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    WITHIN_MS_FIELD_NUMBER: _ClassVar[int]
    version: int
    upstreams: _containers.RepeatedScalarFieldContainer[str]
    connections: int
    within_ms: int
    def __init__(self, version: _Optional[int] = ..., upstreams: _Optional[_Iterable[str]] = ..., connections: _Optional[int] = ..., within_ms: _Optional[int] = ...) -> None: ...

class Warmed(_message.Message):
    __slots__ = ("version", "endpoints")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    version: int
    endpoints: _containers.RepeatedCompositeFieldContainer[WarmedEndpoint]
    def __init__(self, version: _Optional[int] = ..., endpoints: _Optional[_Iterable[_Union[WarmedEndpoint, _Mapping]]] = ...) -> None: ...

class WarmedEndpoint(_message.Message):
    __slots__ = ("endpoint", "idle", "error")
    ENDPOINT_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    endpoint: EndpointId
    idle: int
    error: str
    def __init__(self, endpoint: _Optional[_Union[EndpointId, _Mapping]] = ..., idle: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class Drained(_message.Message):
    __slots__ = ("cut",)
    CUT_FIELD_NUMBER: _ClassVar[int]
    cut: int
    def __init__(self, cut: _Optional[int] = ...) -> None: ...
