"""The state of an index."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from imagedex.access import Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.fields import AbsolutePath
from imagedex.api.schemas import IndexSize, StatsAnswer


class StatsQuery(BaseModel):
    """Which index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


def stats_router(context: ApiContext) -> APIRouter:
    """Return ``/api/v1/index/stats``; scope ``query`` or ``index``."""
    router = context.gated_router("/api/v1/index", "index", Scope.QUERY, Scope.INDEX)

    @router.get(
        "/stats",
        operation_id="getIndexStats",
        summary="The state of the index",
        response_model=StatsAnswer,
        responses=problem_documents(404, 409),
    )
    async def stats(query: Annotated[StatsQuery, Query()]) -> JsonAnswer:
        """Return model, number of images, generation and size."""
        found = await context.lanes.stats.run(context.services.indexing.stats, query.index_prefix)
        answer = StatsAnswer(
            model_name=found.model_name,
            embedding_dim=found.embedding_dim,
            num_images=found.num_images,
            num_failed=found.num_failed,
            last_updated=found.last_updated,
            generation=found.generation,
            index_size_bytes=IndexSize(
                faiss=found.faiss_bytes,
                parquet=found.parquet_bytes,
                total=found.faiss_bytes + found.parquet_bytes,
            ),
        )
        return JsonAnswer(answer)

    return router
