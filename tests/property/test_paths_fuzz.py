"""The path normaliser on arbitrary octets: it never fails, ends in a fixed point, leaves no way round a prefix rule,
and what goes upstream is plain and means what was matched."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman.rules.paths import encode_for_upstream, is_normalised, normalise
from tests.support.examples import examples

EXAMPLES = examples(200)

FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            b"/", b"//", b".", b"..", b"/../", b"/./", b"%2e", b"%2E", b"%2f", b"%5c", b"\\", b"%", b"%%", b"%2",
            b"%25",
            b"%252e", b"%00", b"%0a", b"%41", b"%7e", b"admin", b";", b"..;", b"%c0%af", b"\xff", b" ", b"?", b"#",
            b"%3F",
        ]
    ),
    st.binary(max_size=4),
)  # fmt: skip
PATHS = st.lists(FRAGMENTS, max_size=12).map(lambda parts: b"/" + b"".join(parts))
UPSTREAM = re.compile(rb"/[A-Za-z0-9\-_.~!#$&'()*+,/:;=?@\[\]%]*")


@settings(max_examples=EXAMPLES, deadline=None)
@given(PATHS)
def test_normalising_twice_is_normalising_once(path: bytes) -> None:
    once = normalise(path)
    assert normalise(once) == once
    assert is_normalised(once)


@settings(max_examples=EXAMPLES, deadline=None)
@given(PATHS)
def test_a_normal_path_has_no_dot_segment_and_no_empty_one(path: bytes) -> None:
    once = normalise(path)
    assert once.startswith(b"/")
    segments = once.split(b"/")[1:]
    assert b"." not in segments
    assert b".." not in segments
    assert b"" not in segments[:-1]
    assert len(once) <= len(path) + 1


@settings(max_examples=EXAMPLES, deadline=None)
@given(PATHS)
def test_what_goes_upstream_is_plain_and_decodes_to_what_was_matched(path: bytes) -> None:
    once = normalise(path)
    sent = encode_for_upstream(once)
    assert UPSTREAM.fullmatch(sent), "no space, control octet or high octet may reach a request line"
    assert unquote_to_bytes(sent) == unquote_to_bytes(once)
    assert encode_for_upstream(sent) == sent


@settings(max_examples=EXAMPLES, deadline=None)
@given(PATHS)
def test_the_path_sent_is_routed_like_the_path_that_came(path: bytes) -> None:
    once = normalise(path)
    # Octets that must be escaped on the wire come back as themselves; reserved ones keep the escape that they had.
    assert normalise(encode_for_upstream(once)) == once


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=60))
def test_no_octets_at_all_make_it_fail(raw: bytes) -> None:
    normalise(raw)
    encode_for_upstream(raw)
