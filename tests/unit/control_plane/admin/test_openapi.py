"""The OpenAPI document has every path and method, is a right one, and describes entities as they are answered."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema_rs
import pytest

from control_plane.admin.operations import component
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from tests.support.paths_reference import described, reference
from tests.unit.control_plane.admin.conftest import Client

PAGE = Path(__file__).parents[4] / "docs" / "reference" / "admin-api-paths.md"


def inner(tree: EntityBody, *path: str) -> EntityBody:
    for name in path:
        below = tree[name]
        assert isinstance(below, dict)
        tree = below
    return tree


async def test_every_path_and_method_is_there(client: Client) -> None:
    document = await client.tree("GET", "/openapi.json")
    assert document["openapi"] == "3.1.0"
    described = {
        (re.sub(r"\{[^}]*\}", "{}", path), method.upper())
        for path, item in inner(document, "paths").items()
        if isinstance(item, dict)
        for method in item
        if method != "parameters"
    }
    served = {(re.sub(r"\{[^}]*\}", "{}", template), method) for template, method, _ in client.api.table.operations()}
    assert described == served
    assert ("/openapi.json", "GET") in described


async def test_operations_are_told_apart_and_say_what_they_do(client: Client) -> None:
    document = await client.tree("GET", "/openapi.json")
    operations = [
        (path, method, operation)
        for path, item in inner(document, "paths").items()
        if isinstance(item, dict)
        for method, operation in item.items()
        if isinstance(operation, dict)
    ]
    ids = [operation["operationId"] for _, _, operation in operations]
    assert len(set(map(str, ids))) == len(ids)
    silent = [f"{method} {path}" for path, method, one in operations if one["summary"] == f"{method.upper()} {path}"]
    assert silent == []
    for path, _, operation in operations:
        places = re.findall(r"\{([^}]*)\}", path)
        item = inner(document, "paths", path)
        named = item.get("parameters", [])
        assert isinstance(named, list)
        assert [one["name"] for one in named if isinstance(one, dict)] == places
        assert "default" in inner(operation, "responses")


def references(tree: JsonValue) -> list[str]:
    if isinstance(tree, dict):
        found = [str(tree["$ref"])] if "$ref" in tree else []
        return found + [name for value in tree.values() for name in references(value)]
    return [name for value in tree for name in references(value)] if isinstance(tree, list) else []


async def test_schemas_are_right_ones_and_all_there(client: Client) -> None:
    document = await client.tree("GET", "/openapi.json")
    components = inner(document, "components", "schemas")
    for name in components:
        draft: EntityBody = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        jsonschema_rs.meta.validate(draft | inner(components, name))
    assert {name.rpartition("/")[2] for name in references(document)} <= components.keys()


@pytest.mark.parametrize(
    ("collection", "path", "body"),
    [
        ("services", "/services", {"url": "https://h.test/p", "tags": ["a"]}),
        ("routes", "/routes", {"paths": ["/"], "headers": {"x": ["1"]}}),
        ("upstreams", "/upstreams", {"name": "u"}),
        ("consumers", "/consumers", {"username": "ann"}),
    ],
)
async def test_an_entity_is_as_described(client: Client, collection: str, path: str, body: EntityBody) -> None:
    document = await client.tree("GET", "/openapi.json")
    components = inner(document, "components", "schemas")
    name = component(SCHEMAS[collection])
    jsonschema_rs.validator_for(inner(components, f"{name}Write")).validate(body)
    made = await client.tree("POST", path, body, status=201)
    jsonschema_rs.validator_for(inner(components, name)).validate(made)
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validator_for(inner(components, name)).validate({**made, "nonsense": 1})


async def test_the_page_is_current() -> None:
    document = await described()
    command = f"python -m tests.support.paths_reference > docs/reference/{PAGE.name}"
    assert PAGE.read_text() == reference(document), f"run `{command}`"
