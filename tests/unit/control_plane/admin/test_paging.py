"""Page size, offset tokens and tag filters of the query."""

from __future__ import annotations

import pytest

from control_plane.admin.messages import Refused
from control_plane.admin.paging import decode_offset, encode_offset, page, page_size, tag_filter
from control_plane.entities.errors import EntityError, InvalidOffset, InvalidOptions, InvalidSize
from control_plane.store.contract import TagFilter
from tests.unit.control_plane.admin.calls import call


@pytest.mark.parametrize(("query", "size"), [("", 100), ("?size=1", 1), ("?size=1000", 1000), ("?size=2.0", 2)])
def test_size(query: str, size: int) -> None:
    assert page_size(call("GET", f"/services{query}")) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "size must be a number"),
        ("x", "size must be a number"),
        ("2.5", "size must be an integer between 1 and 1000"),
        ("0", "size must be an integer between 1 and 1000"),
        ("1001", "size must be an integer between 1 and 1000"),
        ("nan", "size must be an integer between 1 and 1000"),
        ("inf", "size must be an integer between 1 and 1000"),
    ],
)
def test_bad_size(value: str, message: str) -> None:
    with pytest.raises(InvalidSize) as caught:
        page_size(call("GET", f"/services?size={value}"))
    assert caught.value.message == message


def test_offset_there_and_back() -> None:
    token = encode_offset("00000014-0000-4000-8000-000000000014")
    assert token == "WyIwMDAwMDAxNC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDAwMTQiXQ"
    assert decode_offset(call("GET", f"/services?offset={token}")) == ("00000014-0000-4000-8000-000000000014",)


def test_offset_of_text_beyond_ascii_survives_the_query() -> None:
    key = ("id", "ü?>~", "services")
    rows = page(call("GET", "/tags"), [], offset=encode_offset(*key))
    assert decode_offset(call("GET", str(rows["next"])), parts=3) == key


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("garbage", "bad json encoding"),
        ("", "bad json encoding"),
        ("not!base64", "bad base64 encoding"),
        ("abcde", "bad base64 encoding"),
        ("W10", "bad json encoding"),  # []
        ("WzFd", "bad json encoding"),  # [1]
        ("W1tbW1tb" * 200, "bad json encoding"),
        ("A" * 4000, "bad base64 encoding"),
    ],
)
def test_bad_offset(token: str, why: str) -> None:
    with pytest.raises(InvalidOffset) as caught:
        decode_offset(call("GET", f"/services?offset={token}"))
    assert caught.value.message == f"'{token[:2000]}' is not a valid offset: {why}"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", None),
        ("?tags=a", TagFilter(("a",))),
        ("?tags=a,b", TagFilter(("a", "b"))),
        ("?tags=a/b", TagFilter(("a", "b"), match_all=False)),
        ("?tags=sp%20ace", TagFilter(("sp ace",))),
        ("?tags=%C3%BC", TagFilter(("ü",))),
        ("?tags=a&tags=b", TagFilter(("a",))),
    ],
)
def test_tag_filter(query: str, expected: TagFilter | None) -> None:
    assert tag_filter(call("GET", f"/services{query}")) == expected


@pytest.mark.parametrize(
    ("query", "error", "words"),
    [
        ("?tags=", InvalidOptions, r"invalid option \(tags: cannot be null\)"),
        ("?tags", InvalidOptions, "cannot be null"),
        ("?tags=a,b/c", InvalidOptions, r"invalid option \(tags: invalid filter syntax\)"),
        ("?tags=,", InvalidOptions, "invalid filter syntax"),
        ("?tags=a/", InvalidOptions, "invalid filter syntax"),
        ("?tags=a%01", InvalidOptions, "invalid filter syntax"),
        ("?tags=a,b,c,d,e,f", Refused, "cannot query more than 5 tags"),
    ],
)
def test_bad_tag_filter(query: str, error: type[EntityError | Refused], words: str) -> None:
    with pytest.raises(error, match=words):
        tag_filter(call("GET", f"/services{query}"))


def test_the_last_page_has_no_offset() -> None:
    assert page(call("GET", "/services"), [], offset=None) == {"data": [], "next": None}


def test_the_address_of_the_next_page() -> None:
    request = call("GET", "/services/?tags=sp%20ace&size=2&foo=1")
    assert page(request, [], offset="T", keep=("tags", "size"))["next"] == "/services?offset=T&tags=sp%20ace&size=2"


def test_too_many_arguments() -> None:
    with pytest.raises(Refused, match="Too many arguments"):
        page_size(call("GET", "/services?" + "a=1&" * 1001))
