"""The kinds of fields that schemas are made of, as data.

A field knows how to fill a value (defaults, duplicates of a set, `80.0` as 80), how to say what is wrong with it, how
to read it from a form, and how to describe itself, both as `/schemas/...` shows it and as JSON Schema. Problems are
trees of the shape of the value: a text, a list with None where an element is fine, or an object.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from typing_extensions import override

from control_plane.entities.types import EntityBody, JsonValue

REQUIRED = "required field missing"
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z", re.IGNORECASE)
_NUMERIC = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?\Z")


INTEGER_MAX = 2**53 - 1
"""Largest whole number that every JSON reader keeps exact; times and unbounded integers end here."""


def is_uuid(text: str) -> bool:
    """Tell whether the text is a UUID, in any case."""
    return _UUID.match(text) is not None


def is_utf8(text: str) -> bool:
    """Tell whether the text can be written as UTF-8; half of a surrogate pair cannot."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing a value of the right type must satisfy.

    `problem` returns None or what is wrong; `facts` stand in the schema document, `schema` in JSON Schema.
    """

    problem: Callable[[JsonValue], JsonValue]
    facts: Mapping[str, JsonValue] = field(default_factory=dict)
    schema: Mapping[str, JsonValue] = field(default_factory=dict)


def text_rule(
    check: Callable[[str], str | None],
    *,
    facts: Mapping[str, JsonValue] | None = None,
    pattern: str = "",
    form: str = "",
) -> Rule:
    """Make a rule of a check on texts.

    For JSON Schema, `pattern` says the same as the check, or less, as a regex of ECMA 262. `form` is the name of a
    format where no regex could say it well; those of our own are listed in docs/reference/admin-api.md.
    """

    def problem(value: JsonValue) -> JsonValue:
        return check(value) if isinstance(value, str) else None

    said: tuple[tuple[str, str], ...] = (("pattern", pattern), ("format", form))
    return Rule(problem, facts or {}, {name: value for name, value in said if value})


def between(low: int, high: int) -> Rule:
    """Make the rule `low <= value <= high`."""
    text = f"value should be between {low} and {high}"

    def problem(value: JsonValue) -> JsonValue:
        return None if isinstance(value, int | float) and low <= value <= high else text

    return Rule(problem, {"between": [low, high]}, {"minimum": low, "maximum": high})


def one_of(*choices: str | int, unlisted: tuple[str, ...] = ()) -> Rule:
    """Make the rule that a value is one of the choices, listed in this order.

    `unlisted` ones are taken too; the text and the schema, which clients compare with Kong's, do not name them.
    """
    text = "expected one of: " + ", ".join(str(choice) for choice in choices)

    def problem(value: JsonValue) -> JsonValue:
        return None if value in choices or value in unlisted else text

    return Rule(problem, {"one_of": list(choices)}, {"enum": [*choices, *unlisted]})


@dataclass(frozen=True, kw_only=True)
class Field(ABC):
    """What all fields have. `required` means that null is refused, `default` fills what is missing.

    `only_when_set` is for fields of Kong Enterprise: null is left out of the entity, and the field out of
    `/schemas/...`, so that clients of the open-source Kong see the entities that they know.
    """

    kind: ClassVar[str]
    default: JsonValue = None
    has_default: bool = False
    required: bool = False
    unique: bool = False
    auto: bool = False
    only_when_set: bool = False
    description: str = ""
    rules: tuple[Rule, ...] = ()

    @abstractmethod
    def mistyped(self, value: JsonValue) -> JsonValue:
        """Return the problem when `value` (not None) is of another type."""

    def filled(self, value: JsonValue) -> JsonValue:
        """Return a given value in the form in which it is kept; whatever is wrong with it is left as it is."""
        return value

    def missing(self) -> JsonValue:
        """Return what stands where nothing was given."""
        return _copied(self.default)

    def problem(self, value: JsonValue) -> JsonValue:
        """Return None or what is wrong with a filled value."""
        if value is None:
            return REQUIRED if self.required else None
        wrong = self.mistyped(value)
        if wrong is not None:
            return wrong
        for rule in self.rules:
            wrong = rule.problem(value)
            if wrong is not None:
                return wrong
        return None

    def coerced(self, value: JsonValue) -> JsonValue:
        """Return a form's text as this type where it reads as one; an empty text is null."""
        return None if value == "" else value

    def document(self) -> EntityBody:
        """Return the field as `GET /schemas/{collection}` shows it."""
        facts: EntityBody = {"type": self.kind}
        for rule in self.rules:
            facts.update(rule.facts)
        if self.has_default:
            facts["default"] = self.missing()
        for name, value in (("required", self.required), ("unique", self.unique), ("auto", self.auto)):
            if value:
                facts[name] = True
        if self.description:
            facts["description"] = self.description
        return facts

    def json_schema(self) -> EntityBody:
        """Return the field as JSON Schema (draft 2020-12)."""
        schema = self.json_value()
        if not self.required:
            schema = {"anyOf": [schema, {"type": "null"}]}
        if self.has_default:
            schema["default"] = self.missing()
        if self.description:
            schema["description"] = self.description
        return schema

    def json_value(self) -> EntityBody:
        """Return the JSON Schema of a value that is not null."""
        schema = self.json_type()
        for rule in self.rules:
            schema.update(rule.schema)
        return schema

    @abstractmethod
    def json_type(self) -> EntityBody:
        """Return the bare JSON Schema of the type."""


