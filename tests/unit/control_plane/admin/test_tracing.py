"""What `/fleet/trace` makes of its body, and what it answers when nobody can say."""

from __future__ import annotations

import pytest

from control_plane.admin.messages import Refused
from control_plane.admin.tracing import question_of
from control_plane.entities.types import EntityBody


def test_a_url_alone_is_a_get_with_its_host() -> None:
    question = question_of({"url": "http://shop.test:8080/cart%20x?id=1"})
    assert (question.method, question.scheme, question.port) == ("GET", "http", 8080)
    assert question.target == "/cart%20x?id=1"
    assert question.headers == (("Host", "shop.test:8080"),)
    assert question.sni == ""


def test_an_https_url_brings_its_name_as_sni() -> None:
    question = question_of({"url": "https://user@shop.test?"})
    assert (question.port, question.target, question.sni) == (443, "/?", "shop.test")
    assert question.headers == (("Host", "shop.test"),)
    assert question_of({"url": "https://127.0.0.1/"}).sni == ""
    assert question_of({"url": "https://[::1]:8443/"}).sni == ""
    assert question_of({"url": "https://a.test/", "sni": "b.test"}).sni == "b.test"


def test_headers_are_texts_or_lists_and_a_host_takes_the_urls_place() -> None:
    question = question_of({"url": "http://a.test/", "headers": {"host": "b.test", "x-a": ["1", "2"]}})
    assert question.headers == (("host", "b.test"), ("x-a", "1"), ("x-a", "2"))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "url"),
        ({"url": "/cart"}, "url"),
        ({"url": "http://a.test:99999/"}, "port"),
        ({"url": "http://a.test/\u00fc"}, "ASCII"),
        ({"url": "http://a.test/", "method": "get"}, "method"),
        ({"url": 5}, "url"),
        ({"url": "http://a.test/", "headers": []}, "headers"),
        ({"url": "http://a.test/", "headers": {"a b": "1"}}, "header name"),
        ({"url": "http://a.test/", "headers": {"a": "1\r\nb: 2"}}, "control"),
        ({"url": "http://a.test/", "headers": {"a": ["1"] * 101}}, "more than"),
    ],
)
def test_what_is_no_request_is_refused(body: EntityBody, says: str) -> None:
    with pytest.raises(Refused, match=says) as refused:
        question_of(body)
    assert refused.value.status == 400
