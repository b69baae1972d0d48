import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HealthState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HEALTH_STATE_UNSPECIFIED: _ClassVar[HealthState]
    HEALTH_STATE_HEALTHY: _ClassVar[HealthState]
    HEALTH_STATE_UNHEALTHY: _ClassVar[HealthState]
    HEALTH_STATE_OFF: _ClassVar[HealthState]

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_STREAM: _ClassVar[Origin]
    ORIGIN_DISK: _ClassVar[Origin]

class Stage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STAGE_UNSPECIFIED: _ClassVar[Stage]
    STAGE_PULL: _ClassVar[Stage]
    STAGE_VERIFY: _ClassVar[Stage]
    STAGE_DECODE: _ClassVar[Stage]
    STAGE_BUILD: _ClassVar[Stage]
    STAGE_ACTIVATE: _ClassVar[Stage]

class VoteKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VOTE_KIND_UNSPECIFIED: _ClassVar[VoteKind]
    VOTE_KIND_READY: _ClassVar[VoteKind]
    VOTE_KIND_READY_WARN: _ClassVar[VoteKind]
    VOTE_KIND_REFUSE: _ClassVar[VoteKind]
HEALTH_STATE_UNSPECIFIED: HealthState
HEALTH_STATE_HEALTHY: HealthState
HEALTH_STATE_UNHEALTHY: HealthState
HEALTH_STATE_OFF: HealthState
ORIGIN_UNSPECIFIED: Origin
ORIGIN_STREAM: Origin
ORIGIN_DISK: Origin
STAGE_UNSPECIFIED: Stage
STAGE_PULL: Stage
STAGE_VERIFY: Stage
STAGE_DECODE: Stage
STAGE_BUILD: Stage
STAGE_ACTIVATE: Stage
VOTE_KIND_UNSPECIFIED: VoteKind
VOTE_KIND_READY: VoteKind
VOTE_KIND_READY_WARN: VoteKind
VOTE_KIND_REFUSE: VoteKind

