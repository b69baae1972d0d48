"""route: what each kind must and must not match on, and what its elements may look like."""

from __future__ import annotations

import pytest

from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.entities.schemas import insert, problems, refusal, update


def test_the_defaults() -> None:
    made = insert("routes", {"paths": ["/"]})
    for name in ("id", "created_at", "updated_at"):
        del made[name]

    assert made == {
        "name": None,
        "protocols": ["http", "https"],
        "methods": None,
        "hosts": None,
        "paths": ["/"],
        "headers": None,
        "snis": None,
        "sources": None,
        "destinations": None,
        "https_redirect_status_code": 426,
        "regex_priority": 0,
        "strip_path": True,
        "path_handling": "v0",
        "preserve_host": False,
        "request_buffering": True,
        "response_buffering": True,
        "tags": None,
        "service": None,
    }


@pytest.mark.parametrize(
    ("protocols", "text"),
    [
        (None, "must set one of 'methods', 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'https'"),
        (["http"], "must set one of 'methods', 'hosts', 'headers', 'paths' when 'protocols' is 'http'"),
        (["grpcs"], "must set one of 'hosts', 'headers', 'paths', 'snis' when 'protocols' is 'grpcs'"),
        (["grpc"], "must set one of 'hosts', 'headers', 'paths' when 'protocols' is 'grpc'"),
        (["tcp", "udp"], "must set one of 'sources', 'destinations', 'snis' when 'protocols' is 'tcp', 'tls' or 'udp'"),
        (["tls_passthrough"], "must set snis when 'protocols' is 'tls_passthrough'"),
    ],
)
def test_a_route_must_match_on_something(protocols: JsonValue, text: str) -> None:
    body: EntityBody = {} if protocols is None else {"protocols": protocols}

    assert refusal("routes", {**body, "paths": None}) == {
        "code": 2,
        "name": "schema violation",
        "message": f"schema violation ({text})",
        "fields": {"@entity": [text]},
    }


def test_empty_lists_match_on_nothing() -> None:
    current = insert("routes", {"paths": ["/"]})

    assert "must set one of" in str(problems("routes", {"paths": []}, current))


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        ({"paths": ["/"], "sources": []}, "sources", "cannot set 'sources' when 'protocols' is 'http' or 'https'"),
        (
            {"protocols": ["grpc"], "paths": ["/"], "methods": ["GET"]},
            "methods",
            "cannot set 'methods' when 'protocols' is 'grpc' or 'grpcs'",
        ),
        (
            {"protocols": ["grpc"], "paths": ["/"], "strip_path": True},
            "strip_path",
            "cannot set 'strip_path' when 'protocols' is 'grpc' or 'grpcs'",
        ),
        (
            {"protocols": ["tcp"], "sources": [{"port": 1}], "hosts": ["a"]},
            "hosts",
            "cannot set 'hosts' when 'protocols' is 'tcp', 'tls', 'tls_passthrough' or 'udp'",
        ),
    ],
)
def test_fields_of_other_kinds_are_refused(body: EntityBody, field: str, text: str) -> None:
    assert problems("routes", body) == {field: text}


def test_grpc_routes_do_not_strip() -> None:
    assert insert("routes", {"protocols": ["grpc"], "paths": ["/"]})["strip_path"] is False


def test_server_names_need_tls() -> None:
    assert problems("routes", {"protocols": ["http"], "paths": ["/"], "snis": ["a.example"]}) == {
        "snis": "length must be 0",
        "@entity": ["'snis' can only be set when 'protocols' is 'grpcs', 'https', 'tls' or 'tls_passthrough'"],
    }


@pytest.mark.parametrize(
    ("protocols", "problem"),
    [
        (["foo"], "unknown type: foo"),
        ([], "unknown type: nil"),
        ([{"a": 1}], "unknown type: {a=1}"),
        ("http", "expected a set"),
        (None, "required field missing"),
        (["http", "tcp"], "these sets are mutually exclusive: ('http', 'https'), ('tcp', 'tls', 'udp')"),
        (
            ["http", "foo"],
            [None, "expected one of: grpc, grpcs, http, https, tcp, tls, tls_passthrough, udp"],
        ),
    ],
)
def test_protocols_are_of_one_family(protocols: JsonValue, problem: JsonValue) -> None:
    found = problems("routes", {"protocols": protocols, "paths": ["/"]})

    assert isinstance(found, dict)
    assert found["protocols"] == problem


@pytest.mark.parametrize(
    "path", ["/", "/a%2Fb", "/foo bar", "/café", "/a^b", "/status/", "~/status/\\d+$", "~/(?<n>a)"]
)
def test_good_paths(path: str) -> None:
    assert insert("routes", {"paths": [path]})["paths"] == [path]


