"""A change of model runs beside what brings images in."""

from alembic import op

from imagedex.database.dialects import only

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
            **only(f"status = 'running' AND kind {condition} {_UPKEEP}"),
        )
