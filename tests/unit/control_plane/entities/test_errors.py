"""Error objects: one class a code, with Kong's texts."""

from __future__ import annotations

import pytest

from control_plane.entities.errors import (
    DeclarativeError,
    EntityError,
    ForeignKeysUnresolved,
    ForeignKeyViolation,
    InvalidOffset,
    InvalidOptions,
    InvalidPrimaryKey,
    InvalidSize,
    NotFound,
    OperationUnsupported,
    PrimaryKeyViolation,
    ReferencedByOthers,
    SchemaViolation,
    UniqueViolation,
    literal,
)
from control_plane.entities.types import EntityBody, JsonValue

EXAMPLES: list[tuple[EntityError, EntityBody]] = [
    (
        InvalidPrimaryKey(),
        {
            "code": 1,
            "name": "invalid primary key",
            "message": "invalid primary key: '{id=\"expected a valid UUID\"}'",
            "fields": {"id": "expected a valid UUID"},
        },
    ),
    (
        PrimaryKeyViolation("x"),
        {
            "code": 3,
            "name": "primary key violation",
            "message": "primary key violation on key '{id=\"x\"}'",
            "fields": {"id": "x"},
        },
    ),
    (
        ForeignKeyViolation("service", "services", {"id": "x"}),
        {
            "code": 4,
            "name": "foreign key violation",
            "message": "the foreign key '{id=\"x\"}' does not reference an existing 'services' entity.",
            "fields": {"service": {"id": "x"}},
        },
    ),
    (
        ReferencedByOthers("services", "routes"),
        {
            "code": 4,
            "name": "foreign key violation",
            "message": "an existing 'routes' entity references this 'services' entity",
            "fields": {"@referenced_by": "routes"},
        },
    ),
    (
        UniqueViolation({"upstream": {"id": "x"}, "target": "a:80"}),
        {
            "code": 5,
            "name": "unique constraint violation",
            "message": 'UNIQUE violation detected on \'{target="a:80",upstream={id="x"}}\'',
            "fields": {"upstream": {"id": "x"}, "target": "a:80"},
        },
    ),
    (
        NotFound({"id": "x"}),
        {
            "code": 6,
            "name": "not found",
            "message": "could not find the entity with primary key '{id=\"x\"}'",
            "fields": {"id": "x"},
        },
    ),
    (
        NotFound({"name": "x"}),
        {
            "code": 6,
            "name": "not found",
            "message": "could not find the entity with '{name=\"x\"}'",
            "fields": {"name": "x"},
        },
    ),
    (
        InvalidOffset("x", "bad base64 encoding"),
        {"code": 7, "name": "invalid offset", "message": "'x' is not a valid offset: bad base64 encoding"},
    ),
    (InvalidSize("size must be a number"), {"code": 9, "name": "invalid size", "message": "size must be a number"}),
    (
        InvalidOptions({"tags": "cannot be null"}),
        {
            "code": 11,
            "name": "invalid options",
            "message": "invalid option (tags: cannot be null)",
            "options": {"tags": "cannot be null"},
        },
    ),
    (
        OperationUnsupported("cannot create 'services' entities when not using a database"),
        {
            "code": 12,
            "name": "operation unsupported",
            "message": "cannot create 'services' entities when not using a database",
        },
    ),
    (
        DeclarativeError({"services": [None, {"host": "required field missing"}]}),
        {
            "code": 14,
            "name": "invalid declarative configuration",
            "message": 'declarative config is invalid: {services={null,{host="required field missing"}}}',
            "fields": {"services": [None, {"host": "required field missing"}]},
        },
    ),
]


@pytest.mark.parametrize(("error", "expected"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_an_error_is_an_object(error: EntityError, expected: EntityBody) -> None:
    assert error.to_json() == expected
    assert str(error) == expected["message"]


def test_several_unresolved_references_are_counted() -> None:
    error = ForeignKeysUnresolved({"b": ("name", "y", "bs"), "a": ("name", "x", "as")})

    assert error.message.startswith("2 foreign keys unresolved (a.name: ")
    assert list(error.fields or {}) == ["a", "b"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": "x"}, "schema violation (a: x)"),
        ({"b": "y", "a": "x"}, "2 schema violations (a: x; b: y)"),
        ({"a": "x", "@entity": ["z", "y"]}, "3 schema violations (z; y; a: x)"),
        ({"a": [None, "x"]}, "schema violation (a.2: x)"),
        ({"a": {"c": "y", "b": "x"}}, "2 schema violations (a.b: x; a.c: y)"),
        ({"a": [{"b": "x"}]}, 'schema violation (a.1: {\n  b = "x"\n})'),
    ],
)
def test_a_message_lists_the_problems(fields: EntityBody, message: str) -> None:
    assert SchemaViolation(fields).message == message


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": None, "a": "x"}, '{a="x",b=null}'),
        ({"a": {"b": 1}}, "{a={b=1}}"),
        ([True, 1.5], "{true,1.5}"),
    ],
)
def test_values_are_printed_as_tables(value: JsonValue, text: str) -> None:
    assert literal(value) == text
