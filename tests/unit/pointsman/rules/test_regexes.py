"""Patterns from the configuration compile within limits, anchored as the router needs them."""

from __future__ import annotations

import pytest

from pointsman.rules.regexes import PATTERN_BYTES_MAX, BadRegex, compile_header_regex, compile_path_regex


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        (r"/status/\d+", "/status/200/x", "/status/200"),
        (r"/status/\d+$", "/status/200/x", None),
        (r"/a|/b", "/b", "/b"),
        (r"/a|/b", "/x/b", None),
        (r"/A", "/a", None),
    ],
)
def test_a_path_regex_is_anchored_at_its_start_in_all_branches(pattern: str, path: str, matched: str | None) -> None:
    found = compile_path_regex(pattern).search(path)

    assert (found.group() if found else None) == matched


@pytest.mark.parametrize("pattern", [r"/(?<version>v\d)/(\w+)", r"/(?P<version>v\d)/(\w+)"])
def test_named_groups_may_be_written_either_way(pattern: str) -> None:
    found = compile_path_regex(pattern).match("/v1/users")

    assert found is not None
    assert found.groupdict() == {"version": "v1"}
    assert found.groups() == ("v1", "users")


def test_header_regexes_search_and_ignore_case() -> None:
    pattern = compile_header_regex(r"blue|GREEN")

    assert pattern.search("a Green one")
    assert not pattern.search("red")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        (r"/a[", "missing ]: ["),
        (r"/a)|(/b", "unexpected ): /a)|(/b"),
        (r"/a(?=b)", "invalid perl operator: (?="),
        (r"/(a)\1", r"invalid escape sequence: \1"),
        (r"/" + "a" * PATTERN_BYTES_MAX, f"longer than {PATTERN_BYTES_MAX} bytes"),
        (r"/((a{100}){100}){100}", "invalid repetition size: {100}"),
        (r"/(\pL{900}){1}(\pL{900})", "pattern too large"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_the_reason(pattern: str, reason: str) -> None:
    with pytest.raises(BadRegex) as caught:
        compile_path_regex(pattern)

    assert reason in str(caught.value)
