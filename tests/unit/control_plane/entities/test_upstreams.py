"""upstream: names, the coupling of algorithm and hash, the rules of hashing, and the tree of health checks."""

from __future__ import annotations

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.entities.schemas import insert, problems, refusal, update

CONDITION = "failed conditional validation given value of field 'hash_on'"
FALLBACK_CONDITION = "failed conditional validation given value of field 'hash_fallback'"


def test_the_defaults() -> None:
    made = insert("upstreams", {"name": "blue"})
    for name in ("id", "created_at", "updated_at"):
        del made[name]

    assert made == {
        "name": "blue",
        "algorithm": "round-robin",
        "hash_on": "none",
        "hash_fallback": "none",
        "hash_on_header": None,
        "hash_fallback_header": None,
        "hash_on_cookie": None,
        "hash_on_cookie_path": "/",
        "hash_on_query_arg": None,
        "hash_fallback_query_arg": None,
        "hash_on_uri_capture": None,
        "hash_fallback_uri_capture": None,
        "slots": 10000,
        "healthchecks": {
            "active": {
                "type": "http",
                "timeout": 1,
                "concurrency": 10,
                "http_path": "/",
                "https_sni": None,
                "https_verify_certificate": True,
                "headers": None,
                "healthy": {"interval": 0, "http_statuses": [200, 302], "successes": 0},
                "unhealthy": {
                    "interval": 0,
                    "http_statuses": [429, 404, 500, 501, 502, 503, 504, 505],
                    "tcp_failures": 0,
                    "timeouts": 0,
                    "http_failures": 0,
                },
            },
            "passive": {
                "type": "http",
                "healthy": {
                    "http_statuses": [*range(200, 209), 226, *range(300, 309)],
                    "successes": 0,
                },
                "unhealthy": {"http_statuses": [429, 500, 503], "tcp_failures": 0, "timeouts": 0, "http_failures": 0},
            },
            "threshold": 0,
        },
        "host_header": None,
        "client_certificate": None,
        "use_srv_name": False,
        "tags": None,
    }


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("a b", "Invalid name ('a b'); must be a valid hostname"),
        ("1.2.3.4", "Invalid name ('1.2.3.4'); no ip addresses allowed"),
        ("::1", "Invalid name ('::1'); no ip addresses allowed"),
        ("blue:80", "Invalid name ('blue:80'); no port allowed"),
        ("", "length must be at least 1"),
        (None, "required field missing"),
    ],
)
def test_a_name_is_a_host_name(name: JsonValue, problem: str) -> None:
    assert problems("upstreams", {"name": name}) == {"name": problem}


@pytest.mark.parametrize(
    ("body", "algorithm", "hash_on"),
    [
        ({}, "round-robin", "none"),
        ({"algorithm": None}, "round-robin", "none"),
        ({"algorithm": "consistent-hashing"}, "round-robin", "none"),
        ({"hash_on": "ip"}, "consistent-hashing", "ip"),
        ({"algorithm": "round-robin", "hash_on": "path"}, "consistent-hashing", "path"),
        ({"algorithm": "least-connections"}, "least-connections", "none"),
        ({"algorithm": "latency", "hash_on": "ip"}, "latency", "none"),
        ({"algorithm": "consistent-hashing", "hash_on": None}, "round-robin", "none"),
    ],
)
def test_algorithm_and_hash_are_kept_in_step(body: EntityBody, algorithm: str, hash_on: str) -> None:
    made = insert("upstreams", {"name": "u", **body})

    assert (made["algorithm"], made["hash_on"]) == (algorithm, hash_on)


