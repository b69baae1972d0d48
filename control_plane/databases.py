"""`python -m control_plane.databases`: what operators do to a database while no control plane needs to run.

    db status | db upgrade | db new-key FILE | db reseal | db forget-secrets [--yes]
    backup FILE | restore FILE [--replace]

Exit codes: 0 done, 1 not possible (the text says why), 2 `db status` found an upgrade to make or `db forget-secrets`
something to drop, 64 wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection

from control_plane.settings import Settings
from control_plane.store import seals
from control_plane.store.backup import Contents, restore_backup, write_backup
from control_plane.store.contract import StoreError, StoreUnusable
from control_plane.store.forgetting import Forgotten, forget
from control_plane.store.keyring import Keyring, add_key, new_line, parse, read_file
from control_plane.store.migrating import SchemaState, migrate, schema_state
from control_plane.store.opening import given_keyring, is_postgres, shown
from control_plane.store.postgres import NO_KEYRING, postgres_offline
from control_plane.store.sealing import Codec
from control_plane.store.sqlite import keyring_beside, keyring_file_of, sqlite_offline
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
        place = _place(parsed, environment)
    except SettingsError as error:
        sys.stderr.write(f"pointsman: {error}\n")
        return EXIT_USAGE
    try:
        return asyncio.run(_COMMANDS[parsed.command](place, parsed))
    except (StoreError, StoreUnusable, OSError) as error:
        sys.stderr.write(f"pointsman: {error}\n")
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--database", help="an SQLite file or a postgresql:// URL; default: what the control plane's settings say"
    )
    shared.add_argument("--keyring-file", help="the keys of its secrets; default: what the settings say")
    shared.add_argument("--config", help="the control plane's YAML file, whose `database` and `keyring_file` are used")
    parser = argparse.ArgumentParser(prog="pointsman", description="Look after the control plane's database.")
    commands = parser.add_subparsers(dest="group", required=True)
    db = commands.add_parser("db", help="the schema").add_subparsers(dest="action", required=True)
    status = db.add_parser("status", parents=[shared], help="show the schema; exit code 2 = an upgrade is due")
    upgrade = db.add_parser("upgrade", parents=[shared], help="bring the schema to this program's")
    new_key = db.add_parser("new-key", help="put a new key for secrets into a keyring file")
    new_key.add_argument("file", type=Path)
    new_key.add_argument("--active", action="store_true", help="as the first line: secrets are sealed with it")
    reseal = db.add_parser("reseal", parents=[shared], help="seal all secrets with the keyring's first key")
    forget = db.add_parser("forget-secrets", parents=[shared], help="drop what is sealed with keys that are lost")
    forget.add_argument("--yes", action="store_true", help="do it; without, say what would be dropped")
    backup = commands.add_parser("backup", parents=[shared], help="write everything to one file; traffic goes on")
    backup.add_argument("file", type=Path)
    restore = commands.add_parser("restore", parents=[shared], help="fill a database from a backup")
    restore.add_argument("file", type=Path)
    restore.add_argument("--replace", action="store_true", help="give up what the database holds now")
    for name, command in {
        "status": status,
        "upgrade": upgrade,
        "new-key": new_key,
        "reseal": reseal,
        "forget-secrets": forget,
        "backup": backup,
        "restore": restore,
    }.items():
        command.set_defaults(command=name)
    return parser


@dataclass(frozen=True, slots=True)
class _Place:
    """A database, and what the settings say about its keys."""

    database: str
    keyring: str
    keyring_file: str

    def ring(self, connection: Connection) -> Keyring:
        """The keys of the database that `connection` is to. Raises StoreUnusable."""
        given = given_keyring(self.keyring, self.keyring_file)
        if given is not None:
            return given
        if is_postgres(self.database):
            raise StoreUnusable(NO_KEYRING)
        return keyring_beside(Path(self.database), connection)

    def ring_without(self, connection: Connection, *, makes: bool) -> Keyring:
        """The keys that are left; where an SQLite file's own keyring is gone, a new one, kept if `makes` says so.

        Raises StoreUnusable.
        """
        own = keyring_file_of(Path(self.database))
        if self.keyring or self.keyring_file or is_postgres(self.database) or own.exists():
            return self.ring(connection)
        if not makes:
            return parse(new_line(), source="a ring that opens nothing")
        add_key(own, active=True)
        return read_file(own)


def _place(parsed: argparse.Namespace, environment: Mapping[str, str]) -> _Place:
    names = ("config", "database", "keyring_file")
    flags = [f"--{name.replace('_', '-')}={value}" for name in names if (value := getattr(parsed, name, None))]
    settings = load(Settings, flags, environment, program="pointsman")
    settings.check()
    return _Place(settings.database, settings.keyring, settings.keyring_file)


async def _offline(database: str, work: Callable[[Connection], T], *, writes: bool) -> T:
    """Runs `work` as one transaction; with `writes` while no control plane has the database open."""
    if is_postgres(database):
        return await postgres_offline(database, work, writes=writes)
    return await asyncio.to_thread(sqlite_offline, Path(database), work, writes=writes)


async def _status(place: _Place, _parsed: argparse.Namespace) -> int:
    database = place.database
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
    keys = await _offline(database, seals.keys_in_use, writes=False)
    _say(f"keys that its secrets may be sealed with: {', '.join(key or '(some lie in the clear)' for key in keys)}")
    return EXIT_DONE


async def _upgrade(place: _Place, _parsed: argparse.Namespace) -> int:
    database = place.database

    def upgrade(connection: Connection) -> SchemaState:
        before = migrate(connection)
        seals.open_codec(connection, place.ring(connection), renew=False)
        if is_postgres(database):  # an SQLite file is cleaned of what lay in the clear when it is opened next
            seals.forget_clear(connection)
        return before

    before = await _offline(database, upgrade, writes=True)
    if before.pending:
        _say(f"{shown(database)} went from schema {before.current or 'none'} to {before.head}")
    else:
        _say(f"{shown(database)} has schema {before.current} already")
    return EXIT_DONE


async def _new_key(_place: _Place, parsed: argparse.Namespace) -> int:
    name = await asyncio.to_thread(add_key, parsed.file, active=parsed.active)
    keys = list((await asyncio.to_thread(read_file, parsed.file)).keys)
    role = "active" if keys[0] == name else f"ready; the active one is '{keys[0]}'"
    _say(f"{parsed.file} has the new key '{name}', which is {role}. Keep a copy of the file apart from backups")
    return EXIT_DONE


async def _reseal(place: _Place, _parsed: argparse.Namespace) -> int:
    database = place.database

    async def transaction(work: Callable[[Connection], T]) -> T:
        if is_postgres(database):
            return await postgres_offline(database, work, writes=True, beside_planes=True)
        return await _offline(database, work, writes=True)

    codec, _ = await transaction(lambda connection: _checked_codec(place, connection))
    rewritten = await seals.reseal(codec, transaction)
    if rewritten is None:
        _say("a control plane goes on sealing with another key; give all of them the same first line in their keyrings")
        return EXIT_FAILED
    _say(f"all secrets are sealed with the key '{codec.active}', {rewritten} rows were rewritten")
    return EXIT_DONE


def _check_schema(connection: Connection) -> None:
    state = schema_state(connection)
    if state.current != state.head:
        raise StoreUnusable(f"the database has schema {state.current}, this program needs {state.head}; upgrade first")


def _checked_codec(place: _Place, connection: Connection) -> tuple[Codec, bool]:
    _check_schema(connection)
    return seals.open_codec(connection, place.ring(connection), renew=False)


class _OnlyLooking(Exception):
    """Ends the transaction that found out what would be dropped."""

    def __init__(self, found: Forgotten) -> None:
        super().__init__("looking")
        self.found = found


async def _forget_secrets(place: _Place, parsed: argparse.Namespace) -> int:
    def work(connection: Connection) -> Forgotten:
        _check_schema(connection)
        done = forget(connection, place.ring_without(connection, makes=parsed.yes), now=time.time())
        if not parsed.yes:
            raise _OnlyLooking(done)
        return done

    try:
        done = await _offline(place.database, work, writes=True)
    except _OnlyLooking as looking:
        done = looking.found
    if not done.anything:
        _say(f"all secrets in {shown(place.database)} open with the keyring; nothing is to be dropped")
        return EXIT_DONE
    for line in done.dropped:
        _say(f"  {line}")
    for kind, identity in done.identities:
        _say(f"  {kind} '{identity}': made anew at the next start; nodes that joined with a token have to join again")
    keys = ", ".join(done.keys) or "keys of other databases"
    if not parsed.yes:
        _say(
            f"{len(done.dropped)} entities would be dropped or changed, because their secrets are sealed with {keys}; "
            "nothing was done. Look for the keyring first, then say --yes"
        )
        return EXIT_PENDING
    version = f"version {done.version}" if done.version is not None else "no version"
    _say(
        f"{len(done.dropped)} entities were dropped or changed ({version}), and {done.past} rows of the history have "
        "lost a secret. The control plane starts again; write the certificates and credentials anew"
    )
    return EXIT_DONE


async def _backup(place: _Place, parsed: argparse.Namespace) -> int:
    database, path = place.database, parsed.file
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
    _say(
        f"{path} holds {shown(database)} at version {contents.version}, {contents.rows} rows. Its secrets are sealed: "
        "keep the keyring too, apart from it"
    )
    return EXIT_DONE


async def _restore(place: _Place, parsed: argparse.Namespace) -> int:
    database = place.database

    def restore(connection: Connection) -> Contents:
        contents = restore_backup(connection, parsed.file, replace=parsed.replace)
        seals.open_codec(connection, place.ring(connection), renew=True)
        if is_postgres(database):
            seals.forget_clear(connection)
        return contents

    contents = await _offline(database, restore, writes=True)
    _say(
        f"{shown(database)} is at version {contents.version} of {parsed.file}, in a new epoch. Nodes that run a later "
        "version show as `ahead` and keep it until the control plane is started with --accept-rollback"
    )
    return EXIT_DONE


_COMMANDS = {
    "status": _status,
    "upgrade": _upgrade,
    "new-key": _new_key,
    "reseal": _reseal,
    "forget-secrets": _forget_secrets,
    "backup": _backup,
    "restore": _restore,
}


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
