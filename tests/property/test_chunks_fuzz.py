"""The chunk decoder against a slow strict reader written for the runners: it never accepts what that refuses, reads the
same content, ends at the same octet, and does so however the octets were cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from data_plane.proxy.chunks import BadChunk, ChunkDecoder
from tests.property.chunk_model import ModelRefuses, read_chunked
from tests.support.examples import examples

EXAMPLES = examples(100)

FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            b"0\r\n\r\n", b"0\r\n", b"\r\n", b"\n", b"\r", b"3\r\nabc\r\n", b"3\r\nabc", b"a\r\n0123456789\r\n",
            b"5 ", b"3;",
            b"3;x=1\r\nabc\r\n", b'3;x="a;b"\r\nabc\r\n', b"+3", b"-1", b"0x3", b"1_0", b"00000003\r\nabc\r\n",
            b"X-T: 1\r\n",
            b"Host: evil\r\n", b"Content-Length: 9\r\n", b" folded\r\n", b":\r\n", b"8000000000000000\r\n",
            b"10000000000000000\r\n", b"7fffffffffffffff\r\n", b"\t", b"\x00", b"\xe9",
            b"GET /canary HTTP/1.1\r\n\r\n",
        ]
    ),
    st.binary(max_size=6),
)  # fmt: skip
BODIES = st.lists(FRAGMENTS, max_size=12).map(b"".join)
CONTENTS = st.lists(st.binary(min_size=1, max_size=50), max_size=8)
CUTS = st.lists(st.integers(0, 400), max_size=12)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at the given places."""
    places = [0, *sorted(cut for cut in set(cuts) if 0 < cut < len(data)), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


def decode(pieces: list[bytes]) -> tuple[bytes, int] | None:
    """Return the content and how many octets the body took, None when it is not complete; raises `BadChunk`."""
    decoder = ChunkDecoder(extension_bytes_max=16384, trailer_bytes_max=8192)
    taken = 0
    for piece in pieces:
        end = decoder.feed(piece)
        assert 0 <= end <= len(piece)
        if decoder.done:
            assert decoder.received == sum(map(len, decoder.pieces))
            return b"".join(decoder.pieces), taken + end
        assert end == len(piece), "an incomplete body takes all there is"
        taken += len(piece)
    return None


def verdict(pieces: list[bytes]) -> tuple[bytes, int] | str | None:
    """Like `decode`, with "refused" for a refusal."""
    try:
        return decode(pieces)
    except BadChunk:
        return "refused"


@settings(max_examples=EXAMPLES, deadline=None)
@given(BODIES, CUTS)
def test_what_is_accepted_is_what_the_model_reads(data: bytes, cuts: list[int]) -> None:
    got = verdict(pieces_of(data, cuts))
    if isinstance(got, tuple):
        try:
            model = read_chunked(data)
        except ModelRefuses as fault:
            raise AssertionError(f"accepted what the model refuses: {fault}") from None
        assert got == model


@settings(max_examples=EXAMPLES, deadline=None)
@given(BODIES, CUTS)
def test_the_cut_does_not_matter_to_the_verdict(data: bytes, cuts: list[int]) -> None:
    whole = verdict([data] if data else [])
    assert verdict(pieces_of(data, cuts)) == whole
    assert verdict([data[at : at + 1] for at in range(len(data))]) == whole


@settings(max_examples=EXAMPLES, deadline=None)
@given(CONTENTS, st.binary(max_size=20), CUTS)
def test_every_well_formed_body_is_read_to_its_end(contents: list[bytes], behind: bytes, cuts: list[int]) -> None:
    body = b"".join(b"%X\r\n%s\r\n" % (len(each), each) for each in contents) + b"0\r\nX-Sum: 1\r\n\r\n"
    assert verdict(pieces_of(body + behind, cuts)) == (b"".join(contents), len(body))
    for short in range(0, len(body), 1 + len(body) // 20):
        assert verdict(pieces_of(body[:short], cuts)) is None


def test_spaces_before_an_extension_are_taken_however_they_are_cut() -> None:
    """Found by fuzzing: a size line without its `;` yet was refused once it was longer than any size."""
    body = b"3" + b" " * 30 + b";x\r\nabc\r\n0\r\n\r\n"
    assert verdict([body]) == (b"abc", len(body))
    for cut in range(1, len(body)):
        assert verdict([body[:cut], body[cut:]]) == (b"abc", len(body))
