"""Paths are normalised alike on both planes, and what is normal costs nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.rules.paths import encode_for_upstream, is_normalised, normalise

PIECES = st.sampled_from(
    [b"/", b"//", b".", b"..", b"%", b"%2", b"%2e", b"%2F", b"%25", b"%41", b"%36", b"a", b"4", b"F"]
)
PATHS = st.lists(PIECES | st.binary(max_size=3), max_size=12).map(lambda pieces: b"/" + b"".join(pieces))


@pytest.mark.parametrize(
    ("raw", "normal", "upstream"),
    [
        (b"/a%2fb", b"/a%2Fb", b"/a%2Fb"),
        (b"/foo%20bar", b"/foo bar", b"/foo%20bar"),
        (b"/caf%c3%a9", "/café".encode(), b"/caf%C3%A9"),
        (b"/a/%2e%2e/b", b"/b", b"/b"),
        (b"///a//b", b"/a/b", b"/a/b"),
        (b"/a%25b", b"/a%25b", b"/a%25b"),
        (b"/a^b", b"/a^b", b"/a%5Eb"),
        (b"/a%zz", b"/a%zz", b"/a%zz"),
        (b"/%7Euser", b"/~user", b"/~user"),
        (b"/[x]", b"/[x]", b"/[x]"),
        (b'/"q"', b'/"q"', b"/%22q%22"),
        (b"/%2541", b"/%2541", b"/%2541"),
        (b"/%00", b"/\x00", b"/%00"),
    ],
)
def test_a_path_is_matched_and_sent_in_these_forms(raw: bytes, normal: bytes, upstream: bytes) -> None:
    assert normalise(raw) == normal
    assert encode_for_upstream(normal) == upstream


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        (b"", b""),
        (b"/", b"/"),
        (b"*", b"*"),
        (b"/..", b"/"),
        (b"/../../a", b"/a"),
        (b"/a/b/..", b"/a/"),
        (b"/a/b/.", b"/a/b/"),
        (b"/a/./b/../c/", b"/a/c/"),
        (b"/a/...", b"/a/..."),
        (b"/a/..x", b"/a/..x"),
        (b"/.hidden", b"/.hidden"),
        (b"/a%2e/b", b"/a./b"),
    ],
)
def test_dot_segments_and_empty_segments_are_resolved(raw: bytes, normal: bytes) -> None:
    assert normalise(raw) == normal


@pytest.mark.parametrize("path", [b"/", b"/anything", b"/a/b.c/d-e_f~g", "/café".encode(), b"/a+b"])
def test_a_normal_path_is_returned_as_it_is(path: bytes) -> None:
    assert normalise(path) is path
    assert is_normalised(path)


def test_a_safe_path_is_not_encoded_again() -> None:
    path = b"/a/b?c#[d]%2F"

    assert encode_for_upstream(path) is path


@pytest.mark.parametrize("raw", [b"/%%36%31dmin", b"/%6%31dmin", b"/%%361dmin"])
def test_a_broken_escape_never_becomes_a_whole_one(raw: bytes) -> None:
    """Otherwise a request could pass the route of /admin and still be read as /admin by the upstream server."""
    assert b"%61" not in normalise(raw)
    assert b"%61" not in encode_for_upstream(normalise(raw))


@given(PATHS)
def test_normalising_twice_changes_nothing(raw: bytes) -> None:
    once = normalise(raw)

    assert normalise(once) == once
    assert is_normalised(once)


@given(PATHS)
def test_a_normal_path_has_no_empty_and_no_dot_segments(raw: bytes) -> None:
    segments = normalise(raw).split(b"/")[1:]

    assert b"" not in segments[:-1]
    assert not {b".", b".."} & set(segments)


@given(PATHS)
def test_what_goes_upstream_is_read_as_what_was_matched(raw: bytes) -> None:
    matched = normalise(raw)
    sent = encode_for_upstream(matched)

    assert sent.isascii()
    assert not any(byte <= 0x20 or byte == 0x7F for byte in sent)
    assert normalise(sent) == matched
