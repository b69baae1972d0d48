"""Rollouts, the entities that open ones hold, and leases of what one control plane does for all."""

import sqlalchemy as sa
from alembic import op

revision = "0010_rollouts"
down_revision = "0004_several_control_planes"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "rollout",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("rollout_by_state", "rollout", ["state", "number"])
    op.create_table(
        "rollout_hold",
        sa.Column("collection", TEXT, primary_key=True),
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("rollout", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "lease",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("fence", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
    )
