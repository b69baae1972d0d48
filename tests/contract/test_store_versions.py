"""What any store promises about writes: all or nothing, one version each, in commit order, kept and told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from control_plane.entities.errors import EntityError, SchemaViolation, UniqueViolation
from control_plane.store import editor
from control_plane.store.contract import (
    Change,
    NodeRecord,
    Operation,
    Origin,
    PlaneRecord,
    Store,
    StoreUnavailable,
    Transaction,
)
from tests.contract.stores import Opener
from tests.contract.writing import NOW, ORIGIN, create, delete, everything, patch


async def test_an_empty_store_is_at_version_zero(store: Store) -> None:
    assert await store.head() == 0
    assert await store.read(lambda tx: tx.head()) == 0
    assert await store.version(0) is None
    assert await store.version(1) is None
    assert list(await store.versions(size=5)) == []
    assert list(await store.changes_since(0)) == []
    assert len(await store.epoch()) == 16


async def test_a_version_keeps_who_when_where_why_and_what(store: Store) -> None:
    made = await create(store, "services", name="s", host="blue")
    changed = await patch(store, "services", "s", host="green")
    version = await store.version(2)
    assert version is not None
    assert (version.number, version.origin, version.change_count) == (2, ORIGIN, 1)
    assert version.committed_at > NOW
    assert version.changes == (Change(Operation.UPDATE, "services", str(made["id"]), made, changed),)


async def test_versions_are_listed_newest_first_without_changes(store: Store) -> None:
    for number in range(5):
        await create(store, "services", name=f"s{number}", host="x")
    assert [version.number for version in await store.versions(size=2)] == [5, 4]
    page = await store.versions(size=2, before=4)
    assert [version.number for version in page] == [3, 2]
    assert all(version.changes == () and version.change_count == 1 for version in page)


async def test_what_was_just_committed_is_at_hand(store: Store, open_store: Opener, tmp_path: Path) -> None:
    """Method: the same changes, secrets and deletes among them, once from memory and once from the database."""
    assert list(store.at_hand(0) or ()) == []
    consumer = await create(store, "consumers", username="\u00e9\u0000\ud800"[:2])
    await create(store, "keyauth_credentials", consumer=consumer, key="planted")
    await create(store, "services", name="s", host="blue", tags=["b", "a"])
    await patch(store, "services", "s", host="green", retries=None)
    await delete(store, "services", "s")
    at_hand = store.at_hand(0)
    assert at_hand is not None
    assert list(at_hand) == list(await store.changes_since(0))
    assert [version.number for version in store.at_hand(3) or ()] == [4, 5]
    await store.close()
    reopened = await open_store(tmp_path, None)
    assert reopened.at_hand(4) is None
    assert list(reopened.at_hand(5) or ()) == []
    await create(reopened, "services", name="t", host="blue")
    assert [version.number for version in reopened.at_hand(5) or ()] == [6]
    assert reopened.at_hand(4) is None
    await reopened.close()


async def test_a_unit_of_many_changes_is_one_version(store: Store) -> None:
    def work(tx: Transaction) -> None:
        upstream = editor.create(tx, "upstreams", {"name": "u"}, now=NOW)
        for number in range(3):
            editor.create(tx, "targets", {"target": f"t{number}:80", "upstream": {"id": upstream["id"]}}, now=NOW)

    written = await store.write(work, ORIGIN)
    assert (written.version, len(written.changes)) == (1, 4)
    version = await store.version(1)
    assert version is not None
    assert version.changes == written.changes


async def test_several_changes_of_one_entity_in_a_unit_count_as_one(store: Store) -> None:
    before = await create(store, "services", name="s", host="x")

    def work(tx: Transaction) -> None:
        editor.update(tx, "services", "s", {"host": "y"}, now=NOW)
        editor.update(tx, "services", "s", {"host": "z"}, now=NOW)
        passing = editor.create(tx, "services", {"name": "passing", "host": "x"}, now=NOW)
        tx.delete("services", str(passing["id"]))

    (change,) = (await store.write(work, ORIGIN)).changes
    assert (change.operation, change.before) == (Operation.UPDATE, before)
    assert change.after == {**before, "host": "z"}


async def test_a_delete_and_new_creation_under_one_id_is_an_update(store: Store) -> None:
    before = await create(store, "services", name="s", host="x")

    def work(tx: Transaction) -> None:
        tx.delete("services", str(before["id"]))
        tx.insert("services", {**before, "host": "y"})

    (change,) = (await store.write(work, ORIGIN)).changes
    assert (change.operation, change.before, change.after) == (Operation.UPDATE, before, {**before, "host": "y"})


async def test_a_unit_that_changed_nothing_takes_no_version(store: Store) -> None:
    made = await create(store, "services", name="s", host="x")
    heard: list[int] = []
    store.subscribe(heard.append)
    looked = await store.write(lambda tx: tx.get("services", "x"), ORIGIN)
    assert (looked.version, looked.changes) == (1, ())

    def put_the_same(tx: Transaction) -> None:
        tx.replace("services", dict(made))

    same = await store.write(put_the_same, ORIGIN)
    assert (same.version, same.changes) == (1, ())
    assert await store.head() == 1
    assert heard == []


async def test_a_failed_unit_leaves_nothing(store: Store) -> None:
    await create(store, "services", name="taken", host="x")
    before = await everything(store)

    def work(tx: Transaction) -> None:
        editor.create(tx, "upstreams", {"name": "u"}, now=NOW)
        editor.update(tx, "services", "taken", {"host": "y"}, now=NOW)
        editor.create(tx, "services", {"name": "taken", "host": "x"}, now=NOW)

    with pytest.raises(UniqueViolation):
        await store.write(work, ORIGIN)
    with pytest.raises(ZeroDivisionError):
        await store.write(lambda tx: [editor.create(tx, "upstreams", {"name": "u"}, now=NOW), 1 / 0], ORIGIN)
    assert await everything(store) == before
    assert await store.head() == 1
    await create(store, "upstreams", name="u")
    assert await store.head() == 2


async def test_a_unit_may_fail_with_anything(store: Store) -> None:
    def exhausted(tx: Transaction) -> None:
        editor.create(tx, "services", {"host": "x"}, now=NOW)
        next(iter(()))

    results = await asyncio.gather(
        store.write(exhausted, ORIGIN), create(store, "services", host="x"), return_exceptions=True
    )
    assert isinstance(results[0], RuntimeError)
    assert await store.head() == len(await everything(store)) == 1


async def test_one_failing_unit_costs_others_nothing(store: Store) -> None:
    """Queued together they may share a commit; each still stands or falls alone."""
    results = await asyncio.gather(
        *(create(store, "services", name=f"s{number // 2}", host="x") for number in range(40)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, UniqueViolation) for result in results) == 20
    assert await store.head() == 20
    assert len(await everything(store)) == 20


async def test_versions_are_dense_and_in_commit_order_under_concurrent_writers(store: Store) -> None:
    """32 writers; each sees its own versions rise, all together make 1..n, and each version is of its own write."""
    heard: list[int] = []
    store.subscribe(heard.append)
    own: list[list[int]] = []
    name_of: dict[int, str] = {}

    async def writer(number: int) -> None:
        versions = []
        for turn in range(10):
            name = f"s{number}-{turn}"

            def work(tx: Transaction, name: str = name) -> None:
                editor.create(tx, "services", {"name": name, "host": "x"}, now=NOW)

            written = await store.write(work, ORIGIN)
            versions.append(written.version)
            name_of[written.version] = name
        own.append(versions)

    await asyncio.gather(*(writer(number) for number in range(32)))
    assert all(versions == sorted(set(versions)) for versions in own)
    assert sorted(number for versions in own for number in versions) == list(range(1, 321))
    assert heard == list(range(1, 321))
    history = await store.changes_since(0)
    assert [version.number for version in history] == heard
    committed = [version.committed_at for version in history]
    assert committed == sorted(committed)
    for version in history:
        (change,) = version.changes
        assert change.after is not None
        assert change.after["name"] == name_of[version.number]


async def test_counters_do_not_lose_updates(store: Store) -> None:
    """Each unit reads and writes; if two overlapped, one increment would vanish."""
    await create(store, "services", name="s", host="x", retries=0)

    def increment(tx: Transaction) -> None:
        current = editor.lookup(tx, "services", "s")
        assert current is not None
        assert isinstance(current["retries"], int)
        editor.update(tx, "services", "s", {"retries": current["retries"] + 1}, now=NOW)

    await asyncio.gather(*(store.write(increment, ORIGIN) for _ in range(100)))
    service = await store.read(lambda tx: tx.find("services", {"name": "s"}))
    assert service is not None
    assert service["retries"] == 100


async def test_changes_since_replay_to_what_is_there(store: Store) -> None:
    service = await create(store, "services", name="s", host="x")
    await create(store, "routes", paths=["/"], service=service)
    upstream = await create(store, "upstreams", name="u")
    await create(store, "targets", upstream=upstream, target="a:80")
    await patch(store, "services", "s", host="u", name="t")
    await delete(store, "upstreams", "u")
    replayed: dict[tuple[str, str], object] = {}
    for version in await store.changes_since(0):
        for change in version.changes:
            assert replayed.get((change.collection, change.id)) == change.before
            if change.after is None:
                del replayed[change.collection, change.id]
            else:
                replayed[change.collection, change.id] = change.after
    assert replayed == await everything(store)
    assert [version.number for version in await store.changes_since(4)] == [5, 6]


async def test_subscribers_hear_of_a_version_before_its_writer_does(store: Store) -> None:
    order: list[str] = []
    stop = store.subscribe(lambda version: order.append(f"heard {version}"))
    await create(store, "services", host="x")
    order.append("answered 1")
    stop()
    await create(store, "services", host="x")
    assert order == ["heard 1", "answered 1"]


async def test_subscribers_hear_of_versions_whose_writer_went_away(store: Store) -> None:
    heard: list[int] = []
    store.subscribe(heard.append)
    writing = asyncio.ensure_future(create(store, "services", host="x"))
    await asyncio.sleep(0)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    await create(store, "services", host="x")
    assert heard == list(range(1, await store.head() + 1))


async def test_a_failing_subscriber_harms_nobody(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[int] = []

    def fail(_version: int) -> None:
        raise RuntimeError("no")

    store.subscribe(fail)
    store.subscribe(heard.append)
    await create(store, "services", host="x")
    assert heard == [1]
    assert "a listener failed at version 1" in caplog.text


async def test_before_commit_sees_all_changes_and_can_refuse(open_store: Opener, tmp_path: Path) -> None:
    seen: list[tuple[int, list[str]]] = []

    def check(tx: Transaction, changes: Sequence[Change]) -> None:
        seen.append((tx.head(), [change.operation.value for change in changes]))
        for change in changes:
            assert tx.get(change.collection, change.id) == change.after
            if change.after is not None and change.after.get("host") == "bad":
                raise SchemaViolation({"host": "bad"})

    store = await open_store(tmp_path, check)
    await create(store, "services", name="s", host="good")
    with pytest.raises(SchemaViolation):
        await patch(store, "services", "s", host="bad")
    await store.write(lambda tx: tx.get("services", "x"), ORIGIN)
    assert seen == [(0, ["create"]), (1, ["update"])]
    assert await store.head() == 1
    service = await store.read(lambda tx: tx.find("services", {"name": "s"}))
    assert service is not None
    assert service["host"] == "good"
    await store.close()


async def test_a_read_sees_one_moment(store: Store) -> None:
    """While a reader is inside its view, a writer commits; the reader goes on seeing what was."""
    await create(store, "services", name="a", host="x")
    loop = asyncio.get_running_loop()

    def look(tx: Transaction) -> tuple[int, int, int, int]:
        head, count = tx.head(), len(list(tx.each("services")))
        asyncio.run_coroutine_threadsafe(create(store, "services", name="b", host="x"), loop).result(30)
        return head, count, tx.head(), len(list(tx.each("services")))

    assert await store.read(look) == (1, 1, 1, 1)
    assert await store.head() == 2


async def test_a_read_cannot_write(store: Store) -> None:
    with pytest.raises((StoreUnavailable, EntityError)):
        await store.read(lambda tx: editor.create(tx, "services", {"host": "x"}, now=NOW))
    assert await everything(store) == {}


async def test_everything_is_there_after_reopening(open_store: Opener, tmp_path: Path) -> None:
    store = await open_store(tmp_path, None)
    service = await create(store, "services", name="s", host="x")
    await create(store, "routes", paths=["/"], service=service, tags=["t"])
    before, epoch, history = await everything(store), await store.epoch(), await store.changes_since(0)
    await store.close()
    store = await open_store(tmp_path, None)
    assert await everything(store) == before
    assert await store.epoch() == epoch
    assert list(await store.changes_since(0)) == list(history)
    await create(store, "services", name="later", host="x")
    assert await store.head() == 3
    await store.close()


async def test_closing_finishes_what_is_queued_and_refuses_the_rest(open_store: Opener, tmp_path: Path) -> None:
    store = await open_store(tmp_path, None)
    queued = [asyncio.ensure_future(create(store, "services", name=f"s{n}", host="x")) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert len(await asyncio.gather(*queued)) == 50
    for call in (create(store, "services", host="x"), everything(store)):
        with pytest.raises(StoreUnavailable):
            await call
    await store.close()
    store = await open_store(tmp_path, None)
    assert await store.head() == 50
    await store.close()


async def test_nodes_are_kept_without_a_version(open_store: Opener, tmp_path: Path) -> None:
    store = await open_store(tmp_path, None)
    first = NodeRecord(
        id="a", hostname="h", ip="10.0.0.1", software="0.1.0", labels={"zone": "ä"}, config_hash="0f" * 16, version=7,
        last_seen=NOW + 0.5, first_seen=NOW, sync_status="normal",
    )  # fmt: skip
    second = NodeRecord(id="b", hostname="h", ip="10.0.0.2", software="0.1.0", last_seen=NOW - 10)
    await store.save_nodes([second, first])
    await store.save_nodes([])
    assert list(await store.nodes()) == [first, second]
    moved = NodeRecord(id="a", hostname="moved", ip="10.0.0.1", software="0.1.0", last_seen=NOW + 1, plane="p")
    await store.save_nodes([moved])
    await store.save_nodes([first])
    assert (await store.nodes())[0] == moved, "what was seen earlier does not replace what was seen later"
    await store.forget_nodes(last_seen_before=NOW - 5)
    assert await store.head() == 0
    await store.close()
    store = await open_store(tmp_path, None)
    assert list(await store.nodes()) == [moved]
    await store.close()


async def test_an_origin_may_be_anything(store: Store) -> None:
    origin = Origin(author="ä\n\x00'\"", source="", address="", reason="x" * 10_000)
    await store.write(lambda tx: editor.create(tx, "services", {"host": "x"}, now=NOW), origin)
    version = await store.version(1)
    assert version is not None
    assert version.origin == origin


async def test_control_planes_know_of_each_other_until_they_fall_silent(store: Store) -> None:
    one, other = (PlaneRecord(name, "host", NOW, NOW + number) for number, name in enumerate(("a", "b")))
    assert list(await store.save_plane(one, others_seen_before=NOW - 10)) == [one]
    assert list(await store.save_plane(other, others_seen_before=NOW - 10)) == [one, other]
    later = PlaneRecord("b", "host", NOW, NOW + 20)
    assert list(await store.save_plane(later, others_seen_before=NOW + 10)) == [later]
    assert await store.head() == 0
