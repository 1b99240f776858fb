"""API keys."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import Response

from imagedex.access import ApiKey, Scope
from imagedex.api.answers import JsonAnswer, problem_documents
from imagedex.api.context import ApiContext
from imagedex.api.identifiers import require_identifier
from imagedex.api.requests import KeyRequest
from imagedex.api.schemas import KeyAnswer, KeysAnswer, NewKeyAnswer


def keys_router(context: ApiContext) -> APIRouter:
    """Return the calls below ``/api/v1/keys``; scope ``admin``."""
    router = context.gated_router("/api/v1/keys", "keys", Scope.ADMIN)
    keys = context.services.keys
    run = context.lanes.control.run

    @router.post(
        "",
        operation_id="createKey",
        summary="Make a key",
        status_code=HTTPStatus.CREATED,
        response_model=NewKeyAnswer,
        responses=problem_documents(408, 413, 415),
    )
    async def create(body: KeyRequest) -> JsonAnswer:
        """Make a key and return its secret, which cannot be had again."""
        key, secret = await run(keys.create, body.name, body.scopes)
        answer = NewKeyAnswer(**_key_document(key).model_dump(), secret=secret)
        return JsonAnswer(answer, HTTPStatus.CREATED)

    @router.get("", operation_id="listKeys", summary="All keys", response_model=KeysAnswer)
    async def list_keys() -> JsonAnswer:
        """Return all keys, revoked ones included, without their secrets."""
        found = await run(keys.list)
        return JsonAnswer(KeysAnswer(keys=[_key_document(key) for key in found]))

    @router.delete(
        "/{key_id}",
        operation_id="revokeKey",
        summary="Revoke a key",
        status_code=HTTPStatus.NO_CONTENT,
        response_class=Response,
        responses=problem_documents(404, 409),
    )
    async def revoke(key_id: str) -> Response:
        """End a key at once and for good; ending it again changes nothing."""
        await run(keys.revoke, require_identifier("key", key_id))
        return Response(status_code=HTTPStatus.NO_CONTENT)

    return router


def _key_document(key: ApiKey) -> KeyAnswer:
    return KeyAnswer(
        key_id=key.key_id,
        name=key.name,
        scopes=sorted(key.scopes),
        created_at=key.created_at,
        revoked_at=key.revoked_at,
    )
