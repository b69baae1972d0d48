"""Which keys secrets are sealed with. The row without an id: what is there still lies in the clear."""

import sqlalchemy as sa
from alembic import op

revision = "0020_seals"
down_revision = "0010_rollouts"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    seal = op.create_table(
        "seal",
        sa.Column("key_id", TEXT, primary_key=True),
        sa.Column("index_key", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    holds_anything = sa.text(
        "SELECT 1 WHERE EXISTS (SELECT 1 FROM head WHERE version > 0) OR EXISTS (SELECT 1 FROM identity)"
    )
    if op.get_bind().scalar(holds_anything):
        op.bulk_insert(seal, [{"key_id": "", "index_key": ""}])


def downgrade() -> None:
    op.drop_table("seal")
