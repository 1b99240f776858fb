"""Errors on the wire: RFC 9457 ``application/problem+json`` for everything that goes wrong.

This is the one place that knows which error has which HTTP status.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from imagedex.core import errors

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of problem that clients can tell apart by its URI."""

    slug: str
    status: int
    title: str
    is_public: bool = False  # The error's text names nothing that a stranger may not know.

    @property
    def uri(self) -> str:
        """The stable name of the kind; it is not an address."""
        return f"urn:imagedex:problem:{self.slug}"

    @property
    def is_concealed(self) -> bool:
        """Whether the error's own text, which may name files, is for the log alone."""
        return self.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not self.is_public


INVALID_REQUEST = ProblemType("invalid-request", 422, "The request makes no sense as it stands")
BODY_TOO_LARGE = ProblemType("body-too-large", 413, "The request body is too large")
BODY_TOO_COMPLEX = ProblemType("body-too-complex", 422, "The request body has too many entries")
BODY_TIMEOUT = ProblemType("body-timeout", 408, "The request body did not arrive in time")
NOT_JSON = ProblemType("not-json", 415, "The request body is not declared as JSON")
UNSUPPORTED_BODY = ProblemType("unsupported-body", 415, "The request body is of another kind")
NOT_READY = ProblemType("not-ready", 503, "The server is not ready to answer")
INTERNAL_ERROR = ProblemType("internal-error", 500, "The server failed")

_UNAVAILABLE = ProblemType("unavailable", 503, "It cannot be done now")
_ENGINE_ERROR = ProblemType("engine-error", 503, "The workers cannot be reached")
_LEASE_LOST = ProblemType("lease-lost", 409, "Another owner has taken over")

PROBLEM_OF_ERROR: Mapping[type[errors.ImagedexError], ProblemType] = {
    errors.ImagedexError: INTERNAL_ERROR,
    errors.SettingsError: INTERNAL_ERROR,
    errors.HomeInUse: INTERNAL_ERROR,
    errors.HostRefused: INTERNAL_ERROR,
    errors.InvalidRequest: INVALID_REQUEST,
    errors.PermissionDenied: ProblemType("permission-denied", 403, "The key may not do this"),
    errors.OutsideImageRoots: ProblemType(
        "outside-image-roots", 403, "The path lies outside the image roots"
    ),
    errors.OutsideIndexRoots: ProblemType(
        "outside-index-roots", 403, "The index prefix is not allowed"
    ),
    errors.AuthenticationFailed: ProblemType(
        "authentication-failed", 401, "A valid API key is needed"
    ),
    errors.NotFound: ProblemType("not-found", 404, "There is no such thing"),
    errors.CursorExpired: ProblemType(
        "cursor-expired", 410, "The pages of this query cannot go on"
    ),
    errors.Conflict: ProblemType("conflict", 409, "The state of things forbids it now"),
    errors.FingerprintMismatch: ProblemType(
        "fingerprint-mismatch", 409, "The index was made with another model"
    ),
    errors.LeaseLost: _LEASE_LOST,
    errors.OwnershipLost: _LEASE_LOST,
    errors.Superseded: ProblemType("superseded", 409, "The index has changed meanwhile"),
    errors.Unavailable: _UNAVAILABLE,
    errors.HostUnreachable: _UNAVAILABLE,
    errors.NoWorkers: ProblemType("no-workers", 503, "No worker is connected"),
    errors.ModelError: ProblemType("model-error", 503, "The embedding model cannot be used"),
    errors.ModelNotInstalled: ProblemType(
        "model-not-installed", 503, "The embedding model is not installed", is_public=True
    ),
    errors.EngineError: _ENGINE_ERROR,
    errors.UnfitWorker: _ENGINE_ERROR,
    errors.WorkerLost: ProblemType("worker-lost", 503, "The worker died"),
    errors.ChunkStopped: ProblemType("chunk-stopped", 503, "The work was stopped"),
    errors.StorageError: ProblemType("storage-error", 503, "The storage cannot be read or written"),
    errors.CorruptIndex: ProblemType("corrupt-index", 503, "The index's files are damaged"),
}


class ProblemError(Exception):
    """A problem of the HTTP exchange itself, raised by the API's own modules."""

    def __init__(
        self,
        problem: ProblemType,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        extensions: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.problem = problem
        self.detail = detail
        self.headers = headers
        self.extensions = extensions


def problem_of(error: errors.ImagedexError) -> ProblemType:
    """Return the kind that the error's class, or the nearest class above it, stands for."""
    for cls in type(error).__mro__:
        if cls in PROBLEM_OF_ERROR:
            return PROBLEM_OF_ERROR[cls]
    raise AssertionError("ImagedexError itself has a kind.")  # pragma: no cover


def problem_response(
    scope: Scope,
    problem: ProblemType,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    extensions: Mapping[str, Any] | None = None,
) -> Response:
    """Return the problem as a response; members that RFC 9457 defines cannot be overwritten."""
    members = {
        **(extensions or {}),
        "type": problem.uri,
        "title": problem.title,
        "status": problem.status,
        "detail": detail,
        "request_id": request_id_of(scope),
    }
    # Plain ASCII, because a detail can quote a file name that UTF-8 cannot carry.
    content = json.dumps(members, ensure_ascii=True, separators=(",", ":"))
    return Response(content, problem.status, headers=headers, media_type=MEDIA_TYPE)


def request_id_of(scope: Scope) -> str | None:
    """Return the id under which the log knows this request."""
    state: dict[str, Any] = scope.get("state", {})
    request_id: str | None = state.get("request_id")
    return request_id


def internal_error_response(scope: Scope) -> Response:
    """Return the answer to an error that nobody foresaw: the request's id and nothing else."""
    return problem_response(scope, INTERNAL_ERROR, _concealing_detail(INTERNAL_ERROR))


async def answer_problem_error(request: Request, error: Exception) -> Response:
    """Answer a :class:`ProblemError`."""
    if not isinstance(error, ProblemError):
        raise error
    return problem_response(
        request.scope,
        error.problem,
        error.detail,
        headers=error.headers,
        extensions=error.extensions,
    )


async def answer_imagedex_error(request: Request, error: Exception) -> Response:
    """Answer an error that a service raised on purpose."""
    if not isinstance(error, errors.ImagedexError):
        raise error
    problem = problem_of(error)
    headers: dict[str, str] = {}
    if problem.is_concealed:
        # Being busy is no defect, and a traceback for each refusal would keep it busier.
        traceback = None if isinstance(error, errors.Unavailable) else error
        _log.error("request_failed", problem=problem.slug, reason=str(error), exc_info=traceback)
        if error.retryable:
            headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    elif problem.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = 'Bearer realm="imagedex"'
    detail = _concealing_detail(problem) if problem.is_concealed else str(error)
    return problem_response(request.scope, problem, detail, headers=headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """Answer what the framework raises itself: no such route, wrong method."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    problem = ProblemType(phrase.lower().replace(" ", "-"), error.status_code, phrase)
    detail = {
        HTTPStatus.NOT_FOUND: "There is nothing at this path; GET /docs lists all calls.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This path exists but not for this method; "
        "the Allow header lists those it has.",
    }.get(HTTPStatus(error.status_code), str(error.detail))
    return problem_response(request.scope, problem, detail, headers=error.headers)


def _concealing_detail(problem: ProblemType) -> str:
    return f"{problem.title}; the server's log gives the reason under this request's id."
