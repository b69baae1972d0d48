from __future__ import annotations

import pytest

from control_plane.entities.errors import SchemaViolation
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.snapshot.consistency import ENTITY_BYTES_MAX, check_changes
from control_plane.store.contract import Change
from tests.unit.control_plane.snapshot.bodies import created, deleted, entity


class NoStore:
    """Nothing that is checked needs the store yet."""


def check(*changes: Change) -> None:
    store = NoStore()
    check_changes(store, changes)  # type: ignore[arg-type]  # must not be used


def refused(collection: str, body: EntityBody) -> EntityBody:
    with pytest.raises(SchemaViolation) as caught:
        check(created("services", entity("services")), created(collection, body))
    assert caught.value.fields is not None
    return caught.value.fields


def test_what_nodes_can_run_passes() -> None:
    headers: JsonValue = {"x-v": ["~*^v[0-9]+$", "plain"]}
    check(
        created("services", entity("services")),
        created("routes", entity("routes", paths=["/", r"~/v(?<major>\d+)"], headers=headers)),
        created("upstreams", entity("upstreams")),
        created("targets", entity("targets")),
    )


def test_what_goes_is_not_checked() -> None:
    check(deleted("routes", {**entity("routes", name="r"), "paths": ["~("]}))


@pytest.mark.parametrize("pattern", ["~(", "~/(?=x)", "~/" + "(a{1000}){1000}"])
def test_a_path_regex_that_does_not_compile(pattern: str) -> None:
    fields = refused("routes", {**entity("routes", name="r"), "paths": ["/fine", pattern]})
    assert set(fields) == {"paths"}
    assert "invalid regex" in str(fields["paths"])
    assert "[routes r]" in str(fields["paths"])


def test_a_header_regex_that_does_not_compile() -> None:
    fields = refused("routes", {**entity("routes", name="r"), "headers": {"x-v": ["~*("]}})
    assert set(fields) == {"headers"}


def test_a_number_that_does_not_fit_the_wire() -> None:
    fields = refused("routes", {**entity("routes", name="r"), "regex_priority": 2**64})
    assert set(fields) == {"regex_priority"}
    assert "cannot be sent to the nodes" in str(fields["regex_priority"])


def test_text_that_has_no_utf8_form() -> None:
    assert set(refused("services", {**entity("services"), "path": "/\udcff"})) == {"path"}


def test_a_target_that_nothing_can_connect_to() -> None:
    assert "port 0" in str(refused("targets", entity("targets", target="x:0"))["target"])


def test_an_entity_that_is_too_large() -> None:
    paths: list[JsonValue] = [f"/{number:0100}" for number in range(ENTITY_BYTES_MAX // 100)]
    fields = refused("routes", entity("routes", name="r", paths=paths))
    assert set(fields) == {"@entity"}
    assert "split it" in str(fields["@entity"])
