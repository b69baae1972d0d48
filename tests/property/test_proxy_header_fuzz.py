"""The PROXY header's reader: what is well-formed is read whole, however it is cut, and nothing else is."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.proxy.proxy_header import HEADER_BYTES_MAX, BadProxyHeader, ProxyHeader, ProxyHeaderReader
from tests.property.test_chunks_fuzz import CUTS, pieces_of
from tests.support.examples import examples

EXAMPLES = examples(100)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

PORTS = st.integers(0, 65535)
EXTENSIONS = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=4).map(
    lambda all_of: b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in all_of)
)
BEHIND = st.binary(max_size=30)
ANYTHING = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"127.0.0.1 ", b"::1 ", b"1 ", b"65536", b"\r\n", b"\r",
                b"\n",
                SIGNATURE, SIGNATURE[:7], b"\x21\x11\x00\x0c", b"\x20\x00\x00\x00", b"\x21\x21\x00\x24", b"\xff\xff",
                b" ",
            ]
        ),
        st.binary(max_size=14),
    ),
    max_size=10,
).map(b"".join)  # fmt: skip


def read(pieces: list[bytes]) -> tuple[ProxyHeader, int] | str | None:
    """Return the header and the octets it took, "refused", or None when it is not complete."""
    reader = ProxyHeaderReader()
    taken = 0
    for piece in pieces:
        try:
            size = reader.feed(piece)
        except BadProxyHeader:
            return "refused"
        taken += size
        if reader.header is not None:
            return reader.header, taken
        assert size == len(piece), "an incomplete header takes all there is"
    return None


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.ip_addresses(), st.ip_addresses(), st.tuples(PORTS, PORTS), BEHIND, CUTS)
def test_version_1_is_read_to_its_end(
    source: ipaddress.IPv4Address, other: ipaddress.IPv4Address, ports: tuple[int, int], behind: bytes, cuts: list[int]
) -> None:
    port, to = ports
    destination = type(source)(int(other) % (1 << source.max_prefixlen))
    line = f"PROXY TCP{source.version} {source} {destination} {port} {to}\r\n".encode()
    assert read(pieces_of(line + behind, cuts)) == (ProxyHeader(_shown(source), port), len(line))
    assert read(pieces_of(line[:-1], cuts)) is None


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.ip_addresses(), st.tuples(PORTS, PORTS), EXTENSIONS, BEHIND, CUTS)
def test_version_2_is_read_to_its_end(
    source: ipaddress.IPv4Address, ports: tuple[int, int], extensions: bytes, behind: bytes, cuts: list[int]
) -> None:
    port, to = ports
    family = 0x11 if source.version == 4 else 0x21
    rest = source.packed + source.packed + struct.pack("!HH", port, to) + extensions
    header = SIGNATURE + struct.pack("!BBH", 0x21, family, len(rest)) + rest
    assert read(pieces_of(header + behind, cuts)) == (ProxyHeader(_shown(source), port), len(header))
    assert read(pieces_of(header[:-1], cuts)) is None


@settings(max_examples=EXAMPLES, deadline=None)
@given(ANYTHING, CUTS)
def test_the_cut_does_not_matter_to_the_verdict(data: bytes, cuts: list[int]) -> None:
    whole = read([data] if data else [])
    assert read(pieces_of(data, cuts)) == whole
    assert read([data[at : at + 1] for at in range(len(data))]) == whole


@pytest.mark.parametrize(
    "header",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\n",
        b"PROXY  TCP4 127.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 02\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 65536\r\n",
        b"PROXY TCP4 127.0.0.01 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 127.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1\r\n",
        b"PROXY UNKNOWN \x00\r\n",
        b"PROXY UNKNOWN " + b"x" * 200,
        b"proxy UNKNOWN\r\n",
        SIGNATURE + b"\x11\x11\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x22\x11\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x13\x00\x0c" + b"\0" * 12,
        SIGNATURE + b"\x21\x11\x00\x0b" + b"\0" * 11,
        SIGNATURE + b"\x21\x11\x00\x0e" + b"\0" * 14,
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, HEADER_BYTES_MAX),
    ],
)
def test_what_has_no_single_meaning_is_refused(header: bytes) -> None:
    assert read([header]) == "refused"


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 whatever\r\n",
        SIGNATURE + b"\x20\x00\x00\x00",
        SIGNATURE + b"\x20\x11\x00\x02xx",
        SIGNATURE + b"\x21\x00\x00\x00",
        SIGNATURE + b"\x21\x31\x00\xd8" + b"\0" * 216,
    ],
)
def test_a_header_may_name_nobody(header: bytes) -> None:
    assert read([header + b"GET"]) == (ProxyHeader(), len(header))


def _shown(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """As the system writes it, which differs from Python for IPv4 inside IPv6."""
    return socket.inet_ntop(socket.AF_INET if address.version == 4 else socket.AF_INET6, address.packed)
