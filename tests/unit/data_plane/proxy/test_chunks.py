"""The chunk decoder against a naive model, at every split, and what it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_plane.proxy.chunks import BadChunk, ChunkDecoder


def decoder(*, extensions: int = 100, trailers: int = 100) -> ChunkDecoder:
    return ChunkDecoder(extension_bytes_max=extensions, trailer_bytes_max=trailers)


def decode(parts: list[bytes]) -> tuple[bytes, bytes, list[bytes], bool]:
    """Feed the parts; return content, what is left after the end, trailers and whether it ended."""
    subject = decoder()
    content = b""
    for index, part in enumerate(parts):
        end = subject.feed(part)
        content += b"".join(subject.pieces)
        subject.pieces = []
        if subject.done:
            return content, part[end:] + b"".join(parts[index + 1 :]), subject.trailers, True
        assert end == len(part)
    return content, b"", subject.trailers, False


def encode(chunks: list[bytes], *, extension: bytes = b"", trailer: bytes = b"") -> bytes:
    framed = b"".join(b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks if chunk)
    return framed + b"0\r\n" + trailer + b"\r\n"


@given(st.lists(st.binary(max_size=40), max_size=6), st.data())
def test_any_split_gives_the_content_and_the_rest(chunks: list[bytes], data: st.DataObject) -> None:
    wire = encode(chunks, extension=b";a=b", trailer=b"X-Sum: 1\r\n") + b"NEXT"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    parts = [wire[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    content, rest, trailers, done = decode([part for part in parts if part])
    assert (content, rest, trailers, done) == (b"".join(chunks), b"NEXT", [b"X-Sum: 1"], True)


def test_every_single_split_and_octet_by_octet() -> None:
    wire = encode([b"hello", b"world!"], extension=b' ; q="a;b"', trailer=b"X-A: 1\r\nHost: evil\r\n")
    expected = (b"helloworld!", b"", [b"X-A: 1"], True)
    for cut in range(1, len(wire)):
        assert decode([wire[:cut], wire[cut:]]) == expected
    assert decode([wire[i : i + 1] for i in range(len(wire))]) == expected


@given(st.binary(max_size=60))
def test_garbage_never_ends_a_body_that_a_strict_model_would_not_end(data: bytes) -> None:
    """Whatever the decoder accepts as complete must be exactly what re-encoding its content could have produced."""
    subject = decoder()
    try:
        end = subject.feed(data)
    except BadChunk:
        return
    if subject.done:
        assert data[:end].endswith(b"\r\n\r\n") or data[:end] == b"0\r\n\r\n"
        assert b"".join(subject.pieces) in data


@pytest.mark.parametrize(
    "wire",
    [
        b"0x5\r\nhello\r\n",
        b"5g\r\n",
        b"-5\r\n",
        b"+5\r\n",
        b" 5\r\n",
        b"5 \r\nhello\r\n",
        b"5 5\r\n",
        b"5,\r\n",
        b"\r\n",
        b";a\r\n",
        b"5;\r\n",
        b"5;a=\r\n",
        b'5;a="x\r\nhello\r\n',
        b"5;a\x00\r\n",
        b"5\nhello\r\n",
        b"5\rXhello",
        b"5\r\nhello\n0\r\n",
        b"5\r\nhelloXX",
        b"3\r\nhello\r\n",
        b"5\r\nhello\r\n\r\n",
        b"0\n\r\n",
        b"0\r\n\n",
        b"0\r\nXXGET / HTTP/1.1\r\n",
        b"0\r\nX-A: \x00\r\n",
        b"0\r\n X-A: 1\r\n",
        b"10000000000000005\r\n",
        b"FFFFFFFFFFFFFFFF\r\n",
        b"zzzzzzzzzzzzzzzzzzzzzzzzzz",
        b"\x01",
    ],
)
def test_bad_framing(wire: bytes) -> None:
    for parts in ([wire], [wire[i : i + 1] for i in range(len(wire))]):
        with pytest.raises(BadChunk) as caught:
            decode(parts)
        assert caught.value.status == 400


def test_limits() -> None:
    with pytest.raises(BadChunk) as caught:
        decoder(extensions=10).feed(b"5;aaaaaaaaaaaaaaaa\r\n")
    assert caught.value.status == 413
    subject = decoder(extensions=10)
    subject.feed(b"1;abc\r\nx\r\n1;abc\r\nx\r\n")
    with pytest.raises(BadChunk):
        subject.feed(b"1;abc\r\nx\r\n")
    with pytest.raises(BadChunk) as caught:
        decoder(trailers=10).feed(b"0\r\nX-A: 123456789\r\n")
    assert caught.value.status == 431
    with pytest.raises(BadChunk):
        decoder(trailers=10).feed(b"0\r\nX-A: 12345678901234")
    with pytest.raises(BadChunk):
        decoder(extensions=10).feed(b"5;" + b"a" * 100)


def test_content_is_counted() -> None:
    subject = decoder()
    subject.feed(b"5\r\nhello\r\n3\r\nab")
    assert subject.received == 7
