"""Known contents are found by the size of a file."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the index by size and mtime."""
    op.create_index("ix_images_stamp", "images", ["index_id", "size", "mtime_ns"], unique=False)
