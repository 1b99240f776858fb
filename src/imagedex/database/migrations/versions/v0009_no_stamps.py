"""Images are found by the size of their files in memory, and no longer by an index.

Sizes follow no order, so a thousand new ones touched nearly a thousand pages of it.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_images_stamp", "images")
