"""Hosts, as clients send them and as operators write them: never a crash, nothing that two readers could take for two
different hosts, and a form that stays the same when it is read again."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.proxy.head import BadRequest, RequestHead, RequestScanner
from data_plane.proxy.settings import ProxySettings
from pointsman.rules.addresses import BadAddress, parse_host_port
from tests.support.examples import examples

EXAMPLES = examples(200)

FRAGMENTS = st.sampled_from(
    [
        "a", "A.b", "example.test", "127.0.0.1", "0177.1", "::1", "[::1]", "[", "]", ":", ":80", ":99999", ":-1",
        ":+80", ":8 0",
        ".", "..", "-", "_", "@", "/", "\\", "?", "#", "%", "%41", "%00", ",", ";", " ", "\t", "é", "xn--a", "*",
        "[::ffff:1.2.3.4]", "%25eth0",
    ]
)  # fmt: skip
HOSTS = st.lists(FRAGMENTS, max_size=5).map("".join)
# A model of its own: characters that end or split a host in some reader are nowhere, brackets and colons only where an
# address and a port want them.
NAME = re.compile(rb"[^\x00-\x20\x7f-\xff:/?#@\[\]\\\"<>^`{|}]+")
LITERAL = re.compile(rb"\[[0-9A-Fa-f:.]+\]")


def host_of(raw: bytes) -> bytes | None:
    """Return the host that the proxy reads from a Host line, None when it refuses it."""
    block = b"GET / HTTP/1.1\r\nHost: " + raw
    head = RequestHead()
    try:
        RequestScanner(ProxySettings()).scan(block + b"\r\n\r\n", len(block), head)
    except BadRequest:
        return None
    return head.host


@settings(max_examples=EXAMPLES, deadline=None)
@given(HOSTS.map(lambda text: text.encode()))
def test_an_accepted_host_is_one_host_with_at_most_one_port(raw: bytes) -> None:
    host = host_of(raw)
    if host is None:
        return
    assert host == raw.strip(b" \t")
    literal = LITERAL.match(host)
    name = literal or NAME.match(host)
    assert name is not None, "refused by the model"
    port = host[name.end() :]
    assert not port or re.fullmatch(rb":[0-9]*", port), "refused by the model"
    assert host_of(host) == host


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.one_of(HOSTS, st.text(max_size=30)))
def test_an_address_written_out_reads_as_itself(text: str) -> None:
    try:
        first = parse_host_port(text)
    except BadAddress:
        return
    assert parse_host_port(str(first)) == first
    assert first.port is None or 0 <= first.port <= 65535
    assert not re.search(r"[\x00-\x20/?#@\\]", first.host)
