"""Entity bytes to the plain values of `data_plane/model.py`: the one door through which the wire comes in.

An entity this worker does not know is refused, not skipped: serving a config with a part missing would send requests
elsewhere than the operator said.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from google.protobuf.message import DecodeError

from data_plane.kinds import COLLECTIONS
from data_plane.model import (
    CaCertificateConfig,
    CertificateConfig,
    HeaderCondition,
    PeerCondition,
    RouteConfig,
    ServiceConfig,
    ServiceSettings,
    SniConfig,
    TargetConfig,
    UpstreamConfig,
    UpstreamSettings,
)
from data_plane.pools import seconds, service_settings, target_config, upstream_config, upstream_settings
from data_plane.worker.faults import BAD_VALUE, UNDECODABLE, UNKNOWN_ENTITY, BuildFault
from data_plane.worker.pieces import Pieces
from pointsman.wire.v1 import config_pb2 as wire

EntityConfig = (
    ServiceConfig
    | RouteConfig
    | UpstreamConfig
    | TargetConfig
    | UpstreamSettings
    | ServiceSettings
    | CertificateConfig
    | SniConfig
    | CaCertificateConfig
)


class Undecodable(Exception):
    """An entity that cannot become a value; `fault` says which and why."""

    def __init__(self, fault: BuildFault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def decode(data: bytes) -> EntityConfig:
    """The entity in `data`; raises Undecodable."""
    quick = _BY_PIECES.get(data[:1])
    if quick is not None and (known := quick(data)) is not None:
        return known
    return decode_whole(data)


def decode_whole(data: bytes) -> EntityConfig:
    """The entity in `data`, as protobuf reads it; raises Undecodable."""
    try:
        entity = wire.Entity.FromString(data)
    except DecodeError:
        raise Undecodable(BuildFault(UNDECODABLE, "the entity's bytes are not a valid message")) from None
    kind = entity.WhichOneof("kind")
    decoder = DECODERS.get(kind) if kind is not None else None
    if kind is None or decoder is None:
        raise Undecodable(
            BuildFault(
                UNKNOWN_ENTITY, "this node does not know this kind of entity; it needs a newer version of the software"
            )
        )
    config = decoder(getattr(entity, kind))
    if not config.id:
        raise Undecodable(BuildFault(BAD_VALUE, "the entity has no id", collection=COLLECTIONS[kind], field="id"))
    return config


def _tag(kind: str) -> bytes:
    """What an `Entity` of that kind begins with."""
    return bytes((wire.Entity.DESCRIPTOR.fields_by_name[kind].number << 3 | 2,))


def _sni(sni: wire.Sni) -> SniConfig:
    return SniConfig(sni.id, sni.name.lower().removesuffix("."), sni.certificate)


def _ca_certificate(certificate: wire.CaCertificate) -> CaCertificateConfig:
    return CaCertificateConfig(certificate.id, certificate.cert)


def _certificate(certificate: wire.Certificate) -> CertificateConfig:
    return CertificateConfig(
        id=certificate.id,
        cert=certificate.cert,
        key=certificate.key,
        cert_alt=certificate.cert_alt,
        key_alt=certificate.key_alt,
    )


@lru_cache(maxsize=4096)
def _shared(values: tuple[str, ...]) -> tuple[str, ...]:
    """One tuple for all routes that say the same: most say `http, https`."""
    return values


# Routes and services come by the ten thousand. Two things make them cheap: a list of the wire is asked whether there is
# anything in it before it is sliced, and values are given by position, in the order of the fields.


def _route(route: wire.Route) -> RouteConfig:
    protocols, methods, hosts, paths = route.protocols, route.methods, route.hosts, route.paths
    headers, snis, sources, destinations = route.headers, route.snis, route.sources, route.destinations
    return RouteConfig(
        route.id,
        route.name,
        _shared(tuple(protocols[:])) if protocols else (),
        _shared(tuple(methods[:])) if methods else (),
        tuple(hosts[:]) if hosts else (),
        tuple(paths[:]) if paths else (),
        tuple(HeaderCondition(header.name, tuple(header.values)) for header in headers) if headers else (),
        # As the handshake's name is: names of the DNS know no case.
        tuple(name.lower() for name in snis) if snis else (),
        tuple(_peer(peer) for peer in sources) if sources else (),
        tuple(_peer(peer) for peer in destinations) if destinations else (),
        route.https_redirect_status_code or 426,
        route.regex_priority,
        route.strip_path,
        "v1" if route.path_handling == "v1" else "v0",
        route.preserve_host,
        route.request_buffering,
        route.response_buffering,
        route.service,
        route.created_at,
    )


def _peer(peer: wire.Peer) -> PeerCondition:
    return PeerCondition(peer.ip or None, peer.port if peer.HasField("port") else None)


def _service(service: wire.Service) -> ServiceConfig:
    authorities = service.ca_certificates
    return ServiceConfig(
        service.id,
        service.name,
        service.protocol or "http",
        service.host,
        service.port or 80,
        service.path,
        service.retries,
        seconds(service.connect_timeout),
        seconds(service.write_timeout),
        seconds(service.read_timeout),
        service.tls_verify if service.HasField("tls_verify") else None,
        service.tls_verify_depth if service.HasField("tls_verify_depth") else None,
        tuple(authorities[:]) if authorities else (),
        service.client_certificate,
    )


def _target(target: wire.Target) -> TargetConfig:
    try:
        return target_config(target)
    except ValueError as error:
        raise Undecodable(
            BuildFault(
                BAD_VALUE,
                str(error),
                collection="targets",
                entity_id=target.id,
                entity_name=target.target,
                field="target",
            )
        ) from None


DECODERS: dict[str, Callable[[Any], EntityConfig]] = {
    "service": _service,
    "route": _route,
    "upstream": upstream_config,
    "target": _target,
    "upstream_settings": upstream_settings,
    "service_settings": service_settings,
    "certificate": _certificate,
    "sni": _sni,
    "ca_certificate": _ca_certificate,
}
_pieces = Pieces(route=_route, service=_service)
_BY_PIECES: dict[bytes, Callable[[bytes], EntityConfig | None]] = {
    _tag("route"): _pieces.route,
    _tag("service"): _pieces.service,
}
assert DECODERS.keys() == COLLECTIONS.keys(), "every kind that a node lets in can be decoded"
