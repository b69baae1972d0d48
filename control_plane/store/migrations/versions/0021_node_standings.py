"""Which history a node's version is of, and what it refused: other control planes wait for it too."""

import sqlalchemy as sa
from alembic import op

revision = "0021_node_standings"
down_revision = "0020_seals"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("node", sa.Column("epoch", TEXT, nullable=False, server_default=""))
    op.add_column("node", sa.Column("refused", TEXT, nullable=False, server_default=""))
