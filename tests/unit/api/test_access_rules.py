"""Every call but health and documentation needs a valid key with the right scope."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from imagedex.access import Scope
from imagedex.jobs.records import JobStatus
from imagedex.testing.application import InMemoryApplication
from support.api import JOB_ID, ApiClient, Call, gated_calls

OPEN_CALLS = {"GET /health", "GET /health/ready"}
CALLS = [str(call) for call in gated_calls(Path("/photos"))]


@pytest.fixture
def calls(photos: Path) -> dict[str, Call]:
    return {str(call): call for call in gated_calls(photos)}


@pytest.fixture
def call(calls: dict[str, Call], request: pytest.FixtureRequest) -> Call:
    return calls[request.param]


def send(client: ApiClient, call: Call, key: str | None, **options: Any) -> Any:
    if call.body is not None:
        options.setdefault("json", call.body)
    return client.call(call.method, call.path, key=key, **options)


def documented_calls(api: FastAPI) -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, operations in api.openapi()["paths"].items()
        for method in operations
    }


def test_every_call_is_covered_here(api: FastAPI) -> None:
    assert documented_calls(api) == {*CALLS, *OPEN_CALLS}


@pytest.mark.parametrize("call", CALLS, indirect=True)
def test_call_without_a_key_is_401(client: ApiClient, call: Call) -> None:
    answer = send(client, call, None)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:imagedex:problem:authentication-failed"


@pytest.mark.parametrize("call", CALLS, indirect=True)
@pytest.mark.parametrize("kind", ["unknown", "malformed", "empty", "revoked"])
def test_call_with_a_key_that_is_not_valid_is_401(
    client: ApiClient, call: Call, application: InMemoryApplication, kind: str
) -> None:
    revoked, secret = application.keys.create("revoked", set(Scope))
    application.keys.revoke(revoked.key_id)
    key = {
        "unknown": "imgdx_000000000000_" + "A" * 43,
        "malformed": "'; DROP TABLE api_keys; --",
        "empty": "",
        "revoked": secret,
    }[kind]
    answer = send(client, call, key)
    assert answer.status_code == 401
    assert secret not in answer.text


@pytest.mark.parametrize("call", CALLS, indirect=True)
def test_call_needs_one_of_its_scopes(
    client: ApiClient, call: Call, application: InMemoryApplication
) -> None:
    for size in (1, 2):
        for scopes in combinations(Scope, size):
            key = application.key_with(*scopes)
            is_allowed = bool(call.scopes & set(scopes)) or Scope.ADMIN in scopes
            answer = send(client, call, key)
            # Without a job of that id an allowed call gets as far as not finding it.
            assert (answer.status_code == 403) != is_allowed, scopes
            if not is_allowed:
                assert answer.headers["content-type"] == "application/problem+json"
                assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
                assert key not in answer.text


@pytest.mark.parametrize("call", CALLS, indirect=True)
def test_call_with_an_admin_key_succeeds(
    client: ApiClient, call: Call, application: InMemoryApplication, admin: str, photos: Path
) -> None:
    job = application.indexing.trigger(str(photos))
    made, _ = application.keys.create("to be revoked", {Scope.QUERY})
    stats = application.indexing.index_stats
    application.indexing.index_stats = replace(stats, generation=1)
    if call.template.endswith("/retry"):
        application.indexing.cancel(job.job_id)
    if call.template.endswith(("/confirm", "/refuse")):
        application.indexing.put(replace(job, status=JobStatus.PAUSED))
    path = call.path.replace(JOB_ID, job.job_id).replace("{made}", made.key_id)
    answer = client.call(
        call.method, path, key=admin, **({} if call.body is None else {"json": call.body})
    )
    assert answer.is_success, answer.text


@pytest.mark.parametrize("header", ["Bearer {}", "bearer {}", "BEARER  {} "])
def test_key_is_taken_as_a_bearer_token(
    client: ApiClient, keys: dict[str, str], header: str
) -> None:
    headers = {"Authorization": header.format(keys["index"])}
    assert client.call("GET", "/api/v1/index/jobs", headers=headers).status_code == 200


@pytest.mark.parametrize("header", ["Basic {}", "{}", "Bearer", "Bearer ", "Token {}", "Bearer{}"])
def test_other_authorization_is_401(client: ApiClient, keys: dict[str, str], header: str) -> None:
    headers = {"Authorization": header.format(keys["index"])}
    assert client.call("GET", "/api/v1/index/jobs", headers=headers).status_code == 401


def test_x_api_key_counts_before_authorization(client: ApiClient, keys: dict[str, str]) -> None:
    url = "/api/v1/index/jobs"
    wrong_bearer = {"Authorization": "Bearer wrong"}
    assert client.call("GET", url, key=keys["index"], headers=wrong_bearer).status_code == 200
    right_bearer = {"Authorization": f"Bearer {keys['index']}"}
    assert client.call("GET", url, key="wrong", headers=right_bearer).status_code == 401


def test_key_in_the_query_string_opens_nothing(client: ApiClient, admin: str) -> None:
    for name in ("api_key", "key", "X-API-Key", "access_token"):
        answer = client.call("GET", "/api/v1/index/jobs", params={name: admin})
        assert answer.status_code == 401


@pytest.mark.parametrize("call", CALLS, indirect=True)
def test_stranger_learns_nothing_of_the_schema(client: ApiClient, call: Call) -> None:
    if call.body is not None:
        for content in (b"{not json", b"{}", b'{"unknown": 1}', b"[" * 100_000):
            answer = send(client, call, None, json=None, content=content)
            assert answer.status_code == 401
    assert send(client, call, None, params={"limit": "nonsense"}).status_code == 401


def test_key_survives_neither_in_the_log_nor_in_a_problem(
    client: ApiClient, keys: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    secret = keys["query"]
    answers = [
        client.call("GET", "/api/v1/index/jobs", key=secret),
        client.call("GET", "/api/v1/index/jobs", key=secret + "x"),
        client.call("GET", f"/api/v1/index/status/{secret}", key=keys["admin"]),
        client.call("GET", "/api/v1/index/stats", headers={"Authorization": f"Bearer {secret}"}),
    ]
    assert [answer.status_code for answer in answers] == [403, 401, 404, 200]
    output = capsys.readouterr()
    assert "request" in output.out
    assert secret not in output.out + output.err


def test_routes_of_the_api_are_gated_by_their_class(api: FastAPI) -> None:
    operations = api.openapi()["paths"]
    for path, methods in operations.items():
        for method, operation in methods.items():
            is_open = f"{method.upper()} {path}" in OPEN_CALLS
            assert ("security" not in operation) == is_open
