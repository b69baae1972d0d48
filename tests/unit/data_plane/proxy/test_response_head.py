"""What the scan of upstreams' answers accepts and passes on."""

from __future__ import annotations

import pytest

from data_plane.proxy.response_head import BadAnswer, ResponseHead, ResponseScanner
from data_plane.proxy.settings import ProxySettings


def scan(text: bytes) -> ResponseHead:
    scanner = ResponseScanner(ProxySettings())
    first = told(scanner.scan(text))
    for number in range(3):  # now each line is from memory, and in the end the whole
        other = b"\r\n".join([b"HTTP/1.1 200 OK", *text.split(b"\r\n")[1:], b"X-Other: %d" % number])
        assert told(scanner.scan(other)) == told(ResponseScanner(ProxySettings()).scan(other))
        assert told(scanner.scan(text)) == first
    return scanner.scan(text)


def told(head: ResponseHead) -> list[object]:
    return [getattr(head, name) for name in head.__slots__]


def test_a_plain_answer() -> None:
    head = scan(b"HTTP/1.1 200 OK\r\nServer: x\r\ndate: now\r\nContent-Length: 2\r\nConnection: keep-alive\r\nX-A: 1")
    assert head.status == 200
    assert head.segments == [b"HTTP/1.1 200 OK", b"Server: x", b"date: now", b"Content-Length: 2", b"X-A: 1"]
    assert head.length == 2
    assert head.keep_alive
    assert head.has_server
    assert head.has_date


def test_missing_server_and_date_are_told() -> None:
    head = scan(b"HTTP/1.1 204 No Content\r\nX-Server: 1\r\nUpdate: 2")
    assert not head.has_server
    assert not head.has_date


@pytest.mark.parametrize(
    ("line", "sent"),
    [
        (b"HTTP/1.0 200 OK", b"HTTP/1.1 200 OK"),
        (b"HTTP/1.1 200", b"HTTP/1.1 200 "),
        (b"HTTP/1.1 299 a: b", b"HTTP/1.1 299 a: b"),
        (b"HTTP/1.1 999 X", b"HTTP/1.1 999 X"),
        (b"HTTP/1.2 200 OK", b"HTTP/1.1 200 OK"),
    ],
)
def test_status_lines_accepted(line: bytes, sent: bytes) -> None:
    assert scan(line).segments[0] == sent


@pytest.mark.parametrize(
    "text",
    [
        b"BANANA",
        b"HTTP/1.1 1000 X",
        b"HTTP/1.1 -20 X",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b",
        b"HTTP/1.1 200 OK\r\nX-A: a\r\n b",
        b"HTTP/1.1 200 OK\r\ngarbage",
        b"HTTP/1.1 200 OK\r\nX-A : 1",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3",
        b"HTTP/1.1 200 OK\r\nContent-Length: +2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
    ],
)
def test_bad_answers(text: bytes) -> None:
    with pytest.raises(BadAnswer):
        scan(text)


def test_the_same_length_twice_passes_once() -> None:
    head = scan(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2")
    assert head.length == 2
    assert b"\r\n".join(head.segments).count(b"Content-Length") == 1


def test_connection_list_names_what_ends_here() -> None:
    head = scan(b"HTTP/1.1 200 OK\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nX-B: 2\r\nKeep-Alive: 5")
    assert head.segments == [b"HTTP/1.1 200 OK", b"X-B: 2"]
    assert not head.keep_alive


def test_keep_alive_by_version_and_word() -> None:
    assert not scan(b"HTTP/1.0 200 OK").keep_alive
    assert scan(b"HTTP/1.0 200 OK\r\nConnection: keep-alive").keep_alive
    assert not scan(b"HTTP/1.1 200 OK\r\nConnection: Close").keep_alive


def test_fields_we_write_ourselves_are_taken_out() -> None:
    head = scan(
        b"HTTP/1.1 200 OK\r\nVia: 1.0 a\r\nVia: 1.1 b\r\nTrailer: X-Sum\r\nUpgrade: h2c\r\nX-Kong-Request-Id: 1\r\n"
        b"X-Kong-Upstream-Latency: 1"
    )
    assert head.segments == [b"HTTP/1.1 200 OK"]
    assert head.via == b"1.0 a, 1.1 b"
    assert head.trailer == b"X-Sum"
    assert head.upgrade == b"h2c"


@pytest.mark.parametrize("data", [b"BANANA", b"HTTP/2", b"HTTP/1.1 200 OK\nX", b"\x15\x03\x01"])
def test_hopeless_beginnings(data: bytes) -> None:
    with pytest.raises(BadAnswer):
        ResponseScanner(ProxySettings()).check_incomplete(data)


def test_heads_are_bounded() -> None:
    scanner = ResponseScanner(ProxySettings(response_head_bytes_max=100))
    with pytest.raises(BadAnswer):
        scanner.check_incomplete(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100)
    with pytest.raises(BadAnswer):
        scanner.scan(b"HTTP/1.1 200 OK\r\nA: " + b"a" * 100)


def test_the_memories_are_bounded_and_forget_no_rule() -> None:
    scanner = ResponseScanner(ProxySettings())
    for number in range(10_000):
        head = scanner.scan(b"HTTP/1.1 200 OK\r\nX-Number: %d\r\nServer: x\r\nContent-Length: %d" % (number, number))
        assert head.length == number
        assert head.has_server
    assert scanner.lines_remembered == 1, "all others came once"
    for number in range(10_000):
        for _ in range(2):
            scanner.scan(b"HTTP/1.1 200 OK\r\nX-Number: %d" % number)
    assert 2048 <= scanner.lines_remembered <= 2 * 2048
    assert 512 <= scanner.heads_remembered <= 2 * 512
    with pytest.raises(BadAnswer):
        scanner.scan(b"HTTP/1.1 200 OK\r\nX Number: 1")


def test_a_head_that_comes_again_is_kept_and_found_in_the_older_generation() -> None:
    scanner = ResponseScanner(ProxySettings())
    once = scanner.scan(b"HTTP/1.1 200 OK\r\nX-Kept: 1")
    kept = scanner.scan(b"HTTP/1.1 200 OK\r\nX-Kept: 1")
    assert kept is not once
    for number in range(512):
        for _ in range(2):
            scanner.scan(b"HTTP/1.1 200 OK\r\nX-Number: %d" % number)
    assert scanner.scan(b"HTTP/1.1 200 OK\r\nX-Kept: 1") is kept


@pytest.mark.parametrize("line", [b"Set-Cookie: a=1", b"Authorization: x", b"X-Long: " + b"a" * 1024])
def test_heads_with_secrets_and_long_ones_are_not_remembered(line: bytes) -> None:
    scanner = ResponseScanner(ProxySettings())
    for _ in range(3):
        assert scanner.scan(b"HTTP/1.1 200 OK\r\n" + line).segments[1] == line
    assert scanner.heads_remembered == 0
    assert scanner.lines_remembered == 0
