"""The statements are shared: each compiles for PostgreSQL as well, to the same words."""

from __future__ import annotations

import re

from sqlalchemy import ClauseElement, Dialect
from sqlalchemy.dialects import postgresql, sqlite

from control_plane.store import history, node_records, transaction


def compiled(statement: ClauseElement, dialect: str) -> str:
    chosen: Dialect = postgresql.dialect() if dialect == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]  # untyped in SQLAlchemy
    text = str(statement.compile(dialect=chosen))
    text = re.sub(r"%\(\w+\)s(::\w+)?|\?", ":", text).replace('"', "")
    text = re.sub(r"RETURNING .*", lambda found: re.sub(r"\w+\.", "", found[0]), text)
    return re.sub(r"\s+", " ", text).replace("LIMIT : OFFSET :", "LIMIT :").replace(" FOR UPDATE", "").strip()


def test_statements_are_the_same_in_both_dialects() -> None:
    statements = {
        f"{module.__name__}.{name}": value
        for module in (transaction, history, node_records)
        for name, value in vars(module).items()
        if isinstance(value, ClauseElement) and name.startswith("_")
    }
    assert len(statements) >= 15
    for name, statement in statements.items():
        assert compiled(statement, "postgresql") == compiled(statement, "sqlite"), name
