"""What schemas say of themselves: `/schemas/...`, from which decK takes its defaults, and JSON Schema for OpenAPI."""

from __future__ import annotations

import json

import pytest

from control_plane.entities.fields import Field, Record
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue


def fields_of(document: JsonValue) -> dict[str, EntityBody]:
    """Return the ordered list of single-key objects as one mapping."""
    assert isinstance(document, dict)
    listed = document["fields"]
    assert isinstance(listed, list)
    found: dict[str, EntityBody] = {}
    for item in listed:
        assert isinstance(item, dict)
        assert len(item) == 1
        for name, facts in item.items():
            assert isinstance(facts, dict)
            found[name] = facts
    return found


def check_defaults(field: Field, facts: EntityBody) -> None:
    """Assert that every value which the server fills in stands in the document, at its own place."""
    if isinstance(field, Record):
        documented = fields_of(facts)
        assert documented.keys() == field.fields.keys()
        for name, inner in field.fields.items():
            check_defaults(inner, documented[name])
    elif field.missing() is not None:
        assert facts["default"] == field.missing()


@pytest.mark.parametrize("collection", SCHEMAS)
def test_every_default_stands_at_its_path(collection: str) -> None:
    documented = fields_of(SCHEMAS[collection].document())

    shown = {name: field for name, field in SCHEMAS[collection].fields.items() if not field.only_when_set}
    assert list(documented) == list(shown)
    for name, field in shown.items():
        check_defaults(field, documented[name])


def test_records_show_their_composite_default_without_nulls() -> None:
    healthchecks = fields_of(SCHEMAS["upstreams"].document())["healthchecks"]
    default = healthchecks["default"]

    assert isinstance(default, dict)
    active = default["active"]
    assert isinstance(active, dict)
    assert active["http_path"] == "/"
    assert "https_sni" not in active
    assert fields_of(healthchecks)["active"]["default"] == active


def test_facts_of_fields() -> None:
    services = fields_of(SCHEMAS["services"].document())
    services_port = {name: fact for name, fact in services["port"].items() if name != "description"}

    assert services_port == {"type": "integer", "default": 80, "required": True, "between": [0, 65535]}
    assert services["name"]["unique"] is True
    assert services["client_certificate"]["reference"] == "certificates"
    assert fields_of(SCHEMAS["targets"].document())["upstream"]["required"] is True


def test_rules_across_fields_are_shown() -> None:
    shown = SCHEMAS["services"].document()["entity_checks"]

    assert isinstance(shown, list)
    assert shown[0] == {
        "conditional": {
            "if_field": "protocol",
            "if_match": {"one_of": ["tcp", "tls", "udp", "grpc", "grpcs"]},
            "then_field": "path",
            "then_match": {"eq": None},
        }
    }
    assert {"distinct": ["hash_on_header", "hash_fallback_header"]} in SCHEMAS["upstreams"].document()["entity_checks"]  # type: ignore[operator]  # a list


@pytest.mark.parametrize("collection", SCHEMAS)
def test_documents_are_json_and_fresh_each_time(collection: str) -> None:
    schema = SCHEMAS[collection]
    first = schema.document()
    text = json.dumps(first)
    first.clear()

    assert json.dumps(schema.document()) == text
    assert json.loads(json.dumps(schema.json_schema())) == schema.json_schema()


def test_json_schema() -> None:
    described = SCHEMAS["services"].json_schema()
    properties = described["properties"]

    assert described["anyOf"] == [{"required": ["host"]}, {"required": ["url"]}]
    assert isinstance(properties, dict)
    port = properties["port"]
    assert isinstance(port, dict)
    assert (port["type"], port["minimum"], port["maximum"], port["default"]) == ("integer", 0, 65535, 80)
