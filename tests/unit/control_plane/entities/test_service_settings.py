"""Our own settings of a service: what sends its requests to another upstream than its host."""

from __future__ import annotations

import pytest

from control_plane.entities.errors import SchemaViolation
from control_plane.entities.service_settings import SERVICE_SETTINGS, complete, named_upstreams, with_upstream_ids
from control_plane.entities.types import EntityBody, JsonValue
from tests.unit.control_plane.entities.schemas import NOW, resolve

GREEN = "00000000-0000-4000-8000-000000000001"
SERVICE = "00000000-0000-4000-8000-000000000002"


def made(**fields: JsonValue) -> EntityBody:
    body: EntityBody = {"service": {"id": SERVICE}, **fields}
    return SERVICE_SETTINGS.on_insert(body, now=NOW, resolve=resolve, entity_id=SERVICE)


def problems(**fields: JsonValue) -> JsonValue:
    with pytest.raises(SchemaViolation) as refused:
        made(**fields)
    return refused.value.fields


def test_nothing_is_sent_elsewhere_by_default() -> None:
    settings = made()
    assert [settings[name] for name in ("split", "preview", "mirror", "drain_deadline")] == [None] * 4
    assert list(named_upstreams(settings)) == []


def test_settings_of_an_earlier_version_read_as_if_nothing_was_said() -> None:
    before = {name: value for name, value in made().items() if name not in ("split", "mirror")}
    assert complete(before) == made()


def test_all_sides_together() -> None:
    settings = made(
        split={"to": GREEN.upper(), "share": 500},
        preview={"to": GREEN, "header": "x-preview", "value": "1"},
        mirror={"to": GREEN, "share": 10000},
    )
    assert settings["split"] == {"to": GREEN, "share": 500, "sticky": None}
    assert settings["preview"] == {"to": GREEN, "header": "x-preview", "cookie": None, "value": "1"}
    assert [field for field, _ in named_upstreams(settings)] == ["split", "preview", "mirror"]


@pytest.mark.parametrize(
    ("on", "name"),
    [("header", "x-user"), ("cookie", "sid"), ("query_arg", "u"), ("uri_capture", "id"), ("ip", None), ("path", None)],
)
def test_what_a_split_may_stick_to(on: str, name: str | None) -> None:
    settings = made(split={"to": GREEN, "share": 1, "sticky": {"on": on, "name": name}})
    assert settings["split"] == {"to": GREEN, "share": 1, "sticky": {"on": on, "name": name}}


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({"split": {"to": GREEN}}, {"split": {"share": "required field missing"}}),
        ({"split": {"share": 1}}, {"split": {"to": "required field missing"}}),
        (
            {"split": {"to": GREEN, "share": 10001}},
            {"split": {"share": "value should be between 0 and 10000"}},
        ),
        ({"split": {"to": GREEN, "share": 0.5}}, {"split": {"share": "expected an integer"}}),
        ({"split": 5}, {"split": "expected a record"}),
        ({"split": {"to": GREEN, "share": 1, "weight": 2}}, {"split": {"weight": "unknown field"}}),
        (
            {"split": {"to": GREEN, "share": 1, "sticky": {"on": "header"}}},
            {"split": {"sticky": {"name": "required field missing"}}},
        ),
        (
            {"split": {"to": GREEN, "share": 1, "sticky": {"on": "ip", "name": "x"}}},
            {"split": {"sticky": {"name": "must be null: 'ip' has no name"}}},
        ),
        (
            {"preview": {"to": GREEN, "value": "1"}},
            {"preview": {"@entity": ["at least one of these fields must be non-empty: 'header', 'cookie'"]}},
        ),
        ({"preview": {"to": GREEN, "header": "x"}}, {"preview": {"value": "required field missing"}}),
        ({"mirror": {"to": "green", "share": 1}}, {"mirror": {"to": "expected a valid UUID"}}),
        ({"drain_deadline": -1}, {"drain_deadline": "value should be between 0 and 604800"}),
    ],
)
def test_what_is_refused(fields: dict[str, JsonValue], found: JsonValue) -> None:
    assert problems(**fields) == found


@pytest.mark.parametrize("name", ["", "a b", "a;b"])
@pytest.mark.parametrize("on", ["header", "cookie"])
def test_names_keep_the_rules_of_an_upstream_s(on: str, name: str) -> None:
    assert problems(split={"to": GREEN, "share": 1, "sticky": {"on": on, "name": name}})


@pytest.mark.parametrize("value", ["", " 1", "a;b", "ä", "x" * 257, "a\r\nb"])
def test_a_mark_is_text_that_a_header_and_a_cookie_can_carry(value: str) -> None:
    assert problems(preview={"to": GREEN, "header": "x", "value": value})


def test_upstreams_may_be_named() -> None:
    given: EntityBody = {"split": {"to": "green", "share": 1}, "mirror": {"to": GREEN, "share": 2}, "preview": None}
    by_id: EntityBody = {**given, "split": {"to": GREEN, "share": 1}}
    assert with_upstream_ids(given, lambda name: GREEN if name == "green" else None) == by_id
    with pytest.raises(SchemaViolation) as refused:
        with_upstream_ids(given, lambda _name: None)
    assert refused.value.fields == {"split": {"to": "there is no upstream 'green'"}}
