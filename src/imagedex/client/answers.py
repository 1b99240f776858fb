"""From an HTTP response to a typed answer, or to the error that it stands for."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from imagedex.client.errors import PROBLEM_CLASSES, ServerProblem, UnexpectedAnswer

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_PROBLEM_JSON = "application/problem+json"


def parse_answer(response: httpx.Response, answer_type: type[AnswerT]) -> AnswerT:
    """Return the body as ``answer_type``. Raises ServerProblem, UnexpectedAnswer."""
    raise_for_problem(response)
    try:
        return answer_type.model_validate_json(response.content)
    except ValidationError as error:
        where = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
            for problem in error.errors()[:3]
        )
        raise UnexpectedAnswer(
            f"{_asked(response)} was answered with something else than Imagedex's "
            f"{answer_type.__name__} ({where}). Check the server's URL and version."
        ) from error


def raise_for_problem(response: httpx.Response) -> None:
    """Raise ServerProblem or UnexpectedAnswer unless the response is a success."""
    if response.is_success:
        return
    if _media_type(response) != _PROBLEM_JSON:
        raise UnexpectedAnswer(
            f"{_asked(response)} was answered with HTTP {response.status_code} "
            "and no problem document, so it is probably not an Imagedex server, or a proxy stands "
            "before it. Check the server's URL."
        )
    members = _problem_members(response)
    problem_class = PROBLEM_CLASSES.get(response.status_code, ServerProblem)
    raise problem_class(
        status=response.status_code,
        title=_text(members, "title") or f"HTTP {response.status_code}",
        detail=_detail(members),
        problem_type=_text(members, "type") or "about:blank",
        retry_after_seconds=_retry_after_seconds(response),
        members=members,
    )


def _problem_members(response: httpx.Response) -> dict[str, Any]:
    try:
        document = response.json()
    except ValueError:
        # The status says enough to act on; a body cut short must not hide it.
        return {}
    return document if isinstance(document, dict) else {}


def _detail(members: dict[str, Any]) -> str:
    """Return the detail with each wrong part of the request that the problem lists."""
    errors = members.get("errors")
    parts = [
        f"{_text(error, 'pointer') or _text(error, 'parameter')}: {_text(error, 'detail')}"
        for error in (errors if isinstance(errors, list) else [])
        if isinstance(error, dict)
    ]
    detail = _text(members, "detail")
    return f"{detail} {'; '.join(parts)}".strip() if parts else detail


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    return value if isinstance(value, str) else ""


def _media_type(response: httpx.Response) -> str:
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


def _retry_after_seconds(response: httpx.Response) -> float | None:
    value: str = response.headers.get("retry-after", "")
    return float(value) if value.isascii() and value.isdigit() else None


def _asked(response: httpx.Response) -> str:
    return f"{response.request.method} {response.request.url}"
