"""What the REST API answers, field by field as the contract names it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from imagedex.access.records import Scope
from imagedex.api.examples import JOB_ID, KEY_ID, MOMENT, examples_of
from imagedex.api.fields import (
    UtcTime,
)
from imagedex.jobs.records import JobKind, JobStatus


class _Answer(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TriggerAnswer(_Answer):
    """The job that does what was asked for."""

    model_config = examples_of(
        {"job_id": JOB_ID, "status": "queued", "message": "Indexing of '/photos/2025' is queued."}
    )

    job_id: str
    status: JobStatus = Field(description="Other than queued when the same request runs already.")
    message: str


class NotifyAnswer(_Answer):
    """The job that brings the images up to date."""

    model_config = examples_of(
        {"job_id": JOB_ID, "status": "queued", "images_count": 1, "estimated_time_seconds": 0.5}
    )

    job_id: str
    status: JobStatus
    images_count: int
    estimated_time_seconds: float | None = Field(description="Null until a rate was measured.")


class JobProgress(_Answer):
    """How far a job is."""

    total_images: int
    processed_images: int
    failed_images: int
    percent_complete: float


class JobWorker(_Answer):
    """What one worker did for a job, and what it does now."""

    worker_id: str
    host: str
    status: str = Field(
        description="idle, busy, draining (it ends what it has), or lost: not connected."
    )
    images_processed: int
    images_per_second: float | None = Field(
        description="As it was measured last, for whatever job; null when nothing is known."
    )


class JobFindings(_Answer):
    """What the scan of a directory found, in numbers of images."""

    added: int
    changed: int
    unchanged: int
    unsettled: int = Field(description="Still being written: left for the next scan.")
    missing: int = Field(description="Known, and not found any more.")
    moved: int = Field(
        description="Missing ones that left the index: their content is indexed elsewhere."
    )
    removed: int = Field(description="Missing ones that left the index.")


class JobStatusAnswer(_Answer):
    """A job in full."""

    model_config = examples_of(
        {
            "job_id": JOB_ID,
            "kind": "full",
            "status": "running",
            "progress": {
                "total_images": 400,
                "processed_images": 100,
                "failed_images": 1,
                "percent_complete": 25.0,
            },
            "workers": [
                {
                    "worker_id": "local-0",
                    "host": "a",
                    "status": "busy",
                    "images_processed": 100,
                    "images_per_second": 38.5,
                }
            ],
            "created_at": MOMENT,
            "started_at": MOMENT,
            "finished_at": None,
            "estimated_completion": MOMENT,
            "error": None,
            "findings": {
                "added": 300,
                "changed": 1,
                "unchanged": 99,
                "unsettled": 0,
                "missing": 2,
                "moved": 0,
                "removed": 0,
            },
        }
    )

    job_id: str
    kind: JobKind
    status: JobStatus
    progress: JobProgress
    workers: list[JobWorker]
    created_at: UtcTime
    started_at: UtcTime | None
    finished_at: UtcTime | None
    estimated_completion: UtcTime | None
    error: str | None
    findings: JobFindings | None = Field(description="Null before a scan, and without one.")


class JobSummary(_Answer):
    """A job in a list."""

    job_id: str
    kind: JobKind
    status: JobStatus
    created_at: UtcTime
    images_count: int


class JobsAnswer(_Answer):
    """Jobs, newest first."""

    jobs: list[JobSummary]
    total: int
    next_cursor: str | None = Field(description="Null on the last page.")


class FailureEntry(_Answer):
    """An image that could not be indexed."""

    image_path: str
    reason: str
    detail: str
    attempts: int


class FailuresAnswer(_Answer):
    """Images that a job could not index, in order of path."""

    failures: list[FailureEntry]
    total: int
    next_cursor: str | None = Field(description="Null on the last page.")


class QueryResult(_Answer):
    """A found image."""

    rank: int = Field(description="From 1, over all pages.")
    score: float = Field(description="Cosine similarity, from -1 to 1.")
    image_path: str
    image_id: str
    stands_for: int = Field(
        description="Images that it stands for, itself included; above 1 with "
        "`collapse_duplicates` only."
    )


class QueryIndexStats(_Answer):
    """The index that answered."""

    total_images: int
    model: str


class QueryAnswerDocument(_Answer):
    """The best images, best first."""

    query: str = Field(description="The text; empty for a query that is not one text.")
    query_cut: bool = Field(
        description="Whether the text was longer than the model reads, so that its end did not "
        "count."
    )
    results: list[QueryResult]
    query_time_seconds: float
    index_stats: QueryIndexStats
    next_cursor: str | None = Field(description="Null on the last page.")


class IndexSize(_Answer):
    """Bytes on disk."""

    faiss: int
    parquet: int
    total: int


class StatsAnswer(_Answer):
    """The state of an index."""

    # "model_name" is the contract's name; pydantic otherwise keeps that prefix for itself.
    model_config = ConfigDict(protected_namespaces=())

    model_name: str
    embedding_dim: int
    num_images: int
    num_failed: int
    last_updated: UtcTime | None
    generation: int
    index_size_bytes: IndexSize


class SnapshotReceipt(_Answer):
    """The job that makes a snapshot."""

    job_id: str
    status: JobStatus
    name: str = Field(description="Of the snapshot, once the job has completed.")


class SnapshotEntry(_Answer):
    """A snapshot."""

    model_config = ConfigDict(protected_namespaces=())

    name: str
    created_at: UtcTime
    generation: int = Field(description="That was current then.")
    num_images: int
    num_failed: int
    bytes: int = Field(description="Of its files, which it may share with the index.")
    model_name: str


class SnapshotsAnswer(_Answer):
    """The snapshots of an index, oldest first."""

    snapshots: list[SnapshotEntry]
    damaged: list[str] = Field(description="Why some cannot be read.")


class HealthAnswer(_Answer):
    """The process answers."""

    status: Literal["alive"] = "alive"


class ReadyAnswer(_Answer):
    """All checks passed."""

    model_config = examples_of(
        {"status": "ready", "role": "leader", "checks": {"database": "ok", "search": "ok"}}
    )

    status: Literal["ready"] = "ready"
    role: Literal["leader", "standby"] = Field(
        description="Whether this server runs the jobs of its database, or another does."
    )
    checks: dict[str, str]


class KeyAnswer(_Answer):
    """A key, without its secret."""

    key_id: str
    name: str
    scopes: list[Scope]
    created_at: UtcTime
    revoked_at: UtcTime | None


class NewKeyAnswer(KeyAnswer):
    """A new key with its secret, which is shown this once."""

    model_config = examples_of(
        {
            "key_id": KEY_ID,
            "name": "photo upload",
            "scopes": ["index"],
            "created_at": MOMENT,
            "revoked_at": None,
            "secret": f"imgdx_{KEY_ID}_…",
        }
    )

    secret: str


class KeysAnswer(_Answer):
    """All keys, in the order of their creation."""

    keys: list[KeyAnswer]


class ProblemField(_Answer):
    """One wrong part of a request."""

    detail: str
    pointer: str = Field("", description="JSON Pointer into the body.")
    parameter: str = Field("", description="Name of the parameter in path, query or header.")


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    model_config = examples_of(
        {
            "type": "urn:imagedex:problem:not-found",
            "title": "There is no such thing",
            "status": 404,
            "detail": f"There is no job {JOB_ID!r}.",
            "request_id": "0f3b9a6c21d84e57",
        }
    )

    type: str = Field(description="A stable name of the kind of problem.")
    title: str
    status: int
    detail: str
    request_id: str | None = Field(description="The id of this request in the server's log.")
    errors: list[ProblemField] = Field(default=[], description="Only for invalid requests.")
    checks: dict[str, str] = Field(default={}, description="Only when the server is not ready.")
