"""Bounds on what one request may send."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagedex.api.problems import BODY_TIMEOUT, BODY_TOO_LARGE, ProblemError, problem_response


class BodyLimits:
    """ASGI middleware that bounds the size of a body and the time that it may take to arrive.

    A body whose Content-Length is too large is refused with 413 before a byte of it is read;
    one without Content-Length is counted as it comes. One that has not arrived whole after
    ``max_seconds``, counted from when it is first asked for, ends with 408, so that a client
    which trickles bytes cannot hold a request open. Both answers close the connection, since
    the rest of the body may still be under way.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, max_seconds: float) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a bounded ``receive``."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        # int() fails for a very long row of digits, and that is too large as well.
        if len(length) > 18 or (length.isdecimal() and int(length) > self._max_bytes):
            error = self._too_large()
            response = problem_response(scope, error.problem, error.detail, headers=error.headers)
            await response(scope, receive, send)
            return
        await self._app(scope, self._bounded(receive), send)

    def _bounded(self, receive: Receive) -> Receive:
        deadline: float | None = None
        received_bytes = 0
        is_complete = False

        async def receive_within_limits() -> Message:
            nonlocal deadline, received_bytes, is_complete
            if is_complete:  # What comes now is the wait for the client to leave.
                return await receive()
            if deadline is None:
                deadline = asyncio.get_running_loop().time() + self._max_seconds
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise ProblemError(
                    BODY_TIMEOUT,
                    f"The body was not complete after {self._max_seconds:g} s; send it faster "
                    "or in smaller requests.",
                    headers={"Connection": "close"},
                ) from error
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._max_bytes:
                raise self._too_large()
            is_complete = not message.get("more_body", False)
            return message

        return receive_within_limits

    def _too_large(self) -> ProblemError:
        return body_too_large(
            self._max_bytes,
            "send less in one request, or raise IMAGEDEX_SERVER__MAX_BODY_BYTES.",
        )


def body_too_large(max_bytes: int, remedy: str) -> ProblemError:
    """Return the error (413) for a body above a limit; its answer closes the connection."""
    return ProblemError(
        BODY_TOO_LARGE,
        f"The body has more than {max_bytes} bytes; {remedy}",
        headers={"Connection": "close"},
    )
