"""Processes see that others have changed images, of which they remember something."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import TEXT

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Count the changes of each index, and note whose they are."""
    _add_count("changes")
    op.add_column("indexes", sa.Column("changed_by", TEXT, nullable=True))
    _add_count("changes_of_others")


def _add_count(name: str) -> None:
    column = sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
    op.add_column("indexes", column)
