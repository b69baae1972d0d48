"""A whole database as one file, the same for SQLite and PostgreSQL, so that it also moves between them.

Zstandard over lines of JSON: a header, one line a row (`["service", [values in the order of the header's columns]]`),
and a closing line with the number of rows, without which a file is not whole, and a checksum of all before.

A restored database begins a new epoch. It remembers the one it came from, up to the version of the backup: nodes that
run no more than that go on from there, and nodes that run something later are seen, and not silently taken back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard
from sqlalchemy import Connection, MetaData, Table, delete, inspect, select, update
from sqlalchemy import insert as insert_into

from control_plane.store import history
from control_plane.store.contract import StoreUnusable
from control_plane.store.migrating import migrate, schema_state
from control_plane.store.tables import HEAD, METADATA, PLANE

FORMAT = "pointsman-backup"
FORMAT_VERSION = 1
_PORTION = 1_000
_LINE_BYTES_MAX = 64 * 1024 * 1024
_LEVEL = 3
_NOT_KEPT = frozenset({PLANE.name})  # who is running now is no part of what was


@dataclass(frozen=True, slots=True)
class Contents:
    """What a backup holds."""

    schema: str
    epoch: str  # hex
    version: int
    made_at: float
    rows: int


def write_backup(connection: Connection, file: BinaryIO) -> Contents:
    """Write everything that the connection's transaction sees. Raises StoreUnusable for a database without our schema.

    The transaction must show one moment throughout (SQLite: any; PostgreSQL: REPEATABLE READ).
    """
    state = schema_state(connection)
    if state.current is None:
        raise StoreUnusable("the database is empty, there is nothing to back up")
    if not state.known:
        raise StoreUnusable(f"the database has schema {state.current}, newer than this program; use the newer program")
    tables = _tables(connection)
    epoch, version = history.epoch(connection).hex(), history.head(connection)
    made_at = time.time()
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "schema": state.current,
        "epoch": epoch,
        "version": version,
        "made_at": made_at,
        "tables": {table.name: columns for table, columns in tables.items()},
    }
    rows = 0
    compressor = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True)
    digest = hashlib.sha256()
    with compressor.stream_writer(file, closefd=False) as packed:

        def write(line: bytes) -> None:
            digest.update(line)
            packed.write(line)

        write(_line(header))
        for table, columns in tables.items():
            statement = select(*(table.c[name] for name in columns)).order_by(*table.primary_key.columns)
            for row in connection.execution_options(yield_per=_PORTION).execute(statement):
                write(_line([table.name, [_packed(value) for value in row]]))
                rows += 1
        packed.write(_line({"rows": rows, "sha256": digest.hexdigest()}))
    return Contents(state.current, epoch, version, made_at, rows)


def check_backup(path: Path) -> Contents:
    """Read a backup to its end; raises StoreUnusable for a file that is none, is damaged or not whole."""
    header: dict[str, Any] | None = None
    rows = 0
    digest = hashlib.sha256()
    for line in _raw_lines(path):
        item = _parsed(line, path)
        if header is None:
            header = _checked_header(item, path)
        elif isinstance(item, dict):
            if item.get("rows") != rows or item.get("sha256") != digest.hexdigest():
                raise StoreUnusable(f"{path} is damaged: its checksum does not fit its contents")
            return Contents(header["schema"], header["epoch"], header["version"], header["made_at"], rows)
        else:
            rows += 1
        digest.update(line + b"\n")
    raise StoreUnusable(f"{path} is not whole: its end is missing")


def restore_backup(connection: Connection, path: Path, *, replace: bool, epoch: bytes | None = None) -> Contents:
    """Fill the database from a checked backup, in the connection's transaction, and begin a new epoch.

    Raises StoreUnusable for a database that holds something already, unless `replace`, and for a backup of a newer
    program.
    """
    contents = check_backup(path)
    state = schema_state(connection)
    if state.current is not None:
        if not replace and state.known and history.head(connection) > 0:
            raise StoreUnusable(
                f"the database holds {history.head(connection)} versions already; say --replace to give them up"
            )
        _drop_all(connection)
    fresh = schema_state(connection)
    if contents.schema not in fresh.pending:
        raise StoreUnusable(f"{path} has schema {contents.schema}, which is newer than this program")
    migrate(connection, to=contents.schema)
    lines = _lines(path)
    columns: dict[str, list[str]] = next(lines)["tables"]
    for name in reversed(list(columns)):
        connection.execute(delete(METADATA.tables[name]))
    for name, rows in _portions(lines):
        table = METADATA.tables[name]
        connection.execute(
            insert_into(table).inline(),
            [dict(zip(columns[name], map(_unpacked, row), strict=True)) for row in rows],
        )
    migrate(connection)
    _begin_epoch(connection, epoch or os.urandom(16))
    return contents


def _begin_epoch(connection: Connection, epoch: bytes) -> None:
    lineage = history.lineage(connection)
    former = history.epoch(connection)
    lineage[former] = history.head(connection)
    text = json.dumps([[name.hex(), version] for name, version in lineage.items()])
    connection.execute(update(HEAD).where(HEAD.c.one == 1).values(epoch=epoch, lineage=text))


def _tables(connection: Connection) -> dict[Table, list[str]]:
    """Our tables, parents first, with the columns that the database has: its schema may be an earlier one."""
    inspector = inspect(connection)
    present = set(inspector.get_table_names())
    return {
        table: [column["name"] for column in inspector.get_columns(table.name) if column["name"] in table.c]
        for table in METADATA.sorted_tables
        if table.name in present and table.name not in _NOT_KEPT
    }


def _drop_all(connection: Connection) -> None:
    found = MetaData()
    found.reflect(connection)
    found.drop_all(connection)


def _line(item: object) -> bytes:
    return json.dumps(item, separators=(",", ":")).encode() + b"\n"


def _packed(value: object) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _unpacked(value: Any) -> object:
    return base64.b64decode(value["base64"]) if isinstance(value, dict) else value


def _checked_header(item: Any, path: Path) -> dict[str, Any]:
    if not isinstance(item, dict) or item.get("format") != FORMAT:
        raise StoreUnusable(f"{path} is no backup of this program")
    if item.get("format_version") != FORMAT_VERSION:
        raise StoreUnusable(f"{path} has backup format {item.get('format_version')}, this program reads 1")
    return item


def _lines(path: Path) -> Iterator[Any]:
    return (_parsed(line, path) for line in _raw_lines(path))


def _parsed(line: bytes, path: Path) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise StoreUnusable(f"{path} is damaged: {error}") from error


def _raw_lines(path: Path) -> Iterator[bytes]:
    rest = b""
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as packed:
            while part := packed.read(1 << 20):
                *whole, rest = (rest + part).split(b"\n")
                yield from whole
                if len(rest) > _LINE_BYTES_MAX:
                    raise StoreUnusable(f"{path} is no backup of this program")
    except zstandard.ZstdError as error:
        raise StoreUnusable(f"{path} is no backup of this program, or is damaged: {error}") from error
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be read: {error.strerror}") from error


def _portions(lines: Iterator[Any]) -> Iterator[tuple[str, list[Any]]]:
    name, rows = "", list[Any]()
    for item in lines:
        if not isinstance(item, list):
            break
        if item[0] != name or len(rows) >= _PORTION:
            if rows:
                yield name, rows
            name, rows = item[0], []
        rows.append(item[1])
    if rows:
        yield name, rows
