"""Every table, as it is after all migrations (a test holds the two together).

Moments are seconds since the epoch, in UTC, in double precision. Truth values are INTEGER 0 or 1 in
SQLite, which has no other. Partial unique indexes carry the rules that no race may break: one
running job per lane of an index, and one active job per request.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    false,
    text,
)

from imagedex.database.dialects import TEXT, only

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

# Jobs that run beside those which bring images in; a test holds the enumeration to it.
UPKEEP_KINDS = "('rebuild', 'backup', 'snapshot', 'change_model')"

# SQLite numbers rows by itself only when the key is called INTEGER, which holds 64 bits there.
_BigKey = BigInteger().with_variant(Integer(), "sqlite")


def _column(name: str, type_: Any, *args: Any, **options: Any) -> Column[Any]:
    """Return a column that must have a value unless it says otherwise."""
    options.setdefault("nullable", False)
    return Column(name, type_, *args, **options)


def _count(name: str) -> Column[Any]:
    return _column(name, Integer, server_default=text("0"))


def _flag(name: str) -> Column[Any]:
    return _column(name, Boolean, server_default=false())


indexes = Table(
    "indexes",
    metadata,
    _column("index_id", Integer, primary_key=True, autoincrement=True),
    _column("index_prefix", TEXT, unique=True),
    _column("created_at", Float),
    _count("generation"),  # What the rows of ``images`` describe; 0 for none.
    _column("updated_at", Float, nullable=True),  # When that generation was recorded.
    _count("indexed_images"),  # Kept totals: rows with a segment, and
    _count("failed_images"),  # rows whose state is failed.
    _count("fence"),  # Of the newest lease; the next one gets one more.
    # How often rows of ``images`` that were there before were changed or deleted, whose catalog did
    # so last, and how often it had happened when that one began to.
    _count("changes"),
    _column("changed_by", TEXT, nullable=True),
    _count("changes_of_others"),
)

leadership = Table(
    "leadership",  # Of a database that several machines share: who runs the jobs. One row.
    metadata,
    _column("leadership", Integer, primary_key=True, autoincrement=False),
    _column("term", Integer),  # Rises each time that a controller takes them over.
    _column("holder", TEXT),
    _column("url", TEXT),
    _column("lease_until", Float),
)

images = Table(
    "images",
    metadata,
    _column("image_key", _BigKey, primary_key=True, autoincrement=True),
    _column("index_id", Integer, ForeignKey(indexes.c.index_id)),
    _column("image_path", TEXT),
    _column("state", TEXT),
    _column("segment", Integer, nullable=True),  # Where the vector lies,
    _column("segment_row", Integer, nullable=True),  # or null while there is none.
    _column("size", BigInteger, nullable=True),
    _column("mtime_ns", BigInteger, nullable=True),
    _column("content_hash", TEXT, nullable=True),
    _column("width", Integer, nullable=True),
    _column("height", Integer, nullable=True),
    _column("reason", TEXT, nullable=True),
    _column("detail", TEXT, nullable=True),
    Index("uq_images_path", "index_id", "image_path", unique=True),
    Index("ix_images_location", "index_id", "segment", "segment_row"),
)

missing_images = Table(
    "missing_images",  # Those that the last scan of their directory did not find.
    metadata,
    _column("index_id", Integer, ForeignKey(indexes.c.index_id), primary_key=True),
    _column("image_path", TEXT, primary_key=True),
    _column("since", Float),  # When a scan missed it first.
)

moving_indexes = Table(
    "moving_indexes",  # Some rows of ``images`` still say where a vector lay before a merge.
    metadata,
    _column("index_id", Integer, ForeignKey(indexes.c.index_id), primary_key=True),
)

jobs = Table(
    "jobs",
    metadata,
    _column("job_id", TEXT, primary_key=True),
    _column("index_id", Integer, ForeignKey(indexes.c.index_id)),
    _column("kind", TEXT),
    _column("status", TEXT),
    _column("priority", Integer),
    _column("dedupe_key", TEXT),
    _column("created_at", Float),
    _column("started_at", Float, nullable=True),
    _column("finished_at", Float, nullable=True),
    _column("error", TEXT, nullable=True),
    _flag("cancel_requested"),
    _flag("rerun_requested"),  # The same request came again when it might have been too late.
    _flag("is_planned"),
    _count("total_images"),
    _count("processed_images"),
    _count("failed_images"),
    _count("next_chunk"),  # The numbers of a job's chunks are never used twice.
    _count("crashes"),  # How often its owner fell silent,
    _count("attempts"),  # and how often an error gave it up, since the last checkpoint.
    _column("progressed_at", Float, nullable=True),  # When the last chunk was embedded.
    _column("waiting_since", Float),  # When it was queued last; a job that waits long rises.
    _column("not_before", Float),  # While it waits out a back-off.
    _column("owner", TEXT, nullable=True),  # Of the lease, as long as it runs,
    _column("fence", Integer, nullable=True),  # with the fence,
    _column("leased_at", Float, nullable=True),  # when it began,
    _column("leased_level", Integer, nullable=True),  # the risen priority that it had then,
    _column("lease_until", Float, nullable=True),  # and when it expires.
    # Compressed JSON. It is the last column, since SQLite reads a row from its beginning:
    # whoever does not ask for a long request does not pay for it.
    _column("request", LargeBinary),
    Index("ix_jobs_created", "created_at", "job_id"),
    Index("ix_jobs_status", "status", "created_at", "job_id"),
    Index("ix_jobs_progress", "index_id", "progressed_at"),
    Index(
        "uq_jobs_running_flow",
        "index_id",
        unique=True,
        **only(f"status = 'running' AND kind NOT IN {UPKEEP_KINDS}"),
    ),
    Index(
        "uq_jobs_running_upkeep",
        "index_id",
        unique=True,
        **only(f"status = 'running' AND kind IN {UPKEEP_KINDS}"),
    ),
    Index(
        "uq_jobs_active",
        "index_id",
        "dedupe_key",
        unique=True,
        **only("status IN ('queued', 'running', 'paused')"),
    ),
)

job_chunks = Table(
    "job_chunks",
    metadata,
    _column("job_id", TEXT, ForeignKey(jobs.c.job_id), primary_key=True),
    _column("number", Integer, primary_key=True),
    _column("action", TEXT),
    _column("state", TEXT),
    _column("images", Integer),  # How many it has; they stay known when the paths are gone.
    _column("part", TEXT, nullable=True),
    _column("worker_id", TEXT, nullable=True),
    _column("seconds", Float, nullable=True),
    _column("done_at", Float, nullable=True),  # When it was embedded.
    _column("image_paths", LargeBinary, nullable=True),  # Compressed JSON; null once committed.
    Index("ix_job_chunks_state", "job_id", "state", "number"),
    Index("ix_job_chunks_done", "job_id", "done_at"),
    Index("ix_job_chunks_embedded", "job_id", **only("state = 'embedded'")),
)

job_workers = Table(
    "job_workers",
    metadata,
    _column("job_id", TEXT, ForeignKey(jobs.c.job_id), primary_key=True),
    _column("worker_id", TEXT, primary_key=True),
    _column("host", TEXT),
    _count("images_processed"),
    _column("seconds", Float),
)

job_failures = Table(
    "job_failures",
    metadata,
    _column("job_id", TEXT, ForeignKey(jobs.c.job_id), primary_key=True),
    _column("image_path", TEXT, primary_key=True),
    _column("reason", TEXT),
    _column("detail", TEXT),
    _column("attempts", Integer),
    # The chunk in which it failed, or which is to try it again; null when planning failed it.
    _column("chunk", Integer, nullable=True),
    _flag("is_retrying"),  # A planned chunk holds it, so it does not count as failed now.
    Index("ix_job_failures_chunk", "job_id", "chunk"),
)

job_findings = Table(
    "job_findings",  # Of a job that scans.
    metadata,
    _column("job_id", TEXT, ForeignKey(jobs.c.job_id), primary_key=True),
    _count("added"),
    _count("changed"),
    _count("unchanged"),
    _count("unsettled"),
    _count("missing"),
    _count("moved"),
    _count("removed"),
    _column("removals_asked", Integer, nullable=True),  # While it is paused for them.
    _column("removals_allowed", Integer, nullable=True),  # 0 when they were refused.
)

host_rates = Table(
    "host_rates",  # How fast workers were, last time.
    metadata,
    _column("slot", TEXT, primary_key=True),  # A worker's place, on which one follows another.
    _column("fingerprint", TEXT, primary_key=True),  # Of the model.
    _column("images_per_second", Float),
    _column("measured_at", Float),
)

schedules = Table(
    "schedules",
    metadata,
    _column("name", TEXT, primary_key=True),
    _column("times", TEXT),  # What ``due_at`` follows from: cron fields and time zone.
    _column("due_at", Float),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _column("client", TEXT, primary_key=True),
    _column("key", TEXT, primary_key=True),
    _column("request_hash", TEXT),
    _column("job_id", TEXT, ForeignKey(jobs.c.job_id)),
    _column("created_at", Float),
    Index("ix_idempotency_keys_age", "created_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _column("key_id", TEXT, primary_key=True),
    _column("name", TEXT),
    _column("secret_hash", TEXT),
    _column("scopes", TEXT),  # Words with a space between them.
    _column("created_at", Float),
    _column("revoked_at", Float, nullable=True),
)
