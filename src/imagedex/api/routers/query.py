"""Finding images."""

from __future__ import annotations

from fastapi import APIRouter

from imagedex.access import Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.schemas import (
    QueryAnswerDocument,
    QueryIndexStats,
    QueryRequest,
    QueryResult,
)
from imagedex.core.errors import InvalidRequest


def query_router(context: ApiContext) -> APIRouter:
    """Return ``/api/v1/query``; scope ``query``."""
    router = context.gated_router("/api/v1", "query", Scope.QUERY)
    services = context.services
    run = context.lanes.queries.run

    @router.post(
        "/query",
        operation_id="queryImages",
        summary="Find images by describing them",
        response_model=QueryAnswerDocument,
        responses=problem_documents(408, 409, 413, 415),
    )
    async def query(body: QueryRequest) -> JsonAnswer:
        """Return the images that fit a text best, all from one generation of the index."""
        if body.copy_results:
            raise InvalidRequest(
                "copy_results is true, but this version returns paths and copies no files; "
                "send false, or leave it out."
            )
        answer = await run(
            services.query, body.text, top_k=body.top_k, index_prefix=body.index_prefix
        )
        context.metrics.query_seconds.labels(str(answer.is_cached).lower()).observe(
            answer.query_time_seconds
        )
        document = QueryAnswerDocument(
            query=answer.query,
            query_cut=answer.is_text_cut,
            results=[
                QueryResult(
                    rank=result.rank,
                    score=result.score,
                    image_path=result.image_path,
                    image_id=result.image_id,
                )
                for result in answer.results
            ],
            query_time_seconds=answer.query_time_seconds,
            index_stats=QueryIndexStats(total_images=answer.total_images, model=answer.model_name),
        )
        return JsonAnswer(document)

    return router
