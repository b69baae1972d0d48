"""What holds for every kind of entity: automatic fields, null and missing, merging, references, keys."""

from __future__ import annotations

import json
import uuid

import pytest

from control_plane.entities.errors import ForeignKeysUnresolved, InvalidUnique, SchemaViolation
from control_plane.entities.fields import INTEGER_MAX
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.schema import OnDelete
from control_plane.entities.types import EntityBody, JsonValue
from tests.support.tls import authority_pem, issued
from tests.unit.control_plane.entities.schemas import (
    NOW,
    SERVICE_ID,
    UPSTREAM_ID,
    insert,
    problems,
    refusal,
    resolve,
    update,
)

SMALLEST: dict[str, EntityBody] = {
    "services": {"host": "api"},
    "routes": {"paths": ["/"]},
    "upstreams": {"name": "blue"},
    "targets": {"target": "api:80", "upstream": {"id": UPSTREAM_ID}},
    "certificates": {"cert": issued("a.test").cert, "key": issued("a.test").key},
    "snis": {"name": "a.test", "certificate": {"id": SERVICE_ID}},
    "ca_certificates": {"cert": authority_pem()},
    "consumers": {"username": "ann"},
    "keyauth_credentials": {"consumer": {"id": SERVICE_ID}},
    "basicauth_credentials": {"consumer": {"id": SERVICE_ID}, "username": "ann", "password": "p"},
    "hmacauth_credentials": {"consumer": {"id": SERVICE_ID}, "username": "ann"},
    "jwt_secrets": {"consumer": {"id": SERVICE_ID}},
    "acls": {"consumer": {"id": SERVICE_ID}, "group": "g"},
    "oauth2_credentials": {"consumer": {"id": SERVICE_ID}, "name": "app"},
}
STORABLE = [collection for collection in SCHEMAS if collection in SMALLEST]
TRANSIENT = {("certificates", "snis")}  # checked, and kept by others


@pytest.mark.parametrize("collection", STORABLE)
def test_an_entity_has_every_field_of_its_schema(collection: str) -> None:
    made = insert(collection, SMALLEST[collection])

    fields = SCHEMAS[collection].fields
    assert list(made) == [
        name for name, field in fields.items() if not field.only_when_set and (collection, name) not in TRANSIENT
    ]
    assert uuid.UUID(str(made["id"])).version == 4


@pytest.mark.parametrize("collection", SCHEMAS)
def test_parents_come_before_their_children(collection: str) -> None:
    order = list(SCHEMAS)
    for foreign in SCHEMAS[collection].foreign_fields.values():
        if foreign.collection in SCHEMAS:
            assert order.index(foreign.collection) < order.index(collection)


def test_times_are_whole_seconds_but_for_targets() -> None:
    assert insert("services", {"host": "api"})["created_at"] == 1_700_000_000
    assert insert("targets", SMALLEST["targets"])["created_at"] == 1_700_000_000.123


def test_times_of_the_client() -> None:
    made = insert("services", {"host": "api", "created_at": 5, "updated_at": {"any": "thing"}})

    assert (made["created_at"], made["updated_at"]) == (5, 1_700_000_000)


@pytest.mark.parametrize("time", [0, -1, INTEGER_MAX + 1])
def test_impossible_times_are_refused(time: int) -> None:
    assert problems("services", {"host": "api", "created_at": time}) == {"created_at": "expected a valid timestamp"}


def test_a_put_takes_the_id_of_the_url_and_keeps_nothing() -> None:
    made = SCHEMAS["services"].on_upsert(
        {"host": "api", "id": UPSTREAM_ID}, now=NOW, resolve=resolve, entity_id=SERVICE_ID
    )

    assert made["id"] == SERVICE_ID
    assert made["name"] is None


def test_the_id_of_the_body_must_be_one_even_where_it_is_ignored() -> None:
    current = insert("services", {"host": "api"})

    assert problems("services", {"id": "x"}, current) == {"id": "expected a valid UUID"}
    assert update("services", current, {"id": SERVICE_ID})["id"] == current["id"]
    assert insert("services", {"host": "api", "id": SERVICE_ID.upper()})["id"] == SERVICE_ID


def test_missing_is_the_default_and_null_is_null() -> None:
    made = insert("services", {"host": "api", "retries": None})

    assert made["retries"] is None
    assert made["connect_timeout"] == 60_000
    assert problems("services", {"host": "api", "port": None}) == {"port": "required field missing"}


def test_whole_numbers_may_be_written_with_a_fraction_of_zero() -> None:
    made = insert("services", {"host": "api", "port": 80.0})

    assert repr(made["port"]) == "80"


