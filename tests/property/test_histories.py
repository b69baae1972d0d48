"""Any history of writes leaves the store, its versions and the snapshot builder telling the same story.

The writes are random, many of them refused. After each, what the versions told so far equals what the store holds, all
references lead somewhere and no name is taken twice; a refusal changed nothing. At the end, the versions replay to what
is there, and a builder that followed change by change equals one that loaded everything at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control_plane.entities.errors import EntityError
from control_plane.entities.types import EntityBody, JsonValue
from control_plane.snapshot.builder import SnapshotBuilder
from control_plane.snapshot.consistency import check_changes
from control_plane.store import editor
from control_plane.store.contract import Operation, Origin, Store, Transaction, Version
from tests.support.examples import examples
from tests.support.fresh_store import fresh_sqlite

NAMES = st.sampled_from(["a", "b", "c"])
BY_NAME: st.SearchStrategy[JsonValue] = NAMES.map(lambda name: {"name": name})
"""A reference, which may lead nowhere."""
TAGS: st.SearchStrategy[JsonValue] = st.none() | st.lists(st.sampled_from(["x", "y"]), max_size=2)
Write = tuple[str, str, str, EntityBody]
"""(verb, collection, key, body)."""


def text(*choices: JsonValue) -> st.SearchStrategy[JsonValue]:
    return st.sampled_from(choices)


def writes() -> st.SearchStrategy[Write]:
    bodies: dict[str, st.SearchStrategy[EntityBody]] = {
        "services": st.fixed_dictionaries(
            {"host": text("h", "i")}, optional={"enabled": st.booleans(), "tags": TAGS, "name": NAMES}
        ),
        "routes": st.fixed_dictionaries(
            {"paths": st.just(["/"])},
            optional={"service": st.none() | BY_NAME, "name": NAMES, "tags": TAGS},
        ),
        "upstreams": st.fixed_dictionaries({}, optional={"name": NAMES, "slots": st.integers(5, 20)}),
    }
    target: st.SearchStrategy[EntityBody] = st.fixed_dictionaries(
        {"target": text("p:1", "q:1", "r:0"), "upstream": BY_NAME}
    )
    on_most = st.sampled_from(sorted(bodies)).flatmap(
        lambda collection: st.tuples(
            st.sampled_from(["create", "upsert", "update", "delete"]), st.just(collection), NAMES, bodies[collection]
        )
    )
    return on_most | st.tuples(st.just("create"), st.just("targets"), st.just(""), target)


def carry_out(tx: Transaction, unit: Sequence[Write], now: float) -> None:
    for verb, collection, key, body in unit:
        match verb:
            case "create":
                editor.create(tx, collection, body, now=now)
            case "upsert":
                editor.upsert(tx, collection, key, body, now=now)
            case "update":
                editor.update(tx, collection, key, body, now=now)
            case _:
                editor.delete(tx, collection, key)


async def held(store: Store) -> dict[tuple[str, str], EntityBody]:
    return await store.read(
        lambda tx: {
            (collection, str(body["id"])): body
            for collection in ("services", "routes", "upstreams", "targets")
            for body in tx.each(collection)
        }
    )


def replay(model: dict[tuple[str, str], EntityBody], version: Version) -> None:
    """Applies a version, minding that each change starts from what is there."""
    for change in version.changes:
        key = (change.collection, change.id)
        assert model.get(key) == change.before
        assert change.operation is (
            Operation.CREATE
            if change.before is None
            else Operation.DELETE
            if change.after is None
            else Operation.UPDATE
        )
        if change.after is None:
            del model[key]
        else:
            model[key] = change.after
    assert version.change_count == len(version.changes) > 0


def check_references(model: dict[tuple[str, str], EntityBody]) -> None:
    for (collection, _), body in model.items():
        for field, parent in (("service", "services"), ("upstream", "upstreams")):
            link = body.get(field)
            if isinstance(link, dict):
                assert (parent, link["id"]) in model, f"{collection} refers to nothing"
    for collection in ("services", "routes", "upstreams"):
        names = [body["name"] for (of, _), body in model.items() if of == collection and body["name"] is not None]
        assert len(names) == len(set(map(str, names)))


async def live(units: Sequence[Sequence[Write]], path: Path) -> None:
    store = await fresh_sqlite(path, before_commit=check_changes)
    builder = SnapshotBuilder(await store.epoch())
    await store.read(builder.load)
    model: dict[tuple[str, str], EntityBody] = {}
    for number, unit in enumerate(units):
        before = await store.head()

        def work(tx: Transaction, unit: Sequence[Write] = unit, now: float = 1_700_000_000.0 + number) -> None:
            carry_out(tx, unit, now)

        try:
            written = await store.write(work, Origin())
        except EntityError:
            assert await store.head() == before
        else:
            assert written.version == before + bool(written.changes)
            for version in await store.changes_since(before):
                assert version.changes == written.changes
                replay(model, version)
                builder.apply(version)
        assert await held(store) == model
        check_references(model)
    await store.close()

    reopened = await fresh_sqlite(path)
    replayed: dict[tuple[str, str], EntityBody] = {}
    history = await reopened.changes_since(0)
    assert [version.number for version in history] == list(range(1, await reopened.head() + 1))
    for version in history:
        replay(replayed, version)
    assert replayed == model == await held(reopened)
    fresh = SnapshotBuilder(await reopened.epoch())
    await reopened.read(fresh.load)
    await reopened.close()
    loaded, followed = fresh.current(), builder.current()
    assert dict(loaded.entities()) == dict(followed.entities())
    assert (loaded.version, loaded.snapshot_hash) == (followed.version, followed.snapshot_hash)
    assert (loaded.entity_count, loaded.entity_bytes) == (followed.entity_count, followed.entity_bytes)
    assert loaded.packed() == followed.packed()
    disabled = {entity_id for (_, entity_id), body in model.items() if body.get("enabled") is False}
    hidden = {
        key
        for key, body in model.items()
        if key[1] in disabled or (isinstance(link := body.get("service"), dict) and link["id"] in disabled)
    }
    assert {key for key, _ in loaded.entities()} == model.keys() - hidden


@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(writes(), min_size=1, max_size=4), max_size=12))
def test_store_versions_and_snapshots_tell_one_story(units: list[list[Write]]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(live(units, Path(folder) / "store.db"))
