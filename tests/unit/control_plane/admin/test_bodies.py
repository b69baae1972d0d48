"""The decision table of request bodies: what each Content-Type with each body becomes."""

from __future__ import annotations

import pytest

from control_plane.admin.bodies import entity_body
from control_plane.admin.limits import Limits
from control_plane.admin.messages import Refused
from control_plane.entities.types import EntityBody
from tests.unit.control_plane.admin.calls import call

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def coerce(form: EntityBody) -> EntityBody:
    return {"coerced": form}


async def read(body: bytes, content_type: str | None) -> EntityBody:
    return await entity_body(call("POST", "/", body, content_type=content_type), coerce)


@pytest.mark.parametrize(
    ("body", "content_type", "tree"),
    [
        (b'{"a":1,"b":1.5,"c":"\xc3\xbc"}', JSON, {"a": 1, "b": 1.5, "c": "ü"}),
        (b"{}", "Application/JSON; charset=utf-8", {}),
        (b"[]", JSON, {}),
        (rb'{"a":"\ud83d\ude00"}', JSON, {"a": "\U0001f600"}),
        (b"a=1", FORM, {"coerced": {"a": "1"}}),
        (b"", FORM, {"coerced": {}}),
        (b"", "multipart/form-data; boundary=b", {"coerced": {}}),
        (b"", None, {}),
    ],
)
async def test_accepted(body: bytes, content_type: str | None, tree: EntityBody) -> None:
    assert await read(body, content_type) == tree


@pytest.mark.parametrize(
    ("body", "content_type", "status", "words"),
    [
        (b"", JSON, 400, "Cannot parse JSON body"),
        (b"{", JSON, 400, "Cannot parse JSON body"),
        (b'{"a":NaN}', JSON, 400, "Cannot parse JSON body"),
        (b'{"a":1e999}', JSON, 400, "Cannot parse JSON body"),
        (b'{"a":' + b"9" * 5000 + b"}", JSON, 400, "Cannot parse JSON body"),
        (b'{"a":"\xff"}', JSON, 400, "Cannot parse JSON body"),
        (rb'{"a":"\ud800"}', JSON, 400, "Cannot parse JSON body"),
        ("{}".encode("utf-16"), JSON, 400, "Cannot parse JSON body"),
        (b"[1]", JSON, 400, "must be an object"),
        (b"null", JSON, 400, "must be an object"),
        (b"5", JSON, 400, "must be an object"),
        (b'{"a":' + b"[" * 1000 + b"]" * 1000 + b"}", JSON, 400, "nested deeper than 64"),
        (b"[" * 100_000, JSON, 400, "nested deeper than 64"),
        (b"{}", None, 415, "Unsupported"),
        (b"<a/>", "application/xml", 415, "Unsupported"),
        (b"", "text/plain", 415, "Unsupported"),
    ],
)
async def test_refused(body: bytes, content_type: str | None, status: int, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        await read(body, content_type)
    assert caught.value.status == status


async def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert await read(b'{"a":[' + b"[],{}," * 500 + b'"]["]}', JSON)


async def test_several_content_types() -> None:
    request = call("POST", "/", b"{}")
    request.content_types = (JSON, FORM)
    with pytest.raises(Refused, match="Multiple Content-Type headers not allowed"):
        await entity_body(request, coerce)


async def test_a_body_beyond_the_limit() -> None:
    request = call("POST", "/", b" " * 11, content_type=JSON, limits=Limits(body_bytes_max=10))
    with pytest.raises(Refused) as caught:
        await entity_body(request, coerce)
    assert caught.value.status == 413
