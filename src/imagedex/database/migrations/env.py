"""Alembic's entry: runs the migrations on the transaction that ``schema.upgrade`` began."""

from alembic import context

from imagedex.database.tables import metadata

# SQLite cannot alter most of a table, so later migrations copy it ("batch mode").
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
