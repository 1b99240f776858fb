"""Answers: JSON that is written once, and the description of problems in OpenAPI."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from imagedex.api.problems import MEDIA_TYPE


class JsonAnswer(Response):
    """A document as JSON.

    Returned by a route as it is: FastAPI would validate and convert a model a second time.
    """

    media_type = "application/json"

    def __init__(self, document: BaseModel, status_code: int = HTTPStatus.OK) -> None:
        super().__init__(document.model_dump_json(), status_code)


def problem_documents(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what OpenAPI says of these error statuses."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }
