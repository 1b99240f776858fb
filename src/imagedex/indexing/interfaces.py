"""What the flow of images into an index is to the edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from imagedex.embedding.runtimes import Precision
from imagedex.jobs.interfaces import IdempotencyKey, Page
from imagedex.jobs.records import Job, JobFailure, JobStatus, Priority, ScanFindings


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What one worker does for a job."""

    worker_id: str
    host: str
    status: str  # idle, busy, draining, or lost when it is not connected.
    images_processed: int
    images_per_second: float | None = None  # As measured last; None for one that is lost.


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job with all that its status tells."""

    job: Job
    workers: tuple[WorkerReport, ...]
    estimated_completion: datetime | None  # None while it does not run, or no rate is known.
    findings: ScanFindings | None = None  # Of a job that has scanned.


@dataclass(frozen=True, slots=True)
class IndexStats:
    """The state of one index."""

    model_name: str
    embedding_dim: int
    num_images: int
    num_failed: int
    last_updated: datetime | None  # None while nothing was indexed.
    generation: int  # 0 while nothing was indexed.
    faiss_bytes: int
    parquet_bytes: int


class Indexing(Protocol):
    """Takes requests to index and tells how they fare. Safe to call from several threads.

    ``index_prefix`` None means the default index. Paths are checked here against the image
    roots and index roots (InvalidRequest, OutsideImageRoots, OutsideIndexRoots), so every
    edge enforces the same rules.
    """

    def trigger(
        self,
        image_dir: str,
        *,
        index_prefix: str | None = None,
        force_reindex: bool = False,
        ignore: Sequence[str] = (),
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        """Request that a directory be scanned and its new and changed images be indexed.

        ``ignore`` are globs of what this scan passes over beside what every scan does. Raises
        InvalidRequest for one that can match nothing.
        """
        ...

    def notify(
        self,
        image_paths: Sequence[str],
        *,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> tuple[Job, float | None]:
        """Request that images, which may be new, changed or gone, be brought up to date.

        Returns the job and the estimated seconds (None while no rate was ever measured).
        """
        ...

    def rebuild(
        self,
        *,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        """Request that all segments of an index become one, with new search structures.

        Raises NotFound where nothing was indexed.
        """
        ...

    def change_model(
        self,
        model: str,
        *,
        precision: Precision | None = None,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        """Request that an index be embedded anew with another model, and then have that one.

        Raises NotFound where nothing was indexed, InvalidRequest for a model that there is not,
        ModelNotInstalled.
        """
        ...

    def status(self, job_id: str) -> JobReport:
        """Return a job's state. Raises NotFound."""
        ...

    def list_jobs(self, *, status: JobStatus | None, limit: int, cursor: str | None) -> Page[Job]:
        """Return jobs, newest first."""
        ...

    def failures(self, job_id: str, *, limit: int, cursor: str | None) -> Page[JobFailure]:
        """Return the images that a job could not index."""
        ...

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises NotFound, Conflict."""
        ...

    def retry(self, job_id: str) -> Job:
        """Queue a job again for what failed. Raises NotFound, Conflict."""
        ...

    def answer_removals(self, job_id: str, *, is_allowed: bool) -> Job:
        """Let a job go on that is paused because many images are gone: with their removal or not.

        Raises NotFound, Conflict (the job asks nothing).
        """
        ...

    def stats(self, index_prefix: str | None = None) -> IndexStats:
        """Return the state of an index."""
        ...
