"""Whatever goes wrong is a problem document with the right status, and tells no secrets."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from imagedex.api.problems import PROBLEM_OF_ERROR, problem_of
from imagedex.core import errors
from imagedex.core.ids import image_id_of
from imagedex.jobs.records import JobStatus
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient, gated_calls

STATUS_OF_ERROR: dict[type[errors.ImagedexError], int] = {
    errors.InvalidRequest: 422,
    errors.PermissionDenied: 403,
    errors.OutsideImageRoots: 403,
    errors.OutsideIndexRoots: 403,
    errors.AuthenticationFailed: 401,
    errors.NotFound: 404,
    errors.CursorExpired: 410,
    errors.Conflict: 409,
    errors.FingerprintMismatch: 409,
    errors.LeaseLost: 409,
    errors.OwnershipLost: 409,
    errors.Superseded: 409,
    errors.Unavailable: 503,
    errors.HostUnreachable: 503,
    errors.EngineError: 503,
    errors.UnfitWorker: 503,
    errors.NoWorkers: 503,
    errors.WorkerLost: 503,
    errors.ChunkStopped: 503,
    errors.ModelError: 503,
    errors.ModelNotInstalled: 503,
    errors.StorageError: 503,
    errors.CorruptIndex: 503,
    errors.SettingsError: 500,
    errors.HomeInUse: 500,
    errors.HostRefused: 500,
    errors.ImagedexError: 500,
}
SECRET_TEXT = "/srv/secret/index/segment-42 is on fire"


def assert_problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["type"] == f"urn:imagedex:problem:{slug}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == answer.headers["x-request-id"]
    return document


def test_every_error_has_a_kind_of_its_own_choice() -> None:
    classes = [
        cls
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.ImagedexError)
    ]
    assert set(classes) == set(PROBLEM_OF_ERROR) == set(STATUS_OF_ERROR)


def test_error_of_a_class_nobody_listed_takes_the_kind_of_its_parent() -> None:
    class SharePulled(errors.StorageError):
        pass

    assert problem_of(SharePulled()) == PROBLEM_OF_ERROR[errors.StorageError]


@pytest.mark.parametrize("cls", STATUS_OF_ERROR)
def test_error_of_a_service_becomes_its_problem(
    client: ApiClient, admin: str, application: InMemoryApplication, cls: type[errors.ImagedexError]
) -> None:
    application.failure = cls(SECRET_TEXT)
    status = STATUS_OF_ERROR[cls]
    for answer in (
        client.call("POST", "/api/v1/query", key=admin, json={"text": "a dog"}),
        client.call("GET", f"/api/v1/images/{image_id_of('/a')}/thumbnail", key=admin),
        client.call("GET", "/health/ready"),
    ):
        assert_problem(answer, status, PROBLEM_OF_ERROR[cls].slug)
        is_retryable = cls.retryable
        assert ("retry-after" in answer.headers) == (status == 503 and is_retryable)
        is_public = status < 500 or cls is errors.ModelNotInstalled
        assert (SECRET_TEXT in answer.text) == is_public


@pytest.mark.parametrize("cls", [ValueError, RuntimeError, KeyError, OSError, RecursionError])
def test_error_that_nobody_foresaw_is_500_with_its_traceback_in_the_log_only(
    client: ApiClient,
    admin: str,
    application: InMemoryApplication,
    cls: type[Exception],
    capsys: pytest.CaptureFixture[str],
) -> None:
    application.failure = cls(SECRET_TEXT)
    answer = client.call("POST", "/api/v1/query", key=admin, json={"text": "a dog"})
    document = assert_problem(answer, 500, "internal-error")
    assert SECRET_TEXT not in answer.text
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    output = capsys.readouterr().out
    assert SECRET_TEXT in output
    assert document["request_id"] in output
    application.failure = None
    assert client.call("POST", "/api/v1/query", key=admin, json={"text": "a dog"}).is_success


def test_unknown_path_is_404(client: ApiClient, admin: str) -> None:
    for path in ("/", "/api", "/api/v1/query/", "/api/v2/query", "/health/", "/%2e%2e/etc/passwd"):
        assert_problem(client.call("GET", path, key=admin), 404, "not-found")


def test_wrong_method_is_405_and_names_the_right_one(client: ApiClient, photos: Path) -> None:
    methods: dict[str, set[str]] = {"/health": {"GET"}, "/health/ready": {"GET"}}
    for call in gated_calls(photos):
        methods.setdefault(call.path, set()).add(call.method)
    for path, allowed in methods.items():
        for method in {"GET", "POST", "PUT", "PATCH", "DELETE"} - allowed:
            answer = client.call(method, path)
            assert_problem(answer, 405, "method-not-allowed")
            assert set(answer.headers["allow"].split(", ")) <= allowed


@pytest.mark.parametrize(
    "job_id", ["idx_20251114_123456_7f3a", "nonsense", "%00", "a" * 500, "..%2F..", "%F0%9F%98%80"]
)
def test_unknown_job_is_404_everywhere(client: ApiClient, admin: str, job_id: str) -> None:
    for method, path in (
        ("GET", f"/api/v1/index/status/{job_id}"),
        ("POST", f"/api/v1/index/jobs/{job_id}/cancel"),
        ("POST", f"/api/v1/index/jobs/{job_id}/retry"),
        ("POST", f"/api/v1/index/jobs/{job_id}/confirm"),
        ("POST", f"/api/v1/index/jobs/{job_id}/refuse"),
        ("GET", f"/api/v1/index/jobs/{job_id}/failures"),
    ):
        assert_problem(client.call(method, path, key=admin), 404, "not-found")


@pytest.mark.parametrize("identifier", ["0" * 20, "nonsense", "%00", "a" * 500, "%0d%0aX: y"])
def test_unknown_image_and_key_are_404(client: ApiClient, admin: str, identifier: str) -> None:
    image = client.call("GET", f"/api/v1/images/{identifier}/thumbnail", key=admin)
    assert_problem(image, 404, "not-found")
    key = client.call("DELETE", f"/api/v1/keys/{identifier}", key=admin)
    assert_problem(key, 404, "not-found")


def test_ended_job_cannot_be_cancelled_nor_an_active_one_retried(
    client: ApiClient, admin: str, application: InMemoryApplication, photos: Path
) -> None:
    job = application.indexing.trigger(str(photos))
    url = f"/api/v1/index/jobs/{job.job_id}"
    assert_problem(client.call("POST", f"{url}/retry", key=admin), 409, "conflict")
    assert_problem(client.call("POST", f"{url}/confirm", key=admin), 409, "conflict")
    assert_problem(client.call("POST", f"{url}/refuse", key=admin), 409, "conflict")
    application.indexing.put(replace(job, status=JobStatus.COMPLETED))
    assert_problem(client.call("POST", f"{url}/cancel", key=admin), 409, "conflict")


def test_key_of_the_settings_cannot_be_revoked(client: ApiClient, admin: str) -> None:
    answer = client.call("DELETE", "/api/v1/keys/admin-setting", key=admin)
    assert_problem(answer, 409, "conflict")


@pytest.mark.parametrize(
    ("path", "query", "parameter"),
    [
        ("/api/v1/index/jobs", {"limit": "0"}, "limit"),
        ("/api/v1/index/jobs", {"limit": "1001"}, "limit"),
        ("/api/v1/index/jobs", {"limit": "-1"}, "limit"),
        ("/api/v1/index/jobs", {"limit": "1e3"}, "limit"),
        ("/api/v1/index/jobs", {"limit": "9" * 5000}, "limit"),
        ("/api/v1/index/jobs", {"limit": ""}, "limit"),
        ("/api/v1/index/jobs", {"status": "sleeping"}, "status"),
        ("/api/v1/index/jobs", {"statsu": "queued"}, "statsu"),
        ("/api/v1/index/jobs", {"cursor": ""}, "cursor"),
        ("/api/v1/index/jobs", {"cursor": "9" * 32_769}, "cursor"),
        ("/api/v1/index/jobs/idx_1/failures", {"limit": "0"}, "limit"),
        ("/api/v1/index/jobs/idx_1/failures", {"status": "queued"}, "status"),
        ("/api/v1/index/stats", {"index_prefix": "relative"}, "index_prefix"),
        ("/api/v1/index/stats", {"index_prefix": "/nul\0"}, "index_prefix"),
        ("/api/v1/images/0/thumbnail", {"size": "0"}, "size"),
        ("/api/v1/images/0/thumbnail", {"size": "1025"}, "size"),
        ("/api/v1/images/0/thumbnail", {"size": "big"}, "size"),
        ("/api/v1/images/0/thumbnail", {"index_prefix": ""}, "index_prefix"),
    ],
)
def test_parameter_that_makes_no_sense_is_named(
    client: ApiClient, admin: str, path: str, query: dict[str, str], parameter: str
) -> None:
    document = assert_problem(
        client.call("GET", path, key=admin, params=query), 422, "invalid-request"
    )
    assert [error["parameter"] for error in document["errors"]] == [parameter]
    assert len(str(document)) < 1000


@pytest.mark.parametrize("cursor", ["nonsense", "-1", "0 ", "\0", "%", "💥"])
def test_cursor_that_is_none_is_422(
    client: ApiClient, admin: str, application: InMemoryApplication, photos: Path, cursor: str
) -> None:
    job = application.indexing.trigger(str(photos))
    for path in ("/api/v1/index/jobs", f"/api/v1/index/jobs/{job.job_id}/failures"):
        answer = client.call("GET", path, key=admin, params={"cursor": cursor})
        assert_problem(answer, 422, "invalid-request")
