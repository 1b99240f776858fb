"""Everything that the client raises.

ClientError
├── ConnectionFailed          no answer came: nothing listens there, a timeout, a broken line
├── UnexpectedAnswer          an answer came that no Imagedex server gives
└── ServerProblem             the server refused, and says why (RFC 9457)
    ├── AuthenticationRequired  401: no key, or one that is not known
    ├── PermissionRefused       403: the key or the image roots do not allow it
    ├── ResourceMissing         404: no such job, image or key
    ├── RequestConflict         409: the state of things forbids it now
    ├── RequestRejected         400, 413, 415, 422: the request makes no sense as it stands
    └── ServerUnavailable       408, 503: not now; the same call can succeed later
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Base of all errors of the client; its text is fit for a user."""


class ConnectionFailed(ClientError):
    """No answer came. Whether the server acted on the request is not known."""


class UnexpectedAnswer(ClientError):
    """An answer came that no Imagedex server gives; check the URL and the versions."""


class ServerProblem(ClientError):
    """The server refused the request; ``detail`` says why and what would help.

    The fields are those of RFC 9457, https://www.rfc-editor.org/rfc/rfc9457.
    """

    def __init__(
        self,
        *,
        status: int,
        title: str,
        detail: str,
        problem_type: str = "about:blank",
        retry_after_seconds: float | None = None,
        members: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title
        self.detail = detail
        self.problem_type = problem_type
        self.retry_after_seconds = retry_after_seconds
        self.members = members or {}  # The whole problem document, with its own members.


class AuthenticationRequired(ServerProblem):
    """There is no key in the request, or one that is not known."""


class PermissionRefused(ServerProblem):
    """The key does not have the scope, or the path lies outside the image roots."""


class ResourceMissing(ServerProblem):
    """There is no such job, image or key."""


class RequestConflict(ServerProblem):
    """The state of things forbids it now."""


class RequestRejected(ServerProblem):
    """The request makes no sense as it stands, or is too large."""


class ServerUnavailable(ServerProblem):
    """It cannot be done now; ``retry_after_seconds`` is the server's advice, if it gave one."""


PROBLEM_CLASSES: dict[int, type[ServerProblem]] = {
    400: RequestRejected,
    401: AuthenticationRequired,
    403: PermissionRefused,
    404: ResourceMissing,
    408: ServerUnavailable,
    409: RequestConflict,
    410: RequestConflict,
    413: RequestRejected,
    415: RequestRejected,
    422: RequestRejected,
    503: ServerUnavailable,
}
