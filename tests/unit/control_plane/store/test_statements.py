"""The statements are shared: each compiles for PostgreSQL to the same words, and SQLite's short way is as good."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import ClauseElement, Connection, Dialect, bindparam, create_engine, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError, OperationalError

from control_plane.store import audit, history, node_records, rollout_records, transaction
from control_plane.store.statements import Prepared
from control_plane.store.tables import METADATA, UNIQUE_KEY


def compiled(statement: ClauseElement, dialect: str) -> str:
    chosen: Dialect = postgresql.dialect() if dialect == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
    text = str(statement.compile(dialect=chosen))
    text = re.sub(r"%\(\w+\)s(::\w+)?|\?", ":", text).replace('"', "")
    text = re.sub(r"RETURNING .*", lambda found: re.sub(r"\w+\.", "", found[0]), text)
    return re.sub(r"\s+", " ", text).replace("LIMIT : OFFSET :", "LIMIT :").replace(" FOR UPDATE", "").strip()


def test_statements_are_the_same_in_both_dialects() -> None:
    statements = {
        f"{module.__name__}.{name}": statement
        for module in (transaction, history, node_records, audit, rollout_records)
        for name, value in vars(module).items()
        if isinstance(statement := value.statement if isinstance(value, Prepared) else value, ClauseElement)
        and name.startswith("_")
    }
    assert len(statements) >= 30
    for name, statement in statements.items():
        assert compiled(statement, "postgresql") == compiled(statement, "sqlite"), name


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        METADATA.create_all(connection)
        yield connection
    engine.dispose()


def key(value: str, *, entity: str = "1") -> dict[str, object]:
    return {"collection": "services", "key": "name", "value": value, "id": entity}


def test_a_prepared_statement_changes_and_finds_what_it_would_in_core(connection: Connection) -> None:
    add = Prepared(postgresql.insert(UNIQUE_KEY).on_conflict_do_nothing())
    assert add.change(connection, key("a")) == 1
    assert add.change(connection, key("a", entity="2")) == 0
    add.change_each(connection, [key("b"), key("c"), key("a", entity="3")])
    by_value = select(UNIQUE_KEY.c.value, UNIQUE_KEY.c.id).where(UNIQUE_KEY.c.key == "name")
    found = Prepared(by_value.where(UNIQUE_KEY.c.value > bindparam("behind")).order_by(UNIQUE_KEY.c.value).limit(5))
    assert list(found.rows(connection, {"behind": "a"})) == [("b", "1"), ("c", "1")]
    assert found.scalar(connection, {"behind": ""}) == "a"
    assert found.scalar(connection, {"behind": "c"}) is None
    assert connection.execute(found.statement, {"behind": ""}).all() == [("a", "1"), ("b", "1"), ("c", "1")]


def test_errors_of_a_prepared_statement_are_those_of_core_without_the_values(connection: Connection) -> None:
    add = Prepared(insert(UNIQUE_KEY))
    add.change(connection, key("secret"))
    with pytest.raises(IntegrityError) as caught:
        add.change(connection, key("secret"))
    assert "secret" not in str(caught.value)
    with pytest.raises(IntegrityError):
        add.change_each(connection, [key("other"), key("secret")])
    with pytest.raises(KeyError):
        add.change(connection, {"collection": "services"})
    connection.exec_driver_sql("DROP TABLE unique_key")
    with pytest.raises(OperationalError, match="no such table"):
        add.change(connection, key("x"))
