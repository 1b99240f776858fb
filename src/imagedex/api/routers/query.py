"""Finding images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter
from fastapi import Query as QueryParameters
from starlette.requests import Request

from imagedex.access import Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.lanes import Lane, Lanes
from imagedex.api.problems import UNSUPPORTED_BODY, ProblemError
from imagedex.api.queries import PictureQuery
from imagedex.api.requests import QueryRequest
from imagedex.api.schemas import QueryAnswerDocument, QueryIndexStats, QueryResult
from imagedex.core.errors import InvalidRequest, Unavailable
from imagedex.search import ImageTerm, Query, QueryAnswer, Term, TextTerm

_MAX_UPLOADS = 16
_PICTURE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The picture's file, as it is.",
        "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def query_router(context: ApiContext) -> APIRouter:
    """Return the calls below ``/api/v1/query``; scope ``query``."""
    router = context.gated_router("/api/v1", "query", Scope.QUERY)
    services = context.services
    lanes = context.lanes
    read_picture = lanes.uploads.run
    uploads = _Uploads()

    @router.post(
        "/query",
        operation_id="queryImages",
        summary="Find images by describing them, or by an image",
        response_model=QueryAnswerDocument,
        responses=problem_documents(404, 408, 409, 410, 413, 415),
    )
    async def query(body: QueryRequest) -> JsonAnswer:
        """Return the images that fit best, all from one generation of the index."""
        if body.copy_results:
            raise InvalidRequest(
                "copy_results is true, but this version returns paths and copies no files; "
                "send false, or leave it out."
            )
        asked = Query(
            terms=_terms(body),
            top_k=body.top_k,
            image_filter=None if body.filter is None else body.filter.to_filter(),
            min_score=body.min_score,
            duplicate_score=body.duplicate_score if body.collapse_duplicates else None,
        )
        lane = _lane(lanes, asked, body.cursor)
        answer = await lane.run(
            services.search, asked, cursor=body.cursor, index_prefix=body.index_prefix
        )
        return _document(context, answer)

    @router.post(
        "/query/image",
        operation_id="queryByPicture",
        summary="Find images like a picture that is sent",
        response_model=QueryAnswerDocument,
        responses=problem_documents(408, 409, 410, 413, 415),
        openapi_extra=_PICTURE_BODY,
    )
    async def query_by_picture(
        request: Request, parameters: Annotated[PictureQuery, QueryParameters()]
    ) -> JsonAnswer:
        """Return the images most like the picture in the body, which is not kept."""
        content_type = request.headers.get("content-type", "")
        if content_type.lower().startswith("multipart/"):
            raise ProblemError(
                UNSUPPORTED_BODY,
                "The body is a form; send the picture's file as the body itself, as "
                "`curl --data-binary @photo.jpg` does.",
            )
        with uploads.one():
            picture = await read_picture(
                services.read_picture, await request.body(), index_prefix=parameters.index_prefix
            )
        asked = Query(
            terms=(picture,),
            top_k=parameters.top_k,
            image_filter=parameters.to_filter(),
            min_score=parameters.min_score,
            duplicate_score=(
                parameters.duplicate_score if parameters.collapse_duplicates else None
            ),
        )
        lane = _lane(lanes, asked, parameters.cursor)
        answer = await lane.run(
            services.search, asked, cursor=parameters.cursor, index_prefix=parameters.index_prefix
        )
        return _document(context, answer)

    return router


def _lane(lanes: Lanes, asked: Query, cursor: str | None) -> Lane:
    """Return where a query waits: plain ones never for others. A later page may lie deep."""
    return lanes.queries if asked.is_plain and cursor is None else lanes.costly_queries


class _Uploads:
    """Counts the pictures that are in memory, each up to the largest body."""

    def __init__(self) -> None:
        self._count = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold one in the block. Raises Unavailable when there are many already."""
        if self._count >= _MAX_UPLOADS:
            raise Unavailable(f"{self._count} pictures are being read; try again in a moment.")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


def _terms(body: QueryRequest) -> tuple[Term, ...]:
    given = [value for value in (body.text, body.image_id, body.terms) if value is not None]
    if len(given) != 1:
        raise InvalidRequest(
            f"{len(given)} of text, image_id and terms are given, expected exactly one; terms "
            "takes several texts and images."
        )
    if body.text is not None:
        return (TextTerm(body.text),)
    if body.image_id is not None:
        return (ImageTerm(body.image_id),)
    terms = []
    for number, document in enumerate(body.terms or ()):
        term = document.to_term()
        if term is None:
            raise InvalidRequest(f"terms[{number}] must have either a text or an image_id.")
        terms.append(term)
    return tuple(terms)


def _document(context: ApiContext, answer: QueryAnswer) -> JsonAnswer:
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
                stands_for=result.stands_for,
            )
            for result in answer.results
        ],
        query_time_seconds=answer.query_time_seconds,
        index_stats=QueryIndexStats(total_images=answer.total_images, model=answer.model_name),
        next_cursor=answer.next_cursor,
    )
    return JsonAnswer(document)
