"""A keyring that is lost for good: what it sealed is dropped by name, the rest stays, and the store opens."""

from __future__ import annotations

import asyncio
import contextlib
import io
from pathlib import Path

import pytest

from control_plane import databases
from control_plane.entities.errors import UniqueViolation
from control_plane.identity import node_ca
from control_plane.snapshot.consistency import before_commit
from control_plane.store import past
from control_plane.store.contract import StoreUnusable
from control_plane.store.keyring import Keyring
from control_plane.store.opening import open_store
from control_plane.store.sql_store import SqlStore
from tests.contract.writing import NOW, ORIGIN, create, patch
from tests.support.tls import issued

LOST = Keyring({"lost": b"l" * 32}, "the lost ring")
BOTH = Keyring({"kept": b"k" * 32, "lost": b"l" * 32}, "the ring of both")
KEPT_LINE = "kept:" + "a2tr" * 10 + "a2s="


@pytest.fixture
def ring(tmp_path: Path) -> Path:
    """What is left: a ring without the key that was lost."""
    file = tmp_path / "ring"
    file.write_text(KEPT_LINE + "\n")
    file.chmod(0o600)
    return file


async def pointsman(*arguments: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = await asyncio.to_thread(databases.main, arguments, {})
    return code, said.getvalue()


async def fill(store: SqlStore) -> None:
    """Versions 1 to 8, in which secrets are sealed with the ring's first key."""
    pair = issued("shop.example")
    certificate = await create(store, "certificates", cert=pair.cert, key=pair.key)
    await create(store, "snis", name="shop.example", certificate={"id": certificate["id"]})
    await create(
        store, "services", name="shop", host="blue", protocol="https", client_certificate={"id": certificate["id"]}
    )
    consumer = await create(store, "consumers", username="ann")
    await create(store, "keyauth_credentials", key="ann-key", consumer={"id": consumer["id"]})
    await create(store, "basicauth_credentials", username="ann", password="p", consumer={"id": consumer["id"]})
    await create(store, "acls", group="g", consumer={"id": consumer["id"]})
    await patch(store, "services", "shop", host="green")


async def names(store: SqlStore, collection: str, field: str) -> set[object]:
    return await store.read(lambda tx: {body[field] for body in tx.each(collection)})


async def test_all_that_the_lost_key_sealed_goes_and_the_rest_stays(database: str, ring: Path) -> None:
    store = await open_store(database, keyring=LOST, before_commit=before_commit)
    await fill(store)
    authority = (await node_ca.load_or_make(store, now=NOW)).issuing.pem
    await store.close()
    place = ("--database", database, "--keyring-file", str(ring))

    code, said = await pointsman("db", "forget-secrets", *place)
    assert (code, "nothing was done" in said, "--yes" in said) == (2, True, True), said
    with pytest.raises(StoreUnusable, match="key 'lost'"):
        await open_store(database, keyring=Keyring({"kept": b"k" * 32}, "what is left"))
    code, told = await pointsman("db", "forget-secrets", *place, "--yes")
    assert (code, "version 9" in told) == (0, True), told
    for line in (
        "keyauth_credential 'ID' of consumer 'ann'",
        "basicauth_credential 'ann' of consumer 'ann'",
        "sni 'shop.example'",
        "service 'shop': no longer refers",
        "node-ca 'fleet'",
    ):
        first, _, last = line.partition("ID")
        assert first in told, told
        assert last in told, told
    assert "ann-key" not in said + told

    store = await open_store(
        database, keyring=Keyring({"kept": b"k" * 32}, "what is left"), before_commit=before_commit
    )
    for collection in ("certificates", "snis", "keyauth_credentials", "basicauth_credentials"):
        assert await names(store, collection, "id") == set()
    assert await names(store, "consumers", "username") == {"ann"}
    assert await names(store, "acls", "group") == {"g"}
    assert await names(store, "services", "client_certificate") == {None}
    assert (await node_ca.load_or_make(store, now=NOW)).issuing.pem != authority

    versions = await store.changes_since(0)
    assert [version.number for version in versions] == list(range(1, 10))
    assert versions[-1].origin.source == "db forget-secrets"
    assert "lost" in versions[-1].origin.reason
    with pytest.raises(past.UnknownVersion, match="sealed with a key that is lost"):
        await store.write(lambda tx: past.restore(tx, 8), ORIGIN)
    consumers = await store.read(lambda tx: tx.find("consumers", {"username": "ann"}))
    assert consumers is not None
    await create(store, "keyauth_credentials", key="ann-key", consumer={"id": consumers["id"]})
    with pytest.raises(UniqueViolation):
        await create(store, "keyauth_credentials", key="ann-key", consumer={"id": consumers["id"]})
    await store.write(lambda tx: past.restore(tx, 9), ORIGIN)
    await store.close()
    code, said = await pointsman("db", "forget-secrets", *place)
    assert (code, "nothing is to be dropped" in said) == (0, True), said


async def test_what_other_keys_sealed_is_not_touched(database: str, ring: Path) -> None:
    store = await open_store(database, keyring=LOST)
    await fill(store)
    await store.close()
    store = await open_store(database, keyring=BOTH)
    consumer = await create(store, "consumers", username="ben")
    await create(store, "keyauth_credentials", key="ben-key", consumer={"id": consumer["id"]})
    await store.close()
    code, _ = await pointsman("db", "forget-secrets", "--database", database, "--keyring-file", str(ring), "--yes")
    assert code == 0
    store = await open_store(database, keyring=Keyring({"kept": b"k" * 32}, "what is left"))
    assert await names(store, "keyauth_credentials", "key") == {"ben-key"}
    assert await store.read(lambda tx: tx.find("keyauth_credentials", {"key": "ben-key"})) is not None
    await store.close()


async def test_an_sqlite_file_gets_a_new_ring_beside_it(tmp_path: Path) -> None:
    database = str(tmp_path / "store.db")
    store = await open_store(database)
    await fill(store)
    await store.close()
    beside = tmp_path / "store.db.keyring"
    beside.rename(tmp_path / "gone")
    code, _ = await pointsman("db", "forget-secrets", "--database", database)
    assert (code, beside.exists()) == (2, False)
    code, _ = await pointsman("db", "forget-secrets", "--database", database, "--yes")
    assert (code, beside.exists()) == (0, True)
    store = await open_store(database)
    assert await names(store, "consumers", "username") == {"ann"}
    await store.close()


async def test_nothing_is_forgotten_beneath_a_running_control_plane(database: str, ring: Path) -> None:
    store = await open_store(database, keyring=LOST)
    code, said = await pointsman("db", "forget-secrets", "--database", database, "--keyring-file", str(ring), "--yes")
    assert (code, "stop" in said) == (1, True), said
    await store.close()
