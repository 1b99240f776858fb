"""What a client gets to read when its request does not fit the schema."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from imagedex.api.problems import INVALID_REQUEST, problem_response

# A body can hold ten thousand wrong entries, and field names as long as itself.
MAX_ERRORS = 20
MAX_PART_LENGTH = 100


async def answer_validation_error(request: Request, error: Exception) -> Response:
    """Answer with 422 and an ``errors`` list in the form of RFC 9457, section 3.

    Each entry has a ``detail`` and says where: a JSON Pointer (RFC 6901) into the body as
    ``pointer``, or the ``parameter`` of the query, path or header. Values that were sent are
    never repeated.
    """
    if not isinstance(error, RequestValidationError):
        raise error
    entries = [_describe(found) for found in error.errors()[:MAX_ERRORS]]
    first = entries[0]
    where = first.get("parameter") or first.get("pointer", "")
    return problem_response(
        request.scope,
        INVALID_REQUEST,
        f"{where}: {first['detail']}",
        extensions={"errors": entries},
    )


def _describe(found: dict[str, Any]) -> dict[str, str]:
    place, *parts = found["loc"]
    if place == "body":
        return {"detail": found["msg"], "pointer": _pointer(parts)}
    return {"detail": found["msg"], "parameter": str(parts[0])[:MAX_PART_LENGTH] if parts else ""}


def _pointer(parts: Sequence[str | int]) -> str:
    escaped = [str(part)[:MAX_PART_LENGTH].replace("~", "~0").replace("/", "~1") for part in parts]
    return "".join(["#", *(f"/{part}" for part in escaped)])