class EnrollRequest(_message.Message):
    __slots__ = ("token", "node_id", "request_der", "hostname")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DER_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    token: str
    node_id: str
    request_der: bytes
    hostname: str
    def __init__(self, token: _Optional[str] = ..., node_id: _Optional[str] = ..., request_der: _Optional[bytes] = ..., hostname: _Optional[str] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("request_der",)
    REQUEST_DER_FIELD_NUMBER: _ClassVar[int]
    request_der: bytes
    def __init__(self, request_der: _Optional[bytes] = ...) -> None: ...

class NodeCertificate(_message.Message):
    __slots__ = ("chain_pem", "trusted_pem", "life")
    CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    TRUSTED_PEM_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    chain_pem: bytes
    trusted_pem: bytes
    life: _duration_pb2.Duration
    def __init__(self, chain_pem: _Optional[bytes] = ..., trusted_pem: _Optional[bytes] = ..., life: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Trust(_message.Message):
    __slots__ = ("trusted_pem", "renew", "within")
    TRUSTED_PEM_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    WITHIN_FIELD_NUMBER: _ClassVar[int]
    trusted_pem: bytes
    renew: bool
    within: _duration_pb2.Duration
    def __init__(self, trusted_pem: _Optional[bytes] = ..., renew: _Optional[bool] = ..., within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("trusts", "issuer")
    TRUSTS_FIELD_NUMBER: _ClassVar[int]
    ISSUER_FIELD_NUMBER: _ClassVar[int]
    trusts: _containers.RepeatedScalarFieldContainer[str]
    issuer: str
    def __init__(self, trusts: _Optional[_Iterable[str]] = ..., issuer: _Optional[str] = ...) -> None: ...

class SnapshotRef(_message.Message):
    __slots__ = ("epoch", "version", "snapshot_hash")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_HASH_FIELD_NUMBER: _ClassVar[int]
    epoch: bytes
    version: int
    snapshot_hash: bytes
    def __init__(self, epoch: _Optional[bytes] = ..., version: _Optional[int] = ..., snapshot_hash: _Optional[bytes] = ...) -> None: ...

class NodeMessage(_message.Message):
    __slots__ = ("hello", "beat", "applied", "rejected", "leaving", "health", "trace", "delta_unusable", "vote", "rollout_activated", "sides", "standing")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    LEAVING_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    DELTA_UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    VOTE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ACTIVATED_FIELD_NUMBER: _ClassVar[int]
    SIDES_FIELD_NUMBER: _ClassVar[int]
    STANDING_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    beat: Beat
    applied: Applied
    rejected: Rejected
    leaving: Leaving
    health: HealthReport
    trace: TraceAnswer
    delta_unusable: DeltaUnusable
    vote: RolloutVote
    rollout_activated: RolloutActivated
    sides: SideReport
    standing: Standing
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., applied: _Optional[_Union[Applied, _Mapping]] = ..., rejected: _Optional[_Union[Rejected, _Mapping]] = ..., leaving: _Optional[_Union[Leaving, _Mapping]] = ..., health: _Optional[_Union[HealthReport, _Mapping]] = ..., trace: _Optional[_Union[TraceAnswer, _Mapping]] = ..., delta_unusable: _Optional[_Union[DeltaUnusable, _Mapping]] = ..., vote: _Optional[_Union[RolloutVote, _Mapping]] = ..., rollout_activated: _Optional[_Union[RolloutActivated, _Mapping]] = ..., sides: _Optional[_Union[SideReport, _Mapping]] = ..., standing: _Optional[_Union[Standing, _Mapping]] = ...) -> None: ...

class PlaneMessage(_message.Message):
    __slots__ = ("welcome", "offer", "beat_ack", "goodbye", "health_request", "fleet_health", "trace_request", "delta", "rollout_prepare", "rollout_activate", "rollout_abort", "trust")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    BEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    HEALTH_REQUEST_FIELD_NUMBER: _ClassVar[int]
    FLEET_HEALTH_FIELD_NUMBER: _ClassVar[int]
    TRACE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_PREPARE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ACTIVATE_FIELD_NUMBER: _ClassVar[int]
    ROLLOUT_ABORT_FIELD_NUMBER: _ClassVar[int]
    TRUST_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    offer: Offer
    beat_ack: BeatAck
    goodbye: Goodbye
    health_request: HealthRequest
    fleet_health: FleetHealth
    trace_request: TraceRequest
    delta: Delta
    rollout_prepare: RolloutPrepare
    rollout_activate: RolloutActivate
    rollout_abort: RolloutAbort
    trust: Trust
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., offer: _Optional[_Union[Offer, _Mapping]] = ..., beat_ack: _Optional[_Union[BeatAck, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ..., health_request: _Optional[_Union[HealthRequest, _Mapping]] = ..., fleet_health: _Optional[_Union[FleetHealth, _Mapping]] = ..., trace_request: _Optional[_Union[TraceRequest, _Mapping]] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., rollout_prepare: _Optional[_Union[RolloutPrepare, _Mapping]] = ..., rollout_activate: _Optional[_Union[RolloutActivate, _Mapping]] = ..., rollout_abort: _Optional[_Union[RolloutAbort, _Mapping]] = ..., trust: _Optional[_Union[Trust, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("node_id", "hostname", "software", "protocol_min", "protocol_max", "schema_level", "labels", "running", "boot_id", "snapshot_bytes_max", "workers", "proxy_addresses", "status_address")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    HOSTNAME_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MIN_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_MAX_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_LEVEL_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    BOOT_ID_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    PROXY_ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    STATUS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    node_id: str
    hostname: str
    software: str
    protocol_min: int
    protocol_max: int
    schema_level: int
    labels: _containers.ScalarMap[str, str]
    running: SnapshotRef
    boot_id: int
    snapshot_bytes_max: int
    workers: int
    proxy_addresses: _containers.RepeatedScalarFieldContainer[str]
    status_address: str
    def __init__(self, node_id: _Optional[str] = ..., hostname: _Optional[str] = ..., software: _Optional[str] = ..., protocol_min: _Optional[int] = ..., protocol_max: _Optional[int] = ..., schema_level: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., running: _Optional[_Union[SnapshotRef, _Mapping]] = ..., boot_id: _Optional[int] = ..., snapshot_bytes_max: _Optional[int] = ..., workers: _Optional[int] = ..., proxy_addresses: _Optional[_Iterable[str]] = ..., status_address: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "schema_level", "plane_id", "beat_interval", "head", "min_ready_version")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_LEVEL_FIELD_NUMBER: _ClassVar[int]
    PLANE_ID_FIELD_NUMBER: _ClassVar[int]
    BEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    MIN_READY_VERSION_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    schema_level: int
    plane_id: str
    beat_interval: _duration_pb2.Duration
    head: SnapshotRef
    min_ready_version: int
    def __init__(self, protocol: _Optional[int] = ..., schema_level: _Optional[int] = ..., plane_id: _Optional[str] = ..., beat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., head: _Optional[_Union[SnapshotRef, _Mapping]] = ..., min_ready_version: _Optional[int] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("sequence", "running", "in_flight", "health_digest", "loads", "clock_error_us")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    HEALTH_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LOADS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_ERROR_US_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    running: SnapshotRef
    in_flight: int
    health_digest: int
    loads: _containers.RepeatedCompositeFieldContainer[UpstreamLoad]
    clock_error_us: int
    def __init__(self, sequence: _Optional[int] = ..., running: _Optional[_Union[SnapshotRef, _Mapping]] = ..., in_flight: _Optional[int] = ..., health_digest: _Optional[int] = ..., loads: _Optional[_Iterable[_Union[UpstreamLoad, _Mapping]]] = ..., clock_error_us: _Optional[int] = ...) -> None: ...

class UpstreamLoad(_message.Message):
    __slots__ = ("upstream", "target", "in_flight")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    target: str
    in_flight: int
    def __init__(self, upstream: _Optional[str] = ..., target: _Optional[str] = ..., in_flight: _Optional[int] = ...) -> None: ...

class HealthReport(_message.Message):
    __slots__ = ("full", "targets", "digest")
    FULL_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    full: bool
    targets: _containers.RepeatedCompositeFieldContainer[TargetHealth]
    digest: int
    def __init__(self, full: _Optional[bool] = ..., targets: _Optional[_Iterable[_Union[TargetHealth, _Mapping]]] = ..., digest: _Optional[int] = ...) -> None: ...

class TargetHealth(_message.Message):
    __slots__ = ("upstream", "target", "removed", "error", "record_type", "addresses")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RECORD_TYPE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    target: str
    removed: bool
    error: str
    record_type: str
    addresses: _containers.RepeatedCompositeFieldContainer[AddressHealth]
    def __init__(self, upstream: _Optional[str] = ..., target: _Optional[str] = ..., removed: _Optional[bool] = ..., error: _Optional[str] = ..., record_type: _Optional[str] = ..., addresses: _Optional[_Iterable[_Union[AddressHealth, _Mapping]]] = ...) -> None: ...

class AddressHealth(_message.Message):
    __slots__ = ("ip", "port", "weight", "state", "since", "reason")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ip: str
    port: int
    weight: int
    state: HealthState
    since: int
    reason: str
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ..., weight: _Optional[int] = ..., state: _Optional[_Union[HealthState, str]] = ..., since: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class HealthRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FleetHealth(_message.Message):
    __slots__ = ("targets", "probers")
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    PROBERS_FIELD_NUMBER: _ClassVar[int]
    targets: _containers.RepeatedCompositeFieldContainer[TargetHealth]
    probers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, targets: _Optional[_Iterable[_Union[TargetHealth, _Mapping]]] = ..., probers: _Optional[_Iterable[str]] = ...) -> None: ...

class BeatAck(_message.Message):
    __slots__ = ("sequence", "head", "plane_received_ns", "plane_sent_ns")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    PLANE_RECEIVED_NS_FIELD_NUMBER: _ClassVar[int]
    PLANE_SENT_NS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    head: SnapshotRef
    plane_received_ns: int
    plane_sent_ns: int
    def __init__(self, sequence: _Optional[int] = ..., head: _Optional[_Union[SnapshotRef, _Mapping]] = ..., plane_received_ns: _Optional[int] = ..., plane_sent_ns: _Optional[int] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("snapshot", "raw_bytes", "packed_bytes", "packed_sha256", "pieces", "entities")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKED_SHA256_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    snapshot: SnapshotRef
    raw_bytes: int
    packed_bytes: int
    packed_sha256: bytes
    pieces: int
    entities: int
    def __init__(self, snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., raw_bytes: _Optional[int] = ..., packed_bytes: _Optional[int] = ..., packed_sha256: _Optional[bytes] = ..., pieces: _Optional[int] = ..., entities: _Optional[int] = ...) -> None: ...

class Delta(_message.Message):
    __slots__ = ("base", "snapshot", "raw_bytes", "packed", "entities")
    BASE_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    base: SnapshotRef
    snapshot: SnapshotRef
    raw_bytes: int
    packed: bytes
    entities: int
    def __init__(self, base: _Optional[_Union[SnapshotRef, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., raw_bytes: _Optional[int] = ..., packed: _Optional[bytes] = ..., entities: _Optional[int] = ...) -> None: ...

class DeltaBody(_message.Message):
    __slots__ = ("upserts", "deletes")
    UPSERTS_FIELD_NUMBER: _ClassVar[int]
    DELETES_FIELD_NUMBER: _ClassVar[int]
    upserts: _containers.RepeatedScalarFieldContainer[bytes]
    deletes: _containers.RepeatedCompositeFieldContainer[EntityKey]
    def __init__(self, upserts: _Optional[_Iterable[bytes]] = ..., deletes: _Optional[_Iterable[_Union[EntityKey, _Mapping]]] = ...) -> None: ...

class EntityKey(_message.Message):
    __slots__ = ("collection", "id")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ...) -> None: ...

class DeltaUnusable(_message.Message):
    __slots__ = ("snapshot", "running", "code", "message")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    snapshot: SnapshotRef
    running: SnapshotRef
    code: str
    message: str
    def __init__(self, snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., running: _Optional[_Union[SnapshotRef, _Mapping]] = ..., code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("snapshot", "from_piece", "bucket_hashes")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    FROM_PIECE_FIELD_NUMBER: _ClassVar[int]
    BUCKET_HASHES_FIELD_NUMBER: _ClassVar[int]
    snapshot: SnapshotRef
    from_piece: int
    bucket_hashes: bytes
    def __init__(self, snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., from_piece: _Optional[int] = ..., bucket_hashes: _Optional[bytes] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("index", "total", "data", "repair")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REPAIR_FIELD_NUMBER: _ClassVar[int]
    index: int
    total: int
    data: bytes
    repair: Repair
    def __init__(self, index: _Optional[int] = ..., total: _Optional[int] = ..., data: _Optional[bytes] = ..., repair: _Optional[_Union[Repair, _Mapping]] = ...) -> None: ...

class Repair(_message.Message):
    __slots__ = ("raw_bytes", "packed_bytes", "packed_sha256", "entities", "buckets")
    RAW_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKED_SHA256_FIELD_NUMBER: _ClassVar[int]
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    BUCKETS_FIELD_NUMBER: _ClassVar[int]
    raw_bytes: int
    packed_bytes: int
    packed_sha256: bytes
    entities: int
    buckets: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, raw_bytes: _Optional[int] = ..., packed_bytes: _Optional[int] = ..., packed_sha256: _Optional[bytes] = ..., entities: _Optional[int] = ..., buckets: _Optional[_Iterable[int]] = ...) -> None: ...

class SnapshotBody(_message.Message):
    __slots__ = ("entities",)
    ENTITIES_FIELD_NUMBER: _ClassVar[int]
    entities: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, entities: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Applied(_message.Message):
    __slots__ = ("snapshot", "took", "origin")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    snapshot: SnapshotRef
    took: _duration_pb2.Duration
    origin: Origin
    def __init__(self, snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., origin: _Optional[_Union[Origin, str]] = ...) -> None: ...

class Rejected(_message.Message):
    __slots__ = ("snapshot", "stage", "faults", "running")
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    snapshot: SnapshotRef
    stage: Stage
    faults: _containers.RepeatedCompositeFieldContainer[Fault]
    running: SnapshotRef
    def __init__(self, snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., stage: _Optional[_Union[Stage, str]] = ..., faults: _Optional[_Iterable[_Union[Fault, _Mapping]]] = ..., running: _Optional[_Union[SnapshotRef, _Mapping]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("code", "collection", "entity_id", "entity_name", "field", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    ENTITY_NAME_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    collection: str
    entity_id: str
    entity_name: str
    field: str
    message: str
    def __init__(self, code: _Optional[str] = ..., collection: _Optional[str] = ..., entity_id: _Optional[str] = ..., entity_name: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Leaving(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason", "reconnect_min", "reconnect_max", "permanent")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_MIN_FIELD_NUMBER: _ClassVar[int]
    RECONNECT_MAX_FIELD_NUMBER: _ClassVar[int]
    PERMANENT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    reconnect_min: _duration_pb2.Duration
    reconnect_max: _duration_pb2.Duration
    permanent: bool
    def __init__(self, reason: _Optional[str] = ..., reconnect_min: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reconnect_max: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., permanent: _Optional[bool] = ...) -> None: ...

class TraceRequest(_message.Message):
    __slots__ = ("id", "method", "scheme", "target", "port", "sni", "headers")
    ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SCHEME_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    SNI_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    id: int
    method: str
    scheme: str
    target: bytes
    port: int
    sni: str
    headers: _containers.RepeatedCompositeFieldContainer[TraceHeader]
    def __init__(self, id: _Optional[int] = ..., method: _Optional[str] = ..., scheme: _Optional[str] = ..., target: _Optional[bytes] = ..., port: _Optional[int] = ..., sni: _Optional[str] = ..., headers: _Optional[_Iterable[_Union[TraceHeader, _Mapping]]] = ...) -> None: ...

class TraceHeader(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...

class TraceAnswer(_message.Message):
    __slots__ = ("id", "error", "version", "status", "message", "route", "path", "matched_path", "captures", "near", "routes", "upstream")
    class CapturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    MATCHED_PATH_FIELD_NUMBER: _ClassVar[int]
    CAPTURES_FIELD_NUMBER: _ClassVar[int]
    NEAR_FIELD_NUMBER: _ClassVar[int]
    ROUTES_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: str
    version: int
    status: int
    message: str
    route: TraceRoute
    path: str
    matched_path: str
    captures: _containers.ScalarMap[str, str]
    near: _containers.RepeatedCompositeFieldContainer[TraceNear]
    routes: int
    upstream: TraceUpstream
    def __init__(self, id: _Optional[int] = ..., error: _Optional[str] = ..., version: _Optional[int] = ..., status: _Optional[int] = ..., message: _Optional[str] = ..., route: _Optional[_Union[TraceRoute, _Mapping]] = ..., path: _Optional[str] = ..., matched_path: _Optional[str] = ..., captures: _Optional[_Mapping[str, str]] = ..., near: _Optional[_Iterable[_Union[TraceNear, _Mapping]]] = ..., routes: _Optional[int] = ..., upstream: _Optional[_Union[TraceUpstream, _Mapping]] = ...) -> None: ...

class TraceRoute(_message.Message):
    __slots__ = ("id", "name", "service_id", "service_name")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SERVICE_ID_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    id: str
    name: str
    service_id: str
    service_name: str
    def __init__(self, id: _Optional[str] = ..., name: _Optional[str] = ..., service_id: _Optional[str] = ..., service_name: _Optional[str] = ...) -> None: ...

class TraceNear(_message.Message):
    __slots__ = ("route", "failures", "outranked")
    ROUTE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    OUTRANKED_FIELD_NUMBER: _ClassVar[int]
    route: TraceRoute
    failures: _containers.RepeatedCompositeFieldContainer[TraceFailure]
    outranked: str
    def __init__(self, route: _Optional[_Union[TraceRoute, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[TraceFailure, _Mapping]]] = ..., outranked: _Optional[str] = ...) -> None: ...

class TraceFailure(_message.Message):
    __slots__ = ("field", "wants", "has")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    WANTS_FIELD_NUMBER: _ClassVar[int]
    HAS_FIELD_NUMBER: _ClassVar[int]
    field: str
    wants: str
    has: str
    def __init__(self, field: _Optional[str] = ..., wants: _Optional[str] = ..., has: _Optional[str] = ...) -> None: ...

class TraceUpstream(_message.Message):
    __slots__ = ("method", "protocol", "path", "host", "name", "endpoints", "endpoints_total", "error")
    METHOD_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_FIELD_NUMBER: _ClassVar[int]
    ENDPOINTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    method: str
    protocol: str
    path: str
    host: str
    name: str
    endpoints: _containers.RepeatedCompositeFieldContainer[TraceEndpoint]
    endpoints_total: int
    error: str
    def __init__(self, method: _Optional[str] = ..., protocol: _Optional[str] = ..., path: _Optional[str] = ..., host: _Optional[str] = ..., name: _Optional[str] = ..., endpoints: _Optional[_Iterable[_Union[TraceEndpoint, _Mapping]]] = ..., endpoints_total: _Optional[int] = ..., error: _Optional[str] = ...) -> None: ...

class TraceEndpoint(_message.Message):
    __slots__ = ("ip", "port", "host", "weight", "available", "in_flight", "host_sent")
    IP_FIELD_NUMBER: _ClassVar[int]
    PORT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    HOST_SENT_FIELD_NUMBER: _ClassVar[int]
    ip: str
    port: int
    host: str
    weight: int
    available: bool
    in_flight: int
    host_sent: str
    def __init__(self, ip: _Optional[str] = ..., port: _Optional[int] = ..., host: _Optional[str] = ..., weight: _Optional[int] = ..., available: _Optional[bool] = ..., in_flight: _Optional[int] = ..., host_sent: _Optional[str] = ...) -> None: ...

class RolloutPrepare(_message.Message):
    __slots__ = ("rollout", "round", "delta", "vote_within", "hold", "upstreams", "connections_per_target", "nodes", "warm")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    DELTA_FIELD_NUMBER: _ClassVar[int]
    VOTE_WITHIN_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_PER_TARGET_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    WARM_FIELD_NUMBER: _ClassVar[int]
    rollout: int
    round: int
    delta: Delta
    vote_within: _duration_pb2.Duration
    hold: _duration_pb2.Duration
    upstreams: _containers.RepeatedScalarFieldContainer[str]
    connections_per_target: int
    nodes: int
    warm: bool
    def __init__(self, rollout: _Optional[int] = ..., round: _Optional[int] = ..., delta: _Optional[_Union[Delta, _Mapping]] = ..., vote_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., hold: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., upstreams: _Optional[_Iterable[str]] = ..., connections_per_target: _Optional[int] = ..., nodes: _Optional[int] = ..., warm: _Optional[bool] = ...) -> None: ...

class RolloutVote(_message.Message):
    __slots__ = ("rollout", "round", "kind", "took", "faults", "upstreams", "clock_error_us", "workers")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TOOK_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    UPSTREAMS_FIELD_NUMBER: _ClassVar[int]
    CLOCK_ERROR_US_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    rollout: int
    round: int
    kind: VoteKind
    took: _duration_pb2.Duration
    faults: _containers.RepeatedCompositeFieldContainer[Fault]
    upstreams: _containers.RepeatedCompositeFieldContainer[UpstreamCheck]
    clock_error_us: int
    workers: int
    def __init__(self, rollout: _Optional[int] = ..., round: _Optional[int] = ..., kind: _Optional[_Union[VoteKind, str]] = ..., took: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., faults: _Optional[_Iterable[_Union[Fault, _Mapping]]] = ..., upstreams: _Optional[_Iterable[_Union[UpstreamCheck, _Mapping]]] = ..., clock_error_us: _Optional[int] = ..., workers: _Optional[int] = ...) -> None: ...

class UpstreamCheck(_message.Message):
    __slots__ = ("upstream", "targets", "healthy", "connections", "failures")
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    TARGETS_FIELD_NUMBER: _ClassVar[int]
    HEALTHY_FIELD_NUMBER: _ClassVar[int]
    CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    upstream: str
    targets: int
    healthy: int
    connections: int
    failures: _containers.RepeatedCompositeFieldContainer[TargetCheck]
    def __init__(self, upstream: _Optional[str] = ..., targets: _Optional[int] = ..., healthy: _Optional[int] = ..., connections: _Optional[int] = ..., failures: _Optional[_Iterable[_Union[TargetCheck, _Mapping]]] = ...) -> None: ...

class TargetCheck(_message.Message):
    __slots__ = ("target", "address", "error")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    target: str
    address: str
    error: str
    def __init__(self, target: _Optional[str] = ..., address: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class RolloutActivate(_message.Message):
    __slots__ = ("rollout", "snapshot", "at_plane_ns")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    AT_PLANE_NS_FIELD_NUMBER: _ClassVar[int]
    rollout: int
    snapshot: SnapshotRef
    at_plane_ns: int
    def __init__(self, rollout: _Optional[int] = ..., snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., at_plane_ns: _Optional[int] = ...) -> None: ...

class RolloutAbort(_message.Message):
    __slots__ = ("rollout", "reason")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    rollout: int
    reason: str
    def __init__(self, rollout: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class RolloutActivated(_message.Message):
    __slots__ = ("rollout", "snapshot", "at_plane_ns", "late_us", "clock_error_us", "fault", "ahead_us")
    ROLLOUT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    AT_PLANE_NS_FIELD_NUMBER: _ClassVar[int]
    LATE_US_FIELD_NUMBER: _ClassVar[int]
    CLOCK_ERROR_US_FIELD_NUMBER: _ClassVar[int]
    FAULT_FIELD_NUMBER: _ClassVar[int]
    AHEAD_US_FIELD_NUMBER: _ClassVar[int]
    rollout: int
    snapshot: SnapshotRef
    at_plane_ns: int
    late_us: _containers.RepeatedScalarFieldContainer[int]
    clock_error_us: int
    fault: Fault
    ahead_us: int
    def __init__(self, rollout: _Optional[int] = ..., snapshot: _Optional[_Union[SnapshotRef, _Mapping]] = ..., at_plane_ns: _Optional[int] = ..., late_us: _Optional[_Iterable[int]] = ..., clock_error_us: _Optional[int] = ..., fault: _Optional[_Union[Fault, _Mapping]] = ..., ahead_us: _Optional[int] = ...) -> None: ...

class SideReport(_message.Message):
    __slots__ = ("since", "full", "sides", "omitted")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    FULL_FIELD_NUMBER: _ClassVar[int]
    SIDES_FIELD_NUMBER: _ClassVar[int]
    OMITTED_FIELD_NUMBER: _ClassVar[int]
    since: int
    full: bool
    sides: _containers.RepeatedCompositeFieldContainer[SideSums]
    omitted: int
    def __init__(self, since: _Optional[int] = ..., full: _Optional[bool] = ..., sides: _Optional[_Iterable[_Union[SideSums, _Mapping]]] = ..., omitted: _Optional[int] = ...) -> None: ...

class SideSums(_message.Message):
    __slots__ = ("service", "upstream", "requests", "errors_5xx", "connect_errors", "latency", "open", "mirror", "closed_late", "watched", "service_name", "upstream_name", "first_answer_ns", "last_answer_ns")
    SERVICE_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    ERRORS_5XX_FIELD_NUMBER: _ClassVar[int]
    CONNECT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    MIRROR_FIELD_NUMBER: _ClassVar[int]
    CLOSED_LATE_FIELD_NUMBER: _ClassVar[int]
    WATCHED_FIELD_NUMBER: _ClassVar[int]
    SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    UPSTREAM_NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_ANSWER_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_ANSWER_NS_FIELD_NUMBER: _ClassVar[int]
    service: str
    upstream: str
    requests: int
    errors_5xx: int
    connect_errors: int
    latency: _containers.RepeatedScalarFieldContainer[int]
    open: int
    mirror: MirrorSums
    closed_late: int
    watched: bool
    service_name: str
    upstream_name: str
    first_answer_ns: int
    last_answer_ns: int
    def __init__(self, service: _Optional[str] = ..., upstream: _Optional[str] = ..., requests: _Optional[int] = ..., errors_5xx: _Optional[int] = ..., connect_errors: _Optional[int] = ..., latency: _Optional[_Iterable[int]] = ..., open: _Optional[int] = ..., mirror: _Optional[_Union[MirrorSums, _Mapping]] = ..., closed_late: _Optional[int] = ..., watched: _Optional[bool] = ..., service_name: _Optional[str] = ..., upstream_name: _Optional[str] = ..., first_answer_ns: _Optional[int] = ..., last_answer_ns: _Optional[int] = ...) -> None: ...

class MirrorSums(_message.Message):
    __slots__ = ("sent", "errors_5xx", "failed", "skipped")
    SENT_FIELD_NUMBER: _ClassVar[int]
    ERRORS_5XX_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    sent: int
    errors_5xx: int
    failed: int
    skipped: int
    def __init__(self, sent: _Optional[int] = ..., errors_5xx: _Optional[int] = ..., failed: _Optional[int] = ..., skipped: _Optional[int] = ...) -> None: ...
