"""service: fields, bounds, rules by protocol, and the shorthand `url`."""

from __future__ import annotations

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.entities.schemas import SERVICE_ID, insert, problems, refusal, update


def test_the_defaults() -> None:
    made = insert("services", {"host": "blue"})
    for name in ("id", "created_at", "updated_at"):
        del made[name]

    assert made == {
        "name": None,
        "protocol": "http",
        "host": "blue",
        "port": 80,
        "path": None,
        "retries": 5,
        "connect_timeout": 60000,
        "write_timeout": 60000,
        "read_timeout": 60000,
        "tags": None,
        "client_certificate": None,
        "tls_verify": None,
        "tls_verify_depth": None,
        "ca_certificates": None,
        "enabled": True,
    }


BAD_TAG = "invalid tag '{}': expected printable ascii (except `,` and `/`) or valid utf-8 sequences"


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("name", "", "length must be at least 1"),
        ("name", 5, "expected a string"),
        ("name", "a/b", "invalid value 'a/b': the only accepted ascii characters are alphanumerics or ., -, _, and ~"),
        ("host", None, "required field missing"),
        ("host", "a:80", "must not have a port"),
        ("host", "a_b-", "invalid value: a_b-"),
        ("port", -1, "value should be between 0 and 65535"),
        ("port", 65536, "value should be between 0 and 65535"),
        ("protocol", "ws", "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp"),
        ("protocol", "", "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp"),
        ("path", "x", "should start with: /"),
        ("path", "/a//b", "must not have empty segments"),
        ("path", "/a%2w", "invalid url-encoded value: '%2w'"),
        ("path", "/a b", "invalid path: '/a b' (characters outside of the reserved list of RFC 3986 found)"),
        ("retries", 32768, "value should be between 0 and 32767"),
        ("read_timeout", 0, "value should be between 1 and 2147483646"),
        ("write_timeout", 2147483647, "value should be between 1 and 2147483646"),
        ("tags", "a", "expected a set"),
        ("tags", {"a": "b"}, "expected a set"),
        ("tags", ["ok", "a,b"], [None, BAD_TAG.format("a,b")]),
        ("tags", ["ok", None], [None, "required field missing"]),
        ("enabled", None, "required field missing"),
        ("enabled", "true", "expected a boolean"),
    ],
)
def test_a_wrong_value_is_named(field: str, value: JsonValue, problem: JsonValue) -> None:
    assert problems("services", {"host": "api", field: value}) == {field: problem}


@pytest.mark.parametrize("host", ["blue", "a.b.", "10.0.0.1", "::1", "[::1]", "under_score", "x--y"])
def test_names_and_addresses_are_hosts(host: str) -> None:
    assert insert("services", {"host": host})["host"] == host


def test_all_problems_come_in_one_answer() -> None:
    assert refusal("services", {"port": "x", "retries": -1, "tags": ["/"]}) == {
        "code": 2,
        "name": "schema violation",
        "message": "4 schema violations (host: required field missing; port: expected an integer; "
        f"retries: value should be between 0 and 32767; tags.1: {BAD_TAG.format('/')})",
        "fields": {
            "host": "required field missing",
            "port": "expected an integer",
            "retries": "value should be between 0 and 32767",
            "tags": [BAD_TAG.format("/")],
        },
    }


@pytest.mark.parametrize("protocol", ["tcp", "tls", "udp", "grpc", "grpcs"])
def test_these_protocols_have_no_path(protocol: str) -> None:
    assert problems("services", {"host": "api", "protocol": protocol, "path": "/x"}) == {
        "path": "value must be null",
        "@entity": ["failed conditional validation given value of field 'protocol'"],
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client_certificate", {"id": SERVICE_ID}),
        ("tls_verify", False),
        ("tls_verify_depth", 0),
        ("ca_certificates", []),
    ],
)
def test_what_is_about_tls_needs_it(field: str, value: JsonValue) -> None:
    assert insert("services", {"host": "api", "protocol": "https", field: value})[field] == value
    assert problems("services", {"host": "api", field: value}) == {
        field: "value must be null",
        "@entity": ["failed conditional validation given value of field 'protocol'"],
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://api", ("http", "api", 80, None)),
        ("https://api", ("https", "api", 443, None)),
        ("http://API.example:8080/a/b?q=1#f", ("http", "API.example", 8080, "/a/b")),
        ("https://user:pw@api:8443/", ("https", "api", 8443, "/")),
        ("grpcs://api", ("grpcs", "api", 80, None)),
        ("http://[::1]:80/x", ("http", "::1", 80, "/x")),
        ("//api:443", ("https", "api", 443, None)),
    ],
)
def test_a_url_stands_for_four_fields(url: str, expected: tuple[str, str, int, str | None]) -> None:
    made = insert("services", {"url": url, "protocol": "tcp", "host": "x", "port": 1, "path": "/old"})

    assert (made["protocol"], made["host"], made["port"], made["path"]) == expected
    assert "url" not in made


def test_a_patched_url_without_a_path_clears_the_path() -> None:
    current = insert("services", {"host": "blue", "path": "/x"})

    assert update("services", current, {"url": "http://green"})["path"] is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("", {"url": "length must be at least 1"}),
        (5, {"url": "expected a string"}),
        ("http://[::1", {"url": "invalid url: 'http://[::1'"}),
    ],
)
def test_a_bad_url_is_reported_alone(url: JsonValue, expected: EntityBody) -> None:
    assert problems("services", {"url": url, "retries": "x"}) == expected


def test_a_url_without_a_host_lacks_one() -> None:
    found = problems("services", {"url": "/just/a/path"})

    assert isinstance(found, dict)
    assert found["host"] == "required field missing"


@pytest.mark.parametrize(
    ("port", "problem"), [("99999", "value should be between 0 and 65535"), ("80x", "expected an integer")]
)
def test_a_bad_port_in_a_url_is_the_ports_problem(port: str, problem: str) -> None:
    assert problems("services", {"url": f"http://api:{port}/"}) == {"port": problem}


def test_a_null_url_is_no_url() -> None:
    assert insert("services", {"url": None, "host": "api"})["host"] == "api"
