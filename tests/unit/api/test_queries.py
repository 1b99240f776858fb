"""What a query may ask on the wire, and what becomes of it."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from imagedex.core.errors import CursorExpired, ModelNotInstalled
from imagedex.core.ids import image_id_of
from imagedex.search import ImageTerm, PictureTerm, TextTerm
from imagedex.segments import ImageFilter
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient

QUERY = "/api/v1/query"
PICTURE = "/api/v1/query/image"
ID = image_id_of("/photos/0.jpg")


def test_every_part_of_a_query_arrives(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    body = {
        "terms": [
            {"text": "a dog"},
            {"text": "a cat", "weight": -0.5},
            {"image_id": ID, "weight": 0.25},
        ],
        "top_k": 3,
        "min_score": 0.1,
        "collapse_duplicates": True,
        "duplicate_score": 0.9,
        "filter": {
            "path_prefix": "/photos/2024",
            "path_globs": ["*.jpg", "*.png", "*.jpg"],
            "modified_after": "2024-01-01T00:00:00.5Z",
            "modified_before": "2024-01-01T02:00:00+02:00",
            "min_bytes": 1,
            "max_bytes": 2,
            "min_width": 3,
            "max_width": 4,
            "min_height": 5,
            "max_height": 6,
            "image_ids": [ID, ID],
        },
    }
    answer = client.call("POST", QUERY, key=admin, json=body)
    assert answer.status_code == 200, answer.text
    (query,) = application.queries
    assert query.terms == (TextTerm("a dog"), TextTerm("a cat", -0.5), ImageTerm(ID, 0.25))
    assert (query.top_k, query.min_score, query.duplicate_score) == (3, 0.1, 0.9)
    year = 1_704_067_200 * 10**9
    assert query.image_filter == ImageFilter(
        path_prefix="/photos/2024",
        path_globs=("*.jpg", "*.png"),
        modified_after_ns=year + 500_000_000,
        modified_before_ns=year,
        min_bytes=1,
        max_bytes=2,
        min_width=3,
        max_width=4,
        min_height=5,
        max_height=6,
        image_ids=(ID,),
    )


def test_the_simple_forms_stand_for_one_term(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    for body in ({"text": "a dog"}, {"image_id": ID}, {"text": "a dog", "filter": {}}):
        assert client.call("POST", QUERY, key=admin, json=body).status_code == 200
    assert [query.terms for query in application.queries] == [
        (TextTerm("a dog"),),
        (ImageTerm(ID),),
        (TextTerm("a dog"),),
    ]
    for query in application.queries:
        assert (query.image_filter, query.min_score, query.duplicate_score) == (None, None, None)


def test_an_empty_list_of_ids_allows_no_image(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    body = {"text": "a dog", "filter": {"image_ids": []}}
    assert client.call("POST", QUERY, key=admin, json=body).status_code == 200
    assert application.queries[0].image_filter == ImageFilter(image_ids=())


def test_a_cursor_leads_to_the_next_page(client: ApiClient, admin: str) -> None:
    body: dict[str, Any] = {"text": "a dog", "top_k": 2}
    first = client.call("POST", QUERY, key=admin, json=body).json()
    body["cursor"] = first["next_cursor"]
    second = client.call("POST", QUERY, key=admin, json=body).json()
    assert [result["rank"] for result in first["results"] + second["results"]] == [1, 2, 3]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"image_id": "xyz"}, "#/image_id"),
        ({"image_id": ID + "\n"}, "#/image_id"),
        ({"image_id": ID.upper()}, "#/image_id"),
        ({"image_id": 5}, "#/image_id"),
        ({"terms": []}, "#/terms"),
        ({"terms": [{"text": "a"}] * 17}, "#/terms"),
        ({"terms": [{"text": ""}]}, "#/terms/0/text"),
        ({"terms": [{"text": "a", "weight": 2}]}, "#/terms/0/weight"),
        ({"terms": [{"text": "a", "image": "b"}]}, "#/terms/0/image"),
        ({"text": "a", "min_score": 2}, "#/min_score"),
        ({"text": "a", "min_score": "high"}, "#/min_score"),
        ({"text": "a", "min_score": "nan"}, "#/min_score"),
        ({"text": "a", "duplicate_score": "nan"}, "#/duplicate_score"),
        ({"text": "a", "collapse_duplicates": 1}, "#/collapse_duplicates"),
        ({"text": "a", "duplicate_score": 0.1}, "#/duplicate_score"),
        ({"text": "a", "cursor": ""}, "#/cursor"),
        ({"text": "a", "cursor": "x" * 101}, "#/cursor"),
        ({"text": "a", "filter": []}, "#/filter"),
        ({"text": "a", "filter": {"path": "/a"}}, "#/filter/path"),
        ({"text": "a", "filter": {"path_prefix": "photos"}}, "#/filter/path_prefix"),
        ({"text": "a", "filter": {"path_globs": "*"}}, "#/filter/path_globs"),
        ({"text": "a", "filter": {"path_globs": [""]}}, "#/filter/path_globs/0"),
        ({"text": "a", "filter": {"path_globs": ["x" * 1001]}}, "#/filter/path_globs/0"),
        ({"text": "a", "filter": {"path_globs": ["*"] * 17}}, "#/filter/path_globs"),
        ({"text": "a", "filter": {"modified_after": "2024-01-01"}}, "#/filter/modified_after"),
        (
            {"text": "a", "filter": {"modified_after": "2024-01-01T00:00:00"}},
            "#/filter/modified_after",
        ),
        ({"text": "a", "filter": {"min_bytes": -1}}, "#/filter/min_bytes"),
        ({"text": "a", "filter": {"max_bytes": 2**63}}, "#/filter/max_bytes"),
        ({"text": "a", "filter": {"min_width": 2**31}}, "#/filter/min_width"),
        ({"text": "a", "filter": {"image_ids": ["x"] * 10_000}}, "#/filter/image_ids/0"),
    ],
)
def test_a_part_that_makes_no_sense_is_named(
    client: ApiClient, admin: str, body: dict[str, Any], pointer: str
) -> None:
    answer = client.call("POST", QUERY, key=admin, json=body)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": None},
        {"text": "a", "image_id": ID},
        {"text": "a", "terms": [{"text": "a"}]},
        {"terms": [{}]},
        {"terms": [{"text": "a", "image_id": ID}]},
        {"terms": [{"text": "a", "weight": 0}]},
    ],
)
def test_what_is_looked_for_must_be_clear(
    client: ApiClient, admin: str, body: dict[str, Any]
) -> None:
    answer = client.call("POST", QUERY, key=admin, json=body)
    assert answer.status_code == 422
    assert "expected" in answer.json()["detail"] or "must have" in answer.json()["detail"]


def test_moments_beyond_all_files_are_taken(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    body = {
        "text": "a",
        "filter": {
            "modified_after": "0001-01-01T00:00:00Z",
            "modified_before": "9999-12-31T23:59:59Z",
        },
    }
    assert client.call("POST", QUERY, key=admin, json=body).status_code == 200
    image_filter = application.queries[0].image_filter
    assert image_filter is not None
    assert image_filter.modified_after_ns == -(2**63 - 1)
    assert image_filter.modified_before_ns == 2**63 - 1


def test_ten_thousand_ids_are_read_and_not_one_more(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    ids = [image_id_of(str(number)) for number in range(10_001)]
    body: dict[str, Any] = {
        "text": "\N{DOG FACE}" * 10_000,
        "filter": {"image_ids": ids[:-1]},
    }
    assert client.call("POST", QUERY, key=admin, json=body).status_code == 200
    body["filter"]["image_ids"] = ids
    answer = client.call("POST", QUERY, key=admin, json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/filter/image_ids"


def test_a_cursor_of_a_state_that_is_gone_is_410(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    application.failure = CursorExpired("Ask again from the first page.")
    answer = client.call("POST", QUERY, key=admin, json={"text": "a", "cursor": "x"})
    assert answer.status_code == 410
    assert answer.json()["type"] == "urn:imagedex:problem:cursor-expired"
    assert "first page" in answer.json()["detail"]


def test_a_picture_is_sent_as_the_body_and_the_rest_as_parameters(
    client: ApiClient, keys: dict[str, str], application: InMemoryApplication
) -> None:
    parameters = {
        "top_k": "2",
        "path_globs": ["*.jpg", "*.png"],
        "min_width": "100",
        "modified_after": "2024-01-01T00:00:00Z",
        "collapse_duplicates": "true",
    }
    answer = client.call(
        "POST", PICTURE, key=keys["query"], params=parameters, content=b"a picture"
    )
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["results"]) == 2
    assert answer.json()["query"] == ""
    (query,) = application.queries
    (term,) = query.terms
    assert isinstance(term, PictureTerm)
    assert (query.top_k, query.duplicate_score) == (2, 0.98)
    assert query.image_filter == ImageFilter(
        path_globs=("*.jpg", "*.png"), min_width=100, modified_after_ns=1_704_067_200 * 10**9
    )


def test_a_picture_needs_a_key_that_may_query(
    client: ApiClient, keys: dict[str, str], application: InMemoryApplication
) -> None:
    assert client.call("POST", PICTURE, content=b"x").status_code == 401
    assert client.call("POST", PICTURE, key=keys["index"], content=b"x").status_code == 403
    assert application.queries == []


def test_a_form_is_refused_with_the_way_to_send_a_picture(client: ApiClient, admin: str) -> None:
    answer = client.call("POST", PICTURE, key=admin, files={"image": b"a picture"})
    assert answer.status_code == 415
    assert answer.json()["type"] == "urn:imagedex:problem:unsupported-body"
    assert "--data-binary" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("parameters", "parameter"),
    [
        ({"top_k": "0"}, "top_k"),
        ({"top_k": "many"}, "top_k"),
        ({"min_width": "-1"}, "min_width"),
        ({"image_ids": ID}, "image_ids"),
        ({"path_prefix": "photos"}, "path_prefix"),
        ({"index_prefix": "photos"}, "index_prefix"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_named(
    client: ApiClient, admin: str, parameters: dict[str, str], parameter: str
) -> None:
    answer = client.call("POST", PICTURE, key=admin, params=parameters, content=b"a picture")
    assert answer.status_code == 422
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


def test_a_picture_that_cannot_be_used_is_422_and_one_too_large_413(
    client: ApiClient, admin: str
) -> None:
    assert client.call("POST", PICTURE, key=admin, content=b"").status_code == 422
    answer = client.call("POST", PICTURE, key=admin, content=b"x" * (8 * 2**20 + 1))
    assert answer.status_code == 413
    assert "IMAGEDEX_SERVER__MAX_BODY_BYTES" in answer.json()["detail"]


def test_a_picture_to_a_server_without_the_model_is_503_with_the_command(
    client: ApiClient, admin: str, application: InMemoryApplication
) -> None:
    application.failure = ModelNotInstalled("Get it by: imagedex models pull it.")
    answer = client.call("POST", PICTURE, key=admin, content=b"a picture")
    assert answer.status_code == 503
    assert "models pull" in answer.json()["detail"]


def test_many_pictures_at_once_are_refused_rather_than_kept_in_memory(
    client: ApiClient,
    admin: str,
    application: InMemoryApplication,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gate = threading.Event()
    running = threading.Semaphore(0)

    def read_picture(data: bytes, *, index_prefix: str | None = None) -> PictureTerm:
        running.release()
        gate.wait(60)
        return PictureTerm("hash", b"")

    monkeypatch.setattr(application, "read_picture", read_picture)
    statuses: list[int] = []

    def send() -> None:
        statuses.append(client.call("POST", PICTURE, key=admin, content=b"x").status_code)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        assert running.acquire(timeout=60)
    deadline = time.monotonic() + 60
    while len(statuses) < 4:  # Those who were refused do not wait.
        assert time.monotonic() < deadline
        time.sleep(0.01)
    gate.set()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] * 16 + [503] * 4
