"""A change of model runs beside what brings images in."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_UPKEEP = "('rebuild', 'backup', 'snapshot', 'change_model')"


def upgrade() -> None:
    """Count changes of model among the jobs of upkeep."""
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
