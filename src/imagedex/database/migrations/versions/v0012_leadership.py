"""Of several controllers on one database, one runs the jobs."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import TEXT

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the table of who that is; until somebody is, it has no row."""
    op.create_table(
        "leadership",
        sa.Column("leadership", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("term", sa.Integer(), nullable=False),
        sa.Column("holder", TEXT, nullable=False),
        sa.Column("url", TEXT, nullable=False),
        sa.Column("lease_until", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("leadership", name="pk_leadership"),
    )
