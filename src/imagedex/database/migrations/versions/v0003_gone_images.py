"""What scans find: images that are missing, and counts for each job."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import TEXT

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add a table of missing images and one of what jobs found."""
    op.create_table(
        "missing_images",
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.Column("image_path", TEXT, nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["index_id"], ["indexes.index_id"], name=op.f("fk_missing_images_index_id")
        ),
        sa.PrimaryKeyConstraint("index_id", "image_path", name=op.f("pk_missing_images")),
    )
    counts = ("added", "changed", "unchanged", "unsettled", "missing", "moved", "removed")
    op.create_table(
        "job_findings",
        sa.Column("job_id", TEXT, nullable=False),
        *(
            sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False)
            for name in counts
        ),
        sa.Column("removals_asked", sa.Integer(), nullable=True),
        sa.Column("removals_allowed", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_findings_job_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_job_findings")),
    )
