"""HTTP without a network."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import httpx
import pytest

from imagedex.cli.in_process import InProcessTransport

Message = MutableMapping[str, Any]


async def _echo(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """Answer with the method, the path, the body and the thread; fail below ``/broken``."""
    body = (await receive())["body"]
    if scope["path"] == "/broken":
        raise RuntimeError("broken on purpose")
    thread = threading.current_thread().name
    parts = [scope["method"], scope["path"], body.decode(), thread]
    await send({"type": "http.response.start", "status": 203, "headers": [(b"x-name", b"echo")]})
    for part in parts:
        await send({"type": "http.response.body", "body": f"{part}\n".encode(), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def test_a_request_is_answered_whole_in_another_thread() -> None:
    with httpx.Client(base_url="http://localhost", transport=InProcessTransport(_echo)) as client:
        answer = client.post("/some/path", content=b"the body")

    assert answer.status_code == 203
    assert answer.headers["x-name"] == "echo"
    method, path, body, thread = answer.text.splitlines()
    assert (method, path, body) == ("POST", "/some/path", "the body")
    assert thread != threading.current_thread().name


def test_what_the_application_does_not_handle_is_raised_by_the_call() -> None:
    with (
        httpx.Client(base_url="http://localhost", transport=InProcessTransport(_echo)) as client,
        pytest.raises(RuntimeError, match="broken on purpose"),
    ):
        client.get("/broken")


def test_once_closed_nothing_answers_and_its_thread_is_gone() -> None:
    before = threading.active_count()
    transport = InProcessTransport(_echo)
    transport.close()
    transport.close()

    with pytest.raises(httpx.ConnectError):
        transport.handle_request(httpx.Request("GET", "http://localhost/"))
    assert threading.active_count() == before
