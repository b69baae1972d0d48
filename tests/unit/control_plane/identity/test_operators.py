"""Which token lets whom in, over a real store, with clocks of the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control_plane.identity import first_token
from control_plane.identity.operators import FAILURES_PER_MINUTE, FRESH_S, LOCAL, Denied, Operators, Rules
from control_plane.identity.roles import Role
from control_plane.store.contract import Origin, Store
from tests.support.fresh_store import fresh_sqlite

ROOT = Origin(author="root", source="identity")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await fresh_sqlite(tmp_path / "store.db")
    yield store
    await store.close()


def make(store: Store, clock: Clock, **rules: float) -> Operators:
    return Operators(store, Rules(required=True, **rules), clock=clock, wall=clock)


async def denied(operators: Operators, token: str | None, address: str = "127.0.0.1") -> Denied:
    with pytest.raises(Denied) as caught:
        await operators.admit(token, address)
    return caught.value


async def test_a_token_lets_its_bearer_in_by_name_and_role(store: Store, clock: Clock) -> None:
    operators = make(store, clock)
    text, record = await operators.create(name="ci", role=Role.EDITOR, ttl_s=None, origin=ROOT)
    who = await operators.admit(text, "127.0.0.1")
    assert (who.name, who.role, who.token_id) == ("ci", Role.EDITOR, record.id)
    assert [record.last_used_at for record in await operators.records()] == [clock.now]


async def test_no_token_where_one_is_needed(store: Store, clock: Clock) -> None:
    assert (await denied(make(store, clock), None)).status == 401
    assert await Operators(store, clock=clock, wall=clock).admit(None, "127.0.0.1") is LOCAL


async def test_a_wrong_token_is_refused_even_where_none_is_needed(store: Store, clock: Clock) -> None:
    operators = Operators(store, clock=clock, wall=clock)
    assert (await denied(operators, "whatever")).status == 401


async def test_no_part_of_a_token_is_enough(store: Store, clock: Clock) -> None:
    operators = make(store, clock)
    text, record = await operators.create(name="ci", role=Role.ADMIN, ttl_s=None, origin=ROOT)
    other, _ = await operators.create(name="cd", role=Role.ADMIN, ttl_s=None, origin=ROOT)
    spliced = f"pmt_{record.id}_{other.rpartition('_')[2]}"
    for number, wrong in enumerate((text[:-1], text + "x", text.upper(), record.hash, spliced, "")):
        assert (await denied(operators, wrong, address=f"127.0.0.{number}")).status == 401


async def test_the_store_never_holds_a_token(store: Store, clock: Clock, tmp_path: Path) -> None:
    operators = make(store, clock)
    text, record = await operators.create(name="ci", role=Role.ADMIN, ttl_s=None, origin=ROOT)
    await operators.admit(text, "127.0.0.1")
    kept = await asyncio.to_thread(lambda: b"".join(path.read_bytes() for path in tmp_path.iterdir()))
    assert record.id.encode() in kept
    assert text.rpartition(record.id + "_")[2].encode() not in kept


async def test_it_ends(store: Store, clock: Clock) -> None:
    operators = make(store, clock)
    text, _ = await operators.create(name="ci", role=Role.VIEWER, ttl_s=60.0, origin=ROOT)
    clock.now += 59.9
    await operators.admit(text, "127.0.0.1")
    clock.now += 0.1
    assert "expired" in (await denied(operators, text)).message


async def test_revoking_works_at_once_here_and_within_a_second_elsewhere(store: Store, clock: Clock) -> None:
    here, elsewhere = make(store, clock), make(store, clock)
    text, _ = await here.create(name="ci", role=Role.VIEWER, ttl_s=None, origin=ROOT)
    await elsewhere.admit(text, "127.0.0.1")
    assert await here.revoke("ci", origin=ROOT) is not None
    assert "revoked" in (await denied(here, text)).message
    await elsewhere.admit(text, "127.0.0.1")
    clock.now += FRESH_S
    assert "revoked" in (await denied(elsewhere, text)).message
    assert await here.revoke("nobody", origin=ROOT) is None


async def test_noting_its_use_does_not_bring_a_revoked_token_back(store: Store, clock: Clock) -> None:
    here, elsewhere = make(store, clock), make(store, clock)
    text, record = await here.create(name="ci", role=Role.VIEWER, ttl_s=None, origin=ROOT)
    await elsewhere.records()
    await here.revoke("ci", origin=ROOT)
    await elsewhere.admit(text, "127.0.0.1")  # within the second in which it may still believe so
    assert [kept.revoked_at for kept in await here.records()] == [clock.now]
    assert (await here.records())[0].id == record.id


async def test_names_of_good_tokens_are_unique(store: Store, clock: Clock) -> None:
    operators = make(store, clock)
    await operators.create(name="ci", role=Role.VIEWER, ttl_s=None, origin=ROOT)
    with pytest.raises(ValueError, match="already"):
        await operators.create(name="ci", role=Role.VIEWER, ttl_s=None, origin=ROOT)
    await operators.revoke("ci", origin=ROOT)
    await operators.create(name="ci", role=Role.VIEWER, ttl_s=None, origin=ROOT)


async def test_guessing_is_slowed_by_address(store: Store, clock: Clock) -> None:
    operators = Operators(store, Rules(required=True), clock=clock, wall=clock)
    text, _ = await operators.create(name="ci", role=Role.VIEWER, ttl_s=None, origin=ROOT)
    for _ in range(FAILURES_PER_MINUTE):
        assert (await denied(operators, "guess")).status == 401
    slowed = await denied(operators, text)
    assert slowed.status == 429
    assert slowed.retry_after_s == pytest.approx(12.0)
    await operators.admit(text, "127.0.0.2")
    clock.now += 12.1
    await operators.admit(text, "127.0.0.1")


async def test_reads_and_writes_are_counted_apart_by_token(store: Store, clock: Clock) -> None:
    operators = make(store, clock, reads_per_s=0.2, writes_per_s=0.1)
    first = await operators.admit(
        (await operators.create(name="a", role=Role.EDITOR, ttl_s=None, origin=ROOT))[0], "127.0.0.1"
    )
    second = await operators.admit(
        (await operators.create(name="b", role=Role.EDITOR, ttl_s=None, origin=ROOT))[0], "127.0.0.1"
    )
    operators.limit(first, "POST")
    with pytest.raises(Denied, match="admin_writes_per_s") as caught:
        operators.limit(first, "PATCH")
    assert caught.value.status == 429
    assert caught.value.retry_after_s == pytest.approx(10.0)
    operators.limit(first, "GET")
    operators.limit(second, "POST")
    for _ in range(100):
        operators.limit(LOCAL, "POST")


async def test_the_first_admin_gets_a_token_once(store: Store, clock: Clock, tmp_path: Path) -> None:
    operators = make(store, clock)
    file = tmp_path / "first"
    file.write_text("left over")
    assert await first_token.ensure(operators, file, now=clock.now) is True
    assert file.stat().st_mode & 0o777 == 0o600
    assert (await operators.admit(file.read_text().strip(), "127.0.0.1")).role is Role.ADMIN
    assert await first_token.ensure(operators, file, now=clock.now) is False
    await operators.revoke(first_token.NAME, origin=ROOT)
    with pytest.raises(OSError, match="No such file"):
        await first_token.ensure(operators, tmp_path / "no" / "folder", now=clock.now)
    assert [record.good(clock.now) for record in await operators.records()] == [False, False]
