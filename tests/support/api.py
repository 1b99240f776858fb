"""Calling the API in this process, and what can be called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import structlog
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI

from imagedex.core.ids import image_id_of

JOB_ID = "idx_20251114_123456_7f3a"


@contextmanager
def plain_log() -> Iterator[None]:
    """Write each log entry as a line of JSON; structlog draws tracebacks by default, slowly."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    try:
        yield
    finally:
        structlog.reset_defaults()


class ApiClient:
    """Calls the API as a server would, errors that nobody foresaw included."""

    def __init__(self, portal: BlockingPortal, api: FastAPI) -> None:
        self._portal = portal
        transport = httpx.ASGITransport(api, raise_app_exceptions=False)
        self._client = httpx.AsyncClient(
            transport=transport,
            base_url="http://imagedex.test",
            trust_env=False,  # A proxy in the environment would cost a TLS context per client.
        )

    def call(
        self, method: str, url: str, *, key: str | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request and return the whole answer."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["X-API-Key"] = key
        return self._portal.call(
            partial(self._client.request, method, url, headers=headers, **options)
        )


@dataclass(frozen=True)
class Call:
    """A call that succeeds with the right key, on an index that holds ``photos/0.jpg``."""

    method: str
    path: str
    template: str
    scopes: frozenset[str]  # Each of them alone is enough; admin always is.
    body: dict[str, Any] | None = None
    needs_job: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.template}"


def gated_calls(photos: Path) -> list[Call]:
    """Return every call that needs a key."""
    index = frozenset({"index"})
    query = frozenset({"query"})
    job = f"/api/v1/index/jobs/{JOB_ID}"
    jobs = "/api/v1/index/jobs/{job_id}"
    image = image_id_of(f"{photos}/0.jpg")
    return [
        Call("POST", "/api/v1/query", "/api/v1/query", query, {"text": "a dog"}),
        # Any bytes are a picture to the application in memory.
        Call("POST", "/api/v1/query/image", "/api/v1/query/image", query, {}),
        Call(
            "POST",
            "/api/v1/index/trigger",
            "/api/v1/index/trigger",
            index,
            {"image_dir": str(photos)},
        ),
        Call(
            "POST",
            "/api/v1/index/notify",
            "/api/v1/index/notify",
            index,
            {"image_paths": [f"{photos}/0.jpg"]},
        ),
        Call("POST", "/api/v1/index/rebuild", "/api/v1/index/rebuild", index, {}),
        Call(
            "POST",
            "/api/v1/index/model",
            "/api/v1/index/model",
            frozenset({"admin"}),
            {"model": "bundled"},
        ),
        Call(
            "GET",
            f"/api/v1/index/status/{JOB_ID}",
            "/api/v1/index/status/{job_id}",
            index,
            needs_job=True,
        ),
        Call("GET", "/api/v1/index/jobs", "/api/v1/index/jobs", index),
        Call("POST", f"{job}/cancel", f"{jobs}/cancel", index, needs_job=True),
        Call("POST", f"{job}/retry", f"{jobs}/retry", index, needs_job=True),
        Call("POST", f"{job}/confirm", f"{jobs}/confirm", index, needs_job=True),
        Call("POST", f"{job}/refuse", f"{jobs}/refuse", index, needs_job=True),
        Call("GET", f"{job}/failures", f"{jobs}/failures", index, needs_job=True),
        Call("GET", "/api/v1/index/stats", "/api/v1/index/stats", frozenset({"index", "query"})),
        Call(
            "GET",
            f"/api/v1/images/{image}/thumbnail",
            "/api/v1/images/{image_id}/thumbnail",
            query,
        ),
        Call("GET", "/api/v1/snapshots", "/api/v1/snapshots", frozenset()),
        Call("POST", "/api/v1/snapshots", "/api/v1/snapshots", frozenset(), {"name": "new"}),
        Call(
            "POST",
            "/api/v1/snapshots/kept/restore",
            "/api/v1/snapshots/{name}/restore",
            frozenset(),
            {},
        ),
        Call("DELETE", "/api/v1/snapshots/kept", "/api/v1/snapshots/{name}", frozenset()),
        Call(
            "POST",
            "/api/v1/keys",
            "/api/v1/keys",
            frozenset(),
            {"name": "uploader", "scopes": ["index"]},
        ),
        Call("GET", "/api/v1/keys", "/api/v1/keys", frozenset()),
        Call("DELETE", "/api/v1/keys/{made}", "/api/v1/keys/{key_id}", frozenset()),
        Call("GET", "/metrics", "/metrics", frozenset({"index", "query"})),
    ]
