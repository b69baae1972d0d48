"""Every field of an entity reaches the wire, and null is what Kong takes it for at run time."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.snapshot.encode import ENCODERS, Unencodable, encode
from pointsman.wire.v1 import config_pb2 as wire
from tests.unit.control_plane.snapshot.bodies import entity, identity

SINGULAR = {
    "services": "service",
    "routes": "route",
    "upstreams": "upstream",
    "targets": "target",
    "upstream_settings": "upstream_settings",
    "service_settings": "service_settings",
    "certificates": "certificate",
    "snis": "sni",
    "ca_certificates": "ca_certificate",
}
NOT_FOR_NODES = {"tags", "updated_at", "enabled", "former_weights", "cert_digest"}


NOT_SENT = {
    "consumers", "keyauth_credentials", "basicauth_credentials", "hmacauth_credentials", "jwt_secrets", "acls",
    "oauth2_credentials", "plugins",
}  # fmt: skip
"""Nothing on a node asks who the consumer is, and a credential that travels for nothing is one more that can leak."""


def decoded(collection: str, body: EntityBody) -> Message:
    message = wire.Entity.FromString(encode(collection, body))
    assert message.WhichOneof("kind") == SINGULAR[collection]
    inner = getattr(message, SINGULAR[collection])
    assert isinstance(inner, Message)
    return inner


def test_every_collection_is_encoded() -> None:
    """A collection that joins later is encoded, or left out on purpose here."""
    assert set(ENCODERS) == set(STORED) - NOT_SENT


@pytest.mark.parametrize("collection", sorted(ENCODERS))
def test_every_field_has_its_place_on_the_wire(collection: str) -> None:
    fields = set(decoded(collection, entity(collection)).DESCRIPTOR.fields_by_name)
    expected = set(STORED[collection].fields) - NOT_FOR_NODES
    if collection != "routes":
        expected -= {"created_at"}
    if collection == "upstream_settings":
        expected -= {"upstream"}  # its id is the upstream's
    if collection == "service_settings":
        expected -= {"service", "partition", "fence_after_s"}
        expected |= {"fence_after"}  # the policy and its time as one
    if collection == "certificates":
        expected -= {"snis"}  # entities of their own
    assert fields == expected


def test_settings_of_a_service() -> None:
    fenced = decoded("service_settings", entity("service_settings", partition="fence", fence_after_s=1.5))
    assert isinstance(fenced, wire.ServiceSettings)
    assert (fenced.id, fenced.fence_after.seconds, fenced.fence_after.nanos) == (fenced.id, 1, 500_000_000)
    stale = decoded("service_settings", entity("service_settings", fence_after_s=1.5))
    assert isinstance(stale, wire.ServiceSettings)
    assert not stale.HasField("fence_after")


def test_sides_of_a_service() -> None:
    green, blue = identity("upstreams", 1), identity("upstreams", 2)
    settings = decoded(
        "service_settings",
        entity(
            "service_settings",
            split={"to": green, "share": 500, "sticky": {"on": "header", "name": "x-user"}},
            preview={"to": green, "cookie": "preview", "value": "1"},
            mirror={"to": blue, "share": 10000},
            drain_deadline=0.5,
        ),
    )
    assert isinstance(settings, wire.ServiceSettings)
    assert settings.split == wire.Split(to=green, share=500, sticky=wire.Sticky(on="header", name="x-user"))
    assert settings.preview == wire.Preview(to=green, cookie="preview", value="1")
    assert settings.mirror == wire.Mirror(to=blue, share=10000)
    assert settings.drain_deadline.nanos == 500_000_000
    none = decoded("service_settings", entity("service_settings", split={"to": green, "share": 0}))
    assert isinstance(none, wire.ServiceSettings)
    assert none.HasField("split")
    assert not none.split.HasField("sticky")
    assert not any(none.HasField(name) for name in ("preview", "mirror", "drain_deadline"))


def test_a_service() -> None:
    service = decoded(
        "services",
        entity(
            "services", name="s", protocol="https", host="blue", port=8443, path="/a%20b", retries=3,
            connect_timeout=1, write_timeout=1500, read_timeout=2147483646, tls_verify=False, tls_verify_depth=0,
            ca_certificates=[identity("services", 9)], client_certificate={"id": identity("services", 8)},
        ),
    )  # fmt: skip
    assert isinstance(service, wire.Service)
    assert (service.id, service.name, service.protocol, service.host) == (identity("services", 1), "s", "https", "blue")
    assert (service.port, service.path, service.retries) == (8443, "/a%20b", 3)
    assert (service.connect_timeout.seconds, service.connect_timeout.nanos) == (0, 1_000_000)
    assert (service.write_timeout.seconds, service.write_timeout.nanos) == (1, 500_000_000)
    assert (service.read_timeout.seconds, service.read_timeout.nanos) == (2147483, 646_000_000)
    assert service.HasField("tls_verify")
    assert not service.tls_verify
    assert service.HasField("tls_verify_depth")
    assert service.tls_verify_depth == 0
    assert list(service.ca_certificates) == [identity("services", 9)]
    assert service.client_certificate == identity("services", 8)


def test_null_travels_as_what_it_means() -> None:
    service = decoded(
        "services",
        entity("services", name=None, retries=None, connect_timeout=None, write_timeout=None, read_timeout=None),
    )
    assert isinstance(service, wire.Service)
    assert (service.name, service.path, service.retries) == ("", "", 5)
    assert (service.connect_timeout.seconds, service.write_timeout.seconds, service.read_timeout.seconds) == (60,) * 3
    assert not service.HasField("tls_verify")
    assert not service.HasField("tls_verify_depth")
    upstream = decoded("upstreams", entity("upstreams", slots=None))
    assert isinstance(upstream, wire.Upstream)
    assert upstream.slots == 10000
    target = decoded("targets", entity("targets", weight=None))
    assert isinstance(target, wire.Target)
    assert target.weight == 100


def test_zero_is_not_null() -> None:
    service, target = (
        decoded("services", entity("services", retries=0)),
        decoded("targets", entity("targets", weight=0)),
    )
    assert isinstance(service, wire.Service)
    assert isinstance(target, wire.Target)
    assert (service.retries, target.weight) == (0, 0)


def test_a_route() -> None:
    route = decoded(
        "routes",
        entity(
            "routes", name="r", protocols=["https"], methods=["GET"], hosts=["*.x", "y"], paths=["/a", "~/b$"],
            headers={"x-b": ["2", "1"], "X-A": ["~*v"]}, snis=["z"], https_redirect_status_code=301,
            regex_priority=-5, strip_path=False, path_handling="v1", preserve_host=True, request_buffering=False,
            response_buffering=False, service={"id": identity("services", 1)}, created_at=77, tags=["t"],
        ),
    )  # fmt: skip
    assert isinstance(route, wire.Route)
    assert (list(route.protocols), list(route.methods), list(route.hosts)) == (["https"], ["GET"], ["*.x", "y"])
    assert (list(route.paths), list(route.snis)) == (["/a", "~/b$"], ["z"])
    assert [(header.name, list(header.values)) for header in route.headers] == [("X-A", ["~*v"]), ("x-b", ["2", "1"])]
    assert (route.https_redirect_status_code, route.regex_priority, route.path_handling) == (301, -5, "v1")
    assert (route.strip_path, route.preserve_host, route.request_buffering, route.response_buffering) == (
        False,
        True,
        False,
        False,
    )
    assert (route.service, route.created_at) == (identity("services", 1), 77)


def test_a_stream_routes_peers() -> None:
    sources: JsonValue = [{"ip": "10.0.0.0/8"}, {"port": 0}, {"ip": "::1", "port": 9}]
    route = decoded("routes", entity("routes", paths=None, protocols=["tcp"], sources=sources))
    assert isinstance(route, wire.Route)
    assert [(peer.ip, peer.port if peer.HasField("port") else None) for peer in route.sources] == [
        ("10.0.0.0/8", None),
        ("", 0),
        ("::1", 9),
    ]


def test_an_upstreams_health_checks() -> None:
    checks: JsonValue = {
        "threshold": 12.5,
        "active": {
            "type": "https",
            "timeout": 0.25,
            "headers": {"x": ["y"]},
            "https_sni": "s",
            "healthy": {"interval": 1.5, "successes": 2, "http_statuses": [204]},
        },
        "passive": {"unhealthy": {"tcp_failures": 3, "timeouts": 4, "http_failures": 5}},
    }
    upstream = decoded("upstreams", entity("upstreams", healthchecks=checks, use_srv_name=True, host_header="h"))
    assert isinstance(upstream, wire.Upstream)
    active, passive = upstream.healthchecks.active, upstream.healthchecks.passive
    assert (upstream.healthchecks.threshold, upstream.use_srv_name, upstream.host_header) == (12.5, True, "h")
    assert (active.type, active.timeout.nanos, active.concurrency, active.https_sni) == ("https", 250_000_000, 10, "s")
    assert active.https_verify_certificate
    assert [(header.name, list(header.values)) for header in active.headers] == [("x", ["y"])]
    assert (active.healthy.interval.seconds, active.healthy.interval.nanos) == (1, 500_000_000)
    assert (active.healthy.successes, list(active.healthy.http_statuses)) == (2, [204])
    assert list(active.unhealthy.http_statuses) == [429, 404, 500, 501, 502, 503, 504, 505]
    assert (passive.unhealthy.tcp_failures, passive.unhealthy.timeouts, passive.unhealthy.http_failures) == (3, 4, 5)
    assert len(passive.healthy.http_statuses) == 19


def test_an_empty_list_of_statuses_stays_empty() -> None:
    checks: JsonValue = {"passive": {"unhealthy": {"http_statuses": []}}}
    upstream = decoded("upstreams", entity("upstreams", healthchecks=checks))
    assert isinstance(upstream, wire.Upstream)
    assert list(upstream.healthchecks.passive.unhealthy.http_statuses) == []


def test_equal_content_gives_equal_bytes() -> None:
    body = entity("routes", headers={"b": ["1"], "a": ["2"]}, tags=["x"])
    turned = dict(reversed(body.items()))
    turned["headers"] = {"a": ["2"], "b": ["1"]}
    assert encode("routes", turned) == encode("routes", body)
    assert encode("routes", {**body, "tags": None, "updated_at": 9}) == encode("routes", body)


@pytest.mark.parametrize(
    ("collection", "field", "value"),
    [("routes", "regex_priority", 2**63), ("services", "path", "/\ud800"), ("services", "retries", -1)],
)
def test_what_does_not_fit_names_its_field(collection: str, field: str, value: JsonValue) -> None:
    with pytest.raises(Unencodable) as caught:
        encode(collection, {**entity(collection), field: value})
    assert caught.value.field == field


def test_settings_of_an_upstream() -> None:
    target = identity("targets", 1)
    words: list[JsonValue] = [
        {"target": target, "healthy": False},
        {"target": target, "address": "[2001:db8::1]:80", "healthy": True, "until": 1_800_000_000},
    ]
    settings = decoded(
        "upstream_settings", entity("upstream_settings", slow_start=2.5, probe_sampling="on", manual_health=words)
    )
    assert isinstance(settings, wire.UpstreamSettings)
    assert (settings.slow_start.seconds, settings.slow_start.nanos) == (2, 500_000_000)
    assert settings.probe_sampling == wire.PROBE_SAMPLING_ON
    first, second = settings.manual_health
    assert (first.target, first.ip, first.port, first.healthy, first.until) == (target, "", 0, False, 0)
    assert (second.ip, second.port, second.healthy, second.until) == ("2001:db8::1", 80, True, 1_800_000_000)


def test_sticky_sessions_and_failover() -> None:
    upstream = decoded("upstreams", entity("upstreams", algorithm="sticky-sessions", sticky_sessions_cookie="sid"))
    assert isinstance(upstream, wire.Upstream)
    assert (upstream.algorithm, upstream.hash_on) == ("sticky-sessions", "none")
    assert (upstream.sticky_sessions_cookie, upstream.sticky_sessions_cookie_path) == ("sid", "")
    target = decoded("targets", entity("targets", failover=True))
    assert isinstance(target, wire.Target)
    assert target.failover
