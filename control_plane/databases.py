"""`python -m control_plane.databases`: what operators do to a database while no control plane needs to run.

    db status | db upgrade | backup FILE | restore FILE [--replace]

Exit codes: 0 done, 1 not possible (the text says why), 2 `db status` found an upgrade to make, 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from control_plane.settings import Settings
from control_plane.store.backup import Contents, restore_backup, write_backup
from control_plane.store.contract import StoreError, StoreUnusable
from control_plane.store.migrating import SchemaState, migrate, schema_state
from control_plane.store.opening import is_postgres, shown
from control_plane.store.postgres import postgres_offline
from control_plane.store.sqlite import sqlite_offline
from pointsman.settings import SettingsError, load

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_PENDING = 2
EXIT_USAGE = 64

T = TypeVar("T")


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs one command; returns the exit code."""
    parser = _parser()
    try:
        parsed = parser.parse_args(arguments)
    except SystemExit as ended:
        return EXIT_USAGE if ended.code else EXIT_DONE
    try:
        database = _database(parsed, environment)
    except SettingsError as error:
        sys.stderr.write(f"pointsman: {error}\n")
        return EXIT_USAGE
    try:
        return asyncio.run(_COMMANDS[parsed.command](database, parsed))
    except (StoreError, StoreUnusable, OSError) as error:
        sys.stderr.write(f"pointsman: {error}\n")
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--database", help="an SQLite file or a postgresql:// URL; default: what the control plane's settings say"
    )
    shared.add_argument("--config", help="the control plane's YAML file, whose `database` is used")
    parser = argparse.ArgumentParser(prog="pointsman", description="Look after the control plane's database.")
    commands = parser.add_subparsers(dest="group", required=True)
    db = commands.add_parser("db", help="the schema").add_subparsers(dest="action", required=True)
    status = db.add_parser("status", parents=[shared], help="show the schema; exit code 2 = an upgrade is due")
    upgrade = db.add_parser("upgrade", parents=[shared], help="bring the schema to this program's")
    backup = commands.add_parser("backup", parents=[shared], help="write everything to one file; traffic goes on")
    backup.add_argument("file", type=Path)
    restore = commands.add_parser("restore", parents=[shared], help="fill a database from a backup")
    restore.add_argument("file", type=Path)
    restore.add_argument("--replace", action="store_true", help="give up what the database holds now")
    for name, command in (("status", status), ("upgrade", upgrade), ("backup", backup), ("restore", restore)):
        command.set_defaults(command=name)
    return parser


def _database(parsed: argparse.Namespace, environment: Mapping[str, str]) -> str:
    flags = [f"--{name}={getattr(parsed, name)}" for name in ("config", "database") if getattr(parsed, name)]
    settings = load(Settings, flags, environment, program="pointsman")
    settings.check()
    return settings.database


async def _offline(database: str, work: Callable[[Connection], T], *, writes: bool) -> T:
    """Runs `work` as one transaction; with `writes` while no control plane has the database open."""
    if is_postgres(database):
        return await postgres_offline(database, work, writes=writes)
    return await asyncio.to_thread(sqlite_offline, Path(database), work, writes=writes)


async def _status(database: str, _parsed: argparse.Namespace) -> int:
    state: SchemaState = await _offline(database, schema_state, writes=False)
    if state.current is None:
        _say(f"{shown(database)} is empty; the control plane makes schema {state.head} at its start")
        return EXIT_DONE
    if not state.known:
        _say(f"{shown(database)} has schema {state.current}, which is newer than this program's {state.head}")
        return EXIT_FAILED
    if state.pending:
        _say(
            f"{shown(database)} has schema {state.current}, this program needs {state.head}; stop all control planes "
            "over it, make a backup, and run `pointsman db upgrade`"
        )
        return EXIT_PENDING
    _say(f"{shown(database)} has schema {state.current}, as this program needs")
    return EXIT_DONE


async def _upgrade(database: str, _parsed: argparse.Namespace) -> int:
    before = await _offline(database, migrate, writes=True)
    if before.pending:
        _say(f"{shown(database)} went from schema {before.current or 'none'} to {before.head}")
    else:
        _say(f"{shown(database)} has schema {before.current} already")
    return EXIT_DONE


async def _backup(database: str, parsed: argparse.Namespace) -> int:
    path: Path = parsed.file
    temporary = path.with_name(path.name + ".part")

    def write(connection: Connection) -> Contents:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            contents = write_backup(connection, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        return contents

    try:
        contents = await _offline(database, write, writes=False)
    finally:
        temporary.unlink(missing_ok=True)
    _say(f"{path} holds {shown(database)} at version {contents.version}, {contents.rows} rows")
    return EXIT_DONE


async def _restore(database: str, parsed: argparse.Namespace) -> int:
    def restore(connection: Connection) -> Contents:
        return restore_backup(connection, parsed.file, replace=parsed.replace)

    contents = await _offline(database, restore, writes=True)
    _say(
        f"{shown(database)} is at version {contents.version} of {parsed.file}, in a new epoch. Nodes that run a later "
        "version show as `ahead` and keep it until the control plane is started with --accept-rollback"
    )
    return EXIT_DONE


_COMMANDS = {"status": _status, "upgrade": _upgrade, "backup": _backup, "restore": _restore}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
