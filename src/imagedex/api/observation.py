"""Around every request: its id, its headers, its line in the log, its place in the metrics."""

from __future__ import annotations

import re
import secrets
import time

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imagedex.access import Principal
from imagedex.api.metrics import Metrics
from imagedex.api.problems import internal_error_response

REQUEST_ID_HEADER = "X-Request-ID"

# Set where the route has not set them itself; pages and pictures have policies of their own.
DEFAULT_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE = "none"  # All unknown paths share one label, or strangers could fill the memory.
_CLIENT_LEFT = 499  # What nginx logs for a client that left before the answer.

_log = structlog.get_logger(__name__)


class Observation:
    """ASGI middleware that observes requests and answers those that fail unforeseen.

    A client's ``X-Request-ID`` is taken over when it is short and plain, else one is made; it
    is in the answer, in every log line of the request, and in problem documents. Keys never
    appear in the log, only their ids.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status = _CLIENT_LEFT
        has_started = False

        async def send_observed(message: Message) -> None:
            nonlocal status, has_started
            if message["type"] == "http.response.start":
                has_started = True
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[REQUEST_ID_HEADER] = request_id
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        started = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_observed)
            except ClientDisconnect:
                pass  # Nobody is left to answer; the line below says what happened.
            except Exception:
                # Whatever nobody foresaw ends here, so that its text reaches the log only.
                _log.exception("request_crashed")
                if has_started:
                    raise  # The server must cut the connection, or half an answer looks whole.
                await internal_error_response(scope)(scope, receive, send_observed)
            finally:
                self._record(scope, status, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.requests.labels(route, method, status).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        principal: Principal | None = scope["state"].get("principal")
        _log.info(
            "request",
            method=method,
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            key_id=None if principal is None else principal.key_id,
        )


def _request_id(scope: Scope) -> str:
    sent = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
    return sent if _SANE_REQUEST_ID.fullmatch(sent) else secrets.token_hex(8)
