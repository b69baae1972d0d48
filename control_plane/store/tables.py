"""The tables, portable between SQLite and PostgreSQL.

An entity's body is JSON text in `entity`; what must be found or guarded stands beside it in narrow tables, so that
uniqueness and references hold by constraint, whoever writes.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

METADATA = MetaData()

ENTITY = Table(
    "entity",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

# One row a unique key that has a value; `value` is the JSON list of the key's parts.
UNIQUE_KEY = Table(
    "unique_key",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("id", Text, nullable=False),
    ForeignKeyConstraint(["collection", "id"], ["entity.collection", "entity.id"]),
    Index("unique_key_owner", "collection", "id"),
)

# One row a foreign field that is set.
REFERENCE = Table(
    "reference",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("field", Text, primary_key=True),
    Column("parent_collection", Text, nullable=False),
    Column("parent_id", Text, nullable=False),
    ForeignKeyConstraint(["collection", "id"], ["entity.collection", "entity.id"]),
    ForeignKeyConstraint(["parent_collection", "parent_id"], ["entity.collection", "entity.id"]),
    Index("reference_parent", "parent_collection", "parent_id", "collection", "field", "id"),
)

ENTITY_TAG = Table(
    "entity_tag",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("collection", Text, primary_key=True),
    ForeignKeyConstraint(["collection", "id"], ["entity.collection", "entity.id"]),
    Index("entity_tag_by_tag", "tag", "collection", "id"),
)

# One row. Its lock orders the commits.
HEAD = Table(
    "head",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("epoch", LargeBinary(16), nullable=False),
    Column("version", BigInteger, nullable=False),
)

VERSION = Table(
    "version",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("committed_at", Float(53), nullable=False),
    Column("author", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("change_count", Integer, nullable=False),
)

CHANGE = Table(
    "change",
    METADATA,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("operation", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("id", Text, nullable=False),
    Column("before", Text),
    Column("after", Text),
    ForeignKeyConstraint(["version"], ["version.number"]),
)

NODE = Table(
    "node",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("hostname", Text, nullable=False),
    Column("ip", Text, nullable=False),
    Column("software", Text, nullable=False),
    Column("labels", Text, nullable=False),
    Column("config_hash", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("last_seen", Float(53), nullable=False),
    Column("first_seen", Float(53), nullable=False),
    Column("sync_status", Text, nullable=False),
)
