"""How a line of the access log looks, that it is one line whatever clients send, and that it holds no secret."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.model import HeaderCondition, RouteConfig, ServiceConfig
from data_plane.observe.access_log import AccessLogFormat, Attempt, Record
from data_plane.observe.log_lines import NOT_LOGGED, line_of

RECORD = Record(
    ended=1700000000.5,
    ended_at=100.0,
    client=b"10.1.2.3",
    scheme="http",
    port=8000,
    method=b"GET",
    path=b"/shop/1",
    query=b"?a=b%20c&a=d&flag",
    http10=False,
    host=b"shop.test",
    fields=(
        b"\r\nHost: shop.test\r\nUser-Agent: agent/1\r\nReferer: http://x/\r\nX-Two: 1\r\nx-two: 2"
        b"\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        b"\r\nAuthorization: Bearer hunter2\r\nCookie: session=hunter2\r\napikey: hunter2"
    ),
    status=200,
    own=False,
    # As the proxy has them: pieces of one line or several.
    answer=(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain", b"Set-Cookie: session=hunter2\r\nX-A: 1\r\nX-B: 2"),
    bytes_in=200,
    bytes_out=172,
    request_id=b"f" * 32,
    route=RouteConfig(
        id="r1", name="cart", paths=("/shop",), headers=(HeaderCondition("x-two", ("1",)),), service="s1"
    ),
    service=ServiceConfig(id="s1", name="shop", host="blue", read_timeout_s=1.5),
    upstream_start=b"GET /1",
    proxy_s=0.0015,
    upstream_s=0.02,
    request_s=0.025,
    attempts=(Attempt("10.0.0.1", 80, 99.98), Attempt("10.0.0.2", 80, 99.99)),
    version=7,
)


def lined(record: Record) -> dict[str, Any]:
    line = line_of(AccessLogFormat.JSON, node_id="node-1")(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    tree: dict[str, Any] = json.loads(line)
    return tree


def test_the_json_has_the_field_names_of_kongs_file_log() -> None:
    tree = lined(RECORD)
    assert tree["request"]["method"] == "GET"
    assert tree["request"]["uri"] == "/shop/1?a=b%20c&a=d&flag"
    assert tree["request"]["url"] == "http://shop.test:8000/shop/1?a=b%20c&a=d&flag"
    assert tree["request"]["querystring"] == {"a": ["b c", "d"], "flag": True}
    assert tree["request"]["headers"]["x-two"] == ["1", "2"]
    assert tree["request"]["size"] == 200
    assert tree["request"]["id"] == "f" * 32
    assert tree["response"] == {
        "status": 200,
        "size": 172,
        "headers": {"content-type": "text/plain", "x-a": "1", "x-b": "2"},
    }
    assert tree["latencies"] == {"request": 25, "kong": 1, "proxy": 20, "receive": 3}
    assert tree["upstream_uri"] == "/1?a=b%20c&a=d&flag"
    assert tree["upstream_status"] == "200"
    assert tree["source"] == "upstream"
    assert tree["client_ip"] == "10.1.2.3"
    assert tree["started_at"] == 1700000000475
    assert [(attempt["ip"], attempt.get("state")) for attempt in tree["tries"]] == [
        ("10.0.0.1", "failed"),
        ("10.0.0.2", None),
    ]
    assert tree["tries"][0]["balancer_start"] == 1700000000480
    assert tree["route"]["name"] == "cart"
    assert tree["route"]["service"] == {"id": "s1"}
    assert tree["service"]["host"] == "blue"
    assert tree["service"]["read_timeout"] == 1500
    assert (tree["node"], tree["version"]) == ("node-1", 7)
    assert tree["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"


def test_an_answer_of_the_gateway_and_a_client_that_left() -> None:
    own = lined(RECORD._replace(own=True, status=404, upstream_s=-1.0, proxy_s=0.0, attempts=(), upstream_start=b""))
    assert own["source"] == "kong"
    assert own["latencies"] == {"request": 25, "kong": 25, "proxy": -1, "receive": 0}
    assert "upstream_uri" not in own
    assert "upstream_status" not in own
    assert lined(RECORD._replace(status=0, upstream_s=-1.0))["response"]["status"] == 499


@pytest.mark.parametrize("form", list(AccessLogFormat))
def test_no_credentials_are_logged(form: AccessLogFormat) -> None:
    assert b"hunter2" not in line_of(form, node_id="n")(RECORD)
    assert {"authorization", "cookie", "set-cookie", "proxy-authorization"} <= NOT_LOGGED


def test_the_combined_form_is_nginxs_with_the_request_id() -> None:
    line = line_of(AccessLogFormat.COMBINED, node_id="n")(RECORD).decode()
    head_bytes = sum(len(part) + 2 for part in RECORD.answer) + 2
    assert re.fullmatch(
        r"10\.1\.2\.3 - - \[\d\d/\w{3}/2023:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /shop/1\?a=b%20c&a=d&flag HTTP/1\.1" 200 '
        + str(RECORD.bytes_out - head_bytes)
        + r' "http://x/" "agent/1" kong_request_id: "f{32}"\n',
        line,
    )
    bare = line_of(AccessLogFormat.COMBINED, node_id="n")(RECORD._replace(method=b"", fields=b"", answer=()))
    assert b'"-" 200 172 "-" "-"' in bare


@given(st.binary(max_size=60), st.sampled_from(list(AccessLogFormat)))
def test_any_octets_make_one_line(octets: bytes, form: AccessLogFormat) -> None:
    hostile = RECORD._replace(
        path=b"/" + octets, query=b"?" + octets, host=octets, fields=b"\r\nUser-Agent: " + octets, method=octets
    )
    line = line_of(form, node_id="n")(hostile)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    if form is AccessLogFormat.JSON:
        json.loads(line)
    else:
        assert line.count(b'"') == 8


@pytest.mark.parametrize("value", ["", "00-zz", "00-" + "0" * 32 + "-00f067aa0ba902b7-01", "nonsense"])
def test_a_traceparent_that_is_none_gives_no_trace_id(value: str) -> None:
    assert "trace_id" not in lined(RECORD._replace(fields=b"\r\ntraceparent: " + value.encode()))
