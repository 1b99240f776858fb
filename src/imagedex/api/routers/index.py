"""Jobs: submit them, watch them, cancel and retry them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.requests import Request

from imagedex.access import Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.idempotency import IdempotencyHeader, idempotency_of
from imagedex.api.identifiers import require_identifier
from imagedex.api.paging import JobsQuery, PageQuery
from imagedex.api.requests import NotifyRequest, RebuildRequest, TriggerRequest
from imagedex.api.schemas import (
    FailureEntry,
    FailuresAnswer,
    JobFindings,
    JobProgress,
    JobsAnswer,
    JobStatusAnswer,
    JobSummary,
    JobWorker,
    NotifyAnswer,
    TriggerAnswer,
)
from imagedex.api.security import principal_of
from imagedex.indexing.interfaces import JobReport
from imagedex.jobs.records import Job, JobStatus, Priority, ScanFindings


def index_router(context: ApiContext) -> APIRouter:
    """Return the calls below ``/api/v1/index`` that are about jobs; scope ``index``."""
    router = context.gated_router("/api/v1/index", "index", Scope.INDEX)
    indexing = context.services.indexing
    run = context.lanes.control.run
    run_on_paths = context.lanes.paths.run
    read = context.lanes.reads.run

    @router.post(
        "/trigger",
        operation_id="triggerIndex",
        summary="Index a directory",
        status_code=HTTPStatus.ACCEPTED,
        response_model=TriggerAnswer,
        responses=problem_documents(408, 409, 413, 415),
    )
    async def trigger(
        request: Request, body: TriggerRequest, idempotency_key: IdempotencyHeader = None
    ) -> JsonAnswer:
        """Scan a directory and index its new and changed images.

        Images that are gone leave the index after a time of grace; when that would be a large
        share of them the job pauses and asks. The same request while its job is active returns
        that job.
        """
        job = await run_on_paths(
            indexing.trigger,
            body.image_dir,
            index_prefix=body.index_prefix,
            force_reindex=body.force_reindex,
            ignore=body.ignore,
            priority=Priority[body.priority.upper()],
            idempotency=idempotency_of(idempotency_key, principal_of(request), "trigger", body),
        )
        answer = TriggerAnswer(
            job_id=job.job_id,
            status=job.status,
            message=f"Indexing of {body.image_dir!r} is {job.status.value}.",
        )
        return JsonAnswer(answer, HTTPStatus.ACCEPTED)

    @router.post(
        "/notify",
        operation_id="notifyImages",
        summary="Bring single images up to date",
        status_code=HTTPStatus.ACCEPTED,
        response_model=NotifyAnswer,
        responses=problem_documents(408, 409, 413, 415),
    )
    async def notify(
        request: Request, body: NotifyRequest, idempotency_key: IdempotencyHeader = None
    ) -> JsonAnswer:
        """Tell that images are new, changed or gone; each may be any of these."""
        job, estimated_seconds = await run_on_paths(
            indexing.notify,
            body.image_paths,
            index_prefix=body.index_prefix,
            priority=Priority[body.priority.upper()],
            idempotency=idempotency_of(idempotency_key, principal_of(request), "notify", body),
        )
        answer = NotifyAnswer(
            job_id=job.job_id,
            status=job.status,
            images_count=len(set(body.image_paths)),
            estimated_time_seconds=estimated_seconds,
        )
        return JsonAnswer(answer, HTTPStatus.ACCEPTED)

    _add_rebuild(router, context)

    @router.get(
        "/status/{job_id}",
        operation_id="getJobStatus",
        summary="One job in full",
        response_model=JobStatusAnswer,
        responses=problem_documents(404),
    )
    async def status(job_id: str) -> JsonAnswer:
        """Return a job's progress, workers and times."""
        report = await read(indexing.status, require_identifier("job", job_id))
        return JsonAnswer(_status_document(report))

    @router.get("/jobs", operation_id="listJobs", summary="All jobs", response_model=JobsAnswer)
    async def jobs(query: Annotated[JobsQuery, Query()]) -> JsonAnswer:
        """Return jobs, newest first, a page at a time."""
        page = await read(
            indexing.list_jobs, status=query.status, limit=query.limit, cursor=query.cursor
        )
        answer = JobsAnswer(
            jobs=[_summary_document(job) for job in page.items],
            total=page.total,
            next_cursor=page.next_cursor,
        )
        return JsonAnswer(answer)

    @router.post(
        "/jobs/{job_id}/cancel",
        operation_id="cancelJob",
        summary="Cancel a job",
        response_model=JobSummary,
        responses=problem_documents(404, 409),
    )
    async def cancel(job_id: str) -> JsonAnswer:
        """Cancel a waiting job at once, and tell a running one to stop after its chunks.

        What a job has published stays. Cancelling again changes nothing.
        """
        job = await run(indexing.cancel, require_identifier("job", job_id))
        return JsonAnswer(_summary_document(job))

    @router.post(
        "/jobs/{job_id}/retry",
        operation_id="retryJob",
        summary="Retry a job",
        response_model=JobSummary,
        responses=problem_documents(404, 409),
    )
    async def retry(job_id: str) -> JsonAnswer:
        """Queue an ended job again: what was not done, and the images that failed."""
        job = await run(indexing.retry, require_identifier("job", job_id))
        return JsonAnswer(_summary_document(job))

    @router.post(
        "/jobs/{job_id}/confirm",
        operation_id="confirmJob",
        summary="Allow a paused job's removals",
        response_model=JobSummary,
        responses=problem_documents(404, 409),
    )
    async def confirm(job_id: str) -> JsonAnswer:
        """Let a job go on that is paused because many images are gone, and remove them."""
        job = await run(
            indexing.answer_removals, require_identifier("job", job_id), is_allowed=True
        )
        return JsonAnswer(_summary_document(job))

    @router.post(
        "/jobs/{job_id}/refuse",
        operation_id="refuseJob",
        summary="Refuse a paused job's removals",
        response_model=JobSummary,
        responses=problem_documents(404, 409),
    )
    async def refuse(job_id: str) -> JsonAnswer:
        """Let a job go on that is paused because many images are gone, and keep them."""
        job = await run(
            indexing.answer_removals, require_identifier("job", job_id), is_allowed=False
        )
        return JsonAnswer(_summary_document(job))

    @router.get(
        "/jobs/{job_id}/failures",
        operation_id="listJobFailures",
        summary="Images that a job could not index",
        response_model=FailuresAnswer,
        responses=problem_documents(404),
    )
    async def failures(job_id: str, query: Annotated[PageQuery, Query()]) -> JsonAnswer:
        """Return the images that failed, each with a reason word and a sentence."""
        page = await read(
            indexing.failures,
            require_identifier("job", job_id),
            limit=query.limit,
            cursor=query.cursor,
        )
        answer = FailuresAnswer(
            failures=[
                FailureEntry(
                    image_path=failure.image_path,
                    reason=failure.reason,
                    detail=failure.detail,
                    attempts=failure.attempts,
                )
                for failure in page.items
            ],
            total=page.total,
            next_cursor=page.next_cursor,
        )
        return JsonAnswer(answer)

    return router


