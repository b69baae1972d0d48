"""What the tests of this folder share: a fixed time, known entities, and writes that return errors."""

from __future__ import annotations

from control_plane.entities.errors import EntityError
from control_plane.entities.registry import SCHEMAS
from control_plane.entities.types import EntityBody, JsonValue

NOW = 1_700_000_000.123_4
SERVICE_ID = "00000000-0000-4000-8000-00000000000a"
UPSTREAM_ID = "00000000-0000-4000-8000-00000000000b"

_KNOWN = {("services", "name", "known"): SERVICE_ID, ("upstreams", "name", "known"): UPSTREAM_ID}


def resolve(collection: str, field: str, value: str) -> str | None:
    """Stand in for the store: one service and one upstream are named `known`."""
    return _KNOWN.get((collection, field, value))


def insert(collection: str, body: EntityBody) -> EntityBody:
    """Return the new entity."""
    return SCHEMAS[collection].on_insert(body, now=NOW, resolve=resolve)


def update(collection: str, current: EntityBody, patch: EntityBody) -> EntityBody:
    """Return the patched entity."""
    return SCHEMAS[collection].on_update(current, patch, now=NOW + 60, resolve=resolve)


def refusal(collection: str, body: EntityBody, current: EntityBody | None = None) -> EntityBody:
    """Return the error object that creating `body`, or patching `current` with it, is answered with."""
    try:
        made = insert(collection, body) if current is None else update(collection, current, body)
    except EntityError as error:
        return error.to_json()
    raise AssertionError(f"accepted: {made}")


def problems(collection: str, body: EntityBody, current: EntityBody | None = None) -> JsonValue:
    """Return the `fields` of that error object."""
    return refusal(collection, body, current)["fields"]
