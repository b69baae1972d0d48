"""Which path leads where: literal before placeholder, trailing slash tolerated, nothing else."""

from __future__ import annotations

import pytest

from control_plane.admin.messages import Answer, Call, Refused
from control_plane.admin.table import PathTable


async def handler(_call: Call, _path: tuple[str, ...]) -> Answer:
    return Answer(200)


@pytest.fixture
def table() -> PathTable:
    table = PathTable()
    for template in (
        "/",
        "/services",
        "/services/{services}",
        "/upstreams/{u}/targets/all",
        "/upstreams/{u}/targets/{t}",
        "/schemas/{schemas}",
        "/schemas/plugins/{name}",
    ):
        table.add(template, {"GET": handler, "DELETE": handler})
    return table


@pytest.mark.parametrize(
    ("path", "template", "variables"),
    [
        ("/", "/", ()),
        ("/services", "/services", ()),
        ("/services/", "/services", ()),
        ("/services/a%2Fb%20c", "/services/{services}", ("a/b c",)),
        ("/services/%C3%BC/", "/services/{services}", ("ü",)),
        ("/upstreams/u/targets/all", "/upstreams/{u}/targets/all", ("u",)),
        ("/upstreams/u/targets/1.2.3.4:80", "/upstreams/{u}/targets/{t}", ("u", "1.2.3.4:80")),
        ("/schemas/plugins", "/schemas/{schemas}", ("plugins",)),
        ("/schemas/plugins/x", "/schemas/plugins/{name}", ("x",)),
    ],
)
def test_found(table: PathTable, path: str, template: str, variables: tuple[str, ...]) -> None:
    found = table.find(path)
    assert found is not None
    assert (found.template, found.variables) == (template, variables)


@pytest.mark.parametrize(
    "path", ["", "services", "//", "//services", "/services//", "/SERVICES", "/upstreams/u", "/services/a/b", "/" * 99]
)
def test_not_found(table: PathTable, path: str) -> None:
    assert table.find(path) is None


def test_a_path_that_is_no_utf8(table: PathTable) -> None:
    with pytest.raises(Refused, match="UTF-8"):
        table.find("/services/%ff")


def test_allowed_methods(table: PathTable) -> None:
    found = table.find("/services")
    assert found is not None
    assert found.allowed == "DELETE, GET, HEAD, OPTIONS"


def test_templates_are_sorted_by_segment(table: PathTable) -> None:
    templates = table.templates()
    assert templates[:3] == ["/", "/schemas/plugins/{name}", "/schemas/{schemas}"]
    assert templates[-1] == "/upstreams/{u}/targets/{t}"
