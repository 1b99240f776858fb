"""Take requests to index, and tell how they fare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from imagedex.catalog import Catalog
from imagedex.core.errors import (
    InvalidRequest,
    ModelError,
    ModelNotInstalled,
    NotFound,
    SettingsError,
)
from imagedex.core.times import utc_now
from imagedex.embedding import EmbeddingModel
from imagedex.embedding.runtimes import Precision
from imagedex.engine import WorkerInfo, WorkerStatus
from imagedex.indexing.changing import ModelChange, new_model_change
from imagedex.indexing.interfaces import IndexStats, JobReport, WorkerReport
from imagedex.indexing.locations import IndexLocations
from imagedex.indexing.merging import new_rebuild
from imagedex.indexing.pace import Pace
from imagedex.ingest import IgnoreRules, ImageRoots, require_directory
from imagedex.jobs import (
    IdempotencyKey,
    Job,
    JobFailure,
    JobKind,
    JobStatus,
    JobStore,
    NewJob,
    Page,
    Priority,
)
from imagedex.segments import IndexFiles


class IndexingService:
    """The ``Indexing`` of one controller, over its catalog and its jobs."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        jobs: JobStore,
        workers: Callable[[], Sequence[WorkerInfo]],
        model: EmbeddingModel,
        find_model: Callable[[str, Precision | None], EmbeddingModel],
        image_roots: ImageRoots,
        locations: IndexLocations,
        files_of: Callable[[Path], IndexFiles],
        pace: Pace,
    ) -> None:
        self._catalog = catalog
        self._jobs = jobs
        self._workers = workers
        self._model = model
        self._find_model = find_model
        self._image_roots = image_roots
        self._locations = locations
        self._files_of = files_of
        self._pace = pace

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
        """Request that a directory be scanned and its new and changed images be indexed."""
        directory = self._image_roots.check(image_dir)
        require_directory(directory)
        request: dict[str, Any] = {"image_dir": directory, "force_reindex": force_reindex}
        if ignore:
            request["ignore"] = list(_checked_rules(ignore).globs)
        return self._submit(JobKind.FULL, request, index_prefix, priority, idempotency)

    def notify(
        self,
        image_paths: Sequence[str],
        *,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> tuple[Job, float | None]:
        """Request that images, which may be new, changed or gone, be brought up to date."""
        paths = sorted(set(self._image_roots.check_all(image_paths)))
        job = self._submit(
            JobKind.INCREMENTAL,
            {"image_paths": paths},
            index_prefix,
            priority,
            idempotency,
            images_count=len(paths),
        )
        rate = self._jobs.recent_images_per_second(job.index_id)
        return job, None if rate is None else len(paths) / rate

    def rebuild(
        self,
        *,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        """Request that all segments of an index become one. Raises NotFound."""
        prefix = self._locations.resolve(index_prefix)
        manifest = self._files_of(prefix).current()
        if manifest is None:
            raise NotFound(f"There is no index at {str(prefix)!r}; index a directory first.")
        index_id = self._catalog.ensure_index(prefix).index_id
        new = new_rebuild(index_id, prefix, images_count=manifest.images, priority=priority)
        return self._jobs.submit(new, idempotency)

    def change_model(
        self,
        model: str,
        *,
        precision: Precision | None = None,
        index_prefix: str | None = None,
        priority: Priority = Priority.NORMAL,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        """Request that an index be embedded anew with another model, and then have that one."""
        prefix = self._locations.resolve(index_prefix)
        manifest = self._files_of(prefix).current()
        if manifest is None:
            raise NotFound(
                f"There is no index at {str(prefix)!r} whose model to change; set IMAGEDEX_MODEL "
                "for a new one."
            )
        try:
            found = self._find_model(model, precision)
        except ModelNotInstalled:
            raise
        except ModelError as error:
            raise InvalidRequest(str(error)) from error
        change = ModelChange(prefix, model, precision, found.fingerprint)
        index_id = self._catalog.ensure_index(prefix).index_id
        new = new_model_change(index_id, change, images_count=manifest.images, priority=priority)
        return self._jobs.submit(new, idempotency)

    def _submit(
        self,
        kind: JobKind,
        request: Mapping[str, Any],
        index_prefix: str | None,
        priority: Priority,
        idempotency: IdempotencyKey | None,
        images_count: int = 0,
    ) -> Job:
        prefix = self._locations.resolve(index_prefix)
        index = self._catalog.ensure_index(prefix)
        canonical = json.dumps([kind.value, request], sort_keys=True).encode()
        new = NewJob(
            index_id=index.index_id,
            kind=kind,
            request={**request, "index_prefix": str(prefix)},
            priority=priority,
            dedupe_key=hashlib.sha256(canonical).hexdigest(),
            images_count=images_count,
            # A forced job would embed everything once more; a change that came while it ran is
            # found by the next scan.
            runs_again=not request.get("force_reindex", False),
        )
        return self._jobs.submit(new, idempotency)

    def status(self, job_id: str) -> JobReport:
        """Return a job's state. Raises NotFound."""
        job, shares = self._jobs.get_with_shares(job_id)
        connected = self._workers()
        statuses = {worker.worker_id: worker.status for worker in connected}
        rates = {worker.worker_id: self._pace.latest(worker.slot) for worker in connected}
        workers = tuple(
            WorkerReport(
                worker_id=share.worker_id,
                host=share.host,
                status=statuses.get(share.worker_id, WorkerStatus.LOST).value,
                images_processed=share.images_processed,
                images_per_second=rates.get(share.worker_id),
            )
            for share in shares
        )
        findings = self._jobs.findings(job_id) if job.kind is JobKind.FULL else None
        rate = sum(rate for rate in rates.values() if rate is not None)
        return JobReport(job, workers, _estimated_completion(job, rate), findings)

    def list_jobs(self, *, status: JobStatus | None, limit: int, cursor: str | None) -> Page[Job]:
        """Return jobs, newest first."""
        return self._jobs.list_jobs(status=status, limit=limit, cursor=cursor)

    def failures(self, job_id: str, *, limit: int, cursor: str | None) -> Page[JobFailure]:
        """Return the images that a job could not index."""
        return self._jobs.failures(job_id, limit=limit, cursor=cursor)

    def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises NotFound, Conflict."""
        return self._jobs.request_cancel(job_id)

    def retry(self, job_id: str) -> Job:
        """Queue a job again for what failed. Raises NotFound, Conflict."""
        return self._jobs.retry(job_id)

    def answer_removals(self, job_id: str, *, is_allowed: bool) -> Job:
        """Let a job go on that is paused because many images are gone."""
        return self._jobs.answer_removals(job_id, is_allowed=is_allowed)

    def stats(self, index_prefix: str | None = None) -> IndexStats:
        """Return the state of an index."""
        prefix = self._locations.resolve(index_prefix)
        manifest = self._files_of(prefix).current()
        index = self._catalog.get_index(prefix)
        failed = self._catalog.counts(index.index_id).failed if index is not None else 0
        return IndexStats(
            model_name=self._model.name if manifest is None else manifest.model_name,
            embedding_dim=self._model.dim if manifest is None else manifest.dim,
            num_images=0 if manifest is None else manifest.images,
            num_failed=failed,
            last_updated=None if manifest is None else manifest.created_at,
            generation=0 if manifest is None else manifest.generation,
            faiss_bytes=0
            if manifest is None
            else sum(s.faiss.bytes for s in manifest.segments if s.faiss is not None),
            parquet_bytes=0
            if manifest is None
            else sum(s.parquet.bytes for s in manifest.segments),
        )


def _checked_rules(globs: Sequence[str]) -> IgnoreRules:
    try:
        return IgnoreRules(tuple(sorted(set(globs))))
    except SettingsError as error:
        raise InvalidRequest(str(error)) from error


def _estimated_completion(job: Job, images_per_second: float) -> datetime | None:
    """Say when what is left is done at the rate of all workers; None while there is no rate."""
    if job.status is not JobStatus.RUNNING or not job.is_planned or images_per_second == 0:
        return None
    left = job.total_images - job.processed_images
    return utc_now() + timedelta(seconds=left / images_per_second)
