from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Dialect, create_engine, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from control_plane.store.migrating import migrate
from control_plane.store.tables import METADATA, SCHEMA


@contextlib.contextmanager
def empty_database() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def go_all_the_way(connection: Connection) -> None:
    """By every migration, as a database of the first program does; an empty one would get the tables at once."""
    migrate(connection, to="0001")
    migrate(connection)


def test_the_newest_revision_is_named() -> None:
    with empty_database() as connection:
        go_all_the_way(connection)
        assert connection.scalar(text("SELECT version_num FROM alembic_version")) == SCHEMA, (
            "control_plane/store/tables.py must name the newest revision"
        )


def test_the_migrations_make_the_tables() -> None:
    with empty_database() as connection:
        go_all_the_way(connection)
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, METADATA) == []


def test_the_tables_are_clustered_as_they_say() -> None:
    """Autogenerate does not look at this."""
    with empty_database() as connection:
        go_all_the_way(connection)
        for table in METADATA.sorted_tables:
            made = connection.scalar(text("SELECT sql FROM sqlite_master WHERE name = :name"), {"name": table.name})
            wanted = table.dialect_options["sqlite"]["with_rowid"] is False
            assert ("WITHOUT ROWID" in str(made)) is wanted, table.name


def test_migrating_again_does_nothing() -> None:
    with empty_database() as connection:
        migrate(connection)
        connection.execute(text("UPDATE head SET version = 5"))
        migrate(connection)
        assert connection.scalar(text("SELECT version FROM head")) == 5


def test_each_history_gets_a_name_of_its_own() -> None:
    names = set()
    for _ in range(3):
        with empty_database() as connection:
            migrate(connection)
            names.add(bytes(connection.scalars(text("SELECT epoch FROM head")).one()))
    assert len(names) == 3
    assert all(len(name) == 16 for name in names)


def test_the_tables_can_be_made_on_postgresql() -> None:
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
    for table in METADATA.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "CREATE INDEX" in str(CreateIndex(index).compile(dialect=dialect))