def _add_rebuild(router: APIRouter, context: ApiContext) -> None:
    indexing = context.services.indexing
    run_on_paths = context.lanes.paths.run

    @router.post(
        "/rebuild",
        operation_id="rebuildIndex",
        summary="Rebuild an index",
        status_code=HTTPStatus.ACCEPTED,
        response_model=TriggerAnswer,
        responses=problem_documents(404, 408, 409, 413, 415),
    )
    async def rebuild(
        request: Request, body: RebuildRequest, idempotency_key: IdempotencyHeader = None
    ) -> JsonAnswer:
        """Make one segment of all, without the rows that are gone, and new search structures.

        Nothing is embedded again, and queries are answered all the while. The server does this
        by itself when enough has changed. The same request while its job is active returns
        that job.
        """
        job = await run_on_paths(
            indexing.rebuild,
            index_prefix=body.index_prefix,
            priority=Priority[body.priority.upper()],
            idempotency=idempotency_of(idempotency_key, principal_of(request), "rebuild", body),
        )
        answer = TriggerAnswer(
            job_id=job.job_id, status=job.status, message=f"The rebuild is {job.status.value}."
        )
        return JsonAnswer(answer, HTTPStatus.ACCEPTED)


def _summary_document(job: Job) -> JobSummary:
    return JobSummary(
        job_id=job.job_id,
        kind=job.kind,
        status=job.status,
        created_at=job.created_at,
        images_count=job.total_images,
    )


def _status_document(report: JobReport) -> JobStatusAnswer:
    job = report.job
    return JobStatusAnswer(
        job_id=job.job_id,
        kind=job.kind,
        status=job.status,
        progress=JobProgress(
            total_images=job.total_images,
            processed_images=job.processed_images,
            failed_images=job.failed_images,
            percent_complete=_percent_complete(job),
        ),
        workers=[
            JobWorker(
                worker_id=worker.worker_id,
                host=worker.host,
                status=worker.status,
                images_processed=worker.images_processed,
                images_per_second=worker.images_per_second,
            )
            for worker in report.workers
        ],
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        estimated_completion=report.estimated_completion,
        error=job.error,
        findings=_findings_document(report.findings),
    )


def _findings_document(found: ScanFindings | None) -> JobFindings | None:
    if found is None:
        return None
    return JobFindings(
        added=found.added,
        changed=found.changed,
        unchanged=found.unchanged,
        unsettled=found.unsettled,
        missing=found.missing,
        moved=found.moved,
        removed=found.removed,
    )


def _percent_complete(job: Job) -> float:
    """Return 0 to 100, rounded down, so that 100 is said only when nothing is left."""
    if job.total_images == 0:  # An empty directory is done when its job is.
        return 100.0 if job.status is JobStatus.COMPLETED else 0.0
    settled = min(job.processed_images, job.total_images)
    return (settled * 1000 // job.total_images) / 10
