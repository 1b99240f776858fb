"""HTTP connections that cannot be held open, or filled, without end."""

from __future__ import annotations

import asyncio

import structlog
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_log = structlog.get_logger(__name__)

_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\n"
    b"connection: close\r\n"
    b"\r\n"
)


class BoundedHttpProtocol(HttpToolsProtocol):
    """Uvicorn's protocol with bounds on the head of a request, which it has none for.

    A head above ``max_head_bytes`` is answered with 431 (RFC 6585) and the end of the
    connection. A connection is closed when no head is complete ``head_seconds`` after it was
    made, or after the last answer on it. So strangers can neither fill the memory nor take all
    places by many connections on each of which they send a byte now and then.

    Subclass it to set other bounds: uvicorn makes the instances.
    """

    max_head_bytes = 64 * 1024
    head_seconds = 10.0

    _head_timer: asyncio.TimerHandle | None = None
    # Received since a head or a piece of a body was complete. The parser keeps all of it, and
    # reports a header only when it has ended, so the size is counted here. What precedes it in
    # the same piece of input is not told apart, so the bound is exact up to one such piece.
    _pending_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in what arrived; end the connection when it is more than a head may have."""
        self._pending_bytes += len(data)
        super().data_received(data)
        if self._pending_bytes > self.max_head_bytes and not self.transport.is_closing():
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """Start the request, unless its head is too large."""
        self._pending_bytes = 0
        head_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if head_bytes > self.max_head_bytes:
            self._refuse_head()
            # The parser hands it on as an error of the request, for which see below.
            raise ValueError("The head of the request is too large.")
        self._stop_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand a piece of the body on."""
        self._pending_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request; what follows belongs to the next one."""
        self._pending_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, unless its request came with the last one."""
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP, unless it is answered already."""
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _await_head(self) -> None:
        self._stop_timer()
        self._head_timer = self.loop.call_later(self.head_seconds, self._end_waiting)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end_waiting(self) -> None:
        self._head_timer = None
        self.transport.close()

    def _refuse_head(self) -> None:
        _log.warning("request_head_too_large", max_bytes=self.max_head_bytes)
        # In the middle of another answer this one would be taken for a part of it. Before the
        # first request there is no cycle, whatever uvicorn's annotation says.
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]
            self.transport.write(_HEAD_TOO_LARGE)
        self.transport.close()
