"""The documents on the wire have exactly the fields that the contract names."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from imagedex.core.ids import image_id_of
from imagedex.indexing.interfaces import IndexStats, WorkerReport
from imagedex.jobs.records import (
    Job,
    JobFailure,
    JobKind,
    JobStatus,
    Priority,
    ScanFindings,
)
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient

MOMENT = datetime(2025, 11, 14, 12, 34, 56, 789000, tzinfo=UTC)
MOMENT_Z = "2025-11-14T12:34:56.789Z"


def make_job(job_id: str = "idx_20251114_123456_7f3a", **changes: Any) -> Job:
    job = Job(
        job_id=job_id,
        index_id=1,
        kind=JobKind.FULL,
        status=JobStatus.RUNNING,
        priority=Priority.NORMAL,
        request={},
        created_at=MOMENT,
        started_at=MOMENT,
        finished_at=None,
        error=None,
        cancel_requested=False,
        is_planned=True,
        total_images=3,
        processed_images=2,
        failed_images=1,
    )
    return replace(job, **changes)


def test_trigger_queues_a_job(
    client: ApiClient, admin: str, photos: Path, application: InMemoryApplication
) -> None:
    answer = client.call(
        "POST",
        "/api/v1/index/trigger",
        key=admin,
        json={"image_dir": str(photos), "force_reindex": True, "priority": "high"},
    )
    assert answer.status_code == 202
    document = answer.json()
    assert set(document) == {"job_id", "status", "message"}
    assert document["status"] == "queued"
    assert str(photos) in document["message"]
    job = application.indexing.status(document["job_id"]).job
    assert job.priority is Priority.HIGH
    assert job.request["force"] is True


def test_a_rebuild_is_queued_for_an_index_that_is_there(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    body = {"priority": "low"}
    answer = client.call("POST", "/api/v1/index/rebuild", key=admin, json=body)
    assert answer.status_code == 404
    assert "index a directory first" in answer.json()["detail"]
    application.indexing.index_stats = replace(application.indexing.index_stats, generation=1)
    answer = client.call("POST", "/api/v1/index/rebuild", key=admin, json=body)
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    job = application.indexing.status(answer.json()["job_id"]).job
    assert (job.kind, job.priority) == (JobKind.REBUILD, Priority.LOW)


def test_notify_counts_the_images_that_were_named(
    client: ApiClient, admin: str, photos: Path, application: InMemoryApplication
) -> None:
    paths = [f"{photos}/a.jpg", f"{photos}/b.jpg", f"{photos}/a.jpg"]
    answer = client.call(
        "POST", "/api/v1/index/notify", key=admin, json={"image_paths": paths, "priority": "low"}
    )
    assert answer.status_code == 202
    document = answer.json()
    job = application.indexing.status(document["job_id"]).job
    assert job.priority is Priority.LOW
    assert document == {
        "job_id": job.job_id,
        "status": "queued",
        "images_count": 2,
        "estimated_time_seconds": None,
    }


def test_notify_takes_ten_thousand_paths_and_not_one_more(
    client: ApiClient, admin: str, photos: Path
) -> None:
    paths = [f"{photos}/{number}.jpg" for number in range(10_001)]
    answer = client.call(
        "POST", "/api/v1/index/notify", key=admin, json={"image_paths": paths[:-1]}
    )
    assert (answer.status_code, answer.json()["images_count"]) == (202, 10_000)
    answer = client.call("POST", "/api/v1/index/notify", key=admin, json={"image_paths": paths})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/image_paths"


def test_status_tells_all_of_a_job(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    application.indexing.put(make_job(error="1 of 3 chunks is to be run again"))
    application.indexing.workers = (WorkerReport("local-0", "somewhere", "busy", 2, 1.5),)
    application.indexing.findings = ScanFindings(1, 2, 3, 4, 5, 6, 7, removals_asked=8)
    answer = client.call("GET", "/api/v1/index/status/idx_20251114_123456_7f3a", key=admin)
    assert answer.status_code == 200
    assert answer.json() == {
        "job_id": "idx_20251114_123456_7f3a",
        "kind": "full",
        "status": "running",
        "progress": {
            "total_images": 3,
            "processed_images": 2,
            "failed_images": 1,
            "percent_complete": 66.6,
        },
        "workers": [
            {
                "worker_id": "local-0",
                "host": "somewhere",
                "status": "busy",
                "images_processed": 2,
                "images_per_second": 1.5,
            }
        ],
        "created_at": MOMENT_Z,
        "started_at": MOMENT_Z,
        "finished_at": None,
        "estimated_completion": None,
        "error": "1 of 3 chunks is to be run again",
        "findings": {
            "added": 1,
            "changed": 2,
            "unchanged": 3,
            "unsettled": 4,
            "missing": 5,
            "moved": 6,
            "removed": 7,
        },
    }


@pytest.mark.parametrize(
    ("status", "processed", "total", "percent"),
    [
        (JobStatus.QUEUED, 0, 0, 0.0),
        (JobStatus.COMPLETED, 0, 0, 100.0),
        (JobStatus.RUNNING, 99_999, 100_000, 99.9),
        (JobStatus.COMPLETED, 7, 7, 100.0),
        (JobStatus.RUNNING, 8, 7, 100.0),
    ],
)
def test_percentage_says_100_only_when_nothing_is_left(
    client: ApiClient,
    admin: str,
    application: InMemoryApplication,
    status: JobStatus,
    processed: int,
    total: int,
    percent: float,
) -> None:
    job = make_job(status=status, processed_images=processed, total_images=total)
    application.indexing.put(job)
    answer = client.call("GET", f"/api/v1/index/status/{job.job_id}", key=admin)
    assert answer.json()["progress"]["percent_complete"] == percent


def test_jobs_are_paged_newest_first(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    for number in range(5):
        application.indexing.put(
            make_job(f"idx_{number}", created_at=MOMENT.replace(second=number))
        )
    application.indexing.put(make_job("idx_done", status=JobStatus.COMPLETED))
    found: list[str] = []
    query: dict[str, str] = {"status": "running", "limit": "2"}
    while True:
        document = client.call("GET", "/api/v1/index/jobs", key=admin, params=query).json()
        assert set(document) == {"jobs", "total", "next_cursor"}
        assert document["total"] == 5
        found += [job["job_id"] for job in document["jobs"]]
        if document["next_cursor"] is None:
            break
        query["cursor"] = document["next_cursor"]
    assert found == ["idx_4", "idx_3", "idx_2", "idx_1", "idx_0"]
    assert document["jobs"] == [
        {
            "job_id": "idx_0",
            "kind": "full",
            "status": "running",
            "created_at": "2025-11-14T12:34:00.789Z",
            "images_count": 3,
        }
    ]


@pytest.mark.parametrize(
    ("verb", "before", "after"), [("cancel", "running", "cancelled"), ("retry", "failed", "queued")]
)
def test_cancel_and_retry_answer_with_the_job_as_it_is_now(
    client: ApiClient,
    admin: str,
    application: InMemoryApplication,
    verb: str,
    before: str,
    after: str,
) -> None:
    application.indexing.put(make_job(status=JobStatus(before)))
    answer = client.call("POST", f"/api/v1/index/jobs/{make_job().job_id}/{verb}", key=admin)
    assert answer.status_code == 200
    assert set(answer.json()) == {"job_id", "kind", "status", "created_at", "images_count"}
    assert answer.json()["status"] == after


def test_failures_name_image_reason_and_attempts(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    job = make_job()
    application.indexing.put(job)
    application.indexing.failures_of[job.job_id] = (
        JobFailure("/photos/ü.jpg", "truncated", "The file breaks off.", 2),
    )
    answer = client.call("GET", f"/api/v1/index/jobs/{job.job_id}/failures", key=admin)
    assert answer.status_code == 200
    assert answer.json() == {
        "failures": [
            {
                "image_path": "/photos/ü.jpg",
                "reason": "truncated",
                "detail": "The file breaks off.",
                "attempts": 2,
            }
        ],
        "total": 1,
        "next_cursor": None,
    }


def test_query_ranks_images(client: ApiClient, keys: dict[str, str], photos: Path) -> None:
    answer = client.call(
        "POST", "/api/v1/query", key=keys["query"], json={"text": "a dog", "top_k": 2}
    )
    assert answer.status_code == 200
    document = answer.json()
    assert document.pop("query_time_seconds") >= 0
    assert document == {
        "query": "a dog",
        "query_cut": False,
        "results": [
            {
                "rank": rank,
                "score": 1 / rank,
                "image_path": f"{photos}/{rank - 1}.jpg",
                "image_id": image_id_of(f"{photos}/{rank - 1}.jpg"),
                "stands_for": 1,
            }
            for rank in (1, 2)
        ],
        "index_stats": {"total_images": 3, "model": "bundled"},
        "next_cursor": "2",
    }


def test_an_answer_says_that_the_text_was_longer_than_the_model_reads(
    client: ApiClient, keys: dict[str, str]
) -> None:
    body = {"text": "a dog " * 500}
    answer = client.call("POST", "/api/v1/query", key=keys["query"], json=body)
    assert answer.json()["query_cut"] is True


def test_copying_results_is_refused_as_not_possible(client: ApiClient, admin: str) -> None:
    answer = client.call(
        "POST", "/api/v1/query", key=admin, json={"text": "a dog", "copy_results": True}
    )
    assert answer.status_code == 422
    assert "copies no files" in answer.json()["detail"]
    answer = client.call(
        "POST", "/api/v1/query", key=admin, json={"text": "a dog", "copy_results": False}
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("updated", [None, MOMENT])
def test_stats_tell_model_images_and_sizes(
    client: ApiClient, admin: str, application: InMemoryApplication, updated: datetime | None
) -> None:
    application.indexing.index_stats = IndexStats(
        model_name="bundled",
        embedding_dim=384,
        num_images=10,
        num_failed=2,
        last_updated=updated,
        generation=4,
        faiss_bytes=100,
        parquet_bytes=250,
    )
    answer = client.call("GET", "/api/v1/index/stats", key=admin)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "bundled",
        "embedding_dim": 384,
        "num_images": 10,
        "num_failed": 2,
        "last_updated": None if updated is None else MOMENT_Z,
        "generation": 4,
        "index_size_bytes": {"faiss": 100, "parquet": 250, "total": 350},
    }


def test_health_needs_no_key(client: ApiClient) -> None:
    answer = client.call("GET", "/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


def test_ready_lists_its_checks_and_needs_no_key(client: ApiClient) -> None:
    answer = client.call("GET", "/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {
        "status": "ready",
        "role": "leader",
        "checks": {"database": "ok", "search": "ok"},
    }


def test_not_ready_is_a_problem_with_the_reasons(
    client: ApiClient, application: InMemoryApplication
) -> None:
    application.checks = {"database": "ok", "search": "the generation is being opened"}
    answer = client.call("GET", "/health/ready")
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Retry-After" in answer.headers
    assert answer.json()["checks"] == application.checks


def test_thumbnail_is_a_jpeg_of_the_size_asked_for(
    client: ApiClient, keys: dict[str, str], photos: Path
) -> None:
    path = f"/api/v1/images/{image_id_of(f'{photos}/0.jpg')}/thumbnail"
    for query, width in (("", 256), ("?size=64", 64)):
        answer = client.call("GET", path + query, key=keys["query"])
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["cache-control"].startswith("private")
        with Image.open(io.BytesIO(answer.content)) as picture:
            assert (picture.format, picture.width) == ("JPEG", width)


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}'])
def test_thumbnail_that_the_client_has_is_not_sent_again(
    client: ApiClient, admin: str, photos: Path, form: str
) -> None:
    path = f"/api/v1/images/{image_id_of(f'{photos}/0.jpg')}/thumbnail"
    etag = client.call("GET", path, key=admin).headers["etag"]
    same = client.call("GET", path, key=admin, headers={"If-None-Match": form.format(etag)})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    other = client.call("GET", f"{path}?size=64", key=admin, headers={"If-None-Match": etag})
    assert other.status_code == 200


def test_key_is_made_listed_without_its_secret_and_revoked(client: ApiClient, admin: str) -> None:
    made = client.call(
        "POST", "/api/v1/keys", key=admin, json={"name": "uploader", "scopes": ["query", "index"]}
    )
    assert made.status_code == 201
    document = made.json()
    secret = document.pop("secret")
    assert set(document) == {"key_id", "name", "scopes", "created_at", "revoked_at"}
    assert (document["name"], document["scopes"]) == ("uploader", ["index", "query"])
    assert client.call("GET", "/api/v1/index/jobs", key=secret).status_code == 200

    listed = client.call("GET", "/api/v1/keys", key=admin)
    assert set(listed.json()) == {"keys"}
    assert document in listed.json()["keys"]
    assert secret not in listed.text

    for _ in range(2):
        gone = client.call("DELETE", f"/api/v1/keys/{document['key_id']}", key=admin)
        assert (gone.status_code, gone.content) == (204, b"")
    assert client.call("GET", "/api/v1/index/jobs", key=secret).status_code == 401
    listed = client.call("GET", "/api/v1/keys", key=admin)
    revoked = next(key for key in listed.json()["keys"] if key["key_id"] == document["key_id"])
    assert revoked["revoked_at"].endswith("Z")


def test_same_request_returns_the_active_job(client: ApiClient, admin: str, photos: Path) -> None:
    answers = [
        client.call(
            "POST", "/api/v1/index/trigger", key=admin, json={"image_dir": str(photos)}
        ).json()["job_id"]
        for _ in range(2)
    ]
    assert answers[0] == answers[1]


def test_idempotency_key_returns_the_job_even_after_it_ended(
    client: ApiClient, keys: dict[str, str], photos: Path, application: InMemoryApplication
) -> None:
    headers = {"Idempotency-Key": '"upload 1"'}
    url = "/api/v1/index/notify"
    body = {"image_paths": [f"{photos}/a.jpg"]}
    first = client.call("POST", url, key=keys["index"], headers=headers, json=body).json()
    job = application.indexing.status(first["job_id"]).job
    application.indexing.put(replace(job, status=JobStatus.COMPLETED))

    spelt_out = {"priority": "normal", **body}
    again = client.call("POST", url, key=keys["index"], headers=headers, json=spelt_out)
    assert again.json()["job_id"] == first["job_id"]
    without = client.call("POST", url, key=keys["index"], json=body)
    assert without.json()["job_id"] != first["job_id"]


def test_idempotency_key_of_another_request_is_refused(
    client: ApiClient, keys: dict[str, str], photos: Path
) -> None:
    headers = {"Idempotency-Key": "upload-1"}
    url = "/api/v1/index/notify"
    first = {"image_paths": [f"{photos}/a.jpg"]}
    other = {"image_paths": [f"{photos}/b.jpg"]}
    assert client.call("POST", url, key=keys["index"], headers=headers, json=first).is_success
    refused = client.call("POST", url, key=keys["index"], headers=headers, json=other)
    assert refused.status_code == 422
    # Another client's key of the same name is another promise.
    assert client.call("POST", url, key=keys["admin"], headers=headers, json=other).is_success


@pytest.mark.parametrize("value", ["", " ", "x" * 256, "tab\tinside", "ümlaut".encode()])
def test_idempotency_key_that_is_none_is_refused(
    client: ApiClient, admin: str, photos: Path, value: str | bytes
) -> None:
    answer = client.call(
        "POST",
        "/api/v1/index/trigger",
        key=admin,
        headers={"Idempotency-Key": value},
        json={"image_dir": str(photos)},
    )
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == "Idempotency-Key"


def test_a_change_of_model_is_queued_for_an_index_that_is_there(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    body = {"model": "bundled", "precision": "fp32", "priority": "low"}
    assert client.call("POST", "/api/v1/index/model", key=admin, json=body).status_code == 404
    application.indexing.index_stats = replace(application.indexing.index_stats, generation=1)
    answer = client.call("POST", "/api/v1/index/model", key=admin, json=body)
    assert answer.status_code == 202
    assert "'bundled'" in answer.json()["message"]
    job = application.indexing.status(answer.json()["job_id"]).job
    assert (job.kind, job.priority) == (JobKind.CHANGE_MODEL, Priority.LOW)
    for wrong in ({"model": "nothing"}, {"model": ""}, {"model": "bundled", "precision": "fp8"}):
        answer = client.call("POST", "/api/v1/index/model", key=admin, json=wrong)
        assert answer.status_code == 422