@dataclass(frozen=True, kw_only=True)
class String(Field):
    """A text of at least one character.

    `private_to` names the field that a secret belongs to, as a private key belongs to its certificate. A secret is
    shown by the entity's own pages only, never by the history, in a summary of changes or in a dump.
    """

    kind = "string"
    is_uuid: bool = False
    private_to: str = ""
    random: bool = False  # 32 random characters where the client gives none

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if not isinstance(value, str):
            return "expected a string"
        if self.is_uuid and not is_uuid(value):
            return "expected a valid UUID"
        if not is_utf8(value):
            return "must be valid utf-8"  # without the value: no answer could carry it
        # Kong looks at a list of choices before it looks at the length.
        return None if value or any("one_of" in rule.facts for rule in self.rules) else "length must be at least 1"

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        return value.lower() if self.is_uuid and isinstance(value, str) else value

    @override
    def document(self) -> EntityBody:
        described: EntityBody = {**super().document(), "len_min": 1}
        if self.is_uuid:
            described["uuid"] = True
        if self.private_to:
            described["encrypted"] = True
        return described

    @override
    def json_type(self) -> EntityBody:
        return {"type": "string", "format": "uuid"} if self.is_uuid else {"type": "string", "minLength": 1}


@dataclass(frozen=True, kw_only=True)
class Number(Field):
    """A JSON number."""

    kind = "number"
    is_timestamp: bool = False

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return "expected a number"
        return "expected a valid timestamp" if self.is_timestamp and not 0 < value <= INTEGER_MAX else None

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        return int(value) if isinstance(value, float) and value.is_integer() else value

    @override
    def coerced(self, value: JsonValue) -> JsonValue:
        if isinstance(value, str) and _NUMERIC.match(value):
            return self.filled(float(value))
        return super().coerced(value)

    @override
    def document(self) -> EntityBody:
        return {**super().document(), **({"timestamp": True} if self.is_timestamp else {})}

    @override
    def json_type(self) -> EntityBody:
        bounds: EntityBody = {"exclusiveMinimum": 0, "maximum": INTEGER_MAX} if self.is_timestamp else {}
        return {"type": "number", **bounds}


@dataclass(frozen=True, kw_only=True)
class Integer(Number):
    """A JSON number without a fraction; `80.0` is 80, `"80"` is not."""

    kind = "integer"

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if isinstance(value, bool) or not isinstance(value, int):
            return "expected an integer"
        return super().mistyped(value)

    @override
    def json_type(self) -> EntityBody:
        return {**super().json_type(), "type": "integer"}


