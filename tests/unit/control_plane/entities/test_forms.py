"""Texts of a form are typed by the schema; what does not fit stays text and is refused as such."""

from __future__ import annotations

import pytest

from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.entities.schemas import insert


@pytest.mark.parametrize(
    ("collection", "form", "typed"),
    [
        ("services", {"port": "8080", "retries": "x"}, {"port": 8080, "retries": "x"}),
        ("services", {"port": "8.5", "read_timeout": "1e3"}, {"port": 8.5, "read_timeout": 1000}),
        ("services", {"enabled": "false", "tls_verify": "yes"}, {"enabled": False, "tls_verify": "yes"}),
        ("services", {"enabled": ["true", "false"]}, {"enabled": ["true", "false"]}),
        ("services", {"path": "", "port": "", "enabled": ""}, {"path": None, "port": None, "enabled": None}),
        ("services", {"name": "5"}, {"name": "5"}),
        ("services", {"tags": "a,b"}, {"tags": ["a,b"]}),
        ("services", {"tags": ["a", "b"]}, {"tags": ["a", "b"]}),
        ("services", {"tags": ""}, {"tags": None}),
        ("services", {"unknown": "1"}, {"unknown": "1"}),
        ("routes", {"service": {"id": ""}}, {"service": {"id": None}}),
        ("routes", {"service": ""}, {"service": None}),
        ("routes", {"headers": {"x": ["a"], "y": "b"}}, {"headers": {"x": ["a"], "y": ["b"]}}),
        ("routes", {"sources": [{"port": "80"}]}, {"sources": [{"port": 80}]}),
        (
            "upstreams",
            {"healthchecks": {"active": {"healthy": {"interval": "0.5", "http_statuses": ["200", "x"]}}}},
            {"healthchecks": {"active": {"healthy": {"interval": 0.5, "http_statuses": [200, "x"]}}}},
        ),
    ],
)
def test_a_form_is_typed(collection: str, form: EntityBody, typed: EntityBody) -> None:
    assert SCHEMAS[collection].coerce(form) == typed


def test_a_form_makes_the_same_entity_as_json() -> None:
    form: EntityBody = {"host": "api", "port": "81", "enabled": "true", "tags": "x"}
    typed: dict[str, JsonValue] = {"host": "api", "port": 81, "enabled": True, "tags": ["x"]}
    made = insert("services", SCHEMAS["services"].coerce(form))

    assert {name: made[name] for name in typed} == typed
