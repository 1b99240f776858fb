"""The model of an index."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from starlette.requests import Request

from imagedex.access import Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.idempotency import IdempotencyHeader, idempotency_of
from imagedex.api.requests import ModelRequest
from imagedex.api.schemas import TriggerAnswer
from imagedex.api.security import principal_of
from imagedex.embedding.runtimes import Precision
from imagedex.jobs.records import Priority


def model_router(context: ApiContext) -> APIRouter:
    """Return the call that changes the model of an index; scope ``admin``."""
    router = context.gated_router("/api/v1/index", "index", Scope.ADMIN)
    indexing = context.services.indexing
    run_on_paths = context.lanes.paths.run

    @router.post(
        "/model",
        operation_id="changeModel",
        summary="Give an index another model",
        status_code=HTTPStatus.ACCEPTED,
        response_model=TriggerAnswer,
        responses=problem_documents(404, 408, 409, 413, 415),
    )
    async def change_model(
        request: Request, body: ModelRequest, idempotency_key: IdempotencyHeader = None
    ) -> JsonAnswer:
        """Embed all images anew with another model, and then swap.

        Until then queries are answered with the old vectors, and other jobs add to these. The same
        request while its job is active returns that job.
        """
        job = await run_on_paths(
            indexing.change_model,
            body.model,
            precision=None if body.precision is None else Precision(body.precision),
            index_prefix=body.index_prefix,
            priority=Priority[body.priority.upper()],
            idempotency=idempotency_of(idempotency_key, principal_of(request), "model", body),
        )
        answer = TriggerAnswer(
            job_id=job.job_id,
            status=job.status,
            message=f"The change to the model {body.model!r} is {job.status.value}.",
        )
        return JsonAnswer(answer, HTTPStatus.ACCEPTED)

    return router
