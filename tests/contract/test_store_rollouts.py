"""Goal: every store keeps rollouts, what they hold and leases, in the transaction of a unit of work."""

from __future__ import annotations

from pathlib import Path

import pytest

from control_plane.entities.errors import HeldByRollout
from control_plane.snapshot.consistency import before_commit
from control_plane.store import editor
from control_plane.store.contract import Origin, RolloutRecord, Store, Transaction
from tests.contract.stores import Opener

NOW = 1_700_000_000.0


async def test_a_rollout_and_its_version_are_one_commit(store: Store) -> None:
    def decide(tx: Transaction) -> None:
        editor.create(tx, "upstreams", {"name": "green"}, now=NOW)
        assert [change.collection for change in tx.records.changes()] == ["upstreams"]
        tx.save_rollout(RolloutRecord(tx.next_rollout(), "decided", {"version": tx.head() + 1}))

    written = await store.write(decide, Origin())
    assert written.version == 1
    record = await store.read(lambda tx: tx.rollout(1))
    assert record == RolloutRecord(1, "decided", {"version": 1})

    def fails(tx: Transaction) -> None:
        tx.save_rollout(RolloutRecord(1, "confirmed", {}))
        raise ValueError("after it wrote")

    with pytest.raises(ValueError, match="after it wrote"):
        await store.write(fails, Origin())
    assert await store.read(lambda tx: tx.rollout(1)) == record


async def test_rollouts_take_no_version_and_are_listed_newest_first(store: Store) -> None:
    for state in ("confirmed", "queued", "decided"):
        written = await store.write(
            lambda tx, state=state: tx.save_rollout(RolloutRecord(tx.next_rollout(), state, {})),  # type: ignore[misc]  # lambda defaults
            Origin(),
        )
        assert written.version == 0
    listed = await store.read(lambda tx: tx.rollouts(size=2))
    assert [record.number for record in listed] == [3, 2]
    assert [record.number for record in await store.read(lambda tx: tx.rollouts(size=2, before=2))] == [1]
    assert [r.number for r in await store.read(lambda tx: tx.rollouts_in(["queued", "decided"]))] == [2, 3]
    assert await store.read(lambda tx: tx.rollout(9)) is None


async def test_what_a_rollout_holds_is_refused_to_others_until_it_lets_go(open_store: Opener, tmp_path: Path) -> None:
    store = await open_store(tmp_path, before_commit)
    try:
        made = await store.write(lambda tx: editor.create(tx, "upstreams", {"name": "green"}, now=NOW), Origin())
        key = ("upstreams", str(made.result["id"]))
        await store.write(lambda tx: tx.hold(4, [key]), Origin())
        assert await store.read(lambda tx: tx.holders([key, ("upstreams", "other")])) == {key: 4}
        with pytest.raises(HeldByRollout, match="rollout 4 is about to change upstreams 'green'"):
            await store.write(lambda tx: editor.update(tx, "upstreams", "green", {"slots": 100}, now=NOW), Origin())

        def own(tx: Transaction) -> None:
            editor.update(tx, "upstreams", "green", {"slots": 100}, now=NOW)
            tx.release(4)

        assert (await store.write(own, Origin())).version == 2
        assert await store.read(lambda tx: tx.holders([key])) == {}
    finally:
        await store.close()


async def test_a_lease_has_one_holder_and_a_fence_that_grows(store: Store) -> None:
    async def take(holder: str, for_s: float = 60.0, *, alone: bool = False) -> int | None:
        written = await store.write(lambda tx: tx.take_lease("work", holder, for_s=for_s, alone=alone), Origin())
        return None if written.result is None else written.result.fence

    assert await take("a") == 1
    assert await take("b") is None
    assert await take("a", 0.0) == 1, "renewed, not taken anew; it is over at once"
    assert await take("a") == 2, "it was over: somebody else could have had it meanwhile"
    await store.write(lambda tx: tx.drop_lease("work", "b"), Origin())
    assert await take("b") is None, "nobody drops another's"
    await store.write(lambda tx: tx.drop_lease("work", "a"), Origin())
    assert await take("b", 0.0) == 3
    assert await take("b", alone=True) == 3, "never over for who is alone"
    assert await take("c", alone=True) == 4, "and over for all others"
    lease = await store.read(lambda tx: tx.lease("work"))
    assert lease is not None
    assert (lease.holder, lease.fence) == ("c", 4)
