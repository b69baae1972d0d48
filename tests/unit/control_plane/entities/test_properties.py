"""Whatever a client sends: the answer is an entity or an error, and an entity sent back is the same entity."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.entities.errors import EntityError
from control_plane.entities.fields import Array, Boolean, Field, Foreign, Integer, Map, Number, Record, String
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue
from tests.support.examples import examples
from tests.unit.control_plane.entities.schemas import NOW, SERVICE_ID, resolve

ANYTHING: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
TEXTS = st.sampled_from(
    ["a", "/", "/a/b", "~/a+$", "blue", "a.example:80", "*.example", "::1", "10.0.0.1", "10.0.0.0/8", "GET", "x-y"]
)


def values(field: Field) -> st.SearchStrategy[JsonValue]:
    """Return values of which many are right for the field."""
    for rule in field.rules:
        choices = rule.facts.get("one_of")
        if isinstance(choices, list):
            return st.sampled_from(choices)
    match field:
        case String():
            return st.just(SERVICE_ID) if field.is_uuid else TEXTS
        case Integer():
            return st.integers(1, 300)
        case Number():
            return st.floats(0, 100) | st.integers(0, 100)
        case Boolean():
            return st.booleans()
        case Map():
            return st.dictionaries(TEXTS, values(field.values), max_size=2).map(dict)
        case Array():
            return st.lists(values(field.elements), max_size=3).map(list)
        case Record():
            return st.fixed_dictionaries({}, optional={n: values(f) for n, f in field.fields.items()}).map(dict)
        case Foreign():
            return st.just({"id": SERVICE_ID})
        case _:
            raise AssertionError(f"no strategy for {type(field).__name__}")


def bodies(collection: str) -> st.SearchStrategy[EntityBody]:
    """Return bodies with the fields of a collection, mostly well-formed."""
    fields = SCHEMAS[collection].fields
    plausible = {name: values(field) for name, field in fields.items()}
    always = {name: plausible[name] for name, field in fields.items() if field.required and not field.has_default}
    optional = {name: strategy for name, strategy in plausible.items() if name not in always}
    return st.fixed_dictionaries(always, optional=optional).map(dict)


BODIES = st.sampled_from(list(SCHEMAS)).flatmap(lambda collection: st.tuples(st.just(collection), bodies(collection)))


@given(BODIES)
@settings(max_examples=examples(75), deadline=None)
def test_an_entity_sent_back_is_the_same_entity(case: tuple[str, EntityBody]) -> None:
    collection, body = case
    schema = SCHEMAS[collection]
    try:
        made = schema.on_insert(body, now=NOW, resolve=resolve)
    except EntityError:
        return
    shown = schema.shown(made, now=NOW)
    hashed = [name for name in ("password", "client_secret") if name in made]
    put = schema.on_upsert(shown, now=NOW, resolve=resolve, entity_id=str(made["id"]), as_stored=hashed)
    patch = {name: value for name, value in shown.items() if name not in hashed}
    patched = schema.on_update(made, patch, now=NOW, resolve=resolve)

    assert put == made
    assert patched == made
    assert schema.on_update(made, {}, now=NOW, resolve=resolve) == made


@given(BODIES)
@settings(max_examples=examples(50), deadline=None)
def test_a_body_is_not_changed(case: tuple[str, EntityBody]) -> None:
    collection, body = case
    before = json.dumps(body)
    try:
        SCHEMAS[collection].on_insert(body, now=NOW, resolve=resolve)
    except EntityError as error:
        json.dumps(error.to_json())

    assert json.dumps(body) == before


@given(st.sampled_from(list(SCHEMAS)), st.data())
@settings(max_examples=examples(75), deadline=None)
def test_junk_is_answered_with_an_error_or_an_entity(collection: str, data: st.DataObject) -> None:
    schema = SCHEMAS[collection]
    names = st.sampled_from([*schema.fields, "url", "unknown"])
    junk = data.draw(st.dictionaries(names, ANYTHING, max_size=4))
    good = data.draw(bodies(collection))
    for body in (junk, {**good, **junk}, schema.coerce({**good, **junk})):
        try:
            made = schema.on_insert(body, now=NOW, resolve=resolve)
        except EntityError as error:
            made = error.to_json()
        json.dumps(made, ensure_ascii=False, allow_nan=False).encode()