@pytest.mark.parametrize("value", ["80", True, 80.5, [], {}])
def test_json_is_never_coerced(value: JsonValue) -> None:
    assert problems("services", {"host": "api", "port": value}) == {"port": "expected an integer"}


def test_sets_keep_the_first_of_equals_and_lists_keep_all() -> None:
    made = insert("routes", {"methods": ["GET", "PUT", "GET"], "paths": ["/b", "/a", "/b"]})

    assert made["methods"] == ["GET", "PUT"]
    assert made["paths"] == ["/b", "/a", "/b"]


def test_a_large_set_is_taken_in_linear_time() -> None:
    tags: list[JsonValue] = [f"tag-{number % 50_000}" for number in range(100_000)]

    assert insert("services", {"host": "api", "tags": tags})["tags"] == tags[:50_000]


def test_unknown_fields_are_refused_at_every_level() -> None:
    assert problems("services", {"host": "api", "ws_id": "x"}) == {"ws_id": "unknown field"}
    assert problems("upstreams", {"name": "u", "healthchecks": {"active": {"x": 1}}}) == {
        "healthchecks": {"active": {"x": "unknown field"}}
    }


def test_half_a_surrogate_pair_is_no_text() -> None:
    assert problems("services", {"host": "api", "name": "\ud800"}) == {"name": "must be valid utf-8"}
    assert problems("routes", {"paths": ["/\ud800"]}) == {"paths": ["must be valid utf-8"]}


def test_a_patch_keeps_what_it_does_not_name() -> None:
    current = insert("services", {"host": "blue", "name": "s", "tags": ["a"], "path": "/x"})
    patched = update("services", current, {"host": "green", "path": None, "created_at": None})

    assert patched == {**current, "host": "green", "path": None, "updated_at": current["updated_at"] + 60}  # type: ignore[operator]  # an int


def test_a_patch_merges_records_and_replaces_maps() -> None:
    current = insert("upstreams", {"name": "u", "healthchecks": {"active": {"headers": {"a": ["1"]}, "timeout": 9}}})
    patched = update("upstreams", current, {"healthchecks": {"active": {"headers": {"b": ["2"]}}, "threshold": 55}})

    healthchecks = patched["healthchecks"]
    assert isinstance(healthchecks, dict)
    active = healthchecks["active"]
    assert isinstance(active, dict)
    assert (active["headers"], active["timeout"], healthchecks["threshold"]) == ({"b": ["2"]}, 9, 55)


def test_the_current_entity_is_never_changed() -> None:
    current = insert("upstreams", {"name": "u", "hash_on": "ip"})
    before = repr(current)
    update("upstreams", current, {"hash_on": "none", "healthchecks": {"active": {"healthy": {"interval": 1}}}})

    assert repr(current) == before


def test_references_may_be_given_by_name() -> None:
    assert insert("routes", {"paths": ["/"], "service": {"name": "known"}})["service"] == {"id": SERVICE_ID}
    assert insert("routes", {"paths": ["/"], "service": {"id": SERVICE_ID.upper(), "name": "x"}})["service"] == {
        "id": SERVICE_ID
    }


def test_a_name_that_leads_nowhere_is_reported_alone() -> None:
    assert refusal("routes", {"paths": 5, "service": {"name": "x"}}) == {
        "code": 13,
        "name": "foreign keys unresolved",
        "message": "foreign key unresolved (service.name: the foreign key cannot be resolved with "
        "'{name=\"x\"}' for an existing 'services' entity)",
        "fields": {
            "service": {
                "name": "the foreign key cannot be resolved with '{name=\"x\"}' for an existing 'services' entity"
            }
        },
    }
    with pytest.raises(ForeignKeysUnresolved):
        update("routes", insert("routes", {"paths": ["/"]}), {"service": {"name": "x"}})


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("known", "missing primary key"),
        ({}, "missing primary key"),
        ({"id": None}, "missing primary key"),
        ({"id": 5}, "expected a string"),
        ({"id": "x"}, "expected a valid UUID"),
    ],
)
def test_a_reference_needs_an_id(value: JsonValue, problem: str) -> None:
    assert problems("routes", {"paths": ["/"], "service": value}) == {"service": {"id": problem}}


def test_references_know_what_deleting_their_parent_does() -> None:
    assert SCHEMAS["routes"].foreign_fields["service"].on_delete is OnDelete.RESTRICT
    assert SCHEMAS["targets"].foreign_fields["upstream"].on_delete is OnDelete.CASCADE
    assert SCHEMAS["targets"].foreign_fields["upstream"].required
    assert SCHEMAS["services"].foreign_fields["client_certificate"].collection == "certificates"


