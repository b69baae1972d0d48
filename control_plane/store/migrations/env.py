"""How Alembic reaches the database: over the connection that `migrating.py` hands in."""

from alembic import context

from control_plane.store.tables import METADATA

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA)
with context.begin_transaction():
    context.run_migrations()
