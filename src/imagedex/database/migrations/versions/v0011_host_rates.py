"""How fast workers are outlives the controller."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import TEXT

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table of rates."""
    op.create_table(
        "host_rates",
        sa.Column("slot", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("images_per_second", sa.Float, nullable=False),
        sa.Column("measured_at", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("slot", "fingerprint", name="pk_host_rates"),
    )
