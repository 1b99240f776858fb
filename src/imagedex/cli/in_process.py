"""HTTP requests to an application in the same process, without a network."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import httpx
from anyio.from_thread import start_blocking_portal


class InProcessTransport(httpx.BaseTransport):
    """Hands each request to an ASGI application that runs in a thread of its own.

    The thread lasts from here to ``close``, which a client calls when it is closed. An exception
    that the application does not handle is raised by the request, as it would be by a call.
    """

    def __init__(self, asgi_application: Any) -> None:
        self._inner = httpx.ASGITransport(asgi_application)
        self._running = ExitStack()
        self._portal = self._running.enter_context(start_blocking_portal())
        self._is_closed = False

    def close(self) -> None:
        """End the thread. Calling it again does nothing."""
        self._is_closed = True
        self._running.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, with its whole body. Raises httpx.ConnectError once closed."""
        if self._is_closed:
            raise httpx.ConnectError("The application in this process was closed.")
        return self._portal.call(self._answer, request)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        return httpx.Response(
            response.status_code, headers=response.headers, content=content, request=request
        )
