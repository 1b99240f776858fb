"""What the server answers, field by field as in the REST contract.

Unknown fields are ignored, so that an older client understands a newer server. Words such as
``status`` stay plain strings for the same reason.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, PlainSerializer


def _with_z(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Written back exactly as the server wrote it, so that what a program stores compares equal.
Moment = Annotated[datetime, PlainSerializer(_with_z, when_used="json")]

FINAL_STATUSES = frozenset({"completed", "failed", "cancelled"})


class _Answer(BaseModel):
    # Not built before it is used: a command uses two or three of them.
    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)


class TriggerReceipt(_Answer):
    """A directory was accepted for indexing."""

    job_id: str
    status: str
    message: str


class NotifyReceipt(_Answer):
    """Single images were accepted for indexing."""

    job_id: str
    status: str
    images_count: int
    estimated_time_seconds: float | None  # None while no rate was ever measured.


class JobProgress(_Answer):
    """How far a job has come."""

    total_images: int
    processed_images: int  # Settled: unchanged, embedded, removed or failed.
    failed_images: int
    percent_complete: float


class Worker(_Answer):
    """What one worker does for a job."""

    worker_id: str
    host: str
    status: str  # idle, busy, draining or lost.
    images_processed: int
    images_per_second: float | None = None  # As measured last; None when nothing is known.


class ScanFindings(_Answer):
    """What a scan found, in numbers of images."""

    added: int
    changed: int
    unchanged: int
    unsettled: int  # Still being written: left for the next scan.
    missing: int  # Known, and not found any more.
    moved: int  # Missing ones that left the index, since their content is indexed elsewhere.
    removed: int  # Missing ones that left the index.


class JobState(_Answer):
    """All that is told of one job."""

    job_id: str
    kind: str
    status: str  # queued, running, paused, completed, failed or cancelled.
    progress: JobProgress
    workers: tuple[Worker, ...]
    created_at: Moment
    started_at: Moment | None
    finished_at: Moment | None
    estimated_completion: Moment | None
    error: str | None
    findings: ScanFindings | None = None  # Of a job that has scanned a directory.

    @property
    def is_final(self) -> bool:
        """Whether the job has ended."""
        return self.status in FINAL_STATUSES


class JobSummary(_Answer):
    """A job as it is listed."""

    job_id: str
    kind: str
    status: str
    created_at: Moment
    images_count: int


class JobPage(_Answer):
    """Some of all jobs, newest first."""

    jobs: tuple[JobSummary, ...]
    total: int
    next_cursor: str | None


class Failure(_Answer):
    """An image that a job could not index."""

    image_path: str
    reason: str
    detail: str
    attempts: int


class FailurePage(_Answer):
    """Some of a job's failures, in order of path."""

    failures: tuple[Failure, ...]
    total: int
    next_cursor: str | None


class Result(_Answer):
    """One found image."""

    rank: int  # From 1.
    score: float  # -1 to 1.
    image_path: str
    image_id: str
    stands_for: int = 1  # Itself and its near-duplicates, if these were to be collapsed.


class IndexSummary(_Answer):
    """The index that answered a query."""

    total_images: int
    model: str


class QueryAnswer(_Answer):
    """The answer to a query, or a page of it, best first."""

    query: str  # The text; empty for a query that is not one text.
    query_cut: bool = False  # Whether the model read only the beginning of a long text.
    results: tuple[Result, ...]
    query_time_seconds: float
    index_stats: IndexSummary
    next_cursor: str | None = None  # Of the page after this one, if there is one.


class IndexSize(_Answer):
    """Bytes on storage."""

    faiss: int
    parquet: int
    total: int


class IndexStats(_Answer):
    """The state of one index."""

    model_name: str
    embedding_dim: int
    num_images: int
    num_failed: int
    last_updated: Moment | None  # None while nothing was indexed.
    generation: int
    index_size_bytes: IndexSize


class Key(_Answer):
    """An API key as it is listed."""

    key_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: Moment
    revoked_at: Moment | None


class CreatedKey(Key):
    """A new API key with its secret, which the server shows only here."""

    secret: str


class KeyList(_Answer):
    """All API keys."""

    keys: tuple[Key, ...]


class SnapshotReceipt(_Answer):
    """A snapshot was requested."""

    job_id: str
    status: str
    name: str  # Of the snapshot, once the job has completed.


class Snapshot(_Answer):
    """A state of an index that is kept."""

    name: str
    created_at: Moment
    generation: int
    num_images: int
    num_failed: int
    bytes: int  # Of its files, which it may share with the index.
    model_name: str


class SnapshotList(_Answer):
    """The snapshots of an index, oldest first."""

    snapshots: tuple[Snapshot, ...]
    damaged: tuple[str, ...]  # Why some cannot be read.
