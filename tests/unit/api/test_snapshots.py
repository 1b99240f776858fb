"""The calls about snapshots."""

from __future__ import annotations

import pytest

from imagedex.core.errors import CorruptIndex
from imagedex.jobs import JobKind
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient

_SNAPSHOTS = "/api/v1/snapshots"


def test_snapshots_are_listed_and_so_is_why_some_cannot_be_read(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    application.snapshots.damaged.append(CorruptIndex("The snapshot 'other' is damaged."))
    answer = client.call("GET", _SNAPSHOTS, key=admin)
    assert answer.status_code == 200
    assert answer.json() == {
        "snapshots": [
            {
                "name": "kept",
                "created_at": "2025-11-14T12:34:56.789Z",
                "generation": 3,
                "num_images": 5,
                "num_failed": 1,
                "bytes": 12,
                "model_name": "bundled",
            }
        ],
        "damaged": ["The snapshot 'other' is damaged."],
    }


@pytest.mark.parametrize("name", ["mine", None])
def test_a_snapshot_is_made_by_a_job(
    client: ApiClient, admin: str, application: InMemoryApplication, name: str | None
) -> None:
    answer = client.call("POST", _SNAPSHOTS, key=admin, json={"name": name} if name else {})
    assert answer.status_code == 202
    document = answer.json()
    assert set(document) == {"job_id", "status", "name"}
    assert document["status"] == "queued"
    assert document["name"] == (name or "20251114T123456Z-generation-3")
    job = application.indexing.status(document["job_id"]).job
    assert (job.kind, job.request["name"]) == (JobKind.SNAPSHOT, document["name"])


def test_a_snapshot_is_brought_back_by_a_job(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    answer = client.call("POST", f"{_SNAPSHOTS}/kept/restore", key=admin, json={})
    assert answer.status_code == 202
    document = answer.json()
    assert set(document) == {"job_id", "status", "message"}
    assert "'kept'" in document["message"]
    assert application.indexing.status(document["job_id"]).job.kind is JobKind.RESTORE


def test_a_snapshot_is_deleted_once(client: ApiClient, admin: str) -> None:
    assert client.call("DELETE", f"{_SNAPSHOTS}/kept", key=admin).status_code == 204
    assert client.call("DELETE", f"{_SNAPSHOTS}/kept", key=admin).status_code == 404
    assert client.call("GET", _SNAPSHOTS, key=admin).json()["snapshots"] == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", _SNAPSHOTS, {"name": "kept"}, 409),
        ("POST", _SNAPSHOTS, {"name": "../kept"}, 422),
        ("POST", _SNAPSHOTS, {"name": 5}, 422),
        ("POST", _SNAPSHOTS, {"title": "kept"}, 422),
        ("POST", f"{_SNAPSHOTS}/other/restore", {}, 404),
        ("POST", f"{_SNAPSHOTS}/.kept/restore", {}, 422),
        ("DELETE", f"{_SNAPSHOTS}/other", None, 404),
        ("DELETE", f"{_SNAPSHOTS}/%2E%2E", None, 422),
        ("GET", f"{_SNAPSHOTS}?index_prefix=relative", None, 422),
        ("GET", f"{_SNAPSHOTS}?index_prefix=/elsewhere", None, 403),
        ("DELETE", f"{_SNAPSHOTS}/kept?index_prefix=/elsewhere", None, 403),
        ("POST", f"{_SNAPSHOTS}/kept/restore", {"index_prefix": "/elsewhere"}, 403),
    ],
)
def test_what_cannot_be_is_a_problem(
    client: ApiClient,
    admin: str,
    method: str,
    path: str,
    body: dict[str, object] | None,
    status: int,
) -> None:
    options = {} if body is None else {"json": body}
    answer = client.call(method, path, key=admin, **options)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
