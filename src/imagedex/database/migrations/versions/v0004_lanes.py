"""A job of upkeep runs beside one that brings images in, and merges are recorded bit by bit."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import only

revision = "0004"
down_revision = "0003"

_UPKEEP = "('rebuild')"


def upgrade() -> None:
    """Let one job run per lane of an index, and note whose rows have yet to be moved."""
    op.drop_index("uq_jobs_running", table_name="jobs")
    op.create_index(
        "uq_jobs_running_flow",
        "jobs",
        ["index_id"],
        unique=True,
        **only(f"status = 'running' AND kind NOT IN {_UPKEEP}"),
    )
    op.create_index(
        "uq_jobs_running_upkeep",
        "jobs",
        ["index_id"],
        unique=True,
        **only(f"status = 'running' AND kind IN {_UPKEEP}"),
    )
    op.create_table(
        "moving_indexes",
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"], ["indexes.index_id"], name=op.f("fk_moving_indexes_index_id")
        ),
        sa.PrimaryKeyConstraint("index_id", name=op.f("pk_moving_indexes")),
    )
