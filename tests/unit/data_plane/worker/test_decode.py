from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from data_plane.model import HeaderCondition, PeerCondition, RouteConfig, ServiceConfig, TargetConfig, UpstreamConfig
from data_plane.worker.decode import EntityConfig, Undecodable, decode
from pointsman.wire.v1 import config_pb2 as wire


def test_a_service_keeps_what_is_unset_apart_from_what_is_false() -> None:
    service = wire.Service(
        id="s",
        name="n",
        protocol="https",
        host="blue",
        port=443,
        path="/p",
        retries=2,
        connect_timeout=Duration(seconds=1, nanos=500_000_000),
        write_timeout=Duration(seconds=60),
        read_timeout=Duration(nanos=1_000_000),
        tls_verify=False,
    )
    assert decode(wire.Entity(service=service).SerializeToString()) == ServiceConfig(
        id="s",
        name="n",
        protocol="https",
        host="blue",
        port=443,
        path="/p",
        retries=2,
        connect_timeout_s=1.5,
        write_timeout_s=60.0,
        read_timeout_s=0.001,
        tls_verify=False,
    )


def test_a_route_is_what_the_operator_wrote() -> None:
    route = wire.Route(
        id="r",
        protocols=["http"],
        methods=["GET"],
        hosts=["a.test"],
        paths=["/x", "~/y"],
        headers=[wire.HeaderCondition(name="x-a", values=["1", "2"])],
        sources=[wire.Peer(ip="10.0.0.0/8"), wire.Peer(port=0)],
        snis=["*.B.test"],
        regex_priority=-3,
        strip_path=True,
        service="s",
    )
    assert decode(wire.Entity(route=route).SerializeToString()) == RouteConfig(
        id="r",
        protocols=("http",),
        methods=("GET",),
        hosts=("a.test",),
        paths=("/x", "~/y"),
        headers=(HeaderCondition("x-a", ("1", "2")),),
        sources=(PeerCondition("10.0.0.0/8", None), PeerCondition(None, 0)),
        snis=("*.b.test",),
        regex_priority=-3,
        strip_path=True,
        service="s",
        request_buffering=False,
        response_buffering=False,
    )


def test_an_upstream_gets_the_defaults_of_what_it_does_not_say() -> None:
    config = decode(wire.Entity(upstream=wire.Upstream(id="u", name="blue")).SerializeToString())
    assert isinstance(config, UpstreamConfig)
    assert (config.algorithm, config.slots, config.hash_on) == ("round-robin", 10000, "none")


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("blue.test:8000", "blue.test", 8000),
        ("[0000:0000:0000:0000:0000:0000:0000:0001]:80", "0000:0000:0000:0000:0000:0000:0000:0001", 80),
    ],
)
def test_a_target_is_host_and_port(text: str, host: str, port: int) -> None:
    target = wire.Target(id="t", upstream="u", target=text, weight=0)
    assert decode(wire.Entity(target=target).SerializeToString()) == TargetConfig("t", "u", host, port, 0)


@pytest.mark.parametrize(
    ("data", "code", "field"),
    [
        (b"", "UNKNOWN_ENTITY", ""),
        (b"\x4a\x00", "UNKNOWN_ENTITY", ""),  # kind 9 of a later schema
        (b"\x0a\xff", "UNDECODABLE", ""),
        (wire.Entity(target=wire.Target(id="t", target="nowhere")).SerializeToString(), "BAD_VALUE", "target"),
        (wire.Entity(target=wire.Target(id="t", target="a:0")).SerializeToString(), "BAD_VALUE", "target"),
        (wire.Entity(service=wire.Service(name="n")).SerializeToString(), "BAD_VALUE", "id"),
    ],
)
def test_what_cannot_be_a_value_is_refused_with_its_reason(data: bytes, code: str, field: str) -> None:
    with pytest.raises(Undecodable) as refusal:
        _: EntityConfig = decode(data)
    assert (refusal.value.fault.code, refusal.value.fault.field) == (code, field)
