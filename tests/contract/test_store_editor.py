"""Kong's write semantics over a real store (spec: admin-api 2, 4, 5, 6; entities 1, 16)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TypeVar

import pytest

from control_plane.entities.errors import (
    ForeignKeysUnresolved,
    InvalidPrimaryKey,
    InvalidUnique,
    NotFound,
    PrimaryKeyViolation,
    SchemaViolation,
    UniqueViolation,
)
from control_plane.entities.types import EntityBody
from control_plane.store import editor
from control_plane.store.contract import Store, Transaction
from tests.contract.writing import NOW, ORIGIN, create, everything

T = TypeVar("T")
LATER = NOW + 100


async def write(store: Store, work: Callable[[Transaction], T]) -> T:
    return (await store.write(work, ORIGIN)).result


async def put(
    store: Store, collection: str, key: str, body: EntityBody, parent: editor.Parent | None = None
) -> EntityBody:
    return await write(store, lambda tx: editor.upsert(tx, collection, key, body, now=LATER, parent=parent))


async def patch(
    store: Store, collection: str, key: str, body: EntityBody, parent: editor.Parent | None = None
) -> EntityBody:
    return await write(store, lambda tx: editor.update(tx, collection, key, body, now=LATER, parent=parent))


async def lookup(store: Store, collection: str, key: str, parent: editor.Parent | None = None) -> EntityBody | None:
    return await store.read(lambda tx: editor.lookup(tx, collection, key, parent))


def below(upstream: EntityBody) -> editor.Parent:
    return editor.Parent("upstream", "upstreams", str(upstream["id"]))


async def test_lookup_by_id_in_any_case_or_by_name(store: Store) -> None:
    made = await create(store, "services", name="s", host="x")
    for key in (str(made["id"]), str(made["id"]).upper(), "s"):
        assert await lookup(store, "services", key) == made
    assert await lookup(store, "services", str(uuid.uuid4())) is None
    assert await lookup(store, "services", "t") is None


async def test_a_uuid_is_looked_up_as_an_id_only(store: Store) -> None:
    name = str(uuid.uuid4())
    await create(store, "services", name=name, host="x")
    assert await lookup(store, "services", name) is None


async def test_a_key_that_could_be_no_name_is_refused(store: Store) -> None:
    with pytest.raises(InvalidUnique) as caught:
        await put(store, "upstreams", "1.2.3.4", {})
    assert (caught.value.code, caught.value.name) == (10, "invalid unique name")
    assert caught.value.message == "Invalid name ('1.2.3.4'); no ip addresses allowed"
    for attempt in (lookup(store, "services", "a b"), patch(store, "services", "a b", {})):
        with pytest.raises(InvalidUnique):
            await attempt


async def test_create_takes_a_free_id_and_keeps_given_times(store: Store) -> None:
    wanted = str(uuid.uuid4())
    made = await create(store, "services", id=wanted.upper(), host="x", created_at=5, updated_at="junk")
    assert (made["id"], made["created_at"], made["updated_at"]) == (wanted, 5, int(NOW))


async def test_create_below_a_parent_overrides_the_body(store: Store) -> None:
    service = await create(store, "services", host="x")
    parent = editor.Parent("service", "services", str(service["id"]))
    body: EntityBody = {"paths": ["/"], "service": {"id": str(uuid.uuid4())}}
    made = await write(store, lambda tx: editor.create(tx, "routes", body, now=NOW, parent=parent))
    assert made["service"] == {"id": service["id"]}
    assert body["service"] != {"id": service["id"]}, "the caller's body is its own"


async def test_a_foreign_key_by_name_is_resolved(store: Store) -> None:
    service = await create(store, "services", name="s", host="x")
    by_name: EntityBody = {"paths": ["/"], "service": {"name": "s"}}
    made = await write(store, lambda tx: editor.create(tx, "routes", by_name, now=NOW))
    assert made["service"] == {"id": service["id"]}
    unknown: EntityBody = {"paths": ["/"], "service": {"name": "t"}}
    with pytest.raises(ForeignKeysUnresolved) as caught:
        await write(store, lambda tx: editor.create(tx, "routes", unknown, now=NOW))
    assert caught.value.code == 13
    assert "services" in str(caught.value.message)


async def test_put_by_a_new_id_creates_and_the_id_of_the_url_wins(store: Store) -> None:
    wanted = str(uuid.uuid4())
    made = await put(store, "services", wanted.upper(), {"host": "x", "id": str(uuid.uuid4())})
    assert made["id"] == wanted
    assert await lookup(store, "services", wanted) == made
    with pytest.raises(SchemaViolation):
        await put(store, "services", wanted, {"host": "x", "id": "junk"})


async def test_put_replaces_everything_but_the_id(store: Store) -> None:
    made = await create(store, "services", name="s", host="x", tags=["t"], retries=1, created_at=5)
    for key in (str(made["id"]), "s"):
        replaced = await put(store, "services", key, {"host": "y", "name": "s"})
        assert replaced["id"] == made["id"]
        assert (replaced["host"], replaced["tags"], replaced["retries"]) == ("y", None, 5)
        assert (replaced["created_at"], replaced["updated_at"]) == (int(LATER), int(LATER))
    kept = await put(store, "services", "s", {"host": "y", "created_at": 5})
    assert kept["created_at"] == 5


async def test_put_by_name_takes_the_name_of_the_url_and_ignores_the_bodys_id(store: Store) -> None:
    made = await put(store, "services", "s", {"host": "x", "name": "other"})
    assert made["name"] == "s"
    again = await put(store, "services", "s", {"host": "y", "id": str(uuid.uuid4())})
    assert again["id"] == made["id"]
    fresh = str(uuid.uuid4())
    assert (await put(store, "services", "new", {"host": "x", "id": fresh}))["id"] == fresh
    with pytest.raises(PrimaryKeyViolation):
        await put(store, "services", "newer", {"host": "x", "id": fresh})


async def test_put_into_another_ones_name_is_refused(store: Store) -> None:
    await create(store, "services", name="a", host="x")
    other = await create(store, "services", name="b", host="x")
    with pytest.raises(UniqueViolation):
        await put(store, "services", str(other["id"]), {"host": "x", "name": "a"})
    # Without a name in the body the name is given up.
    assert (await put(store, "services", str(other["id"]), {"host": "x"}))["name"] is None


async def test_put_below_a_parent_moves_the_child(store: Store) -> None:
    first, second = await create(store, "services", host="x"), await create(store, "services", host="x")
    route = await create(store, "routes", name="r", paths=["/"], service=first)
    parent = editor.Parent("service", "services", str(second["id"]))
    moved = await put(store, "routes", "r", {"paths": ["/"]}, parent)
    assert (moved["id"], moved["service"]) == (route["id"], {"id": second["id"]})


async def test_patch_merges_and_bumps_updated_at(store: Store) -> None:
    made = await create(store, "upstreams", name="u", tags=["t"])
    same = await patch(store, "upstreams", "u", {})
    assert same == {**made, "updated_at": int(LATER)}
    merged = await patch(store, "upstreams", "u", {"healthchecks": {"threshold": 5}, "tags": None})
    assert isinstance(merged["healthchecks"], dict)
    assert isinstance(made["healthchecks"], dict)
    assert merged["healthchecks"] == {**made["healthchecks"], "threshold": 5}
    assert merged["tags"] is None


async def test_patch_renames_by_the_old_name(store: Store) -> None:
    made = await create(store, "services", name="old", host="x")
    renamed = await patch(store, "services", "old", {"name": "new", "id": str(uuid.uuid4())})
    assert (renamed["id"], renamed["name"]) == (made["id"], "new")
    assert await lookup(store, "services", "old") is None


async def test_patch_and_put_see_what_the_unit_did_before(store: Store) -> None:
    def work(tx: Transaction) -> EntityBody:
        editor.create(tx, "services", {"name": "s", "host": "x"}, now=NOW)
        editor.update(tx, "services", "s", {"host": "y"}, now=NOW)
        return editor.update(tx, "services", "s", {"port": 81}, now=NOW)

    made = await write(store, work)
    assert (made["host"], made["port"]) == ("y", 81)


async def test_what_is_missing_is_named_by_the_key_it_was_asked_for(store: Store) -> None:
    missing = str(uuid.uuid4())
    with pytest.raises(NotFound) as by_id:
        await patch(store, "services", missing.upper(), {})
    assert by_id.value.message == f"could not find the entity with primary key '{{id=\"{missing}\"}}'"
    with pytest.raises(NotFound) as by_name:
        await patch(store, "services", "s", {})
    assert by_name.value.message == "could not find the entity with '{name=\"s\"}'"


async def test_delete_is_idempotent(store: Store) -> None:
    made = await create(store, "services", name="s", host="x")
    assert await write(store, lambda tx: editor.delete(tx, "services", "s"))
    assert not await write(store, lambda tx: editor.delete(tx, "services", "s"))
    assert not await write(store, lambda tx: editor.delete(tx, "services", str(made["id"])))


async def test_a_child_of_another_parent_is_not_found(store: Store) -> None:
    first, second = await create(store, "upstreams", name="a"), await create(store, "upstreams", name="b")
    target = await create(store, "targets", upstream=first, target="x:80")
    key = str(target["id"])
    assert await lookup(store, "targets", key, below(first)) == target
    assert await lookup(store, "targets", key, below(second)) is None
    assert not await write(store, lambda tx: editor.delete(tx, "targets", key, parent=below(second)))
    with pytest.raises(NotFound):
        await patch(store, "targets", key, {"weight": 1}, below(second))


async def test_a_target_is_found_by_its_exact_normalised_address(store: Store) -> None:
    upstream, other = await create(store, "upstreams", name="u"), await create(store, "upstreams", name="v")
    named = await create(store, "targets", upstream=upstream, target="api")
    address = await create(store, "targets", upstream=upstream, target="[::1]:80")
    await create(store, "targets", upstream=other, target="api")
    assert named["target"] == "api:8000"
    assert await lookup(store, "targets", "api:8000", below(upstream)) == named
    for key in ("api", "API:8000", "[::1]:80", "not a target"):
        assert await lookup(store, "targets", key, below(upstream)) is None
    assert await lookup(store, "targets", "[0000:0000:0000:0000:0000:0000:0000:0001]:80", below(upstream)) == address
    with pytest.raises(InvalidPrimaryKey):  # which of the two upstreams' would it be?
        await lookup(store, "targets", "api:8000")


async def test_put_of_a_target_is_a_patch(store: Store) -> None:
    upstream = await create(store, "upstreams", name="u")
    target = await create(store, "targets", upstream=upstream, target="api:80", tags=["t"])
    changed = await put(store, "targets", "api:80", {"weight": 7}, below(upstream))
    assert changed == {**target, "weight": 7, "updated_at": LATER}
    assert (await put(store, "targets", str(target["id"]), {"weight": 8}, below(upstream)))["weight"] == 8
    for key in ("other:80", str(uuid.uuid4())):
        with pytest.raises(NotFound):
            await put(store, "targets", key, {"weight": 1}, below(upstream))


async def test_a_refused_body_changes_nothing(store: Store) -> None:
    await create(store, "services", name="s", host="x")
    before = await everything(store)
    with pytest.raises(SchemaViolation):
        await patch(store, "services", "s", {"retries": -1})
    with pytest.raises(SchemaViolation):
        await put(store, "services", "s", {"nonsense": 1})
    assert await everything(store) == before
    assert await store.head() == 1
