"""Snapshots: states of an index that are kept."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from imagedex.access import Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.requests import RestoreRequest, SnapshotRequest
from imagedex.api.routers.stats import StatsQuery
from imagedex.api.schemas import SnapshotEntry, SnapshotReceipt, SnapshotsAnswer, TriggerAnswer
from imagedex.segments import Snapshot


def snapshots_router(context: ApiContext) -> APIRouter:
    """Return the calls below ``/api/v1/snapshots``; scope ``admin``."""
    router = context.gated_router("/api/v1/snapshots", "snapshots", Scope.ADMIN)
    snapshots = context.services.snapshots
    run_on_paths = context.lanes.paths.run

    @router.get(
        "", operation_id="listSnapshots", summary="All snapshots", response_model=SnapshotsAnswer
    )
    async def list_snapshots(query: Annotated[StatsQuery, Query()]) -> JsonAnswer:
        """Return the snapshots of an index, oldest first, and which cannot be read."""
        found = await run_on_paths(snapshots.list, query.index_prefix)
        answer = SnapshotsAnswer(
            snapshots=[_document(one) for one in found if isinstance(one, Snapshot)],
            damaged=[str(one) for one in found if not isinstance(one, Snapshot)],
        )
        return JsonAnswer(answer)

    @router.post(
        "",
        operation_id="createSnapshot",
        summary="Make a snapshot",
        status_code=HTTPStatus.ACCEPTED,
        response_model=SnapshotReceipt,
        responses=problem_documents(404, 408, 409, 413, 415),
    )
    async def create(body: SnapshotRequest) -> JsonAnswer:
        """Keep the generation that is current, under a name, whole or not at all.

        Queries and other jobs go on meanwhile.
        """
        job, name = await run_on_paths(snapshots.create, body.name, index_prefix=body.index_prefix)
        answer = SnapshotReceipt(job_id=job.job_id, status=job.status, name=name)
        return JsonAnswer(answer, HTTPStatus.ACCEPTED)

    @router.post(
        "/{name}/restore",
        operation_id="restoreSnapshot",
        summary="Go back to a snapshot",
        status_code=HTTPStatus.ACCEPTED,
        response_model=TriggerAnswer,
        responses=problem_documents(404, 408, 409, 413, 415),
    )
    async def restore(name: str, body: RestoreRequest) -> JsonAnswer:
        """Publish a snapshot as a new generation, before other jobs of its index.

        What was indexed or removed since is found by the next scan.
        """
        job = await run_on_paths(snapshots.restore, name, index_prefix=body.index_prefix)
        answer = TriggerAnswer(
            job_id=job.job_id,
            status=job.status,
            message=f"The return to snapshot {name!r} is {job.status.value}.",
        )
        return JsonAnswer(answer, HTTPStatus.ACCEPTED)

    @router.delete(
        "/{name}",
        operation_id="deleteSnapshot",
        summary="Delete a snapshot",
        status_code=HTTPStatus.NO_CONTENT,
        response_class=Response,
        responses=problem_documents(404),
    )
    async def delete(name: str, query: Annotated[StatsQuery, Query()]) -> Response:
        """Delete a snapshot; its index stays as it is."""
        await run_on_paths(snapshots.delete, name, index_prefix=query.index_prefix)
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return router


def _document(made: Snapshot) -> SnapshotEntry:
    return SnapshotEntry(
        name=made.name,
        created_at=made.created_at,
        generation=made.manifest.generation,
        num_images=made.manifest.images,
        num_failed=made.failed_images,
        bytes=made.bytes,
        model_name=made.manifest.model_name,
    )
