"""Sealed secrets over each store: what lies in the tables, which keyrings are let in, and the ways to another key."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, MetaData, insert, select, update

from control_plane import databases
from control_plane.entities.errors import UniqueViolation
from control_plane.identity import node_ca
from control_plane.store import past, seals
from control_plane.store.contract import StoreError, StoreUnusable
from control_plane.store.keyring import Keyring
from control_plane.store.migrating import migrate
from control_plane.store.opening import open_store
from control_plane.store.postgres import postgres_offline
from control_plane.store.resealing import reseal_with_active_key
from control_plane.store.sealing import NotOpened
from control_plane.store.sql_store import SqlStore
from control_plane.store.sqlite import sqlite_offline
from control_plane.store.tables import CHANGE, ENTITY, HEAD, IDENTITY, UNIQUE_KEY, VERSION
from tests.contract.writing import NOW, ORIGIN, create, delete, patch
from tests.support.postgres import PostgresServer

T = TypeVar("T")

OLD = Keyring({"old": b"o" * 32}, "the old ring")
BOTH = Keyring({"new": b"n" * 32, "old": b"o" * 32}, "the ring of both")
NEW = Keyring({"new": b"n" * 32}, "the new ring")
FALSE = Keyring({"old": b"x" * 32}, "the false ring")
PLANTED = "planted-31415926"
CONSUMER = "00000000-0000-4000-8000-00000000000c"
KEYAUTH = "00000000-0000-4000-8000-00000000000d"


@contextlib.asynccontextmanager
async def opened(database: str, keyring: Keyring | None = OLD) -> AsyncIterator[SqlStore]:
    store = await open_store(database, keyring=keyring)
    try:
        yield store
    finally:
        await store.close()


async def raw(database: str, work: Callable[[Connection], T]) -> T:
    """Over the tables themselves, with the database closed."""
    if "://" in database:
        return await postgres_offline(database, work, writes=True)
    return await asyncio.to_thread(sqlite_offline, Path(database), work, writes=True)


def all_rows(connection: Connection) -> str:
    found = MetaData()
    found.reflect(connection)
    rows = {table.name: connection.execute(select(table)).all() for table in found.sorted_tables}
    return str(rows)


def holding(folder: Path, *texts: str) -> list[str]:
    """The files in which one of the texts can be read."""
    return [file.name for file in folder.iterdir() if any(text.encode() in file.read_bytes() for text in texts)]


async def with_secret(store: SqlStore, key: str = PLANTED) -> None:
    consumer = await create(store, "consumers", username=f"of {key}")
    body = {"id": consumer["id"]}
    await create(store, "keyauth_credentials", key=key, consumer=body)
    await create(store, "hmacauth_credentials", username=f"h {key[::-1]}", secret=f"hmac {key}", consumer=body)


async def secrets(store: SqlStore) -> set[str]:
    return await store.read(lambda tx: {str(body["key"]) for body in tx.each("keyauth_credentials")})


async def test_tables_hold_no_secret_and_everything_reads_as_written(database: str) -> None:
    async with opened(database) as store:
        await with_secret(store)
        await patch(store, "keyauth_credentials", PLANTED, key=f"{PLANTED}-2")
        await delete(store, "keyauth_credentials", f"{PLANTED}-2")
        await store.write(lambda tx: past.restore(tx, 2), ORIGIN)
        assert await secrets(store) == {PLANTED}
        found = await store.read(lambda tx: tx.find("keyauth_credentials", {"key": PLANTED}))
        assert found is not None
        history = [change.after for version in await store.changes_since(0) for change in version.changes]
        assert f"{PLANTED}-2" in str(history)
        authority = (await node_ca.load_or_make(store, now=NOW)).issuing
    assert "PRIVATE KEY" not in (rows := await raw(database, all_rows))
    assert "planted" not in rows.replace(f"of {PLANTED}", "")
    async with opened(database) as store:
        assert (await node_ca.load_or_make(store, now=NOW)).issuing.fingerprint == authority.fingerprint


async def test_equal_secrets_are_still_refused(database: str) -> None:
    async with opened(database) as store:
        await with_secret(store)
        other = await create(store, "consumers", username="other")
        with pytest.raises(UniqueViolation):
            await create(store, "keyauth_credentials", key=PLANTED, consumer={"id": other["id"]})
    async with opened(database, BOTH) as store:
        await reseal_with_active_key(store)
        with pytest.raises(UniqueViolation):
            await create(store, "keyauth_credentials", key=PLANTED, consumer={"id": other["id"]})


async def test_wrong_keyrings_are_refused_at_the_start(database: str) -> None:
    async with opened(database) as store:
        await with_secret(store)
    with pytest.raises(StoreUnusable, match="'old' in the false ring is not the one"):
        await open_store(database, keyring=FALSE)
    with pytest.raises(StoreUnusable, match="key 'old', which the new ring does not have"):
        await open_store(database, keyring=NEW)
    with pytest.raises(StoreUnusable, match=r"keyring"):
        await open_store(database)
    async with opened(database, BOTH) as store:
        assert await secrets(store) == {PLANTED}


async def test_all_control_planes_over_one_database_need_the_same_keys(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    url = postgres.create(tmp_path.name)
    async with opened(url) as first:
        with pytest.raises(StoreUnusable, match="the same keyring"):
            await open_store(url, keyring=FALSE)
        with pytest.raises(StoreUnusable, match="does not have"):
            await open_store(url, keyring=NEW)  # nothing is sealed yet; the first one would not know that key
        async with opened(url, BOTH) as second:
            await with_secret(second)
            with pytest.raises(StoreError, match="'new', which is not in this control plane's keyring"):
                await secrets(first)


async def test_an_sqlite_file_without_secrets_takes_another_keyring(tmp_path: Path) -> None:
    database = str(tmp_path / "store.db")
    async with opened(database) as store:
        await create(store, "services", name="s", host="h")
    async with opened(database, NEW) as store:
        await with_secret(store)
    with pytest.raises(StoreUnusable):
        await open_store(database, keyring=OLD)


async def test_the_keyring_beside_an_sqlite_file(tmp_path: Path) -> None:
    database, file = str(tmp_path / "store.db"), tmp_path / "store.db.keyring"
    async with opened(database, None) as store:
        assert file.stat().st_mode & 0o777 == 0o600
    file.unlink()
    async with opened(database, None) as store:
        await with_secret(store)  # nothing was sealed, so a new one was made
    kept = file.rename(tmp_path / "kept")
    with pytest.raises(StoreUnusable, match=f"the keyring {file} is gone"):
        await open_store(database)
    assert not file.exists()
    kept.rename(file)
    async with opened(database, None) as store:
        assert await secrets(store) == {PLANTED}


async def test_a_new_first_key_takes_over_and_the_old_one_can_go(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "PORTION", 3)
    async with opened(database) as store:
        for number in range(5):
            await with_secret(store, f"{PLANTED}-{number}")
        await node_ca.load_or_make(store, now=NOW)
        version = await store.head()
    async with opened(database, BOTH) as store:
        assert len(await secrets(store)) == 5
        await with_secret(store, f"{PLANTED}-new")
        assert await store.in_transaction(seals.keys_in_use) == ["new", "old"]
        await reseal_with_active_key(store)
        assert await store.in_transaction(seals.keys_in_use) == ["new"]
        assert await store.head() == version + 3, "sealing anew is no version"
        await reseal_with_active_key(store)  # nothing to do
    assert '"old:' not in await raw(database, all_rows)
    async with opened(database, NEW) as store:
        assert len(await secrets(store)) == 6
        history = await store.changes_since(0)
        assert sum(PLANTED in str(change.after) for each in history for change in each.changes) == 18
        await node_ca.load_or_make(store, now=NOW)


async def test_sealing_anew_goes_on_where_it_was_interrupted(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "PORTION", 2)
    async with opened(database) as store:
        for number in range(4):
            await with_secret(store, f"{PLANTED}-{number}")
    async with opened(database, BOTH) as store:
        work = seals.Resealing(store.codec)
        await store.in_transaction(work.portion)
        assert work.rewritten == 2
    async with opened(database, BOTH) as store:
        rewritten = await seals.reseal(store.codec, store.in_transaction)
        assert rewritten == 4 * 4 - 2
        assert len(await secrets(store)) == 4


async def test_a_key_that_another_still_seals_with_is_not_given_up(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.create(tmp_path.name)
    reverse = Keyring(dict(sorted(BOTH.keys.items(), reverse=True)), "the same in another order")
    async with opened(url, reverse) as first, opened(url, BOTH) as second:
        await with_secret(first, "one")
        assert await seals.reseal(second.codec, second.in_transaction) == 4
        assert await second.in_transaction(seals.keys_in_use) == ["new"]
        await with_secret(first, "two")
        assert await second.in_transaction(seals.keys_in_use) == ["new", "old"]

        async def racing(work: Callable[[Connection], bool]) -> bool:
            done = await second.in_transaction(work)
            if done:
                await with_secret(first, f"another {await second.head()}")
            return done

        assert await seals.reseal(second.codec, racing) is None
    with pytest.raises(StoreUnusable, match="'old'"):
        await open_store(url, keyring=NEW)


async def test_values_that_were_moved_or_altered_do_not_open(database: str) -> None:
    async with opened(database) as store:
        await with_secret(store, "one")
        await with_secret(store, "two")

    def swap(connection: Connection) -> None:
        mine = ENTITY.c.collection == "keyauth_credentials"
        rows = {row.id: json.loads(row.body) for row in connection.execute(select(ENTITY).where(mine))}
        one, two = rows
        rows[one]["key"], rows[two]["key"] = rows[two]["key"], rows[one]["key"]
        for each, body in rows.items():
            connection.execute(update(ENTITY).where(mine, ENTITY.c.id == each).values(body=json.dumps(body)))

    await raw(database, swap)
    async with opened(database) as store:
        with pytest.raises(NotOpened, match=r"keyauth_credentials .* key was altered, moved"):
            await secrets(store)
        assert await store.read(lambda tx: len(list(tx.each("consumers")))) == 2


def as_before(connection: Connection) -> None:
    """A store as the last program left it that did not seal."""
    migrate(connection, to="0010_rollouts")
    consumer = {"id": CONSUMER, "username": "c", "custom_id": None, "created_at": 1, "updated_at": 1, "tags": None}
    body = {"id": KEYAUTH, "created_at": 1, "consumer": {"id": CONSUMER}, "key": PLANTED, "ttl": None, "tags": None}
    rows = [("consumers", CONSUMER, json.dumps(consumer)), ("keyauth_credentials", KEYAUTH, json.dumps(body))]
    for collection, entity, text in rows:
        connection.execute(insert(ENTITY).values(collection=collection, id=entity, body=text))
    connection.execute(
        insert(UNIQUE_KEY).values(
            collection="keyauth_credentials", key="key", value=json.dumps([PLANTED], separators=(",", ":")), id=KEYAUTH
        )
    )
    connection.execute(update(HEAD).values(version=1))
    connection.execute(
        insert(VERSION).values(
            number=1, committed_at=1.0, author="", source="", address="", reason="", change_count=2, unit=""
        )
    )
    for position, (collection, entity, text) in enumerate(rows):
        connection.execute(
            insert(CHANGE).values(
                version=1, position=position, operation="create", collection=collection,
                id=entity, before=None, after=text,
            )
        )  # fmt: skip
    authority = node_ca.made(node_ca.ISSUING, "00000000-0000-4000-8000-00000000000e", NOW)
    connection.execute(insert(IDENTITY).values(kind=node_ca.KIND, id=node_ca.ISSUING, body=json.dumps(authority)))


async def check_sealed(database: str, keyring: Keyring) -> None:
    async with opened(database, keyring) as store:
        assert await secrets(store) == {PLANTED}
        found = await store.read(lambda tx: tx.find("keyauth_credentials", {"key": PLANTED}))
        assert found is not None
        with pytest.raises(UniqueViolation):
            await create(store, "keyauth_credentials", key=PLANTED, consumer={"id": CONSUMER})
        (version,) = await store.changes_since(0)
        assert [change.after and change.after.get("key") for change in version.changes] == [None, PLANTED]
        await node_ca.load_or_make(store, now=NOW)
        await delete(store, "keyauth_credentials", PLANTED)
    assert PLANTED not in (rows := await raw(database, all_rows))
    assert "PRIVATE KEY" not in rows


async def test_what_lay_in_the_clear_is_sealed(database: str, tmp_path: Path) -> None:
    await raw(database, as_before)
    if "://" in database:
        with pytest.raises(StoreUnusable, match="pointsman db upgrade"):
            await open_store(database, keyring=OLD)
        ring = tmp_path / "ring"
        ring.write_text("old:" + "b29v" * 10 + "b28=\n")
        ring.chmod(0o600)
        assert await pointsman("db", "upgrade", "--database", database) == 1, "it needs the keys"
        assert await pointsman("db", "upgrade", "--database", database, "--keyring-file", str(ring)) == 0
    await check_sealed(database, OLD)
    if "://" not in database:
        assert holding(tmp_path, PLANTED, "PRIVATE KEY") == []


async def test_an_upgrade_that_ended_before_the_file_was_cleaned_is_ended_by_the_next_start(tmp_path: Path) -> None:
    database = str(tmp_path / "store.db")
    await raw(database, as_before)
    ring = tmp_path / "ring"
    ring.write_text("old:" + "b29v" * 10 + "b28=\n")
    ring.chmod(0o600)
    assert await pointsman("db", "upgrade", "--database", database, "--keyring-file", str(ring)) == 0
    assert await raw(database, seals.keys_in_use) == ["", "old"]
    await check_sealed(database, OLD)
    assert await raw(database, seals.keys_in_use) == ["old"]
    assert holding(tmp_path, PLANTED) == []


async def test_a_backup_is_sealed_and_needs_its_key(database: str, tmp_path: Path) -> None:
    async with opened(database) as store:
        await with_secret(store)
    file, right, wrong = tmp_path / "saved", tmp_path / "right", tmp_path / "wrong"
    right.write_text("old:" + "b29v" * 10 + "b28=\n")
    wrong.write_text("old:" + "eHh4" * 10 + "eHg=\n")
    for ring in (right, wrong):
        ring.chmod(0o600)
    assert await pointsman("backup", str(file), "--database", database) == 0
    for options in ((), ("--keyring-file", str(wrong))):
        assert await pointsman("restore", str(file), "--database", database, "--replace", *options) == 1
    async with opened(database) as store:
        assert await secrets(store) == {PLANTED}, "a refused restore changes nothing"
    assert await pointsman("restore", str(file), "--database", database, "--replace", "--keyring-file", str(right)) == 0
    async with opened(database) as store:
        assert await secrets(store) == {PLANTED}


async def test_a_backup_of_before_is_sealed_as_it_is_restored(tmp_path: Path) -> None:
    old, fresh, file = str(tmp_path / "old.db"), str(tmp_path / "fresh.db"), tmp_path / "saved"
    await raw(old, as_before)
    assert await pointsman("backup", str(file), "--database", old) == 0
    assert await pointsman("restore", str(file), "--database", fresh) == 0
    async with opened(fresh, None) as store:
        assert await secrets(store) == {PLANTED}
    assert {file.partition(".")[0] for file in holding(tmp_path, PLANTED)} <= {"old"}


async def test_the_command_that_seals_anew(database: str, tmp_path: Path) -> None:
    async with opened(database) as store:
        await with_secret(store)
    ring = tmp_path / "ring"
    ring.write_text("old:" + "b29v" * 10 + "b28=\n")
    ring.chmod(0o600)
    assert await pointsman("db", "new-key", str(ring), "--active") == 0
    assert await pointsman("db", "reseal", "--database", database, "--keyring-file", str(ring)) == 0
    (in_use,) = await raw(database, seals.keys_in_use)
    assert in_use == ring.read_text().partition(":")[0]
    assert '"old:' not in await raw(database, all_rows)


async def pointsman(*arguments: str) -> int:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = await asyncio.to_thread(databases.main, arguments, {})
    assert PLANTED not in said.getvalue()
    assert "b29v" not in said.getvalue()
    return code
