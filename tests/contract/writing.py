"""Short words for what the store's tests do all the time."""

from __future__ import annotations

from control_plane.entities.types import EntityBody
from control_plane.store import editor
from control_plane.store.contract import Origin, Store

NOW = 1_700_000_000.0
ORIGIN = Origin(author="anna", source="test", address="127.0.0.1:1", reason="because")


async def create(store: Store, collection: str, /, **fields: object) -> EntityBody:
    """Creates an entity in a version of its own; `upstream=`, `service=` and `consumer=` take the parent's body."""
    body = body_of(fields)
    return (await store.write(lambda tx: editor.create(tx, collection, body, now=NOW), ORIGIN)).result


async def patch(store: Store, collection: str, key: str, /, **fields: object) -> EntityBody:
    body = body_of(fields)
    return (await store.write(lambda tx: editor.update(tx, collection, key, body, now=NOW + 5), ORIGIN)).result


async def delete(store: Store, collection: str, key: str) -> bool:
    return (await store.write(lambda tx: editor.delete(tx, collection, key), ORIGIN)).result


async def everything(store: Store) -> dict[tuple[str, str], EntityBody]:
    """All entities by collection and id."""
    return await store.read(
        lambda tx: {
            (collection, str(body["id"])): body
            for collection in ("services", "routes", "upstreams", "targets")
            for body in tx.each(collection)
        }
    )


def body_of(fields: dict[str, object]) -> EntityBody:
    body: EntityBody = {}
    for name, value in fields.items():
        if name in {"service", "upstream", "consumer"} and isinstance(value, dict):
            body[name] = {"id": value["id"]}
        else:
            body[name] = value  # type: ignore[assignment]  # tests write JSON values only
    return body
