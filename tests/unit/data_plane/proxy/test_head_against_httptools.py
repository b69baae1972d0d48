"""The head scan beside httptools on the same bytes. Goal: wherever we accept, httptools reads the same thing; the ways
in which we refuse more are intended and listed, and so are the few things httptools refuses that we take."""

from __future__ import annotations

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.proxy.head import BadRequest, RequestHead, RequestScanner, check_target
from data_plane.proxy.settings import ProxySettings
from tests.support.examples import examples

# Where we accept and llhttp refuses: methods it doesn't know, versions 1.2 to 1.9, and CONNECT-like targets it has its
# own states for. Everything else we accept, it must accept.
KNOWN_METHODS = {b"GET", b"POST", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"M-SEARCH", b"PURGE"}


class Reading:
    """What httptools makes of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


LINES = """
GET|POST|FROB| |  |/|/a?b=c|*|http://h/x| HTTP/1.1| HTTP/1.0|Host: h|Host:h|Host : h|Content-Length: 3
Content-Length: 3, 3|X-A: 1|X-B:|Transfer-Encoding: chunked|Transfer-Encoding: gzip, chunked|Connection: close
Connection: x, y| folded|:|Expect: 100-continue|Upgrade: websocket|X_Y: 2
"""
FRAGMENTS = st.sampled_from(
    [
        *(text.encode() for line in LINES.strip("\n").split("\n") for text in line.split("|")),
        *(b"\r\n", b"\n", b"\r", b"\t", b"\x00", b"\xe9"),
    ]
)


def ours(block: bytes) -> RequestHead | None:
    head = RequestHead()
    try:
        RequestScanner(ProxySettings()).scan(block + b"\r\n\r\n", len(block), head)
        check_target(head.method, head.path)
    except BadRequest:
        return None
    return head


def theirs(block: bytes) -> tuple[Reading, bytes] | None:
    reading = Reading()
    parser = httptools.HttpRequestParser(reading)
    try:
        parser.feed_data(block + b"\r\n\r\n")
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    return (reading, parser.get_method()) if reading.complete else None


def compare(block: bytes) -> None:
    head = ours(block)
    if head is None or head.method not in KNOWN_METHODS:
        return
    read = theirs(block)
    if read is None:
        assert not block.split(b"\r\n")[0].endswith((b"HTTP/1.1", b"HTTP/1.0")), block
        return
    reading, method = read
    assert method == head.method
    lengths = [value for name, value in reading.headers if name.lower() == b"content-length"]
    assert head.length == (int(lengths[0]) if lengths else -1)
    assert head.chunked == any(name.lower() == b"transfer-encoding" for name, _ in reading.headers)
    for name, value in reading.headers:
        assert value.strip(b" \t") in head.values(name.lower())
    if reading.url.startswith(b"/"):
        assert reading.url == head.path + head.query


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(FRAGMENTS, max_size=12))
def test_fragments_in_any_order(fragments: list[bytes]) -> None:
    compare(b"".join(fragments))


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(FRAGMENTS, max_size=8), st.sampled_from([b"HTTP/1.1", b"HTTP/1.0"]))
def test_fragments_as_lines_after_a_good_request_line(fragments: list[bytes], version: bytes) -> None:
    compare(b"\r\n".join([b"GET /x " + version, b"Host: h", *fragments]))


@settings(max_examples=examples(100), deadline=None)
@given(st.binary(max_size=12), st.binary(max_size=12))
def test_any_octets_in_a_field(name: bytes, value: bytes) -> None:
    compare(b"GET /x HTTP/1.1\r\nHost: h\r\n" + name + b":" + value)