@dataclass(frozen=True, kw_only=True)
class Lifetime(Integer):
    """Seconds an entity has to live, from the moment the field is written. It is kept as the time of its end."""


@dataclass(frozen=True, kw_only=True)
class Boolean(Field):
    """true or false."""

    kind = "boolean"

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        return None if isinstance(value, bool) else "expected a boolean"

    @override
    def coerced(self, value: JsonValue) -> JsonValue:
        return {"true": True, "false": False, "": None}.get(value, value) if isinstance(value, str) else value

    @override
    def json_type(self) -> EntityBody:
        return {"type": "boolean"}


@dataclass(frozen=True, kw_only=True)
class Array(Field):
    """A list; order and duplicates are kept."""

    kind = "array"
    elements: Field

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if not isinstance(value, list):
            return f"expected {'a set' if self.kind == 'set' else 'an array'}"
        problems: list[JsonValue] = [REQUIRED if item is None else self.elements.problem(item) for item in value]
        while problems and problems[-1] is None:
            problems.pop()
        return problems or None

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        # Kong cannot tell an empty object from an empty list, nor the other way about.
        if value == {}:
            return []
        return [self.elements.filled(item) for item in value] if isinstance(value, list) else value

    @override
    def coerced(self, value: JsonValue) -> JsonValue:
        if value == "" or value is None:
            return None
        items = value if isinstance(value, list) else [value]
        return [self.elements.coerced(item) for item in items]

    @override
    def document(self) -> EntityBody:
        return {**super().document(), "elements": {**self.elements.document(), "required": True}}

    @override
    def json_type(self) -> EntityBody:
        return {"type": "array", "items": self.elements.json_value()}


@dataclass(frozen=True, kw_only=True)
class Set(Array):
    """A list whose duplicates are dropped, keeping the first."""

    kind = "set"

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        value = super().filled(value)
        if not isinstance(value, list):
            return value
        kept: dict[str, JsonValue] = {}
        for item in value:
            kept.setdefault(json.dumps(item, sort_keys=True), item)
        return list(kept.values())


@dataclass(frozen=True, kw_only=True)
class Map(Field):
    """An object with free keys. One problem stands for all: a text, or the list of a value's elements."""

    kind = "map"
    keys: Field
    values: Field

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if isinstance(value, list):  # not empty; to Kong a map whose keys are numbers
            return self.keys.mistyped(1)
        if not isinstance(value, dict):
            return "expected a map"
        for key, item in value.items():
            wrong = self.keys.problem(key)
            wrong = self.values.problem(item) if wrong is None else wrong
            if wrong is not None:
                return wrong
        return None

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        if value == []:
            return {}
        return {key: self.values.filled(item) for key, item in value.items()} if isinstance(value, dict) else value

    @override
    def coerced(self, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict):
            return super().coerced(value)
        return {key: self.values.coerced(item) for key, item in value.items()}

    @override
    def document(self) -> EntityBody:
        return {**super().document(), "keys": self.keys.document(), "values": self.values.document()}

    @override
    def json_type(self) -> EntityBody:
        return {
            "type": "object",
            "propertyNames": self.keys.json_value(),
            "additionalProperties": self.values.json_schema(),
        }


