"""The form of the gateway's own answers: Kong's texts, negotiated and escaped."""

from __future__ import annotations

import json

import pytest

from data_plane.proxy import answers
from data_plane.proxy.head import RequestHead


def head(*fields: bytes) -> RequestHead:
    made = RequestHead()
    made.block = b"".join(b"\r\n" + line for line in fields)
    return made


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (b"", answers.JSON),
        (b"*/*", answers.JSON),
        (b"application/*", answers.JSON),
        (b"text/*", answers.PLAIN),
        (b"text/html", answers.HTML),
        (b"application/xml;q=0.9, text/html;q=0.8", answers.XML),
        (b"text/html;q=0, text/plain;q=0.1", answers.PLAIN),
        (b"text/html, application/json", answers.HTML),
        (b"image/png", answers.JSON),
        (b"text/html;q=x", answers.JSON),
        (b"application/grpc", answers.GRPC),
    ],
)
def test_accept_decides(accept: bytes, expected: str) -> None:
    asked = head(b"Accept: " + accept)
    assert answers.answer_type(asked, engine=False) == expected
    assert answers.answer_type(asked, engine=True) == expected


def test_without_accept_the_two_families_differ() -> None:
    assert answers.answer_type(head(), engine=False) == answers.JSON
    assert answers.answer_type(head(), engine=True) == answers.PLAIN
    assert answers.answer_type(None, engine=True) == answers.PLAIN
    asked = head(b"Content-Type: application/xml")
    assert answers.answer_type(asked, engine=True) == answers.XML
    assert answers.answer_type(asked, engine=False) == answers.JSON
    assert answers.answer_type(head(b"Content-Type: application/grpc+proto"), engine=False) == answers.GRPC


def test_bodies() -> None:
    assert answers.body(answers.JSON, "no", "1") == b'{\n  "message":"no",\n  "request_id":"1"\n}'
    assert answers.body(answers.PLAIN, "no", "1") == b"no\nrequest_id: 1\n"
    assert b"<p>no.</p>" in answers.body(answers.HTML, "no", "1")
    assert b"<message>no</message>" in answers.body(answers.XML, "no", "1")
    assert answers.body(answers.GRPC, "no", "1") == b""


def test_messages_are_escaped_for_their_form() -> None:
    message = "<a> & \"b\" 'c'"
    assert json.loads(answers.body(answers.JSON, message, "1"))["message"] == message
    assert b"<a>" not in answers.body(answers.HTML, message, "1")
    assert b"<a>" not in answers.body(answers.XML, message, "1")


def test_grpc_callers_are_told_in_fields() -> None:
    assert answers.grpc_fields(404, "no")[0] == b"grpc-status: 5"
    assert answers.grpc_fields(418, "no")[0] == b"grpc-status: 3"
    assert answers.grpc_fields(599, "no")[0] == b"grpc-status: 13"
    assert answers.grpc_fields(204, "no")[0] == b"grpc-status: 0"
    assert answers.grpc_fields(302, "no") == (b"grpc-status: 2", b"grpc-message: no")


def test_redirects_carry_a_page() -> None:
    assert b"<title>308 Permanent Redirect</title>" in answers.redirect_body(308)
