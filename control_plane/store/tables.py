"""The tables, portable between SQLite and PostgreSQL.

An entity's body is JSON text in `entity`; what must be found or guarded stands beside it in narrow tables, so that
uniqueness and references hold by constraint, whoever writes. Narrow tables are clustered by their primary key on SQLite
(`sqlite_with_rowid`), which halves the pages that a write touches.

An empty database gets these tables as they stand here, one of an earlier program by `migrations/`; tests hold the two
equal.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

METADATA = MetaData()
SCHEMA = "0021_node_standings"
"""The newest revision of `migrations/`, whose tables these are."""

_BY_CODE_POINT = Text().with_variant(Text(collation="C"), "postgresql")
_UNSTORABLE = re.compile("[\\\\\x00\ud800-\udfff]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})")


class AnyText(TypeDecorator[str]):
    """Text with any character in it, ordered by code point (`as_made` gives the columns that collation).

    PostgreSQL refuses NUL and halves of surrogate pairs, which clients may well send. Bodies are ASCII JSON and need
    no care.
    """

    impl = Text
    cache_ok = True

    @override
    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None] | None:
        return _escape if dialect.name == "postgresql" else None

    @override
    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], str | None] | None:
        return _unescape if dialect.name == "postgresql" else None


def _escape(text: str | None) -> str | None:
    return text and _UNSTORABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _unescape(text: str | None) -> str | None:
    return text and _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


ENTITY = Table(
    "entity",
    METADATA,
    Column("collection", AnyText, primary_key=True),
    Column("id", AnyText, primary_key=True),
    Column("body", Text, nullable=False),
)

# One row a unique key that has a value. `key` names its fields, joined by commas; `value` is the JSON list of their
# values. No constraint ties it to its entity: every writer locks the entity's row first, and deletes by value.
UNIQUE_KEY = Table(
    "unique_key",
    METADATA,
    Column("collection", AnyText, primary_key=True),
    Column("key", AnyText, primary_key=True),
    Column("value", AnyText, primary_key=True),
    Column("id", AnyText, nullable=False),
    sqlite_with_rowid=False,
)

# One row a foreign field that is set. The second constraint is what keeps a parent while a child refers to it.
REFERENCE = Table(
    "reference",
    METADATA,
    Column("collection", AnyText, primary_key=True),
    Column("id", AnyText, primary_key=True),
    Column("field", AnyText, primary_key=True),
    Column("parent_collection", AnyText, nullable=False),
    Column("parent_id", AnyText, nullable=False),
    ForeignKeyConstraint(["collection", "id"], ["entity.collection", "entity.id"]),
    ForeignKeyConstraint(["parent_collection", "parent_id"], ["entity.collection", "entity.id"]),
    Index("reference_parent", "parent_collection", "parent_id", "collection", "field", "id"),
    sqlite_with_rowid=False,
)

ENTITY_TAG = Table(
    "entity_tag",
    METADATA,
    Column("id", AnyText, primary_key=True),
    Column("tag", AnyText, primary_key=True),
    Column("collection", AnyText, primary_key=True),
    Index("entity_tag_by_tag", "tag", "id", "collection"),
    sqlite_with_rowid=False,
)

# One row. Its lock orders the commits.
HEAD = Table(
    "head",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("epoch", LargeBinary(16), nullable=False),
    Column("version", BigInteger, nullable=False),
    # JSON list of [epoch in hex, version]: the histories that this one goes on from, each up to that version.
    Column("lineage", Text, nullable=False, server_default="[]"),
)

VERSION = Table(
    "version",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("committed_at", Float(53), nullable=False),
    Column("author", AnyText, nullable=False),
    Column("source", AnyText, nullable=False),
    Column("address", AnyText, nullable=False),
    Column("reason", AnyText, nullable=False),
    Column("change_count", Integer, nullable=False),
    # Names the transaction that took the version: whoever lost the answer to its commit looks here.
    Column("unit", AnyText, nullable=False, server_default=""),
)

CHANGE = Table(
    "change",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("operation", AnyText, nullable=False),
    Column("collection", AnyText, nullable=False),
    Column("id", AnyText, nullable=False),
    Column("before", Text),
    Column("after", Text),
    ForeignKeyConstraint(["version"], ["version.number"]),
    Index("change_entity", "collection", "id", "version"),
)

# Answers to requests that came with an Idempotency-Key. `version` is filled when the unit of work takes one.
ANSWER = Table(
    "answer",
    METADATA,
    Column("key", AnyText, primary_key=True),
    Column("fingerprint", AnyText, nullable=False),
    Column("answered_at", Float(53), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", AnyText, nullable=False),
    Column("version", BigInteger),
    Index("answer_by_age", "answered_at"),
)

# Rows are only ever added. `hash` covers the row and the hash of the one before it.
AUDIT = Table(
    "audit",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("author", AnyText, nullable=False),
    Column("source", AnyText, nullable=False),
    Column("address", AnyText, nullable=False),
    Column("action", AnyText, nullable=False),
    Column("outcome", AnyText, nullable=False),
    Column("version", BigInteger),
    Column("details", AnyText, nullable=False),
    Column("previous", AnyText, nullable=False),
    Column("hash", AnyText, nullable=False),
)

# One row: the end of the chain. Its lock orders the records, and it tells when the newest ones were cut off.
AUDIT_HEAD = Table(
    "audit_head",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", AnyText, nullable=False),
)

ROLLOUT = Table(
    "rollout",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("state", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("rollout_by_state", "state", "number"),
)

# One row an entity that an open rollout is about to change: the primary key lets no two hold one.
ROLLOUT_HOLD = Table(
    "rollout_hold",
    METADATA,
    Column("collection", AnyText, primary_key=True),
    Column("id", AnyText, primary_key=True),
    Column("rollout", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What one control plane does for all of them. The fence grows with each change of hands.
LEASE = Table(
    "lease",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", Float(53), nullable=False),
)

NODE = Table(
    "node",
    METADATA,
    Column("id", AnyText, primary_key=True),
    Column("hostname", AnyText, nullable=False),
    Column("ip", AnyText, nullable=False),
    Column("software", AnyText, nullable=False),
    Column("labels", AnyText, nullable=False),
    Column("config_hash", AnyText, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("last_seen", Float(53), nullable=False),
    Column("first_seen", Float(53), nullable=False),
    Column("sync_status", AnyText, nullable=False),
    Column("plane", AnyText, nullable=False, server_default=""),
    Column("epoch", AnyText, nullable=False, server_default=""),
    Column("refused", AnyText, nullable=False, server_default=""),
)

# One row a control plane over this database, renewed while it lives: a node's row names the plane it is connected to.
PLANE = Table(
    "plane",
    METADATA,
    Column("id", AnyText, primary_key=True),
    Column("hostname", AnyText, nullable=False),
    Column("started_at", Float(53), nullable=False),
    Column("seen_at", Float(53), nullable=False),
)

# Tokens, authorities and the like: who may speak to the control plane. `body` is JSON.
IDENTITY = Table(
    "identity",
    METADATA,
    Column("kind", AnyText, primary_key=True),
    Column("id", AnyText, primary_key=True),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

# One row a key that may have sealed something here, and the key of the hashes (`sealing.py`) sealed with it; the row
# without an id = secrets lie in the clear, as earlier programs left them.
SEAL = Table(
    "seal",
    METADATA,
    Column("key_id", AnyText, primary_key=True),
    Column("index_key", Text, nullable=False),
    sqlite_with_rowid=False,
)


def as_made() -> MetaData:
    """The tables with the collation of their columns, to be made.

    Statements have the tables without it: they would repeat it with every value that they compare.
    """
    made = MetaData()
    for table in METADATA.sorted_tables:
        for column in table.to_metadata(made).columns:
            if isinstance(column.type, AnyText):
                column.type = _BY_CODE_POINT
    return made
