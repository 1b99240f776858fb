"""Hostile bodies and paths are refused as errors of the client; nothing makes the server fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagedex.api.queries import FilterDocument, TermDocument
from imagedex.api.requests import QueryRequest
from imagedex.testing.application import InMemoryApplication
from support.api import ApiClient

QUERY = "/api/v1/query"
TRIGGER = "/api/v1/index/trigger"
NOTIFY = "/api/v1/index/notify"
KEYS = "/api/v1/keys"
JSON = {"Content-Type": "application/json"}
TOO_COMPLEX = "urn:imagedex:problem:body-too-complex"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b" ",
        b"{",
        b"{not json",
        b"'text'",
        b'{"text": "a dog",}',
        b'{"text": NaN}',
        b'{"text": "a dog", "top_k": Infinity}',
        b'{"text": "a dog", "top_k": -Infinity}',
        b'{"text": "lone \\ud800 surrogate"}',
        b'{"text": "lone \\udfff surrogate"}',
        b'{"text": "\\udc00\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"text": "raw \x00 NUL"}',
        b'{"text": "raw \n newline"}',
        b'{"text": "\xff\xfe"}',
        b'{"text": "\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"text": "a dog"}'.encode("utf-16"),
        b'{"text": "a dog"} {"text": "a cat"}',
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"text": "a dog", "top_k": ' + b"9" * 100_000 + b"}",
        b'{"text": "a dog", "top_k": 1e999999}',
    ],
    ids=lambda content: repr(content[:24]),
)
@pytest.mark.parametrize("url", [QUERY, TRIGGER, NOTIFY, KEYS])
def test_body_that_is_no_json_is_422(
    client: ApiClient, admin: str, url: str, content: bytes
) -> None:
    answer = client.call("POST", url, key=admin, content=content, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 5000


@pytest.mark.parametrize(
    "content_type",
    ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "%"],
)
def test_body_that_is_not_declared_as_json_is_415(
    client: ApiClient, admin: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    content = b'{"text": "a dog"}'
    answer = client.call("POST", QUERY, key=admin, content=content, headers=headers)
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.imagedex+json"],
)
def test_body_may_be_declared_as_json_in_any_way(
    client: ApiClient, admin: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    content = b'{"text": "a dog"}'
    answer = client.call("POST", QUERY, key=admin, content=content, headers=headers)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("url", "body", "pointer"),
    [
        (QUERY, None, "#"),
        (QUERY, [], "#"),
        (QUERY, "text", "#"),
        (QUERY, {"text": ""}, "#/text"),
        (QUERY, {"text": " \t\n\u3000"}, "#/text"),
        (QUERY, {"text": "nul \0"}, "#/text"),
        (QUERY, {"text": "x" * 10_001}, "#/text"),
        (QUERY, {"text": 5}, "#/text"),
        (QUERY, {"text": ["a dog"]}, "#/text"),
        (QUERY, {"text": "a", "top_k": 0}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": -1}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": 1001}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": 2**70}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": 1.5}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": "5"}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": True}, "#/top_k"),
        (QUERY, {"text": "a", "top_k": None}, "#/top_k"),
        (QUERY, {"text": "a", "copy_results": "no"}, "#/copy_results"),
        (QUERY, {"text": "a", "copy_results": 0}, "#/copy_results"),
        (QUERY, {"text": "a", "topk": 5}, "#/topk"),
        (QUERY, {"text": "a", "a/b~c": 5}, "#/a~1b~0c"),
        (TRIGGER, {}, "#/image_dir"),
        (TRIGGER, {"image_dir": 1}, "#/image_dir"),
        (TRIGGER, {"image_dir": "/a", "force_reindex": "true"}, "#/force_reindex"),
        (TRIGGER, {"image_dir": "/a", "force_reindex": 1}, "#/force_reindex"),
        (TRIGGER, {"image_dir": "/a", "ignore": "*.png"}, "#/ignore"),
        (TRIGGER, {"image_dir": "/a", "ignore": [""]}, "#/ignore/0"),
        (TRIGGER, {"image_dir": "/a", "ignore": ["a" * 256]}, "#/ignore/0"),
        (TRIGGER, {"image_dir": "/a", "ignore": ["a"] * 101}, "#/ignore"),
        (TRIGGER, {"image_dir": "/a", "priority": "urgent"}, "#/priority"),
        (TRIGGER, {"image_dir": "/a", "priority": 2}, "#/priority"),
        (TRIGGER, {"image_dir": "/a", "priority": None}, "#/priority"),
        (TRIGGER, {"image_dir": "/a", "recursive": True}, "#/recursive"),
        (NOTIFY, {"image_paths": []}, "#/image_paths"),
        (NOTIFY, {"image_paths": "/a"}, "#/image_paths"),
        (NOTIFY, {"image_paths": {"0": "/a"}}, "#/image_paths"),
        (NOTIFY, {"image_paths": ["/a", None]}, "#/image_paths/1"),
        (NOTIFY, {"image_paths": ["/a", 5]}, "#/image_paths/1"),
        (NOTIFY, {"image_paths": ["/a"], "image_dir": "/a"}, "#/image_dir"),
        (KEYS, {"name": "x", "scopes": []}, "#/scopes"),
        (KEYS, {"name": "x", "scopes": ["root"]}, "#/scopes/0"),
        (KEYS, {"name": "x", "scopes": "admin"}, "#/scopes"),
        (KEYS, {"name": "", "scopes": ["query"]}, "#/name"),
        (KEYS, {"name": "x" * 101, "scopes": ["query"]}, "#/name"),
        (KEYS, {"name": "x", "scopes": ["query"], "key_id": "mine"}, "#/key_id"),
    ],
)
def test_field_that_makes_no_sense_is_named(
    client: ApiClient, admin: str, url: str, body: Any, pointer: str
) -> None:
    content = json.dumps(body)
    answer = client.call("POST", url, key=admin, content=content, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_long_lists_of_errors_and_long_names_are_cut(client: ApiClient, admin: str) -> None:
    body = {f"{number}{'x' * 5000}": number for number in range(30)}
    answer = client.call("POST", QUERY, key=admin, json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 20
    assert len(answer.content) < 10_000


@pytest.mark.parametrize("url", [QUERY, TRIGGER, NOTIFY, KEYS])
def test_body_with_many_fields_is_refused_before_it_is_validated(
    client: ApiClient, admin: str, url: str
) -> None:
    body = {"text": "x", **{str(number): 0 for number in range(20_000)}}
    answer = client.call("POST", url, key=admin, json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == TOO_COMPLEX
    assert "errors" not in answer.json()


@pytest.mark.parametrize("field", ["filter", "terms"])
def test_body_with_many_fields_further_in_is_refused_before_it_is_validated(
    client: ApiClient, keys: dict[str, str], field: str
) -> None:
    many = {f"field {number}": number for number in range(20_000)}
    body = {"text": "a dog", field: many if field == "filter" else [{}, many]}
    answer = client.call("POST", "/api/v1/query", key=keys["query"], json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == TOO_COMPLEX
    assert "errors" not in answer.json()


@pytest.mark.parametrize("url", [QUERY, TRIGGER, KEYS])
def test_large_body_is_413_where_only_small_ones_make_sense(
    client: ApiClient, admin: str, url: str
) -> None:
    answer = client.call("POST", url, key=admin, json={"text": "x" * 600_000})
    assert answer.status_code == 413
    assert answer.json()["type"] == "urn:imagedex:problem:body-too-large"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("unit", [b"[],", b"{},", b"1,", b'"",', b'""', b'{"":', b"[", b'"\\"",'])
@pytest.mark.parametrize("url", [QUERY, TRIGGER, NOTIFY, KEYS])
def test_body_of_many_small_values_is_refused_and_not_parsed(
    client: ApiClient,
    admin: str,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    unit: bytes,
) -> None:
    def parse(content: bytes, **_: Any) -> None:
        raise AssertionError(f"{len(content)} bytes are parsed.")

    monkeypatch.setattr("imagedex.api.bodies.from_json", parse)
    content = b'{"image_paths": [' + unit * (200 * 1024 // len(unit))
    answer = client.call("POST", url, key=admin, content=content, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == TOO_COMPLEX
    assert "send less in one request" in answer.json()["detail"]


@pytest.mark.parametrize("is_plain_ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 4])
def test_largest_notification_is_read(
    client: ApiClient, admin: str, photos: Path, is_plain_ascii: bool, indent: int | None
) -> None:
    body = {
        "image_paths": [f'{photos}/{number}/{"é" * 60}",[{{:\\.jpg' for number in range(10_000)],
        "priority": "high",
        "index_prefix": None,
    }
    content = json.dumps(body, ensure_ascii=is_plain_ascii, indent=indent).encode()
    answer = client.call("POST", NOTIFY, key=admin, content=content, headers=JSON)
    assert answer.status_code == 202, answer.text
    assert answer.json()["images_count"] == 10_000


def test_notification_of_one_path_too_many_is_told_which_field_is_too_long(
    client: ApiClient, admin: str, photos: Path
) -> None:
    paths = [f"{photos}/{number}" for number in range(10_001)]
    answer = client.call("POST", NOTIFY, key=admin, json={"image_paths": paths})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "#/image_paths"


def test_largest_query_is_read(client: ApiClient, admin: str, photos: Path) -> None:
    body: dict[str, Any] = {
        "terms": [
            {"text": f"{number}: {'[{,:' * 500}", "image_id": None, "weight": 0.5}
            for number in range(16)
        ],
        "text": None,
        "image_id": None,
        "top_k": 1000,
        "filter": {
            "path_prefix": str(photos),
            "path_globs": [f"{number}*[,:]" for number in range(16)],
            "modified_after": "2024-01-01T00:00:00Z",
            "modified_before": "2025-01-01T00:00:00Z",
            "min_bytes": 0,
            "max_bytes": 2**40,
            "min_width": 0,
            "max_width": 2**20,
            "min_height": 0,
            "max_height": 2**20,
            "image_ids": [f"{number:020x}" for number in range(10_000)],
        },
        "min_score": -1,
        "collapse_duplicates": True,
        "duplicate_score": 0.9,
        "cursor": None,
        "copy_results": False,
        "index_prefix": None,
    }
    assert set(QueryRequest.model_fields) == set(body)
    assert set(FilterDocument.model_fields) == set(body["filter"])
    assert set(TermDocument.model_fields) == set(body["terms"][0])
    answer = client.call("POST", QUERY, key=admin, json=body)
    assert answer.status_code == 200, answer.text


def test_trigger_with_all_globs_is_read(client: ApiClient, admin: str, photos: Path) -> None:
    body = {"image_dir": str(photos), "ignore": [f"{number}[,:]" for number in range(100)]}
    answer = client.call("POST", TRIGGER, key=admin, json=body)
    assert answer.status_code == 202, answer.text


def test_longest_text_is_read_however_it_is_escaped(client: ApiClient, admin: str) -> None:
    answer = client.call("POST", QUERY, key=admin, json={"text": "\N{DOG FACE}" * 10_000})
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("url", "body"),
    [
        (KEYS, {"name": "x", "scopes": ["root"] * 400}),
        (NOTIFY, {"image_paths": [0] * 10_000}),
    ],
)
def test_list_of_wrong_entries_ends_at_the_first_one(
    client: ApiClient, admin: str, url: str, body: dict[str, Any]
) -> None:
    answer = client.call("POST", url, key=admin, json=body)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == 1


def test_query_with_many_parameters_is_refused(client: ApiClient, admin: str) -> None:
    query = "&".join(f"{number}=" for number in range(5000))
    answer = client.call("GET", f"/api/v1/index/jobs?{query}", key=admin)
    assert answer.status_code == 422
    assert "5000 parameters" in answer.json()["detail"]
    assert "errors" not in answer.json()


def test_values_that_were_sent_are_not_repeated(client: ApiClient, admin: str) -> None:
    body = {"text": 5, "password": "hunter2", "top_k": "hunter2"}
    assert "hunter2" not in client.call("POST", QUERY, key=admin, json=body).text


def test_name_of_a_key_with_control_characters_is_422(client: ApiClient, admin: str) -> None:
    for name in ("two\nlines", "bell\a", "nul\0", "   "):
        body = {"name": name, "scopes": ["query"]}
        assert client.call("POST", KEYS, key=admin, json=body).status_code == 422


NONSENSE_PATHS = ["", " ", "photos", "./photos", "../photos", "~", "C:\\photos", "file:///photos"]
LONG_PATHS = ["/" + "x" * 4096]
NUL_PATHS = ["/photos\0", "\0", "/photos\0/../etc"]


def bodies_with(path: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a body for each field that takes a path of images."""
    return [(TRIGGER, {"image_dir": path}), (NOTIFY, {"image_paths": [path]})]