def test_unique_keys() -> None:
    assert {collection: schema.unique_keys for collection, schema in SCHEMAS.items()} == {
        "services": (("name",),),
        "routes": (("name",),),
        "upstreams": (("name",),),
        "targets": (("upstream", "target"),),
        "certificates": (),
        "snis": (("name",),),
        "ca_certificates": (("cert_digest",),),
        "consumers": (("username",), ("custom_id",)),
        "keyauth_credentials": (("key",),),
        "basicauth_credentials": (("username",),),
        "hmacauth_credentials": (("username",),),
        "jwt_secrets": (("key",),),
        "acls": (("consumer", "group"),),
        "oauth2_credentials": (("client_id",),),
        "plugins": (("instance_name",), ("name", "route", "service", "consumer")),
    }


@pytest.mark.parametrize(
    ("collection", "key", "problem"),
    [
        (
            "services",
            "a b",
            "invalid value 'a b': the only accepted ascii characters are alphanumerics or ., -, _, and ~",
        ),
        ("upstreams", "1.2.3.4", "Invalid name ('1.2.3.4'); no ip addresses allowed"),
        ("targets", "a b", "Invalid target ('a b'); not a valid hostname or ip address"),
    ],
)
def test_a_key_that_could_never_be_one_is_refused(collection: str, key: str, problem: str) -> None:
    schema = SCHEMAS[collection]
    with pytest.raises(InvalidUnique) as caught:
        schema.check_key(key)

    assert caught.value.to_json() == {
        "code": 10,
        "name": f"invalid unique {schema.endpoint_key}",
        "message": problem,
    }


def test_validating_needs_no_store() -> None:
    SCHEMAS["routes"].validate({"paths": ["/"], "service": {"name": "nobody"}}, now=NOW)
    with pytest.raises(SchemaViolation, match=r"host: required field missing"):
        SCHEMAS["services"].validate({}, now=NOW)
    with pytest.raises(SchemaViolation, match=r"service\.id: missing primary key"):
        SCHEMAS["routes"].validate({"paths": ["/"], "service": {}}, now=NOW)


def test_every_collection_but_plugins_has_a_smallest_entity() -> None:
    assert set(SCHEMAS) - set(STORABLE) == {"plugins"}  # none are there that one could be of


@pytest.mark.parametrize(
    ("field", "given", "kept"),
    [("tags", {}, []), ("hosts", {}, []), ("headers", [], {}), ("methods", {}, [])],
)
def test_an_empty_object_and_an_empty_list_are_the_same(field: str, given: JsonValue, kept: JsonValue) -> None:
    assert insert("routes", {"paths": ["/"], field: given})[field] == kept


def test_an_empty_list_is_an_empty_record() -> None:
    made = insert("upstreams", {"name": "blue", "healthchecks": []})
    assert made["healthchecks"] == insert("upstreams", {"name": "blue"})["healthchecks"]
    changed = update("upstreams", made, {"healthchecks": {"threshold": 5}})
    assert update("upstreams", changed, {"healthchecks": []})["healthchecks"] == changed["healthchecks"]


def test_a_list_for_a_record_has_unknown_fields() -> None:
    assert problems("upstreams", {"name": "blue", "healthchecks": ["a", 1]}) == {
        "healthchecks": ["unknown field", "unknown field"]
    }


ROUTED = ("services", "routes", "upstreams", "targets")


@pytest.mark.parametrize("collection", ROUTED)
def test_no_two_entities_share_a_default(collection: str) -> None:
    """Method: whatever can be altered in one is altered, at every level, and the next one is as the first was."""
    body = {**SMALLEST[collection], "id": SERVICE_ID}
    made = insert(collection, body)
    before = json.dumps(made)
    _spoil(made)
    assert json.dumps(insert(collection, body)) == before


@pytest.mark.parametrize("collection", ROUTED)
def test_a_default_that_is_given_makes_the_same_entity(collection: str) -> None:
    fields = SCHEMAS[collection].fields
    defaults = {name: field.missing() for name, field in fields.items() if field.missing() is not None}
    body = {**SMALLEST[collection], "id": SERVICE_ID}
    assert insert(collection, {**defaults, **body}) == insert(collection, body)


@pytest.mark.parametrize(
    ("collection", "field"),
    [
        (collection, name)
        for collection in ROUTED
        for name, definition in SCHEMAS[collection].fields.items()
        if definition.required and name not in SMALLEST[collection]
    ],
)
def test_null_in_the_place_of_a_default_is_refused(collection: str, field: str) -> None:
    refused = problems(collection, {**SMALLEST[collection], field: None})
    assert isinstance(refused, dict)
    assert field in refused


def _spoil(value: JsonValue) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _spoil(item)
        value["spoiled"] = True
    elif isinstance(value, list):
        value.append("spoiled")
