"""Indexing in memory: it takes requests and keeps jobs, and leaves their progress to the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imagedex.core.errors import Conflict, InvalidRequest, NotFound, OutsideImageRoots
from imagedex.core.ids import new_job_id
from imagedex.embedding.runtimes import Precision
from imagedex.indexing.interfaces import IndexStats, JobReport, WorkerReport
from imagedex.indexing.locations import IndexLocations
from imagedex.jobs.interfaces import IdempotencyKey, ItemT, Page
from imagedex.jobs.records import Job, JobFailure, JobKind, JobStatus, Priority, ScanFindings
from imagedex.settings import Settings


class InMemoryIndexing:
    """Jobs that last as long as the object; nothing runs them.

    Tests move a job on by :meth:`put` and set ``failures_of``, ``workers`` and ``index_stats``.
    """

    def __init__(self, settings: Settings) -> None:
        self.locations = IndexLocations(settings.effective_index_prefix, settings.index_roots)
        self.failures_of: dict[str, tuple[JobFailure, ...]] = {}
        self.workers: tuple[WorkerReport, ...] = ()
        self.findings: ScanFindings | None = None
        self.index_stats = IndexStats(
            model_name="bundled",
            embedding_dim=384,
            num_images=0,
            num_failed=0,
            last_updated=None,
            generation=0,
            faiss_bytes=0,
            parquet_bytes=0,
        )
        self._roots = settings.image_roots
        self._jobs: dict[str, Job] = {}
        self._promises: dict[tuple[str, str], tuple[str, str]] = {}
        self._lock = threading.Lock()

    def put(self, job: Job) -> None:
        """Store a job as the test wants it."""
        self._jobs[job.job_id] = job

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
        self._require_inside(image_dir)
        prefix = str(self.locations.resolve(index_prefix))
        request = {
            "image_dir": image_dir,
            "index_prefix": prefix,
            "force": force_reindex,
            "ignore": list(ignore),
        }
        return self.submit(JobKind.FULL, request, priority, idempotency, images=0)

    def notify(
        self,
        image_paths: Sequence[str],
        *,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> tuple[Job, float | None]:
        for path in image_paths:
            self._require_inside(path)
        prefix = str(self.locations.resolve(index_prefix))
        request = {"image_paths": list(image_paths), "index_prefix": prefix}
        job = self.submit(
            JobKind.INCREMENTAL, request, priority, idempotency, images=len(image_paths)
        )
        return job, None

    def rebuild(
        self,
        *,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        prefix = str(self.locations.resolve(index_prefix))
        if self.index_stats.generation == 0:
            raise NotFound(f"There is no index at {prefix!r}; index a directory first.")
        request = {"index_prefix": prefix}
        return self.submit(JobKind.REBUILD, request, priority, idempotency, images=0)

    def change_model(
        self,
        model: str,
        *,
        precision: Precision | None = None,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        prefix = str(self.locations.resolve(index_prefix))
        if self.index_stats.generation == 0:
            raise NotFound(f"There is no index at {prefix!r} whose model to change.")
        if model != "bundled":
            raise InvalidRequest(f"There is no model {model!r}.")
        request = {"index_prefix": prefix, "model": model, "precision": precision}
        return self.submit(JobKind.CHANGE_MODEL, request, priority, idempotency, images=0)

    def status(self, job_id: str) -> JobReport:
        return JobReport(
            self._get(job_id), self.workers, estimated_completion=None, findings=self.findings
        )

    def list_jobs(self, *, status: JobStatus | None, limit: int, cursor: str | None) -> Page[Job]:
        jobs = [job for job in self._jobs.values() if status in (None, job.status)]
        newest_first = sorted(jobs, key=lambda job: (job.created_at, job.job_id), reverse=True)
        return _page(newest_first, limit, cursor)

    def failures(self, job_id: str, *, limit: int, cursor: str | None) -> Page[JobFailure]:
        self._get(job_id)
        return _page(self.failures_of.get(job_id, ()), limit, cursor)

    def cancel(self, job_id: str) -> Job:
        job = self._get(job_id)
        if job.status in (JobStatus.COMPLETED, JobStatus.FAILED):
            raise Conflict(f"Job {job_id!r} has ended: {job.status.value}.")
        self.put(replace(job, status=JobStatus.CANCELLED, cancel_requested=True))
        return self._get(job_id)

    def retry(self, job_id: str) -> Job:
        job = self._get(job_id)
        if not job.status.is_final:
            raise Conflict(f"Job {job_id!r} is {job.status.value}; wait for its end.")
        self.put(replace(job, status=JobStatus.QUEUED))
        return self._get(job_id)

    def answer_removals(self, job_id: str, *, is_allowed: bool) -> Job:
        job = self._get(job_id)
        if job.status is not JobStatus.PAUSED:
            raise Conflict(f"Job {job_id!r} is {job.status.value} and asks nothing.")
        self.put(replace(job, status=JobStatus.QUEUED))
        return self._get(job_id)

    def stats(self, index_prefix: str | None = None) -> IndexStats:
        self.locations.resolve(index_prefix)
        return self.index_stats

    def _get(self, job_id: str) -> Job:
        try:
            return self._jobs[job_id]
        except KeyError:
            raise NotFound(f"There is no job {job_id!r}; check the id.") from None

    def submit(
        self,
        kind: JobKind,
        request: Mapping[str, Any],
        priority: Priority,
        idempotency: IdempotencyKey | None,
        *,
        images: int,
    ) -> Job:
        """Keep a job of this kind; whoever asks again while it is active gets the same."""
        now = datetime.now(UTC)
        with self._lock:
            if idempotency is not None:
                promise = (idempotency.client, idempotency.key)
                request_hash, job_id = self._promises.get(promise, (idempotency.request_hash, ""))
                if request_hash != idempotency.request_hash:
                    raise InvalidRequest("The Idempotency-Key was used for another request.")
                if job_id:
                    return self._jobs[job_id]
            for job in self._jobs.values():
                if not job.status.is_final and (job.kind, job.request) == (kind, request):
                    return job
            job_id = new_job_id(now)
            while job_id in self._jobs:
                job_id = new_job_id(now)
            job = Job(
                job_id=job_id,
                index_id=1,
                kind=kind,
                status=JobStatus.QUEUED,
                priority=priority,
                request=request,
                created_at=now,
                started_at=None,
                finished_at=None,
                error=None,
                cancel_requested=False,
                is_planned=False,
                total_images=images,
                processed_images=0,
                failed_images=0,
            )
            self.put(job)
            if idempotency is not None:
                self._promises[promise] = (idempotency.request_hash, job_id)
            return job

    def _require_inside(self, path: str) -> None:
        if "\0" in path or not path.startswith("/"):
            raise InvalidRequest(f"{path!r} is not an absolute path.")
        real = Path(os.path.realpath(path))
        if not any(real.is_relative_to(os.path.realpath(root)) for root in self._roots):
            raise OutsideImageRoots(f"{path!r} lies outside the image roots.")


def _page(items: Sequence[ItemT], limit: int, cursor: str | None) -> Page[ItemT]:
    if cursor is not None and not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 10):
        raise InvalidRequest(f"{cursor[:20]!r} is no cursor; take next_cursor of a page.")
    start = int(cursor or 0)
    end = start + limit
    return Page(
        items=tuple(items[start:end]),
        total=len(items),
        next_cursor=str(end) if end < len(items) else None,
    )
