"""The tables, portable between SQLite and PostgreSQL.

An entity's body is JSON text in `entity`; what must be found or guarded stands beside it in narrow tables, so that
uniqueness and references hold by constraint, whoever writes. Narrow tables are clustered by their primary key on SQLite
(`sqlite_with_rowid`), which halves the pages that a write touches.

`migrations/` makes these tables; a test holds the two equal.
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

# One row a unique key that has a value. `key` names its fields, joined by commas; `value` is the JSON list of their
# values. No constraint ties it to its entity: every writer locks the entity's row first, and deletes by value.
UNIQUE_KEY = Table(
    "unique_key",
    METADATA,
    Column("collection", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, primary_key=True),
    Column("id", Text, nullable=False),
    sqlite_with_rowid=False,
)

# One row a foreign field that is set. The second constraint is what keeps a parent while a child refers to it.
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
    sqlite_with_rowid=False,
)

ENTITY_TAG = Table(
    "entity_tag",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("tag", Text, primary_key=True),
    Column("collection", Text, primary_key=True),
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
    Index("change_entity", "collection", "id", "version"),
)

# Answers to requests that came with an Idempotency-Key. `version` is filled when the unit of work takes one.
ANSWER = Table(
    "answer",
    METADATA,
    Column("key", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("answered_at", Float(53), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", Text, nullable=False),
    Column("version", BigInteger),
    Index("answer_by_age", "answered_at"),
)

# Rows are only ever added. `hash` covers the row and the hash of the one before it.
AUDIT = Table(
    "audit",
    METADATA,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Float(53), nullable=False),
    Column("author", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("version", BigInteger),
    Column("details", Text, nullable=False),
    Column("previous", Text, nullable=False),
    Column("hash", Text, nullable=False),
)

# One row: the end of the chain. Its lock orders the records, and it tells when the newest ones were cut off.
AUDIT_HEAD = Table(
    "audit_head",
    METADATA,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
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
    Column("collection", Text, primary_key=True),
    Column("id", Text, primary_key=True),
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

# Tokens, authorities and the like: who may speak to the control plane. `body` is JSON.
IDENTITY = Table(
    "identity",
    METADATA,
    Column("kind", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)
