"""The first tables."""

import sqlalchemy as sa
from alembic import op

from imagedex.database.dialects import TEXT, only

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables and indexes."""
    op.create_table(
        "api_keys",
        sa.Column("key_id", TEXT, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("secret_hash", TEXT, nullable=False),
        sa.Column("scopes", TEXT, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("revoked_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_api_keys")),
    )

    op.create_table(
        "indexes",
        sa.Column("index_id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("index_prefix", TEXT, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("generation", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=True),
        sa.Column("indexed_images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("fence", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("index_id", name=op.f("pk_indexes")),
        sa.UniqueConstraint("index_prefix", name=op.f("uq_indexes_index_prefix")),
    )

    op.create_table(
        "images",
        sa.Column(
            "image_key",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.Column("image_path", TEXT, nullable=False),
        sa.Column("image_id", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("segment", sa.Integer(), nullable=True),
        sa.Column("segment_row", sa.Integer(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("content_hash", TEXT, nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("reason", TEXT, nullable=True),
        sa.Column("detail", TEXT, nullable=True),
        sa.ForeignKeyConstraint(
            ["index_id"], ["indexes.index_id"], name=op.f("fk_images_index_id")
        ),
        sa.PrimaryKeyConstraint("image_key", name=op.f("pk_images")),
    )
    op.create_index("ix_images_id", "images", ["index_id", "image_id"])
    op.create_index("ix_images_location", "images", ["index_id", "segment", "segment_row"])
    op.create_index("uq_images_path", "images", ["index_id", "image_path"], unique=True)

    op.create_table(
        "jobs",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("index_id", sa.Integer(), nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("dedupe_key", TEXT, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("started_at", sa.Float(), nullable=True),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("error", TEXT, nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("rerun_requested", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("is_planned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("total_images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("processed_images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("failed_images", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("next_chunk", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("crashes", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("progressed_at", sa.Float(), nullable=True),
        sa.Column("waiting_since", sa.Float(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("owner", TEXT, nullable=True),
        sa.Column("fence", sa.Integer(), nullable=True),
        sa.Column("leased_at", sa.Float(), nullable=True),
        sa.Column("leased_level", sa.Integer(), nullable=True),
        sa.Column("lease_until", sa.Float(), nullable=True),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["index_id"], ["indexes.index_id"], name=op.f("fk_jobs_index_id")),
        sa.PrimaryKeyConstraint("job_id", name=op.f("pk_jobs")),
    )
    op.create_index("ix_jobs_created", "jobs", ["created_at", "job_id"])
    op.create_index("ix_jobs_progress", "jobs", ["index_id", "progressed_at"])
    op.create_index("ix_jobs_status", "jobs", ["status", "created_at", "job_id"])
    op.create_index(
        "uq_jobs_active",
        "jobs",
        ["index_id", "dedupe_key"],
        unique=True,
        **only("status IN ('queued', 'running', 'paused')"),
    )
    op.create_index(
        "uq_jobs_running",
        "jobs",
        ["index_id"],
        unique=True,
        **only("status = 'running'"),
    )

    op.create_table(
        "idempotency_keys",
        sa.Column("client", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("request_hash", TEXT, nullable=False),
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(
            ["job_id"], ["jobs.job_id"], name=op.f("fk_idempotency_keys_job_id")
        ),
        sa.PrimaryKeyConstraint("client", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_age", "idempotency_keys", ["created_at"])

    op.create_table(
        "job_chunks",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("part", TEXT, nullable=True),
        sa.Column("worker_id", TEXT, nullable=True),
        sa.Column("seconds", sa.Float(), nullable=True),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.Column("image_paths", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_chunks_job_id")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_job_chunks")),
    )
    op.create_index("ix_job_chunks_done", "job_chunks", ["job_id", "done_at"])
    op.create_index("ix_job_chunks_state", "job_chunks", ["job_id", "state", "number"])

    op.create_table(
        "job_failures",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("image_path", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("detail", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("chunk", sa.Integer(), nullable=True),
        sa.Column("is_retrying", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_failures_job_id")),
        sa.PrimaryKeyConstraint("job_id", "image_path", name=op.f("pk_job_failures")),
    )
    op.create_index("ix_job_failures_chunk", "job_failures", ["job_id", "chunk"])

    op.create_table(
        "job_workers",
        sa.Column("job_id", TEXT, nullable=False),
        sa.Column("worker_id", TEXT, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("images_processed", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("seconds", sa.Float(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.job_id"], name=op.f("fk_job_workers_job_id")),
        sa.PrimaryKeyConstraint("job_id", "worker_id", name=op.f("pk_job_workers")),
    )
