"""Entities, their keys, references and tags; the history of versions; nodes."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# By code point, whatever the language of the database.
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "entity",
        sa.Column("collection", TEXT, primary_key=True),
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "unique_key",
        sa.Column("collection", TEXT, primary_key=True),
        sa.Column("key", TEXT, primary_key=True),
        sa.Column("value", TEXT, primary_key=True),
        sa.Column("id", TEXT, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reference",
        sa.Column("collection", TEXT, primary_key=True),
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("field", TEXT, primary_key=True),
        sa.Column("parent_collection", TEXT, nullable=False),
        sa.Column("parent_id", TEXT, nullable=False),
        sa.ForeignKeyConstraint(["collection", "id"], ["entity.collection", "entity.id"]),
        sa.ForeignKeyConstraint(["parent_collection", "parent_id"], ["entity.collection", "entity.id"]),
        sqlite_with_rowid=False,
    )
    op.create_index("reference_parent", "reference", ["parent_collection", "parent_id", "collection", "field", "id"])
    op.create_table(
        "entity_tag",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("tag", TEXT, primary_key=True),
        sa.Column("collection", TEXT, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("entity_tag_by_tag", "entity_tag", ["tag", "id", "collection"])
    head = op.create_table(
        "head",
        sa.Column("one", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.LargeBinary(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(head, [{"one": 1, "epoch": os.urandom(16), "version": 0}])
    op.create_table(
        "version",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("committed_at", sa.Float(53), nullable=False),
        sa.Column("author", TEXT, nullable=False),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("address", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("change_count", sa.Integer, nullable=False),
    )
    op.create_table(
        "change",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("operation", TEXT, nullable=False),
        sa.Column("collection", TEXT, nullable=False),
        sa.Column("id", TEXT, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.ForeignKeyConstraint(["version"], ["version.number"]),
    )
    op.create_table(
        "node",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("hostname", TEXT, nullable=False),
        sa.Column("ip", TEXT, nullable=False),
        sa.Column("software", TEXT, nullable=False),
        sa.Column("labels", TEXT, nullable=False),
        sa.Column("config_hash", TEXT, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.Float(53), nullable=False),
        sa.Column("first_seen", sa.Float(53), nullable=False),
        sa.Column("sync_status", TEXT, nullable=False),
    )
