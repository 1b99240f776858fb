"""The pictures themselves, made small."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from imagedex.access import Scope
from imagedex.api.answers import problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.fields import AbsolutePath
from imagedex.api.identifiers import require_identifier

_JPEG_DOCUMENT = {
    "description": "A JPEG, turned upright, at most `size` pixels wide and high.",
    "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
}


class ThumbnailQuery(BaseModel):
    """Which picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(256, ge=16, le=1024, description="Pixels of the longer side.")
    index_prefix: AbsolutePath | None = Field(None, description="By default the server's index.")


def images_router(context: ApiContext) -> APIRouter:
    """Return the calls below ``/api/v1/images``; scope ``query``."""
    router = context.gated_router("/api/v1/images", "images", Scope.QUERY)
    run = context.lanes.pictures.run

    @router.get(
        "/{image_id}/thumbnail",
        operation_id="getThumbnail",
        summary="A small JPEG of an indexed image",
        response_class=Response,
        responses={
            200: _JPEG_DOCUMENT,
            304: {"description": "The picture is the one that If-None-Match names."},
            **problem_documents(404),
        },
    )
    async def thumbnail(
        request: Request, image_id: str, query: Annotated[ThumbnailQuery, Query()]
    ) -> Response:
        """Return the picture. Its ETag changes when the picture does."""
        content = await run(
            context.services.thumbnail,
            require_identifier("image", image_id),
            size=query.size,
            index_prefix=query.index_prefix,
        )
        etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
        # Private, since who holds no key must not get it out of a shared cache.
        headers = {"ETag": etag, "Cache-Control": "private, max-age=300"}
        if etag in _etags_of(request):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(content, headers=headers, media_type="image/jpeg")

    return router


def _etags_of(request: Request) -> list[str]:
    """Return the tags of If-None-Match; weak ones count as equal (RFC 9110, section 13.1.2)."""
    tags = request.headers.get("If-None-Match", "").split(",")
    return [tag.strip().removeprefix("W/") for tag in tags]
