"""What a transaction of any store promises about entities: lookups, pages, uniqueness and references."""

from __future__ import annotations

import uuid

import pytest

from control_plane.entities.errors import (
    ForeignKeyViolation,
    PrimaryKeyViolation,
    ReferencedByOthers,
    UniqueViolation,
)
from control_plane.store import editor
from control_plane.store.contract import Store, TagFilter, Transaction
from tests.contract.writing import NOW, ORIGIN, create, delete, everything, patch


async def test_an_entity_reads_back_as_it_was_written(store: Store) -> None:
    made = await create(store, "services", name="s", host="blue", tags=["ä", "b"], path="/x")
    assert await store.read(lambda tx: tx.get("services", str(made["id"]))) == made
    assert await store.read(lambda tx: tx.find("services", {"name": "s"})) == made
    assert await store.read(lambda tx: list(tx.each("services"))) == [made]


async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.read(lambda tx: tx.get("services", str(uuid.uuid4()))) is None
    assert await store.read(lambda tx: tx.find("services", {"name": "s"})) is None
    assert await store.read(lambda tx: list(tx.each("services"))) == []
    assert (await store.write(lambda tx: tx.delete("services", str(uuid.uuid4())), ORIGIN)).result is False


async def test_a_find_by_no_unique_key_is_a_mistake_of_the_caller(store: Store) -> None:
    with pytest.raises(ValueError, match="no unique key"):
        await store.read(lambda tx: tx.find("services", {"host": "x"}))


async def test_an_id_is_taken_once(store: Store) -> None:
    made = await create(store, "services", name="a", host="x")
    with pytest.raises(PrimaryKeyViolation) as caught:
        await create(store, "services", id=made["id"], name="b", host="x")
    assert caught.value.fields == {"id": made["id"]}
    assert await store.head() == 1


async def test_a_name_is_taken_once(store: Store) -> None:
    first = await create(store, "services", name="a", host="x")
    second = await create(store, "services", name="b", host="x")
    for attempt in (create(store, "services", name="a", host="y"), patch(store, "services", "b", name="a")):
        with pytest.raises(UniqueViolation) as caught:
            await attempt
        assert caught.value.fields == {"name": "a"}
        assert caught.value.message == "UNIQUE violation detected on '{name=\"a\"}'"
    assert await store.read(lambda tx: list(tx.each("services"))) == sorted(
        [first, second], key=lambda body: str(body["id"])
    )


async def test_entities_without_a_name_do_not_collide(store: Store) -> None:
    await create(store, "services", host="x")
    await create(store, "services", host="x")
    assert await store.head() == 2


async def test_a_name_is_free_again_after_a_rename_or_a_delete(store: Store) -> None:
    await create(store, "services", name="a", host="x")
    await patch(store, "services", "a", name="b")
    await create(store, "services", name="a", host="x")
    assert await delete(store, "services", "b")
    await patch(store, "services", "a", name="b")
    assert await store.read(lambda tx: tx.find("services", {"name": "a"})) is None


async def test_names_are_told_apart_by_case_and_by_collection(store: Store) -> None:
    await create(store, "services", name="a", host="x")
    await create(store, "services", name="A", host="x")
    await create(store, "upstreams", name="a")


async def test_a_target_is_unique_in_its_upstream(store: Store) -> None:
    blue, green = await create(store, "upstreams", name="blue"), await create(store, "upstreams", name="green")
    made = await create(store, "targets", upstream=blue, target="api:80")
    await create(store, "targets", upstream=green, target="api:80")
    with pytest.raises(UniqueViolation) as caught:
        await create(store, "targets", upstream=blue, target="api:80")
    assert caught.value.fields == {"upstream": {"id": blue["id"]}, "target": "api:80"}
    assert await store.read(lambda tx: tx.find("targets", {"target": "api:80", "upstream": str(blue["id"])})) == made


async def test_a_reference_must_be_to_something(store: Store) -> None:
    missing = {"id": str(uuid.uuid4())}
    with pytest.raises(ForeignKeyViolation) as caught:
        await create(store, "routes", paths=["/"], service=missing)
    assert caught.value.message == (
        f"the foreign key '{{id=\"{missing['id']}\"}}' does not reference an existing 'services' entity."
    )
    assert caught.value.fields == {"service": missing}
    route = await create(store, "routes", paths=["/"])
    with pytest.raises(ForeignKeyViolation):
        await patch(store, "routes", str(route["id"]), service=missing)
    assert await store.read(lambda tx: tx.get("routes", str(route["id"]))) == route


async def test_a_reference_to_a_collection_that_is_not_built_yet_is_to_nothing(store: Store) -> None:
    certificate = {"id": str(uuid.uuid4())}
    with pytest.raises(ForeignKeyViolation) as caught:
        await create(store, "services", host="x", protocol="https", client_certificate=certificate)
    assert caught.value.fields == {"client_certificate": certificate}


async def test_a_service_stays_while_a_route_refers_to_it(store: Store) -> None:
    service = await create(store, "services", name="s", host="x")
    route = await create(store, "routes", paths=["/"], service=service)
    with pytest.raises(ReferencedByOthers) as caught:
        await delete(store, "services", "s")
    assert caught.value.message == "an existing 'routes' entity references this 'services' entity"
    assert caught.value.fields == {"@referenced_by": "routes"}
    await patch(store, "routes", str(route["id"]), service=None)
    assert await delete(store, "services", "s")


