"""The calls."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel

import imagedex
from imagedex.client.answers import parse_answer, raise_for_problem
from imagedex.client.errors import ClientError, ConnectionFailed, ServerUnavailable
from imagedex.client.wire import (
    CreatedKey,
    Failure,
    FailurePage,
    IndexStats,
    JobPage,
    JobState,
    JobSummary,
    Key,
    KeyList,
    NotifyReceipt,
    QueryAnswer,
    SnapshotList,
    SnapshotReceipt,
    TriggerReceipt,
)

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_FIRST_POLL_SECONDS = 0.1
_LONGEST_POLL_SECONDS = 1.0
_LARGEST_PAGE = 1000


class ImagedexClient:
    """Speaks to one Imagedex server. Safe to call from several threads.

    Every call raises a ClientError when it fails: ConnectionFailed when no answer came,
    ServerProblem when the server refused, UnexpectedAnswer when it is no Imagedex server.

    Parameters
    ----------
    url:
        Where the server is, for example ``http://127.0.0.1:8080``.
    api_key:
        A key whose scopes cover the calls that are made.
    timeout_seconds:
        The longest wait for the server between two bytes of an answer.
    transport:
        How requests travel, if not over the network (an application in the same process).
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout_seconds: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = _checked_url(url)
        if not api_key.isascii() or not api_key.isprintable():
            # httpx would fail later, and with a message that contains the key.
            raise ClientError("The API key holds characters that no key has; copy it again.")
        self._http = httpx.Client(
            base_url=self._url,
            headers={
                "X-API-Key": api_key,
                "User-Agent": f"imagedex-client/{imagedex.__version__}",
            },
            timeout=httpx.Timeout(timeout_seconds, connect=10.0),
            transport=transport,
            # A proxy of the environment cannot reach this machine's loopback.
            trust_env=not _is_loopback(self._url),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def trigger(
        self,
        image_dir: str,
        *,
        index_prefix: str | None = None,
        force_reindex: bool = False,
        ignore: Sequence[str] = (),
        priority: str = "normal",
        idempotency_key: str | None = None,
    ) -> TriggerReceipt:
        """Request that a directory be scanned and its new and changed images be indexed."""
        body: dict[str, Any] = {
            "image_dir": image_dir,
            "force_reindex": force_reindex,
            "priority": priority,
        }
        body |= _given(index_prefix=index_prefix, ignore=list(ignore) or None)
        return self._post("/api/v1/index/trigger", body, TriggerReceipt, idempotency_key)

    def notify(
        self,
        image_paths: Sequence[str],
        *,
        index_prefix: str | None = None,
        priority: str = "normal",
        idempotency_key: str | None = None,
    ) -> NotifyReceipt:
        """Request that images, which may be new, changed or gone, be brought up to date."""
        body: dict[str, Any] = {"image_paths": list(image_paths), "priority": priority}
        body |= _given(index_prefix=index_prefix)
        return self._post("/api/v1/index/notify", body, NotifyReceipt, idempotency_key)

    def rebuild(
        self,
        *,
        index_prefix: str | None = None,
        priority: str = "normal",
        idempotency_key: str | None = None,
    ) -> TriggerReceipt:
        """Request that all segments of an index become one, with new search structures."""
        body = {"priority": priority} | _given(index_prefix=index_prefix)
        return self._post("/api/v1/index/rebuild", body, TriggerReceipt, idempotency_key)

    def snapshots(self, *, index_prefix: str | None = None) -> SnapshotList:
        """Return the snapshots of an index, oldest first."""
        params = _given(index_prefix=index_prefix)
        return parse_answer(self._send("GET", "/api/v1/snapshots", params=params), SnapshotList)

    def create_snapshot(
        self,
        name: str | None = None,
        *,
        index_prefix: str | None = None,
    ) -> SnapshotReceipt:
        """Request that the current generation be kept; the snapshot is there when the job ends."""
        body = _given(name=name, index_prefix=index_prefix)
        return self._post("/api/v1/snapshots", body, SnapshotReceipt)

    def restore_snapshot(self, name: str, *, index_prefix: str | None = None) -> TriggerReceipt:
        """Request that a snapshot become the current generation, as a new one."""
        path = f"/api/v1/snapshots/{_part(name)}/restore"
        return self._post(path, _given(index_prefix=index_prefix), TriggerReceipt)

    def delete_snapshot(self, name: str, *, index_prefix: str | None = None) -> None:
        """Delete a snapshot; the index stays as it is."""
        params = _given(index_prefix=index_prefix)
        raise_for_problem(self._send("DELETE", f"/api/v1/snapshots/{_part(name)}", params=params))

    def change_model(
        self,
        model: str,
        *,
        precision: str | None = None,
        index_prefix: str | None = None,
        priority: str = "normal",
        idempotency_key: str | None = None,
    ) -> TriggerReceipt:
        """Request that an index be embedded anew with another model, and then have that one."""
        body = {"model": model, "priority": priority}
        body |= _given(precision=precision, index_prefix=index_prefix)
        return self._post("/api/v1/index/model", body, TriggerReceipt, idempotency_key)

    def status(self, job_id: str) -> JobState:
        """Return a job's state."""
        return parse_answer(self._send("GET", f"/api/v1/index/status/{_part(job_id)}"), JobState)

    def jobs(
        self, *, status: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> JobPage:
        """Return jobs, newest first; ``next_cursor`` of the page leads to the older ones."""
        params = _given(status=status, limit=limit, cursor=cursor)
        return parse_answer(self._send("GET", "/api/v1/index/jobs", params=params), JobPage)

    def cancel(self, job_id: str) -> JobSummary:
        """Cancel a job; a running one ends after the batch at hand. Return it as it is now."""
        path = f"/api/v1/index/jobs/{_part(job_id)}/cancel"
        return parse_answer(self._send("POST", path), JobSummary)

    def retry(self, job_id: str) -> JobSummary:
        """Queue a job again for what failed or was not done. Returns the job as it is now."""
        path = f"/api/v1/index/jobs/{_part(job_id)}/retry"
        return parse_answer(self._send("POST", path), JobSummary)

    def confirm(self, job_id: str) -> JobSummary:
        """Let a paused job remove the images that it asked about. Returns the job as it is now."""
        path = f"/api/v1/index/jobs/{_part(job_id)}/confirm"
        return parse_answer(self._send("POST", path), JobSummary)

    def refuse(self, job_id: str) -> JobSummary:
        """Let a paused job go on without the removals that it asked about."""
        path = f"/api/v1/index/jobs/{_part(job_id)}/refuse"
        return parse_answer(self._send("POST", path), JobSummary)

    def failures(self, job_id: str, *, limit: int = 100, cursor: str | None = None) -> FailurePage:
        """Return images that a job could not index, in order of path."""
        path = f"/api/v1/index/jobs/{_part(job_id)}/failures"
        params = _given(limit=limit, cursor=cursor)
        return parse_answer(self._send("GET", path, params=params), FailurePage)

    def all_failures(self, job_id: str) -> Iterator[Failure]:
        """Yield every image that a job could not index, fetching page after page."""
        cursor: str | None = None
        while True:
            page = self.failures(job_id, limit=_LARGEST_PAGE, cursor=cursor)
            yield from page.failures
            cursor = page.next_cursor
            if cursor is None:
                return

    def query(
        self,
        text: str | None = None,
        *,
        image_id: str | None = None,
        terms: Sequence[Mapping[str, Any]] | None = None,
        top_k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name.
        min_score: float | None = None,
        collapse_duplicates: bool = False,
        duplicate_score: float | None = None,
        cursor: str | None = None,
        index_prefix: str | None = None,
    ) -> QueryAnswer:
        """Find the images that a text describes best, or that are most like an image.

        One of ``text``, ``image_id`` and ``terms``, a list of ``{"text" or "image_id": ...,
        "weight": ...}``. The filter has the fields of the REST API, times as ISO 8601. For the
        next page, send the same with the ``next_cursor`` of the answer.
        """
        body: dict[str, Any] = {"top_k": top_k}
        body |= _given(
            collapse_duplicates=collapse_duplicates or None,
            text=text,
            image_id=image_id,
            terms=None if terms is None else [dict(term) for term in terms],
            filter=None if filter is None else dict(filter),
            min_score=min_score,
            duplicate_score=duplicate_score,
            cursor=cursor,
            index_prefix=index_prefix,
        )
        return self._post("/api/v1/query", body, QueryAnswer)

    def query_picture(
        self,
        picture: bytes,
        *,
        top_k: int = 10,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the API's name.
        min_score: float | None = None,
        collapse_duplicates: bool = False,
        duplicate_score: float | None = None,
        cursor: str | None = None,
        index_prefix: str | None = None,
    ) -> QueryAnswer:
        """Find the images most like a picture, given the bytes of its file.

        The filter is as for ``query``, but for ``image_ids``.
        """
        params: dict[str, Any] = dict(filter or {})
        params |= _given(
            top_k=top_k,
            collapse_duplicates=collapse_duplicates or None,
            min_score=min_score,
            duplicate_score=duplicate_score,
            cursor=cursor,
            index_prefix=index_prefix,
        )
        response = self._send("POST", "/api/v1/query/image", params=params, content=picture)
        return parse_answer(response, QueryAnswer)

    def stats(self, *, index_prefix: str | None = None) -> IndexStats:
        """Return the state of an index."""
        params = _given(index_prefix=index_prefix)
        return parse_answer(self._send("GET", "/api/v1/index/stats", params=params), IndexStats)

    def thumbnail(self, image_id: str, *, size: int = 256) -> bytes:
        """Return a JPEG of an indexed image, at most ``size`` pixels a side."""
        path = f"/api/v1/images/{_part(image_id)}/thumbnail"
        response = self._send("GET", path, params={"size": size})
        raise_for_problem(response)
        return response.content

    def list_keys(self) -> tuple[Key, ...]:
        """Return all API keys, revoked ones included, without their secrets."""
        return parse_answer(self._send("GET", "/api/v1/keys"), KeyList).keys

    def create_key(self, name: str, scopes: Sequence[str]) -> CreatedKey:
        """Make an API key; its ``secret`` is in this answer and never shown again."""
        return self._post("/api/v1/keys", {"name": name, "scopes": list(scopes)}, CreatedKey)

    def revoke_key(self, key_id: str) -> None:
        """Make a key useless at once."""
        raise_for_problem(self._send("DELETE", f"/api/v1/keys/{_part(key_id)}"))

    def is_ready(self) -> bool:
        """Say whether the server answers queries; False also while nothing listens."""
        try:
            return self._send("GET", "/health/ready").status_code == httpx.codes.OK
        except ConnectionFailed:
            return False

    def wait(
        self,
        job_id: str,
        on_progress: Callable[[JobState], None] | None = None,
        *,
        patience_seconds: float = 60.0,
    ) -> JobState:
        """Return the job's state once it has ended or is paused.

        ``on_progress`` gets every state on the way, the last included. A server that is away
        (restarted, say: its jobs go on by themselves) is waited for up to
        ``patience_seconds`` in a row; then the error of the last attempt is raised.
        """
        pause = _FIRST_POLL_SECONDS
        last_answer = time.monotonic()
        while True:
            try:
                state = self.status(job_id)
            except (ConnectionFailed, ServerUnavailable):
                if time.monotonic() - last_answer > patience_seconds:
                    raise
            else:
                last_answer = time.monotonic()
                if on_progress is not None:
                    on_progress(state)
                if state.is_final or state.status == "paused":
                    return state
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def _post(
        self,
        path: str,
        body: dict[str, Any],
        answer_type: type[AnswerT],
        idempotency_key: str | None = None,
    ) -> AnswerT:
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        # Written in ASCII, so that a file name which is not UTF-8 reaches the server, which says
        # what is wrong with it, instead of failing here.
        content = json.dumps(body).encode("ascii")
        return parse_answer(self._send("POST", path, content=content, headers=headers), answer_type)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.TimeoutException as error:
            raise ConnectionFailed(
                f"{self._url} did not answer in time ({method} {path}). "
                "Is the server overloaded, or is a firewall in between?"
            ) from error
        except httpx.ConnectError as error:
            raise ConnectionFailed(
                f"Cannot reach {self._url}: {error}. Is the server running there?"
            ) from error
        except httpx.HTTPError as error:
            raise ConnectionFailed(
                f"The connection to {self._url} broke off ({method} {path}): {error}"
            ) from error


def _checked_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ClientError(f"{url!r} is not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ClientError(
            f"{url!r} is not the URL of a server; it looks like http://127.0.0.1:8080."
        )
    return str(parsed).rstrip("/")


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _given(**params: Any) -> dict[str, Any]:
    return {name: value for name, value in params.items() if value is not None}


def _part(value: str) -> str:
    """Return an id as one segment of a path, whatever characters it holds."""
    return quote(value, safe="", errors="replace") or "-"
