"""Form and multipart bodies become the trees that JSON would have been, before the schema types them."""

from __future__ import annotations

import pytest

from control_plane.admin.forms import decode_form, decode_multipart
from control_plane.admin.limits import Limits
from control_plane.admin.messages import Refused
from control_plane.entities.types import EntityBody

LIMITS = Limits(arguments_max=5)


@pytest.mark.parametrize(
    ("form", "tree"),
    [
        ("", {}),
        ("name=a&host=b", {"name": "a", "host": "b"}),
        ("name=a+b%20c%2B", {"name": "a b c+"}),
        ("name=%C3%BC", {"name": "ü"}),
        ("name=ü", {"name": "ü"}),
        ("a.b.c=1", {"a": {"b": {"c": "1"}}}),
        ("tags=x&tags=y", {"tags": ["x", "y"]}),
        ("tags[]=x&tags[]=y", {"tags": ["x", "y"]}),
        ("tags%5B%5D=x", {"tags": ["x"]}),
        ("tags[2]=y&tags[1]=x", {"tags": ["x", "y"]}),
        ("tags=a,b", {"tags": "a,b"}),
        ("headers.location[]=x", {"headers": {"location": ["x"]}}),
        ("headers[x-foo][]=x", {"headers": {"x-foo": ["x"]}}),
        ("config[foo.bar]=x", {"config": {"foo.bar": "x"}}),
        ("a[1].b=x&a[2].b=y", {"a": [{"b": "x"}, {"b": "y"}]}),
        ("tags=", {"tags": None}),
        ("tags", {"tags": None}),
        ("service.id=1", {"service": {"id": "1"}}),
        ("a[b=1", {"a[b": "1"}),
        (".a=1", {".a": "1"}),
        ("=1", {"": "1"}),
        ("x[999999999]=v", {"x": ["v"]}),
    ],
)
def test_forms(form: str, tree: EntityBody) -> None:
    assert decode_form(form.encode(), LIMITS) == tree


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("a=1&b=1&c=1&d=1&e=1&f=1", "Too many arguments"),
        ("a=1&a.b=2", "both as a value and as a record"),
        ("a.b=1&a=2", "both as a value and as a record"),
        ("a" + ".b" * 20 + "=1", "nested deeper"),
        ("a=%ff", "UTF-8"),
    ],
)
def test_refused_forms(form: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        decode_form(form.encode(), LIMITS)
    assert caught.value.status == 400


def test_a_form_of_bytes_that_are_no_text() -> None:
    with pytest.raises(Refused, match="UTF-8"):
        decode_form(b"a=\xff", LIMITS)


def part(name: str, value: str) -> str:
    return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'


MULTIPART = "multipart/form-data; boundary=b"


@pytest.mark.parametrize("content_type", [MULTIPART, 'multipart/form-data; charset=utf-8; boundary="b"'])
def test_multipart(content_type: str) -> None:
    body = part("name", "a") + part("tags[]", "x\r\ny") + part("tags[]", "-b") + "--b--\r\n"
    assert decode_multipart(body.encode(), content_type, LIMITS) == {"name": "a", "tags": ["x\r\ny", "-b"]}


def test_multipart_with_a_preamble() -> None:
    assert decode_multipart(b"hello\r\n" + (part("a", "1") + "--b--").encode(), MULTIPART, LIMITS) == {"a": "1"}


def test_an_empty_multipart_body() -> None:
    assert decode_multipart(b"", MULTIPART, LIMITS) == {}


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (part("a", "1") + "--b--", "multipart/form-data", "needs a boundary"),
        (part("a", "1") + "--b--", "multipart/form-data; boundary=c", "does not hold the boundary"),
        (part("a", "1"), MULTIPART, "ends before"),
        ("--b\r\nX: y\r\n\r\n1\r\n--b--", MULTIPART, "has no name"),
        ("".join(part(str(n), "1") for n in range(9)) + "--b--", MULTIPART, "Too many arguments"),
    ],
)
def test_refused_multipart(body: str, content_type: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        decode_multipart(body.encode(), content_type, LIMITS)