@pytest.mark.parametrize("path", [*NONSENSE_PATHS, *LONG_PATHS, *NUL_PATHS])
def test_path_that_makes_no_sense_is_422(
    client: ApiClient, admin: str, photos: Path, path: str
) -> None:
    in_index_prefix = [
        (QUERY, {"text": "a", "index_prefix": path}),
        (TRIGGER, {"image_dir": str(photos), "index_prefix": path}),
        (NOTIFY, {"image_paths": [f"{photos}/a"], "index_prefix": path}),
    ]
    for url, body in [*bodies_with(path), *in_index_prefix]:
        answer = client.call("POST", url, key=admin, json=body)
        assert answer.status_code == 422, (url, answer.text)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/etc",
        "/etc/passwd",
        "{photos}/..",
        "{photos}/../../etc/passwd",
        "{photos}/./../x.jpg",
        "{photos}x/a.jpg",
        "{photos}/link-out",
        "{photos}/link-out/a.jpg",
        "//etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
    ],
)
def test_path_outside_the_image_roots_is_403(
    client: ApiClient, admin: str, photos: Path, tmp_path: Path, path: str
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (photos / "link-out").symlink_to(outside)
    for url, body in bodies_with(path.format(photos=photos)):
        answer = client.call("POST", url, key=admin, json=body)
        assert answer.status_code == 403, (url, answer.text)
        assert answer.json()["type"] == "urn:imagedex:problem:outside-image-roots"


@pytest.mark.parametrize("path", ["/etc", "{indexes}", "{indexes}/../other", "{indexes}x"])
def test_index_prefix_that_is_not_allowed_is_403_wherever_it_is_taken(
    client: ApiClient, admin: str, photos: Path, tmp_path: Path, path: str
) -> None:
    prefix = path.format(indexes=tmp_path / "indexes")
    answers = [
        client.call("POST", QUERY, key=admin, json={"text": "a", "index_prefix": prefix}),
        client.call(
            "POST", TRIGGER, key=admin, json={"image_dir": str(photos), "index_prefix": prefix}
        ),
        client.call(
            "POST",
            NOTIFY,
            key=admin,
            json={"image_paths": [f"{photos}/a"], "index_prefix": prefix},
        ),
        client.call("GET", "/api/v1/index/stats", key=admin, params={"index_prefix": prefix}),
        client.call(
            "GET", "/api/v1/images/0/thumbnail", key=admin, params={"index_prefix": prefix}
        ),
    ]
    for answer in answers:
        assert answer.status_code == 403, answer.text
        assert answer.json()["type"] == "urn:imagedex:problem:outside-index-roots"


# JSON that often comes near to a body that is right.
field_names = st.sampled_from(
    [
        "text",
        "top_k",
        "copy_results",
        "index_prefix",
        "image_dir",
        "image_paths",
        "force_reindex",
        "ignore",
        "priority",
        "name",
        "scopes",
    ]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["/", "/etc/passwd", "/photos/a.jpg", "low", "high", "admin", "\0"])
)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(field_names | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(
    max_examples=150,
    deadline=None,
    # The application keeps no state that a request before could spoil the next one with.
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(url=st.sampled_from([QUERY, TRIGGER, NOTIFY, KEYS]), document=documents, raw=st.binary())
def test_no_body_makes_the_server_fail(
    client: ApiClient, admin: str, url: str, document: object, raw: bytes
) -> None:
    for content in (json.dumps(document).encode(), raw):
        answer = client.call("POST", url, key=admin, content=content, headers=JSON)
        assert answer.status_code < 500, answer.text
        if not answer.is_success:
            assert answer.headers["content-type"] == "application/problem+json"
            answer.json()


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=st.text(max_size=20), value=st.text(max_size=40), part=st.text(max_size=40))
def test_no_parameter_makes_the_server_fail(
    client: ApiClient,
    application: InMemoryApplication,
    admin: str,
    name: str,
    value: str,
    part: str,
) -> None:
    query = {name: value, "cursor": part, "limit": value}
    for path in (
        "/api/v1/index/jobs",
        "/api/v1/index/stats",
        f"/api/v1/index/status/{part.encode(errors='replace').hex()}{value!r}",
        "/api/v1/images/0/thumbnail",
    ):
        answer = client.call("GET", path, key=admin, params=query)
        assert answer.status_code < 500, answer.text
