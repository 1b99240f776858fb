"""What is done at set times, and kinds of upkeep for it."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import TEXT, only

revision = "0005"
down_revision = "0004"

_UPKEEP = "('rebuild', 'backup', 'snapshot')"


def upgrade() -> None:
    """Add the table of schedules, and let backups run beside what brings images in."""
    for lane, condition in (("flow", "NOT IN"), ("upkeep", "IN")):
        name = f"uq_jobs_running_{lane}"
        op.drop_index(name, table_name="jobs")
        op.create_index(
            name,
            "jobs",
            ["index_id"],
            unique=True,
            **only(f"status = 'running' AND kind {condition} {_UPKEEP}"),
        )
    op.create_table(
        "schedules",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("times", TEXT, nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )
