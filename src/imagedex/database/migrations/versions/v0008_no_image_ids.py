"""Images are found by their ids in the segments, and no longer here.

The ids are hashes, so a thousand new ones touched nearly a thousand pages of their index.
"""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Drop the ids, which follow from the paths, and their index."""
    op.drop_index("ix_images_id", "images")
    op.drop_column("images", "image_id")
