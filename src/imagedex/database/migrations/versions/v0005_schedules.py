"""What is done at set times, and kinds of upkeep for it."""

import sqlalchemy as sa
from alembic import op

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
            sqlite_where=sa.text(f"status = 'running' AND kind {condition} {_UPKEEP}"),
        )
    op.create_table(
        "schedules",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("times", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )
