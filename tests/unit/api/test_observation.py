"""Requests leave an id, a line in the log and a count; answers carry safe headers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import HTMLResponse, StreamingResponse

from imagedex.api import create_api
from imagedex.core.errors import StorageError
from imagedex.indexing.interfaces import IndexStats
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient


def log_entries(capsys: pytest.CaptureFixture[str], event: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [entry for entry in entries if entry["event"] == event]


def test_request_id_of_the_client_is_taken_over(
    client: ApiClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = client.call("GET", "/health", headers={"X-Request-ID": "upload-7.retry_2"})
    assert answer.headers["x-request-id"] == "upload-7.retry_2"
    (entry,) = log_entries(capsys, "request")
    assert entry["request_id"] == "upload-7.retry_2"


@pytest.mark.parametrize(
    "sent", ["", "x" * 65, "two words", "a\tb", "<script>", "naïve".encode(), 'a"b', "a;b"]
)
def test_request_id_that_is_not_plain_is_replaced(client: ApiClient, sent: str | bytes) -> None:
    answer = client.call("GET", "/health", headers={"X-Request-ID": sent})
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["x-request-id"])


def test_every_request_without_an_id_gets_its_own(client: ApiClient) -> None:
    ids = {client.call("GET", "/health").headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_log_line_names_route_status_and_key(
    client: ApiClient,
    application: InMemoryApplication,
    keys: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    key_id = application.keys.authenticate(keys["index"]).key_id
    client.call("GET", "/api/v1/index/status/idx_unknown", key=keys["index"])
    (entry,) = log_entries(capsys, "request")
    assert entry.pop("ms") >= 0
    assert entry == {
        "event": "request",
        "level": "info",
        "request_id": entry["request_id"],
        "method": "GET",
        "route": "/api/v1/index/status/{job_id}",
        "status": 404,
        "key_id": key_id,
    }


@pytest.mark.parametrize("path", ["/health", "/nothing", "/api/v1/index/jobs", "/docs", "/metrics"])
def test_answers_carry_safe_headers(client: ApiClient, path: str) -> None:
    headers = client.call("GET", path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_other_origins_get_no_permission(client: ApiClient, admin: str) -> None:
    for method in ("GET", "OPTIONS"):
        answer = client.call(
            method,
            "/api/v1/index/jobs",
            key=admin,
            headers={"Origin": "https://evil.test", "Access-Control-Request-Method": "GET"},
        )
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_page_that_sets_its_own_policy_keeps_it(client: ApiClient, api: FastAPI) -> None:
    policy = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "max-age=60"}

    async def page() -> HTMLResponse:
        return HTMLResponse("<p>page</p>", headers=policy)

    api.add_api_route("/page", page)
    answer = client.call("GET", "/page")
    assert answer.headers["content-security-policy"] == "default-src 'self'"
    assert answer.headers["cache-control"] == "max-age=60"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_answer_that_breaks_off_is_not_completed_by_a_problem(
    client: ApiClient, api: FastAPI, capsys: pytest.CaptureFixture[str]
) -> None:
    async def chunks() -> Any:
        yield b"first"
        raise RuntimeError("the disk went away")

    async def half() -> StreamingResponse:
        return StreamingResponse(chunks())

    api.add_api_route("/half", half)
    answer = client.call("GET", "/half")
    assert answer.content == b"first"
    assert len(log_entries(capsys, "request_crashed")) == 1


def samples(client: ApiClient, key: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.call("GET", "/metrics", key=key)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics_count_requests_by_route_and_status(
    client: ApiClient, keys: dict[str, str]
) -> None:
    client.call("GET", "/api/v1/index/status/idx_1", key=keys["index"])
    client.call("GET", "/api/v1/index/status/idx_2", key=keys["index"])
    client.call("GET", "/api/v1/index/status/idx_2")
    client.call("POST", "/api/v1/query", key=keys["query"], json={"text": "a dog"})
    found = samples(client, keys["query"])

    def requests(method: str, route: str, status: str) -> float:
        labels = (("method", method), ("route", route), ("status", status))
        return found["imagedex_http_requests_total", labels]

    assert requests("GET", "/api/v1/index/status/{job_id}", "404") == 2
    assert requests("GET", "/api/v1/index/status/{job_id}", "401") == 1
    assert requests("POST", "/api/v1/query", "200") == 1
    route = (("route", "/api/v1/index/status/{job_id}"),)
    assert found["imagedex_http_request_seconds_count", route] == 3
    assert found["imagedex_query_seconds_count", (("cached", "false"),)] == 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000


def test_strangers_cannot_grow_the_metrics(client: ApiClient, keys: dict[str, str]) -> None:
    client.call("GET", "/health")
    client.call("GET", "/random-first")
    client.call("X-FIRST", "/health")
    before = samples(client, keys["query"]).keys() | samples(client, keys["query"]).keys()
    for number in range(10):
        client.call("GET", f"/random-{number}")
        client.call(f"X-{number}", "/health")
    assert samples(client, keys["query"]).keys() == before


def test_metrics_tell_the_state_of_index_and_jobs(
    client: ApiClient, keys: dict[str, str], application: InMemoryApplication, photos: Path
) -> None:
    application.indexing.index_stats = IndexStats("bundled", 384, 10, 2, None, 4, 100, 250)
    application.indexing.trigger(str(photos))
    found = samples(client, keys["index"])
    assert found["imagedex_images", (("state", "indexed"),)] == 10
    assert found["imagedex_images", (("state", "failed"),)] == 2
    assert found["imagedex_index_bytes", (("kind", "parquet"),)] == 250
    assert found["imagedex_generation", ()] == 4
    assert found["imagedex_jobs", (("status", "queued"),)] == 1
    assert found["imagedex_jobs", (("status", "running"),)] == 0
    assert found["imagedex_state_readable", (("part", "index"),)] == 1


def test_metrics_go_on_when_the_storage_is_gone(
    client: ApiClient,
    keys: dict[str, str],
    application: InMemoryApplication,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stats(index_prefix: str | None = None) -> IndexStats:
        raise StorageError("the share is gone")

    monkeypatch.setattr(application.indexing, "stats", stats)
    found = samples(client, keys["index"])
    assert found["imagedex_state_readable", (("part", "index"),)] == 0
    assert found["imagedex_state_readable", (("part", "jobs"),)] == 1
    assert ("imagedex_generation", ()) not in found
    assert found["imagedex_jobs", (("status", "queued"),)] == 0


def test_two_apis_in_one_process_count_apart(
    client: ApiClient, api: FastAPI, application: InMemoryApplication, keys: dict[str, str]
) -> None:
    create_api(application)
    client.call("GET", "/health")
    labels = (("method", "GET"), ("route", "/health"), ("status", "200"))
    assert samples(client, keys["query"])["imagedex_http_requests_total", labels] == 1
