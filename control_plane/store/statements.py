"""Statements that run with every write or read, without what SQLAlchemy does for each run of a statement.

Core makes an execution context and a result of every run, which takes several times as long as SQLite itself does for a
row, and a write has ten of them. So here a statement is compiled once and then given to SQLite's driver as it is. Over
PostgreSQL the way there and back is what a statement costs, and SQLAlchemy's care for broken connections is worth its
price: there a statement runs as any other.

Only for statements over texts, whole numbers and floats, which SQLite takes and gives without conversion.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Connection, Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ClauseElement

Values = Mapping[str, object]
"""What the statement's parameters are bound to, by name; all of them, for an insert all columns of its table."""


class Prepared:
    """One statement."""

    def __init__(self, statement: Executable) -> None:
        self.statement = statement
        self._text = ""
        self._names: tuple[str, ...] = ()
        self._fixed: Values = {}

    def rows(self, connection: Connection, values: Values) -> Sequence[Sequence[Any]]:
        """Runs it; returns its rows."""
        if connection.dialect.name == "sqlite":
            return self._run(connection, values).fetchall()
        return connection.execute(self.statement, values).all()

    def scalar(self, connection: Connection, values: Values) -> Any:
        """Runs it; returns the first column of its first row, None when there is no row."""
        rows = self.rows(connection, values)
        return rows[0][0] if rows else None

    def change(self, connection: Connection, values: Values) -> int:
        """Runs it; returns how many rows it changed."""
        if connection.dialect.name == "sqlite":
            return self._run(connection, values).rowcount
        return connection.execute(self.statement, values).rowcount

    def change_each(self, connection: Connection, values: Sequence[Values]) -> None:
        """Runs it once for each."""
        if connection.dialect.name != "sqlite":
            connection.execute(self.statement, values)
            return
        self._compile(connection)
        try:
            driver(connection).executemany(self._text, [self._bound(each) for each in values])
        except sqlite3.Error as error:
            raise self._translated(connection, error) from error

    def _run(self, connection: Connection, values: Values) -> sqlite3.Cursor:
        if not self._text:
            self._compile(connection)
        try:
            return driver(connection).execute(self._text, self._bound(values))
        except sqlite3.Error as error:
            raise self._translated(connection, error) from error

    def _bound(self, values: Values) -> list[Any]:
        fixed = self._fixed
        return [values[name] if name in values else fixed[name] for name in self._names]

    def _compile(self, connection: Connection) -> None:
        if not self._text:
            compiled = cast(ClauseElement, self.statement).compile(dialect=connection.dialect)
            self._fixed = {name: value for name, value in compiled.params.items() if value is not None}
            self._names = tuple(compiled.positiontup or ())  # type: ignore[attr-defined]  # of SQL, as this is
            self._text = str(compiled)  # last, for other threads: what has a text is complete

    def _translated(self, connection: Connection, error: sqlite3.Error) -> BaseException:
        return DBAPIError.instance(
            self._text,
            None,
            error,
            sqlite3.Error,
            hide_parameters=True,  # errors are logged, and bodies may hold private keys
            dialect=connection.dialect,
        )


def driver(connection: Connection) -> sqlite3.Connection:
    """The driver's connection below one of SQLAlchemy's to SQLite."""
    return cast(sqlite3.Connection, connection.connection.dbapi_connection)
