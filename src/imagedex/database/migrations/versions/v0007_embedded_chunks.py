"""Chunks that wait to be published are found without a look at all jobs there ever were."""

from alembic import op

from imagedex.database.dialects import only

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the index of the few chunks that are embedded and not published."""
    op.create_index(
        "ix_job_chunks_embedded",
        "job_chunks",
        ["job_id"],
        unique=False,
        **only("state = 'embedded'"),
    )
