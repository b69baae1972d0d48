"""Request heads made of what has fooled parsers before: the scan never fails, accepts only what a second, strict reader
takes and reads in the same way, and judges a head that comes in pieces like one that comes whole."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.proxy.head import BadRequest, RequestHead, RequestScanner, check_target
from data_plane.proxy.settings import ProxySettings
from tests.conformance.strict_http import NotStrictError, read_request
from tests.support.examples import examples

EXAMPLES = examples(125)

METHODS = st.sampled_from(
    [b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"M-SEARCH", b"TRACE", b"CONNECT", b"get", b"G@T", b""]
)
TARGETS = st.sampled_from(
    [
        b"/", b"/a?b=c", b"/a?b?c", b"*", b"http://h/x", b"http://h", b"https://h?x=1", b"http://u@h/", b"h:80",
        b"/a#b",
        b"//h/x", b"/%zz", b"/%00", b"/a b", b"/\xe9", b"/a\x00", b"/\\", b"ftp://h/", b"", b"/a\tb",
    ]
)  # fmt: skip
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.10", b"HTTP/1.1 ", b"HTTP/1", b""]
)
LINES = st.one_of(
    st.sampled_from(
        [
            b"Host: h", b"Host:h", b"Host: h:80", b"Host : h", b"Host: ", b"Host: a, b", b"host: h",
            b"Host: [::1]:80", b"Host: h/x",
            b"Content-Length: 3", b"Content-Length: 3, 3", b"Content-Length: +3", b"content-length: 0",
            b"Content-Length: 03",
            b"Content-Length: 99999999999999999999", b"Content-Length : 3", b"Content-Length:\x0b3",
            b"Content_Length: 3",
            b"Transfer-Encoding: chunked", b"Transfer-Encoding:chunked ", b"Transfer-Encoding: \x0bchunked",
            b"TE: trailers",
            b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: cow",
            b"transfer-encoding: CHUNKED", b"Transfer_Encoding: chunked", b"Transfer-Encoding:", b"X-A: 1", b"X-B:",
            b":",
            b" folded", b"\tfolded", b"Connection: close", b"Connection: Host, Content-Length",
            b"Connection: upgrade",
            b"Upgrade: websocket", b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: later",
            b"X-Forwarded-For: 1.2.3.4",
            b"X: a\rb", b"X: a\nb", b"X: a\x00b", b"X: \xff", b"X(: 1", b"\xe9: 1", b"no colon", b"",
        ]
    ),
    st.binary(max_size=8),
)  # fmt: skip
SEPARATORS = st.sampled_from([b"\r\n"] * 30 + [b"\n", b"\r", b"\r\r\n"])


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A head without its empty line; half of them have the one Host line that is needed to get any further."""
    lines = [b" ".join((draw(METHODS), draw(TARGETS), draw(VERSIONS)))]
    if draw(st.booleans()):
        lines = [b"GET /a?b=c HTTP/1.1", b"Host: h"]
    lines += draw(st.lists(LINES, max_size=6))
    text = lines[0]
    for line in lines[1:]:
        text += draw(SEPARATORS) + line
    # The first empty line ends a head.
    return (text + b"\r\n\r\n").partition(b"\r\n\r\n")[0]


def scan(block: bytes) -> RequestHead | None:
    """Return what the proxy makes of a head, None when it refuses it."""
    head = RequestHead()
    data = block + b"\r\n\r\n"
    try:
        RequestScanner(ProxySettings()).scan(data, data.find(b"\r\n\r\n"), head)
        check_target(head.method, head.path)
    except BadRequest:
        return None
    return head


@settings(max_examples=EXAMPLES, deadline=None)
@given(heads())
def test_what_is_accepted_a_strict_reader_reads_alike(block: bytes) -> None:
    head = scan(block)
    if head is None:
        return
    first, _, fields = block.partition(b"\r\n")
    method, target, version = first.split(b" ")
    assert head.method == method
    assert target.endswith(head.query)
    assert target.removesuffix(head.query).endswith(head.path) or head.path == b"/"
    if version != b"HTTP/1.1":
        # The strict reader knows one version; what it says about the fields holds for all.
        assert version.startswith(b"HTTP/1.")
        if not any(line.lower().startswith(b"host:") for line in fields.split(b"\r\n")):
            fields = b"Host: h" + (b"\r\n" + fields if fields else b"")
    body = b"0\r\n\r\n" if head.chunked else b"x" * max(head.length, 0) if head.length < 1000 else b""
    request = method + b" " + target + b" HTTP/1.1\r\n" + fields + b"\r\n\r\n"
    try:
        read = read_request(request + body + b"NEXT")
    except NotStrictError as fault:
        raise AssertionError(f"accepted what a strict reader refuses: {fault}") from None
    if head.length < 1000:
        assert read is not None
        message, rest = read
        assert rest == b"NEXT", "both must agree on where the body ends"
        assert head.chunked == bool(message.values("transfer-encoding"))
        assert (head.length >= 0) == bool(message.values("content-length"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(heads())
def test_what_goes_upstream_holds_no_framing_of_the_client(block: bytes) -> None:
    head = scan(block)
    if head is None:
        return
    for segment in head.segments:
        for line in segment.split(b"\r\n"):
            name = line.partition(b":")[0].lower().replace(b"_", b"-")
            assert name not in {
                b"host", b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"te", b"trailer",
                b"upgrade",
                b"expect", b"proxy-connection", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via",
            }, line  # fmt: skip


@settings(max_examples=EXAMPLES, deadline=None)
@given(heads(), st.integers(0, 200))
def test_no_prefix_of_a_good_head_is_refused(block: bytes, cut: int) -> None:
    data = block + b"\r\n\r\n"
    part = data[: min(cut, len(data) - 1)]
    refused = False
    try:
        RequestScanner(ProxySettings()).check_incomplete(part, 0)
    except BadRequest:
        refused = True
    if refused:
        assert scan(block) is None


@settings(max_examples=EXAMPLES, deadline=None)
@given(heads(), heads())
def test_a_head_means_the_same_after_another_one(first: bytes, second: bytes) -> None:
    """Heads of one connection are scanned into the same object, and equal field lines are not scanned again."""
    scanner = RequestScanner(ProxySettings())
    shared = RequestHead()
    for block in (first, first, second):
        try:
            scanner.scan(block + b"\r\n\r\n", len(block), shared)
        except BadRequest:
            continue
    fresh = RequestHead()
    try:
        RequestScanner(ProxySettings()).scan(second + b"\r\n\r\n", len(second), fresh)
    except BadRequest:
        return
    names = set(RequestHead.__slots__)
    assert {name: getattr(shared, name) for name in names} == {name: getattr(fresh, name) for name in names}


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=200))
def test_no_octets_at_all_make_it_fail(raw: bytes) -> None:
    scan(raw.partition(b"\r\n\r\n")[0])
    try:
        RequestScanner(ProxySettings()).check_incomplete(raw, 0)
    except BadRequest:
        return
