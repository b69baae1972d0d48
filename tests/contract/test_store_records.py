"""History, kept answers and the audit trail, over each store."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from control_plane.store import audit, editor, past
from control_plane.store.contract import AuditEntry, KeptAnswer, Origin, Store, StoreBusy, Transaction
from control_plane.store.retention import ALWAYS_KEPT, ANSWERS_KEPT_S, Retention, drop_old_versions, keep_house
from tests.contract.writing import NOW, ORIGIN, create, delete, everything, patch
from tests.support.patience import PATIENCE_S


async def chain(store: Store) -> list[tuple[int, str]]:
    def work(tx: Transaction) -> list[tuple[int, str]]:
        return list(audit.problems(tx.records.audit(size=10_000), tx.records.audit_head()))

    return await store.read(work)


async def test_each_version_has_its_record_in_one_chain(store: Store) -> None:
    service = await create(store, "services", name="a", host="h")
    await asyncio.gather(*(patch(store, "services", "a", retries=number) for number in range(10)))
    await store.write(lambda tx: tx.records.append_audit([AuditEntry(NOW, ORIGIN, "refused")]), ORIGIN)
    records = await store.read(lambda tx: tx.records.audit(size=100))
    assert [record.number for record in records] == list(range(1, 13))
    assert [record.version for record in records] == [*range(1, 12), None]
    assert str(service["id"]) in records[0].details
    assert await chain(store) == []
    newest = await store.read(lambda tx: tx.records.audit_newest(size=2, below=12))
    assert [record.number for record in newest] == [11, 10]


async def test_a_refusal_takes_no_version(store: Store) -> None:
    written = await store.write(lambda tx: tx.records.append_audit([AuditEntry(NOW, ORIGIN, "refused")]), ORIGIN)
    assert (written.version, await store.head()) == (0, 0)


async def test_what_a_failed_unit_recorded_is_gone(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.records.append_audit([AuditEntry(NOW, ORIGIN, "refused")])
        tx.records.keep_answer(KeptAnswer("k", "f", NOW, 200, "{}"))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await store.write(work, ORIGIN)
    assert await store.read(lambda tx: (tx.records.audit_head()[0], tx.records.answer("k"))) == (0, None)
    assert await chain(store) == []


async def test_an_answer_is_kept_with_the_version_of_its_write(store: Store) -> None:
    def work(tx: Transaction) -> None:
        tx.insert("upstreams", body)
        tx.records.keep_answer(KeptAnswer("k", "f", NOW, 201, "{}"))

    body = await create(store, "upstreams", name="u")
    await delete(store, "upstreams", "u")
    await store.write(work, Origin(request_key="k"))
    assert await store.read(lambda tx: tx.records.answer("k")) == KeptAnswer("k", "f", NOW, 201, "{}", 3)
    with pytest.raises(StoreBusy):
        await store.write(lambda tx: tx.records.keep_answer(KeptAnswer("k", "other", NOW, 201, "{}")), ORIGIN)


async def test_old_answers_and_too_many_are_forgotten(store: Store) -> None:
    def keep(tx: Transaction) -> None:
        for number in range(10):
            tx.records.keep_answer(KeptAnswer(f"k{number}", "f", NOW + number, 200, ""))

    await store.write(keep, ORIGIN)
    await store.write(lambda tx: tx.records.forget_answers(answered_before=NOW + 2, count_max=5), ORIGIN)
    left = await store.read(lambda tx: [number for number in range(10) if tx.records.answer(f"k{number}") is not None])
    assert left == [5, 6, 7, 8, 9]


async def test_one_entity_s_changes_newest_first(store: Store) -> None:
    service = await create(store, "services", name="a", host="h")
    await create(store, "services", name="b", host="h")
    await patch(store, "services", "a", retries=1)
    found = await store.read(lambda tx: tx.records.of_entity("services", str(service["id"]), size=5))
    assert [(version.number, version.origin.author, change.operation.value) for version, change in found] == [
        (3, "anna", "update"),
        (1, "anna", "create"),
    ]


async def test_every_earlier_state_comes_back(store: Store) -> None:
    states = [await everything(store)]
    upstream = await create(store, "upstreams", name="u")
    states.append(await everything(store))
    await create(store, "targets", upstream=upstream, target="t:80")
    states.append(await everything(store))
    await delete(store, "upstreams", "u")
    states.append(await everything(store))
    await create(store, "upstreams", name="u")
    states.append(await everything(store))
    for version, state in enumerate(states):
        await store.write(partial(past.restore, version=version), ORIGIN)
        assert await everything(store) == state


async def test_units_of_one_commit_see_each_other_in_the_history(store: Store) -> None:
    await create(store, "services", name="a", host="h")
    before = await everything(store)
    writes = [patch(store, "services", "a", retries=number) for number in range(20)]
    restoring = store.write(partial(past.restore, version=1), ORIGIN)
    await asyncio.gather(*writes, restoring, patch(store, "services", "a", tags=["later"]))
    versions = await store.changes_since(0)
    assert [version.number for version in versions] == list(range(1, await store.head() + 1))
    await store.write(partial(past.restore, version=1), ORIGIN)
    assert await everything(store) == before
    assert await chain(store) == []


async def test_dropped_versions_are_gone_and_the_rest_stays(store: Store) -> None:
    await create(store, "services", name="a", host="h")
    for number in range(ALWAYS_KEPT + 5):
        await patch(store, "services", "a", retries=number)
    before, head = await everything(store), await store.head()
    assert await drop_old_versions(store, Retention(days=1), now=0) == 0
    assert await drop_old_versions(store, Retention(versions=1), now=0) == head - ALWAYS_KEPT
    oldest = await store.read(lambda tx: tx.records.oldest())
    assert (oldest, await store.version(oldest - 1)) == (head - ALWAYS_KEPT + 1, None)
    assert await everything(store) == before
    with pytest.raises(past.UnknownVersion, match="no longer kept"):
        await store.write(partial(past.restore, version=1), ORIGIN)
    await store.write(partial(past.restore, version=oldest - 1), ORIGIN)


async def test_a_large_version_is_dropped_in_portions_between_which_writes_go_through(store: Store) -> None:
    """No write waits for more than one portion; what is half dropped is not seen by anybody."""

    def many(tx: Transaction) -> None:
        for number in range(200):
            editor.create(tx, "services", {"name": f"many-{number}", "host": "h"}, now=NOW)

    await create(store, "services", name="a", host="h")
    await store.write(many, ORIGIN)
    for number in range(ALWAYS_KEPT):
        await patch(store, "services", "a", retries=number)
    dropping = asyncio.create_task(drop_old_versions(store, Retention(versions=1), now=0, portion=4))
    seen: list[int] = []
    while not dropping.done():
        await patch(store, "services", "a", retries=len(seen))
        kept = await store.changes_since(0)
        assert kept[0].number > 2 or [len(version.changes) for version in kept if version.number == 2] == [200]
        seen.append(kept[0].number)
    dropped = await dropping
    assert dropped >= 2
    assert len(seen) >= 5, "of fifty portions, in whose gaps a slow machine too gets some writes in"
    assert [version.number for version in await store.changes_since(0)] == list(
        range(dropped + 1, await store.head() + 1)
    )


async def test_old_answers_are_forgotten_without_further_requests(store: Store) -> None:
    def keep(tx: Transaction) -> None:
        for key, at in (("old", NOW), ("new", NOW + ANSWERS_KEPT_S)):
            tx.records.keep_answer(KeptAnswer(key, "f", at, 200, "{}"))

    await store.write(keep, ORIGIN)
    house = asyncio.create_task(keep_house(store, Retention(), clock=lambda: NOW + ANSWERS_KEPT_S + 1))
    async with asyncio.timeout(PATIENCE_S):
        while await store.read(lambda tx: tx.records.answer("old")) is not None:
            await asyncio.sleep(0.01)
    assert await store.read(lambda tx: tx.records.answer("new")) is not None
    house.cancel()
    await asyncio.wait({house})


async def test_a_unit_that_fails_after_it_looked_into_the_history_costs_the_others_nothing(store: Store) -> None:
    await create(store, "services", name="a", host="h")

    def look_write_and_fail(tx: Transaction) -> None:
        assert tx.records.oldest() == 1, "versions of the units before this one are taken now"
        assert tx.identities.add("token", "t", {"id": "t"})
        tx.delete("services", str(next(iter(tx.each("services")))["id"]))
        raise ValueError("no")

    writes = [patch(store, "services", "a", retries=number) for number in range(5)]
    failing = [store.write(look_write_and_fail, ORIGIN) for _ in range(3)]
    later = [patch(store, "services", "a", tags=[f"later-{number}"]) for number in range(5)]
    outcomes = await asyncio.gather(*writes, *failing, *later, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes[5:8]] == [ValueError] * 3
    versions = await store.changes_since(0)
    assert [version.number for version in versions] == list(range(1, 12)) == list(range(1, await store.head() + 1))
    assert (versions[-1].changes[0].after or {})["tags"] == ["later-4"]
    assert await store.read(lambda tx: tx.identities.each("token")) == []
    assert await chain(store) == []
    alone = store.write(look_write_and_fail, ORIGIN)
    with pytest.raises(ValueError, match="no"):
        await alone
    assert await store.read(lambda tx: tx.identities.each("token")) == []
