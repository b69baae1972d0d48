"""Complete entities, as the schemas make them."""

from __future__ import annotations

import uuid

from control_plane.entities.registry import STORED
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.store.contract import Change, Operation, Origin, Version
from tests.support.tls import authority_pem, issued

NOW = 1_700_000_000.0


def entity(collection: str, number: int = 1, /, **fields: JsonValue) -> EntityBody:
    """An entity of the collection whose id ends in `number`; the least it needs is filled in."""
    needed: dict[str, EntityBody] = {
        "services": {"host": "x.example"},
        "routes": {"paths": ["/"]},
        "upstreams": {"name": f"u{number}"},
        "targets": {"target": "x.example:80", "upstream": {"id": identity("upstreams", 1)}},
        "upstream_settings": {"upstream": {"id": identity("upstreams", number)}},
        "service_settings": {"service": {"id": identity("services", number)}},
        "certificates": {"cert": issued("a.test").cert, "key": issued("a.test").key},
        "snis": {"name": f"a{number}.test", "certificate": {"id": identity("certificates", 1)}},
        "ca_certificates": {"cert": authority_pem(f"{number}")},
    }
    body: EntityBody = {"id": identity(collection, number), **needed[collection], **fields}
    return STORED[collection].on_insert(body, now=NOW, resolve=lambda *_: None)


def identity(collection: str, number: int) -> str:
    return str(uuid.UUID(int=(sorted(STORED).index(collection) + 1 << 64) + number))


def version_of(number: int, *changes: Change) -> Version:
    return Version(number, NOW, Origin(), len(changes), changes)


def created(collection: str, body: EntityBody) -> Change:
    return Change(Operation.CREATE, collection, str(body["id"]), None, body)


def updated(collection: str, before: EntityBody, after: EntityBody) -> Change:
    return Change(Operation.UPDATE, collection, str(after["id"]), before, after)


def deleted(collection: str, body: EntityBody) -> Change:
    return Change(Operation.DELETE, collection, str(body["id"]), body, None)
