"""What the request scan lets through, refuses and takes out. Pure: bytes in, facts or a refusal out."""

from __future__ import annotations

import pytest

from data_plane.proxy.head import BadRequest, RequestHead, RequestScanner, check_target
from data_plane.proxy.settings import ProxySettings


def scan(text: bytes, settings: ProxySettings | None = None) -> RequestHead:
    head = RequestHead()
    RequestScanner(settings or ProxySettings()).scan(text + b"\r\n\r\n", len(text), head)
    check_target(head.method, head.path)
    return head


def refused(text: bytes, settings: ProxySettings | None = None) -> int:
    with pytest.raises(BadRequest) as caught:
        scan(text, settings)
    return caught.value.status


def test_a_plain_request() -> None:
    head = scan(b"GET /a/b?x=1 HTTP/1.1\r\nHost: Example.com:8000\r\nX-A: 1\r\nX-B:\t2 ")
    assert (head.method, head.path, head.query) == (b"GET", b"/a/b", b"?x=1")
    assert head.host == b"Example.com:8000"
    assert head.segments == [b"X-A: 1\r\nX-B:\t2 "]
    assert head.keep_alive
    assert not head.http10
    assert head.length == -1


def test_special_fields_are_cut_out_and_the_rest_keeps_its_order() -> None:
    head = scan(b"GET / HTTP/1.1\r\nA: 1\r\nHost: h\r\nB: 2\r\nC: 3\r\nconnection: keep-alive\r\nD: 4")
    assert head.segments == [b"A: 1", b"B: 2\r\nC: 3", b"D: 4"]


@pytest.mark.parametrize("name", [b"HOST", b"host", b"hOsT"])
def test_names_are_known_in_any_case(name: bytes) -> None:
    assert scan(b"GET / HTTP/1.1\r\n" + name + b": h").host == b"h"


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"GET  / HTTP/1.1", 400),
        (b"GET / HTTP/1.1 ", 400),
        (b"GET /", 400),
        (b" / HTTP/1.1", 400),
        (b"GET\t/\tHTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /a\x00 HTTP/1.1", 400),
        (b"GET /a\x7f HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET /a?b#c HTTP/1.1", 400),
        (b"GET /a?\xe9 HTTP/1.1", 400),
        (b"GET /a%zz HTTP/1.1", 400),
        (b"GET /a%4 HTTP/1.1", 400),
        (b"GET /a%00 HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET ?a HTTP/1.1", 400),
        (b"GET a HTTP/1.1", 400),
        (b"get / HTTP/1.1", 400),
        (b"G=T / HTTP/1.1", 400),
        (b"GET / HTTP/1.10", 400),
        (b"GET / HTTP/1,1", 400),
        (b"GET / http/1.1", 400),
        (b"GET / HTTP/2.0", 505),
        (b"PRI * HTTP/2.0", 400),
        (b"TRACE / HTTP/1.1", 405),
        (b"CONNECT h:80 HTTP/1.1", 405),
        (b"CONNECT / HTTP/1.1", 400),
        (b"GET http:///a HTTP/1.1", 400),
        (b"GET http://u@h/a HTTP/1.1", 400),
        (b"GET /" + b"a" * 8200 + b" HTTP/1.1", 414),
    ],
)
def test_request_lines_refused(first: bytes, status: int) -> None:
    assert refused(first + b"\r\nHost: h") == status


@pytest.mark.parametrize(
    "fields",
    [
        b"X-A: 1",  # no Host
        b"Host: h\r\nHost: h",
        b"Host: h, g",
        b"Host: u@h",
        b"Host: h:http",
        b"Host:",
        b"Host: h\r\n .g",
        b"Host: h\r\nX-A : 1",
        b"Host: h\r\nX A: 1",
        b"Host: h\r\nX-A",
        b"Host: h\r\n: 1",
        b"Host: h\r\n folded: 1",
        b"Host: h\r\nX-A: a\x00b",
        b"Host: h\r\nX-A: a\rb",
        b"Host: h\r\nX-A: a\nb",
        b"Host: h\r\nX-A: a\r",
        b"Host: h\r\nX-A: a\rb: c\nd",
        b"Host: h\r\nX-\xefA: 1",
        b"Host: h\r\nContent-Length: 1\r\nContent-Length: 1",
        b"Host: h\r\nContent-Length: 1, 1",
        b"Host: h\r\nContent-Length: +1",
        b"Host: h\r\nContent-Length:",
        b"Host: h\r\nContent-Length: 9223372036854775808",
        b"Host: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Host: h\r\nTransfer-Encoding: chunked, identity",
        b'Host: h\r\nTransfer-Encoding: "chunked"',
        b"Host: h\r\nTransfer-Encoding: \x0bchunked",
        b"Host: h\r\nTransfer-Encoding:",
    ],
)
def test_fields_refused(fields: bytes) -> None:
    assert refused(b"POST / HTTP/1.1\r\n" + fields) == 400


