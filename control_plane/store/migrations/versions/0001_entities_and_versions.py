"""Entities, their keys, references and tags; the history of versions; nodes."""

import os

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "entity",
        sa.Column("collection", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_table(
        "unique_key",
        sa.Column("collection", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reference",
        sa.Column("collection", sa.Text, primary_key=True),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("field", sa.Text, primary_key=True),
        sa.Column("parent_collection", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["collection", "id"], ["entity.collection", "entity.id"]),
        sa.ForeignKeyConstraint(["parent_collection", "parent_id"], ["entity.collection", "entity.id"]),
        sqlite_with_rowid=False,
    )
    op.create_index("reference_parent", "reference", ["parent_collection", "parent_id", "collection", "field", "id"])
    op.create_table(
        "entity_tag",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("tag", sa.Text, primary_key=True),
        sa.Column("collection", sa.Text, primary_key=True),
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
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("change_count", sa.Integer, nullable=False),
    )
    op.create_table(
        "change",
        sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.ForeignKeyConstraint(["version"], ["version.number"]),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("hostname", sa.Text, nullable=False),
        sa.Column("ip", sa.Text, nullable=False),
        sa.Column("software", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sa.Column("config_hash", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("last_seen", sa.Float(53), nullable=False),
        sa.Column("first_seen", sa.Float(53), nullable=False),
        sa.Column("sync_status", sa.Text, nullable=False),
    )
