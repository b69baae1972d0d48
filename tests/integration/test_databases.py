"""`pointsman db`, `backup` and `restore` over both databases, as an operator runs them."""

from __future__ import annotations

import asyncio
import contextlib
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, inspect, text

from control_plane import databases
from control_plane.admin.messages import Refused
from control_plane.admin.version_guard import version_guard, version_tag
from control_plane.store.contract import Origin, Store, StoreUnusable
from control_plane.store.migrating import migrate
from control_plane.store.opening import open_store
from control_plane.store.postgres import postgres_offline
from control_plane.store.sqlite import sqlite_offline
from tests.contract.writing import create, everything, patch
from tests.support.postgres import KEYRING, KEYRING_LINE, PostgresServer

T = TypeVar("T")
NewDatabase = Callable[[str], str]


@pytest.fixture(params=["postgres", "sqlite"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> NewDatabase:
    """Makes an empty database of that name and returns what `--database` takes."""
    if request.param == "sqlite":
        return lambda name: str(tmp_path / f"{name}.db")
    server: PostgresServer = request.getfixturevalue("postgres")
    return lambda name: server.create(f"{name}_{tmp_path.name}")


async def pointsman(*arguments: str) -> tuple[int, str]:
    """The command in this process, whose imports are there already; its exit code and all it printed."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = await asyncio.to_thread(databases.main, arguments, {"POINTSMAN_KEYRING": KEYRING_LINE})
    return code, said.getvalue()


async def offline(database: str, work: Callable[[Connection], T]) -> T:
    if "://" in database:
        return await postgres_offline(database, work, writes=True)
    return await asyncio.to_thread(sqlite_offline, Path(database), work, writes=True)


async def at_schema(database: str, revision: str) -> None:
    """Makes an empty database as an earlier program left it."""

    def make(connection: Connection) -> None:
        migrate(connection, to=revision)
        if revision == "0001":
            connection.execute(text("UPDATE head SET version = 1"))
            connection.execute(
                text(
                    "INSERT INTO version (number, committed_at, author, source, address, reason, change_count)"
                    " VALUES (1, 1.0, 'anna', 'test', '', 'long ago', 0)"
                )
            )

    await offline(database, make)


async def test_an_older_schema_is_shown_and_upgraded(new_database: NewDatabase) -> None:
    database = new_database("old")
    await at_schema(database, "0001")
    code, said = await pointsman("db", "status", "--database", database)
    assert (code, "has schema 0001" in said, "pointsman db upgrade" in said) == (2, True, True), said
    if "://" in database:
        with pytest.raises(StoreUnusable, match="pointsman db upgrade"):
            await open_store(database, keyring=KEYRING)
    code, said = await pointsman("db", "upgrade", "--database", database)
    assert (code, "went from schema 0001" in said) == (0, True), said
    code, said = await pointsman("db", "upgrade", "--database", database)
    assert (code, "already" in said) == (0, True), said
    assert (await pointsman("db", "status", "--database", database))[0] == 0
    store = await open_store(database, keyring=KEYRING)
    version = await store.version(1)
    assert version is not None
    assert version.origin.reason == "long ago"
    await store.close()


def anatomy(connection: Connection) -> dict[str, object]:
    """All that the database itself says of its tables, and the rows that they begin with."""
    inspector = inspect(connection)
    return {
        table: (
            [{**column, "type": repr(column["type"])} for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table),
            sorted(inspector.get_foreign_keys(table), key=str),
            sorted(inspector.get_unique_constraints(table), key=str),
            sorted(inspector.get_indexes(table), key=str),
            [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}"))],
        )
        for table in inspector.get_table_names()
    }


async def test_an_empty_database_gets_what_the_migrations_make(new_database: NewDatabase) -> None:
    """It gets the tables at once, not by the migrations that a database of an earlier program goes through."""

    def made_over(*steps: str) -> Callable[[Connection], dict[str, object]]:
        def make(connection: Connection) -> dict[str, object]:
            for step in steps:
                migrate(connection, to=step)
            connection.execute(text("UPDATE head SET epoch = :epoch"), {"epoch": b"e" * 16})
            return anatomy(connection)

        return make

    migrated = await offline(new_database("migrated"), made_over("0001", "head"))
    assert await offline(new_database("made"), made_over("head")) == migrated
    assert {"entity", "head", "alembic_version"} <= set(migrated)


async def test_a_newer_schema_is_refused(new_database: NewDatabase) -> None:
    database = new_database("newer")
    await (await open_store(database, keyring=KEYRING)).close()

    def age(connection: Connection) -> None:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await offline(database, age)
    for command in (("db", "status"), ("db", "upgrade")):
        code, said = await pointsman(*command, "--database", database)
        assert (code, "9999" in said, "newer" in said) == (1, True, True), said
    with pytest.raises(StoreUnusable, match="newer than this program"):
        await open_store(database, keyring=KEYRING)


async def test_a_backup_of_a_running_store_is_restored_in_a_new_epoch(
    new_database: NewDatabase, tmp_path: Path
) -> None:
    database, file = new_database("full"), tmp_path / "saved.backup"
    store = await open_store(database, keyring=KEYRING)
    service = await create(store, "services", name="s", host="blue", tags=["a\\b", "ü"])
    await create(store, "routes", paths=["/"], service=service)
    await patch(store, "services", "s", host="green")
    held, history, epoch = await everything(store), await store.changes_since(0), await store.epoch()
    code, said = await pointsman("backup", str(file), "--database", database)
    assert (code, "version 3" in said) == (0, True), said
    assert file.stat().st_mode & 0o077 == 0
    await create(store, "services", name="later", host="x")

    code, said = await pointsman("restore", str(file), "--database", database, "--replace")
    assert code == 1, said
    assert "stop" in said, "a running control plane would not hear of it"
    await store.close()
    code, said = await pointsman("restore", str(file), "--database", database)
    assert (code, "--replace" in said) == (1, True), said
    code, said = await pointsman("restore", str(file), "--database", database, "--replace")
    assert (code, "new epoch" in said) == (0, True), said
    store = await open_store(database, keyring=KEYRING)
    assert await everything(store) == held
    assert list(await store.changes_since(0)) == list(history)
    assert await store.epoch() != epoch
    assert await store.lineage() == {epoch: 3}
    await guarded(store, version_tag(3, epoch))
    with pytest.raises(Refused, match="another history"):
        await guarded(store, version_tag(4, epoch))  # it was taken back
    await create(store, "services", name="on", host="x")
    assert await store.head() == 4
    with pytest.raises(Refused, match="another history"):
        await guarded(store, version_tag(4, epoch))
    await guarded(store, version_tag(4, await store.epoch()))
    with pytest.raises(Refused, match="others have written since version 3"):
        await guarded(store, version_tag(3, epoch))
    await store.close()


async def guarded(store: Store, tag: str) -> None:
    """What a file with that `If-Match` is told before it writes."""
    await store.write(version_guard({"If-Match": tag}), Origin())


async def test_a_backup_moves_to_the_other_database(
    new_database: NewDatabase, tmp_path: Path, postgres: PostgresServer
) -> None:
    here, file = new_database("here"), tmp_path / "moving.backup"
    there = str(tmp_path / "there.db") if "://" in here else postgres.create(f"there_{tmp_path.name}")
    store = await open_store(here, keyring=KEYRING)
    await create(store, "services", name="s", host="blue")
    held = await everything(store)
    await store.close()
    assert (await pointsman("backup", str(file), "--database", here))[0] == 0
    code, said = await pointsman("restore", str(file), "--database", there)
    assert code == 0, said
    store = await open_store(there, keyring=KEYRING)
    assert await everything(store) == held
    await store.close()


async def test_a_damaged_backup_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    database, file = str(tmp_path / "store.db"), tmp_path / "saved.backup"
    store = await open_store(database, keyring=KEYRING)
    await create(store, "services", name="s", host="blue")
    held = await everything(store)
    await store.close()
    assert (await pointsman("backup", str(file), "--database", database))[0] == 0
    whole = file.read_bytes()
    turned = whole[:60] + bytes([whole[60] ^ 0xFF]) + whole[61:]
    for damaged in (b"", b"no backup", whole[:-20], whole[: len(whole) // 2], turned):
        file.write_bytes(damaged)
        code, said = await pointsman("restore", str(file), "--database", database, "--replace")
        assert (code, str(file) in said, "Traceback" in said) == (1, True, False), said
    store = await open_store(database, keyring=KEYRING)
    assert await everything(store) == held
    await store.close()


async def test_wrong_usage_says_what_is_right(tmp_path: Path) -> None:
    code, said = await pointsman("db", "status", "--database", "mysql://x/y")
    assert (code, "postgresql://" in said) == (64, True), said
    code, said = await pointsman("db", "status", "--database", str(tmp_path / "absent.db"))
    assert (code, "there is no database" in said) == (1, True), said
    code, said = await pointsman("db", "status", "--database", "postgresql://nobody@127.0.0.1:1/x")
    assert (code, "cannot be reached" in said) == (1, True), said
    assert (await pointsman("restore"))[0] == 64


def test_the_command_line_hands_over(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("pointsman")
    done = subprocess.run(
        [program, "db", "status", "--database", tmp_path / "absent.db"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "there is no database" in done.stderr) == (1, True), done.stderr