def test_other_refusals_have_their_own_status() -> None:
    assert refused(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked") == 501
    assert refused(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked") == 501
    assert refused(b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok") == 417
    settings = ProxySettings(header_count_max=3)
    assert refused(b"GET / HTTP/1.1\r\nHost: h" + b"\r\nA: 1" * 3, settings) == 431
    assert refused(b"GET / HTTP/1.1\r\nHost: h\r\nA: " + b"a" * 9000) == 400


def test_http10_needs_no_host_and_closes_unless_asked() -> None:
    head = scan(b"GET / HTTP/1.0")
    assert head.http10
    assert head.host == b""
    assert not head.keep_alive
    assert scan(b"GET / HTTP/1.0\r\nConnection: Keep-Alive").keep_alive
    assert not scan(b"GET / HTTP/1.0\r\nConnection: keep-alive, close").keep_alive
    assert refused(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked") == 400


def test_a_later_minor_version_is_read_as_1_1() -> None:
    assert not scan(b"GET / HTTP/1.2\r\nHost: h").http10


def test_absolute_form_wins_over_host() -> None:
    head = scan(b"GET HTTP://a.test:81/x?y HTTP/1.1\r\nHost: b.test")
    assert (head.host, head.path, head.query) == (b"a.test:81", b"/x", b"?y")
    assert scan(b"GET http://a.test HTTP/1.1\r\nHost: b.test").path == b"/"
    assert scan(b"GET http://a.test?q HTTP/1.1\r\nHost: b.test").query == b"?q"
    assert refused(b"GET http://a.test/x HTTP/1.1") == 400


@pytest.mark.parametrize("host", [b"h", b"h:80", b"h:", b"1.2.3.4:5", b"[::1]", b"[::1]:80", b"a_b.test"])
def test_hosts_accepted(host: bytes) -> None:
    assert scan(b"GET / HTTP/1.1\r\nHost: \t" + host + b" ").host == host


def test_body_framing() -> None:
    assert scan(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 007").length == 7
    assert scan(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: cHuNkEd").chunked


def test_connection_list_names_what_ends_here() -> None:
    head = scan(
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Hop, host, transfer-encoding\r\nX-Hop: 1\r\nX-B: 2\r\n"
        b"Transfer-Encoding: chunked"
    )
    assert head.segments == [b"X-B: 2"]
    assert not head.keep_alive
    assert head.chunked
    assert head.host == b"h"


def test_hop_by_hop_fields_and_spoofed_ones_do_not_pass() -> None:
    head = scan(
        b"GET / HTTP/1.1\r\nHost: h\r\nKeep-Alive: 3\r\nProxy-Connection: x\r\nProxy: y\r\nTE: trailers, deflate\r\n"
        b"X-Real-IP: 1\r\nX-Forwarded-For: 2\r\nX-Forwarded-Proto: https\r\nX_Forwarded_For: 3\r\nContent_Length: 4\r\n"
        b"X-Kong-Request-Id: 5\r\nUpgrade: h2c\r\nHTTP2-Settings: z\r\nX-Forwarded-Ssl: on"
    )
    assert head.segments == [b"X-Forwarded-Ssl: on"]
    assert head.te_trailers
    assert head.forwarded_for == b"2"
    assert head.trusted == [b"X-Forwarded-Proto: https"]
    assert not head.websocket


def test_websocket_needs_both_fields_and_a_get_without_body() -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: WebSocket\r\nHost: h"
    assert scan(b"GET / HTTP/1.1\r\n" + upgrade).websocket
    assert not scan(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket").websocket
    assert not scan(b"GET / HTTP/1.0\r\n" + upgrade).websocket
    assert refused(b"POST / HTTP/1.1\r\n" + upgrade) == 400


def test_max_forwards_counts_down_for_options_and_ends_at_nought() -> None:
    field = b" / HTTP/1.1\r\nA: 1\r\nHost: h\r\nMax-Forwards: %b\r\nB: 2"
    head = scan(b"OPTIONS" + field % b"007")
    assert head.segments == [b"A: 1", b"Max-Forwards: 6", b"B: 2"]
    assert not head.last_hop
    assert scan(b"OPTIONS" + field % b"0").last_hop
    assert refused(b"OPTIONS" + field % b"-1") == 400
    other = scan(b"GET" + field % b"0")
    assert other.segments == [b"A: 1", b"Max-Forwards: 0", b"B: 2"]
    assert not other.last_hop


def test_the_same_fields_mean_something_else_with_another_method() -> None:
    head, scanner = RequestHead(), RequestScanner(ProxySettings())
    for method, last in ((b"GET", False), (b"OPTIONS", True), (b"GET", False)):
        text = method + b" / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0"
        scanner.scan(text + b"\r\n\r\n", len(text), head)
        assert head.last_hop is last


def test_values_are_found_in_any_case_and_stripped() -> None:
    head = scan(b"GET / HTTP/1.1\r\nHost: h\r\naccept: a \r\nACCEPT:b\r\nAccept-X: c")
    assert head.values(b"accept") == [b"a", b"b"]
    assert head.values(b"missing") == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\nHost: h", 400),
        (b"\x16\x03\x01\x02", 400),
        (b"GET / HTTP/1.1\r\nX: a\rb", 400),
        (b"GET /" + b"a" * 9000, 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 40000, 400),
        (b"GET / HTTP/1.1\r\n" + b"A: 1\r\n" * 8000, 431),
    ],
)
def test_hopeless_beginnings_are_refused_before_they_end(data: bytes, status: int) -> None:
    with pytest.raises(BadRequest) as caught:
        RequestScanner(ProxySettings()).check_incomplete(data, 0)
    assert caught.value.status == status


def test_a_good_beginning_may_go_on_at_every_split() -> None:
    data = b"GET /a?b HTTP/1.1\r\nHost: h\r\nX-A: caf\xc3\xa9\r\n"
    scanner = RequestScanner(ProxySettings())
    for size in range(len(data)):
        for seen in range(size):
            scanner.check_incomplete(data[:size], seen)


@pytest.mark.parametrize("beside", [b"", b"\r\nContent-Length: 5", b"\r\nTransfer-Encoding: chunked"])
@pytest.mark.parametrize("field", [b"Transfer-Encoding: chunked", b"Content-Length: 5"])
def test_no_octet_round_a_framing_field_makes_two_readings(field: bytes, beside: bytes) -> None:
    """Every octet before and behind name and value: what is let through frames one body, and no twin goes on."""
    name, _, value = field.partition(b": ")
    for octet in (bytes([number]) for number in range(256)):
        for line in (octet + field, name + octet + b": " + value, name + b":" + octet + value, field + octet):
            try:
                head = scan(b"POST / HTTP/1.1\r\nHost: h\r\n" + line + beside)
            except BadRequest:
                continue
            lines = (line + beside).split(b"\r\n")
            said = [
                (key.lower(), said.strip(b" \t").lower()) for key, _, said in (one.partition(b":") for one in lines)
            ]
            chunked = [said for key, said in said if key == b"transfer-encoding"]
            lengths = [said for key, said in said if key == b"content-length"]
            assert len(chunked) + len(lengths) <= 1, line
            assert chunked in ([], [b"chunked"]), line
            assert head.chunked == bool(chunked), line
            assert head.length == (int(lengths[0]) if lengths else -1), line
            for sent in b"\r\n".join(head.segments).lower().replace(b"_", b"-").split(b"\r\n"):
                assert not sent.startswith((b"transfer-encoding:", b"content-length:")), line