@dataclass(frozen=True, kw_only=True)
class Record(Field):
    """An object with fixed fields. Null is refused; missing parts are filled level by level."""

    kind = "record"
    fields: Mapping[str, Field]
    required: bool = True
    at_least_one_of: tuple[str, ...] = ()
    filled_when_missing: bool = True
    free: bool = False  # what stands in it is another's to judge

    @override
    def missing(self) -> JsonValue:
        return {name: inner.missing() for name, inner in self.fields.items()} if self.filled_when_missing else None

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        if value == []:
            value = {}
        if not isinstance(value, dict):
            return value
        filled: EntityBody = {
            name: inner.filled(value[name]) if name in value else inner.missing() for name, inner in self.fields.items()
        }
        filled.update((name, item) for name, item in value.items() if name not in self.fields)
        return filled

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if isinstance(value, list) and not self.free:  # not empty; to Kong a record whose fields are numbers
            return ["unknown field" for _ in value]
        if not isinstance(value, dict):
            return "expected a record"
        problems: EntityBody = {}
        for name, item in value.items():
            inner = self.fields.get(name)
            if inner is None:
                wrong: JsonValue = None if self.free else "unknown field"
            else:
                wrong = inner.problem(item)
            if wrong is not None:
                problems[name] = wrong
        if not problems and self.at_least_one_of and all(empty(value.get(name)) for name in self.at_least_one_of):
            names = ", ".join(f"'{name}'" for name in self.at_least_one_of)
            problems["@entity"] = [f"at least one of these fields must be non-empty: {names}"]
        return problems or None

    @override
    def coerced(self, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict):
            return super().coerced(value)
        return {name: self.fields[name].coerced(item) if name in self.fields else item for name, item in value.items()}

    @override
    def document(self) -> EntityBody:
        inner: list[JsonValue] = [{name: field.document()} for name, field in self.fields.items()]
        described: EntityBody = {**super().document(), "fields": inner}
        return {**described, "default": self._shown_default()} if self.filled_when_missing else described

    def _shown_default(self) -> EntityBody:
        """Return the defaults of all levels as one value; what is null when missing has none."""
        shown: EntityBody = {}
        for name, inner in self.fields.items():
            default = inner._shown_default() if isinstance(inner, Record) else inner.missing()
            if default is not None:
                shown[name] = default
        return shown

    @override
    def json_type(self) -> EntityBody:
        return {
            "type": "object",
            "properties": {name: inner.json_schema() for name, inner in self.fields.items()},
            "additionalProperties": self.free,
        }


@dataclass(frozen=True, kw_only=True)
class Foreign(Field):
    """A reference `{"id": uuid}` to an entity of another collection; other keys of the object are dropped.

    `cascade` = this entity goes when the one it refers to goes; otherwise that one cannot go. `nested` = in a file this
    entity stands inside the one it refers to; otherwise it only names it.
    """

    kind = "foreign"
    collection: str
    cascade: bool = False
    nested: bool = True

    @override
    def filled(self, value: JsonValue) -> JsonValue:
        if isinstance(value, dict) and "id" in value:
            entity_id = value["id"]
            return {"id": entity_id.lower() if isinstance(entity_id, str) else entity_id}
        return value

    @override
    def mistyped(self, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict) or value.get("id") is None:
            return {"id": "missing primary key"}
        entity_id = value["id"]
        if not isinstance(entity_id, str):
            return {"id": "expected a string"}
        return None if is_uuid(entity_id) else {"id": "expected a valid UUID"}

    @override
    def coerced(self, value: JsonValue) -> JsonValue:
        if not isinstance(value, dict):
            return super().coerced(value)
        return {key: None if item == "" else item for key, item in value.items()}

    @override
    def document(self) -> EntityBody:
        facts: EntityBody = {**super().document(), "reference": self.collection}
        return {**facts, "on_delete": "cascade"} if self.cascade else facts

    @override
    def json_type(self) -> EntityBody:
        return {
            "type": "object",
            "properties": {"id": {"type": "string", "format": "uuid"}},
            "required": ["id"],
        }


def _copied(value: JsonValue) -> JsonValue:
    """Return a value that shares nothing that can be altered; `copy.deepcopy` takes ten times as long."""
    if isinstance(value, dict):
        return {name: _copied(item) for name, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def empty(value: JsonValue) -> bool:
    """Tell whether a value counts as not given in at-least-one, distinct and all-or-none rules."""
    return value is None or value in ("", [], {})
