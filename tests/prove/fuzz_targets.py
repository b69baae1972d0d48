"""`python -m tests.prove.fuzz_targets TARGET [atheris' options]`: coverage-guided fuzzing of one parser.

Each target states what must hold for any octets; an exception is a finding and ends the run.
"""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from collections.abc import Callable

import atheris  # type: ignore[import-untyped]  # ships no types

with atheris.instrument_imports(include=["data_plane.proxy", "pointsman.rules"]):
    from data_plane.proxy.chunks import BadChunk, ChunkDecoder
    from data_plane.proxy.head import BadRequest, RequestHead, RequestScanner, check_target
    from data_plane.proxy.proxy_header import BadProxyHeader, ProxyHeaderReader
    from data_plane.proxy.settings import ProxySettings
    from pointsman.rules.addresses import BadAddress, parse_host_port
    from pointsman.rules.paths import encode_for_upstream, normalise

from tests.conformance.strict_http import NotStrictError, read_request
from tests.property.chunk_model import ModelRefuses, read_chunked


def fuzz_head(data: bytes) -> None:
    """What is accepted, a strict reader reads too, with the same framing."""
    block = (data + b"\r\n\r\n").partition(b"\r\n\r\n")[0]
    head = RequestHead()
    try:
        RequestScanner(ProxySettings()).scan(block + b"\r\n\r\n", len(block), head)
        check_target(head.method, head.path)
    except BadRequest:
        return
    first, mark, fields = block.partition(b"\r\n")
    method, target, version = first.split(b" ")
    if version != b"HTTP/1.1":
        return
    size = max(head.length, 0)
    if size > 1000:
        return
    body = b"0\r\n\r\n" if head.chunked else b"x" * size
    try:
        read = read_request(method + b" " + target + b" HTTP/1.1" + mark + fields + b"\r\n\r\n" + body + b"NEXT")
    except NotStrictError as fault:
        raise AssertionError(f"accepted what a strict reader refuses: {fault}") from None
    assert read is not None
    assert read[1] == b"NEXT"


def fuzz_chunks(data: bytes) -> None:
    """What is accepted, the model reads alike; how it is cut does not matter."""
    if not data:
        return
    cut = 1 + data[0] % 16
    data = data[1:]
    readings: list[tuple[bytes, int] | None] = []
    for size in (cut, len(data) or 1):
        decoder = ChunkDecoder(extension_bytes_max=16384, trailer_bytes_max=8192)
        try:
            for at in range(0, len(data), size):
                end = decoder.feed(data[at : at + size])
                if decoder.done:
                    readings.append((b"".join(decoder.pieces), at + end))
                    break
            else:
                readings.append(None)
        except BadChunk:
            readings.append((b"refused", -1))
    assert readings[0] == readings[1]
    if readings[0] is not None and readings[0][1] >= 0:
        try:
            model = read_chunked(data)
        except ModelRefuses as fault:
            raise AssertionError(f"accepted what the model refuses: {fault}") from None
        assert readings[0] == model


def fuzz_paths(data: bytes) -> None:
    """Normal forms are fixed points, without dot segments, also by way of the wire."""
    once = normalise(b"/" + data)
    assert normalise(once) == once
    assert not {b".", b".."} & set(once.split(b"/"))
    assert normalise(encode_for_upstream(once)) == once


def fuzz_host(data: bytes) -> None:
    """A host is taken as one word, and an address written out reads as itself."""
    with contextlib.suppress(BadRequest):
        head = RequestHead()
        block = b"GET / HTTP/1.1\r\nHost: " + data
        if b"\r" not in data:
            RequestScanner(ProxySettings()).scan(block + b"\r\n\r\n", len(block), head)
            assert not set(head.host) & set(b" \t/\\?#@\r\n\x00")
    with contextlib.suppress(BadAddress):
        first = parse_host_port(data.decode("utf-8", "replace"))
        assert parse_host_port(str(first)) == first


def fuzz_proxy_header(data: bytes) -> None:
    """However it is cut, the verdict and the end are the same; an address is one."""

    def read(pieces: list[bytes]) -> object:
        reader, taken = ProxyHeaderReader(), 0
        for piece in pieces:
            try:
                size = reader.feed(piece)
            except BadProxyHeader:
                return "refused"
            assert 0 < size <= len(piece)
            taken += size
            if reader.header is not None:
                if reader.header.address:
                    ipaddress.ip_address(reader.header.address)
                return reader.header, taken
        return None

    whole = read([data] if data else [])
    assert read([data[at : at + 1] for at in range(len(data))]) == whole


TARGETS: dict[str, Callable[[bytes], None]] = {
    "head": fuzz_head,
    "chunks": fuzz_chunks,
    "paths": fuzz_paths,
    "host": fuzz_host,
    "proxy-header": fuzz_proxy_header,
}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