@pytest.mark.parametrize(
    ("before", "patch", "algorithm", "hash_on"),
    [
        ({"hash_on": "ip"}, {"algorithm": "least-connections"}, "least-connections", "none"),
        ({"hash_on": "ip"}, {"algorithm": "round-robin"}, "consistent-hashing", "ip"),
        ({"hash_on": "ip"}, {"hash_on": "none"}, "round-robin", "none"),
        ({"hash_on": "ip"}, {"hash_on": None}, "round-robin", "none"),
        ({"algorithm": "least-connections"}, {"hash_on": "ip"}, "consistent-hashing", "ip"),
        ({"algorithm": "latency"}, {"slots": 10}, "latency", "none"),
    ],
)
def test_a_patch_keeps_them_in_step(before: EntityBody, patch: EntityBody, algorithm: str, hash_on: str) -> None:
    patched = update("upstreams", insert("upstreams", {"name": "u", **before}), patch)

    assert (patched["algorithm"], patched["hash_on"]) == (algorithm, hash_on)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"hash_on": "header"}, {"hash_on_header": "required field missing", "@entity": [CONDITION]}),
        ({"hash_on": "cookie"}, {"hash_on_cookie": "required field missing", "@entity": [CONDITION]}),
        ({"hash_on": "query_arg"}, {"hash_on_query_arg": "required field missing", "@entity": [CONDITION]}),
        ({"hash_on": "uri_capture"}, {"hash_on_uri_capture": "required field missing", "@entity": [CONDITION]}),
        (
            {"hash_on": "ip", "hash_fallback": "header"},
            {"hash_fallback_header": "required field missing", "@entity": [FALLBACK_CONDITION]},
        ),
        (
            {"hash_on": "ip", "hash_fallback": "cookie"},
            {"hash_on_cookie": "required field missing", "@entity": [FALLBACK_CONDITION]},
        ),
        (
            {"hash_on": "ip", "hash_fallback": "query_arg"},
            {"hash_fallback_query_arg": "required field missing", "@entity": [FALLBACK_CONDITION]},
        ),
        (
            {"hash_on": "ip", "hash_fallback": "uri_capture"},
            {"hash_fallback_uri_capture": "required field missing", "@entity": [FALLBACK_CONDITION]},
        ),
        ({"hash_fallback": "ip"}, {"hash_fallback": "expected one of: none", "@entity": [CONDITION]}),
        (
            {"hash_on": "cookie", "hash_on_cookie": "c", "hash_fallback": "ip"},
            {"hash_fallback": "expected one of: none", "@entity": [CONDITION]},
        ),
        (
            {"hash_on": "consumer", "hash_fallback": "consumer"},
            {
                "hash_fallback": "expected one of: none, ip, header, cookie, path, query_arg, uri_capture",
                "@entity": [CONDITION],
            },
        ),
        (
            {"hash_on": "path", "hash_fallback": "path"},
            {
                "hash_fallback": "expected one of: none, consumer, header, cookie, query_arg, ip, uri_capture",
                "@entity": [CONDITION],
            },
        ),
        (
            {"hash_on": "header", "hash_on_header": "x", "hash_fallback": "header", "hash_fallback_header": "x"},
            {"@entity": ["values of these fields must be distinct: 'hash_on_header', 'hash_fallback_header'"]},
        ),
        (
            {"hash_on": "foo"},
            {"hash_on": "expected one of: none, consumer, ip, header, cookie, path, query_arg, uri_capture"},
        ),
    ],
)
def test_a_hash_needs_its_input(body: EntityBody, expected: EntityBody) -> None:
    assert problems("upstreams", {"name": "u", **body}) == expected


def test_two_different_headers_may_be_hashed() -> None:
    made = insert(
        "upstreams",
        {
            "name": "u",
            "hash_on": "header",
            "hash_on_header": "x",
            "hash_fallback": "header",
            "hash_fallback_header": "y",
        },
    )

    assert made["hash_fallback_header"] == "y"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("slots", 9, "value should be between 10 and 65536"),
        ("algorithm", "x", "expected one of: consistent-hashing, least-connections, round-robin, latency"),
        ("host_header", "a:99999", "invalid port number"),
        ("hash_on_cookie_path", "x", "should start with: /"),
        ("healthchecks", None, "required field missing"),
        ("healthchecks", 1, "expected a record"),
        ("healthchecks.threshold", 101, "value should be between 0 and 100"),
        ("healthchecks.threshold", "5", "expected a number"),
        ("healthchecks.active", None, "required field missing"),
        ("healthchecks.active.timeout", 65536, "value should be between 0 and 65535"),
        ("healthchecks.active.concurrency", 0, "value should be between 1 and 2147483648"),
        ("healthchecks.active.https_sni", "1.2.3.4", "must not be an IP"),
        ("healthchecks.active.https_verify_certificate", None, "required field missing"),
        ("healthchecks.active.healthy.successes", 256, "value should be between 0 and 255"),
        ("healthchecks.active.unhealthy.http_statuses", [99], ["value should be between 100 and 999"]),
        ("healthchecks.passive.type", "udp", "expected one of: tcp, http, https, grpc, grpcs"),
        ("healthchecks.passive.unhealthy", None, "required field missing"),
    ],
)
def test_a_wrong_value_is_named_at_its_place(path: str, value: JsonValue, problem: JsonValue) -> None:
    first, *rest = path.split(".")
    for name in reversed(rest):
        value, problem = {name: value}, {name: problem}

    assert problems("upstreams", {"name": "u", first: value}) == {first: problem}


def test_seconds_may_have_a_fraction() -> None:
    made = insert("upstreams", {"name": "u", "healthchecks": {"active": {"healthy": {"interval": 0.5}}}})

    assert '"interval": 0.5' in repr(made).replace("'", '"')


def test_deep_problems_are_printed_as_a_table() -> None:
    error = refusal("upstreams", {"name": "u", "healthchecks": {"active": {"timeout": -1}}})

    assert error["message"] == (
        'schema violation (healthchecks.active: {\n  timeout = "value should be between 0 and 65535"\n})'
    )