def _refused(pattern: str, why: str, *, at: str = "") -> str:
    place = f' at "{at}"' if at else ""
    return f"""invalid regex: '{pattern}' (PCRE returned: pcre2_compile() failed: {why} in "{pattern}"{place})"""


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("a", "should start with: / (fixed path) or ~/ (regex path)"),
        ("~a", "should start with: / (fixed path) or ~/ (regex path)"),
        ("/a//b", "must not have empty segments"),
        ("~/a//b", "must not have empty segments"),
        ("/a%", "invalid url-encoded value: '%'"),
        ("~/a%zz", "invalid url-encoded value: '%zz'"),
        ("/a%2fb", "non-normalized path, consider use '/a%2Fb' instead"),
        ("/foo%20bar", "non-normalized path, consider use '/foo bar' instead"),
        ("/a/../b", "non-normalized path, consider use '/b' instead"),
        ("~/a[", _refused("/a[", "missing terminating ] for character class")),
        ("~/a\\", _refused("/a\\", "\\ at end of pattern")),
        ("~/a(b", _refused("/a(b", "missing closing parenthesis")),
        ("~/a)b", _refused("/a)b", "unmatched closing parenthesis", at=")b")),
        ("~/[)]\\)()a)", _refused("/[)]\\)()a)", "unmatched closing parenthesis", at=")")),
        ("~/a(*b)", _refused("/a(*b)", "quantifier does not follow a repeatable item", at="*b)")),
        ("~/a|?b", _refused("/a|?b", "quantifier does not follow a repeatable item", at="?b")),
        ("~/[^]z-a]", _refused("/[^]z-a]", "range out of order in character class", at="a]")),
        ("~/a(?!b)", "invalid regex: '/a(?!b)' (PCRE returned: invalid perl operator: (?!)"),
    ],
)
def test_bad_paths(path: str, problem: str) -> None:
    assert problems("routes", {"paths": ["/ok", path]}) == {"paths": [None, problem]}


@pytest.mark.parametrize(
    "host",
    ["a.example", "a.example:80", "*.example", "example.*", "*.example:80", "example.*:80", "10.0.0.1", "[::1]:80"],
)
def test_good_hosts(host: str) -> None:
    assert insert("routes", {"hosts": [host]})["hosts"] == [host]


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("*.*", "invalid wildcard: must have at most one wildcard"),
        ("*example", "invalid wildcard: must be placed at leftmost or rightmost label"),
        ("a.*.b", "invalid wildcard: must be placed at leftmost or rightmost label"),
        ("a b", "invalid hostname: a b"),
        ("a:99999", "invalid port number"),
        ("", "length must be at least 1"),
    ],
)
def test_bad_hosts(host: str, problem: str) -> None:
    assert problems("routes", {"hosts": [host]}) == {"hosts": [problem]}


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({"Host": ["a"]}, "cannot contain 'host' header, which must be specified in the 'hosts' attribute"),
        ({"a b": ["a"]}, "bad header name 'a b', allowed characters are A-Z, a-z, 0-9, '_', and '-'"),
        ({"x": "a"}, "expected an array"),
        ({"x": ["ok", ""]}, [None, "length must be at least 1"]),
        ({"x": []}, "length must be at least 1"),
        ({"x": ["~*a["]}, [_refused("a[", "missing terminating ] for character class")]),
        (["x"], "expected a string"),  # Kong's maps are lists whose keys are numbers, which are no header names
        ("x", "expected a map"),
    ],
)
def test_bad_headers(headers: JsonValue, problem: JsonValue) -> None:
    assert problems("routes", {"headers": headers}) == {"headers": problem}


@pytest.mark.parametrize(
    ("sni", "problem"),
    [
        ("a.*.b", "wildcard must be leftmost or rightmost character"),
        ("*.*", "only one wildcard must be specified"),
        ("1.2.3.4", "must not be an IP"),
        ("a:80", "must not have a port"),
    ],
)
def test_bad_server_names(sni: str, problem: str) -> None:
    assert problems("routes", {"snis": [sni]}) == {"snis": [problem]}


@pytest.mark.parametrize("sni", ["a.example", "*.example", "example.*"])
def test_good_server_names(sni: str) -> None:
    assert insert("routes", {"snis": [sni]})["snis"] == [sni]


def test_methods_are_upper_case_words() -> None:
    assert insert("routes", {"methods": ["PURGE"]})["methods"] == ["PURGE"]
    assert problems("routes", {"methods": ["get"]}) == {"methods": ["invalid value: get"]}


def test_stream_addresses_have_an_ip_or_a_port() -> None:
    made = insert("routes", {"protocols": ["tcp"], "sources": [{"ip": "10.0.0.0/8"}, {"port": 1}]})

    assert made["sources"] == [{"ip": "10.0.0.0/8", "port": None}, {"ip": None, "port": 1}]
    assert problems("routes", {"protocols": ["tcp"], "sources": [{}]}) == {
        "sources": [{"@entity": ["at least one of these fields must be non-empty: 'ip', 'port'"]}]
    }
    assert problems("routes", {"protocols": ["tcp"], "sources": [{"ip": "x"}]}) == {
        "sources": [{"ip": "invalid ip or cidr range: 'x'"}]
    }


def test_the_expression_fields_belong_to_another_flavour() -> None:
    assert problems("routes", {"paths": ["/"], "expression": "x", "priority": 1}) == {
        "expression": "unknown field",
        "priority": "unknown field",
    }


def test_a_whole_entity_sent_back_changes_nothing_but_its_time() -> None:
    made = insert("routes", {"paths": ["/"], "service": {"name": "known"}, "headers": {"x": ["a"]}})
    again = update("routes", made, made)

    assert again == {**made, "updated_at": again["updated_at"]}