async def test_targets_go_with_their_upstream(store: Store) -> None:
    blue, green = await create(store, "upstreams", name="blue"), await create(store, "upstreams", name="green")
    await create(store, "targets", upstream=blue, target="a:80", tags=["x"])
    await create(store, "targets", upstream=blue, target="b:80")
    kept = await create(store, "targets", upstream=green, target="a:80")
    written = await store.write(lambda tx: tx.delete("upstreams", str(blue["id"])), ORIGIN)
    assert sorted(change.collection for change in written.changes) == ["targets", "targets", "upstreams"]
    assert await everything(store) == {
        ("upstreams", green["id"]): green,
        ("targets", kept["id"]): kept,
    }
    assert await store.read(lambda tx: tx.tagged(tag=None, size=9, after=None)) == []


async def test_pages_are_by_ascending_id_and_miss_nothing(store: Store) -> None:
    made = [await create(store, "services", host="x") for _ in range(7)]
    ids = sorted(str(body["id"]) for body in made)

    def pages(tx: Transaction) -> list[list[str]]:
        found, after = [], ""
        while page := tx.page("services", size=3, after=after):
            found.append([str(body["id"]) for body in page])
            after = found[-1][-1]
        return found

    assert await store.read(pages) == [ids[:3], ids[3:6], ids[6:]]


async def test_pages_by_tags(store: Store) -> None:
    both = await create(store, "services", host="x", tags=["a", "b"])
    only_a = await create(store, "services", host="x", tags=["a"])
    only_b = await create(store, "services", host="x", tags=["b", "a b"])
    await create(store, "services", host="x")
    await create(store, "upstreams", name="u", tags=["a", "b"])

    async def ids(*tags: str, match_all: bool = True) -> set[object]:
        wanted = TagFilter(tags, match_all=match_all)
        page = await store.read(lambda tx: tx.page("services", size=10, tags=wanted))
        assert [body["id"] for body in page] == sorted(str(body["id"]) for body in page)
        after = await store.read(lambda tx: tx.page("services", size=10, tags=wanted, after=str(page[0]["id"])))
        assert list(after) == list(page[1:])
        return {body["id"] for body in page}

    assert await ids("a") == {both["id"], only_a["id"]}
    assert await ids("a", match_all=False) == {both["id"], only_a["id"]}
    assert await ids("a", "b") == {both["id"]}
    assert await ids("a", "b", match_all=False) == {both["id"], only_a["id"], only_b["id"]}
    assert await ids("a b") == {only_b["id"]}


async def test_pages_of_a_parent(store: Store) -> None:
    blue, green = await create(store, "upstreams", name="blue"), await create(store, "upstreams", name="green")
    mine = [await create(store, "targets", upstream=blue, target=f"t{n}:80", tags=["x"]) for n in range(3)]
    await create(store, "targets", upstream=green, target="other:80", tags=["x"])
    mine.sort(key=lambda body: str(body["id"]))
    parent = ("upstream", str(blue["id"]))
    assert list(await store.read(lambda tx: tx.page("targets", size=10, parent=parent))) == mine
    rest = await store.read(lambda tx: tx.page("targets", size=1, after=str(mine[0]["id"]), parent=parent))
    assert list(rest) == mine[1:2]
    tagged = await store.read(lambda tx: tx.page("targets", size=10, parent=parent, tags=TagFilter(("x",))))
    assert list(tagged) == mine


async def test_tags_are_listed_by_entity_and_follow_it(store: Store) -> None:
    service = await create(store, "services", name="s", host="x", tags=["b", "a"])
    upstream = await create(store, "upstreams", name="u", tags=["a"])
    rows = sorted(
        [
            (str(body["id"]), tag, of)
            for body, tag, of in (
                (service, "a", "services"),
                (service, "b", "services"),
                (upstream, "a", "upstreams"),
            )
        ]
    )
    assert list(await store.read(lambda tx: tx.tagged(tag=None, size=10, after=None))) == rows
    assert list(await store.read(lambda tx: tx.tagged(tag=None, size=1, after=rows[0]))) == rows[1:2]
    assert list(await store.read(lambda tx: tx.tagged(tag="a", size=10, after=None))) == [
        row for row in rows if row[1] == "a"
    ]
    await patch(store, "services", "s", tags=["c"])
    await delete(store, "upstreams", "u")
    assert list(await store.read(lambda tx: tx.tagged(tag=None, size=10, after=None))) == [
        (service["id"], "c", "services")
    ]


async def test_a_large_collection_is_read_whole_and_in_order(store: Store) -> None:
    def fill(tx: Transaction) -> None:
        for _ in range(2_500):
            editor.create(tx, "services", {"host": "x"}, now=NOW)

    await store.write(fill, ORIGIN)
    ids = [str(body["id"]) for body in await store.read(lambda tx: list(tx.each("services")))]
    assert len(ids) == 2_500
    assert ids == sorted(ids)


async def test_text_that_has_no_utf8_form_is_kept_as_it_is(store: Store) -> None:
    made = await create(store, "services", name="s", host="x")
    odd = {**made, "path": "/\ud800"}
    await store.write(lambda tx: tx.replace("services", odd), ORIGIN)
    assert await store.read(lambda tx: tx.find("services", {"name": "s"})) == odd
