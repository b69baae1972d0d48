"""Which transaction took a version, which control plane a node is connected to, the planes themselves, and
which histories this one goes on from."""

import sqlalchemy as sa
from alembic import op

revision = "0004_several_control_planes"
down_revision = "0003_identities"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("version", sa.Column("unit", TEXT, nullable=False, server_default=""))
    op.add_column("head", sa.Column("lineage", sa.Text, nullable=False, server_default="[]"))
    op.add_column("node", sa.Column("plane", TEXT, nullable=False, server_default=""))
    op.create_table(
        "plane",
        sa.Column("id", TEXT, primary_key=True),
        sa.Column("hostname", TEXT, nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.Column("seen_at", sa.Float(53), nullable=False),
    )
